// Crops of boxes in frames: the position of a crop pixel in the frame, and its bilinear value.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/half.h"
#include "core/host_device.h"

namespace oaks {

// A frame of BGR or RGB bytes; rows may be padded.
struct FrameView {
  const uint8_t* pixels;
  int64_t row_bytes;
  int height, width;
};

// The arguments of one call of crop. Pointers are host pointers for cpu/ and device pointers for cuda/,
// except `frames`: that array is always in host memory, and the pointers in it are as above.
struct CropArguments {
  const FrameView* frames;
  int frame_count;
  const float* boxes;          // (count, 4) x1, y1, x2, y2
  const int32_t* frame_index;  // (count); or null: all boxes are in frame 0
  void* pixels;                // (count or 2 count, 3, height, width) RGB; the mirrored crops come last
  float* transforms;           // (count, 2, 3) crop pixel -> image pixel
  int64_t count;
  int height, width;  // of a crop
  int half;           // 1: pixels are float16, 0: float32
  int mirrored;       // 1: write the mirrored crops too
  int bgr;            // 1: the frames' channels are B, G, R; 0: R, G, B
  float padding;
  float scale[3], bias[3];  // RGB: network value = gray level * scale + bias
};

// crop index -> image index on one axis: image = scale * crop + shift.
struct CropAxis {
  float scale, shift;
};

struct CropWindow {
  CropAxis x, y;
};

// Keeps the box's center, extends the side that is too short for the crop's aspect ratio, then multiplies
// both sides by `padding`. Computed in double precision, so that the transform is accurate to the last
// bit of a float. A box that is not finite gives NaN.
OAKS_HOST_DEVICE CropWindow crop_window(const float* box, int height, int width, float padding) {
  const double center_x = 0.5 * (double(box[0]) + double(box[2]));
  const double center_y = 0.5 * (double(box[1]) + double(box[3]));
  double window_w = double(box[2]) - double(box[0]);
  double window_h = double(box[3]) - double(box[1]);
  const double aspect = double(width) / double(height);
  if (window_w < window_h * aspect) {
    window_w = window_h * aspect;
  } else {
    window_h = window_w / aspect;
  }
  // NaN if the box is not finite, else 0.
  const double nan_flag = 0.0 * (double(box[0]) + double(box[1]) + double(box[2]) + double(box[3]));
  const double scale_x = window_w * double(padding) / width + nan_flag;
  const double scale_y = window_h * double(padding) / height + nan_flag;
  return {{float(scale_x), float(center_x - 0.5 + (0.5 - 0.5 * width) * scale_x)},
          {float(scale_y), float(center_y - 0.5 + (0.5 - 0.5 * height) * scale_y)}};
}

OAKS_HOST_DEVICE void write_transform(CropWindow window, float* transform) {
  transform[0] = window.x.scale;
  transform[1] = 0.0f;
  transform[2] = window.x.shift;
  transform[3] = 0.0f;
  transform[4] = window.y.scale;
  transform[5] = window.y.shift;
}

OAKS_HOST_DEVICE CropWindow read_transform(const float* transform) {
  return {{transform[0], transform[2]}, {transform[4], transform[5]}};
}

// The two pixels next to an image position along one axis, and their weights. A pixel outside the image has
// weight 0 (black) and its index is clamped, so that it can be read.
struct Tap {
  int low, high;
  float low_weight, high_weight;
};

OAKS_HOST_DEVICE Tap tap(CropAxis axis, int crop_index, int image_size) {
  const float position = fmaf(axis.scale, float(crop_index), axis.shift);
  // False for NaN too, so a box that is not finite gives weights of 0.
  if (!(position > -1.0f && position < float(image_size))) return {0, 0, 0.0f, 0.0f};
  const float floor_position = floorf(position);
  const int low = int(floor_position);
  const float fraction = position - floor_position;
  Tap t{low, low + 1, 1.0f - fraction, fraction};
  if (t.low < 0) t.low = 0, t.low_weight = 0.0f;
  if (t.high >= image_size) t.high = image_size - 1, t.high_weight = 0.0f;
  return t;
}

// Number: float, or a vector of floats.
template <class Number>
OAKS_HOST_DEVICE Number blend(Number low, Number high, Number low_weight, Number high_weight) {
  return fused(high_weight, high, low_weight * low);
}

}  // namespace oaks
