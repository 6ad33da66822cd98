// SimCC vectors to points (Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose
// Estimation", ECCV 2022): one vector of bins per axis, `split` bins to a crop pixel.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/decode.h"
#include "core/host_device.h"

namespace oaks {

// One call of decode_simcc. Pointers are host pointers for cpu/ and device pointers for cuda/.
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

// The bin of the mirrored output that is averaged with `bin`. Mirroring does not change y.
OAKS_HOST_DEVICE int mirrored_bin(int bin, int bins, bool along_x) { return along_x ? bins - 1 - bin : bin; }

// The highest bins of both axes -> crop pixel -> image pixel (transform: 2 x 3, or null). The heat is the
// smaller of their values. An axis without a finite value gives NaN.
OAKS_HOST_DEVICE void write_simcc_point(const SimccArguments& a, Cell x, Cell y, const float* transform,
                                        float* point, float* heat) {
  if (x.index < 0 || y.index < 0) {
    point[0] = point[1] = *heat = NAN;
    return;
  }
  const float crop_x = float(x.index) * a.bin_size, crop_y = float(y.index) * a.bin_size;
  point[0] = transform ? fmaf(transform[0], crop_x, fmaf(transform[1], crop_y, transform[2])) : crop_x;
  point[1] = transform ? fmaf(transform[3], crop_x, fmaf(transform[4], crop_y, transform[5])) : crop_y;
  *heat = x.value < y.value ? x.value : y.value;
}

}  // namespace oaks
