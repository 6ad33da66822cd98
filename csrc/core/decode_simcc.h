// The arithmetic of decode_simcc (Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human
// Pose Estimation", ECCV 2022): a vector of bins per axis, with `split` bins per crop pixel.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/decode.h"
#include "core/host_device.h"

namespace oaks {

// The arguments of one call of decode_simcc. Pointers are host pointers for cpu/ and device pointers for
// cuda/.
struct SimccArguments {
  const void* x;            // (count, keypoints, x_bins), `element`
  const void* y;            // (count, keypoints, y_bins), `element`
  const void* mirrored_x;   // shaped as x: the raw output for the mirrored crop; or null
  const void* mirrored_y;   // shaped as y; null where mirrored_x is
  const float* transforms;  // (count, 2, 3) crop pixel -> image pixel; or null: points stay crop pixels
  float* points;            // (count, keypoints, 2) x, y
  float* heat;              // (count, keypoints)
  int64_t count;
  int keypoints, x_bins, y_bins;
  Element element;
  float bin_size;               // in crop pixels
  int16_t pair[kMaxKeypoints];  // index of each keypoint's left-right counterpart, or its own
};

// The bins of one axis of one keypoint, and the mirrored crop's bins of the keypoint's left-right
// counterpart.
template <class T>
struct AxisBins {
  const T* own;
  const T* mirrored;  // or null: the bins are not averaged
  int count;
  bool along_x;

  // The bin of `mirrored` that is averaged with `bin`. Mirroring does not change y.
  OAKS_HOST_DEVICE int mirrored_bin(int bin) const { return along_x ? count - 1 - bin : bin; }
};

// index = person * keypoints + keypoint.
template <class T>
OAKS_HOST_DEVICE AxisBins<T> axis_bins(const SimccArguments& a, int64_t index, bool along_x) {
  const int64_t opposite = index - index % a.keypoints + a.pair[index % a.keypoints];
  const int count = along_x ? a.x_bins : a.y_bins;
  const T* const own = static_cast<const T*>(along_x ? a.x : a.y);
  const T* const mirrored = static_cast<const T*>(along_x ? a.mirrored_x : a.mirrored_y);
  return {own + index * count, mirrored ? mirrored + opposite * count : nullptr, count, along_x};
}

// The highest bins of both axes -> crop pixel -> image pixel. The heat is the smaller of their values. An
// axis without a finite value gives NaN.
OAKS_HOST_DEVICE void write_simcc_point(const SimccArguments& a, Cell x, Cell y, const float* transform,
                                        float* point, float* heat) {
  if (x.index < 0 || y.index < 0) {
    point[0] = point[1] = *heat = NAN;
    return;
  }
  write_image_point(float(x.index) * a.bin_size, float(y.index) * a.bin_size, transform, point);
  *heat = x.value < y.value ? x.value : y.value;
}

}  // namespace oaks
