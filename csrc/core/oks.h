// Object keypoint similarity (equations 1 and 2 of the paper; COCO's keypoint evaluation).
#pragma once

#include <cmath>
#include <cstdint>

#include "core/decode.h"
#include "core/host_device.h"

namespace oaks {

// Added to the area, as in COCO's evaluation, so that an area of 0 gives a similarity of 1 to equal points.
constexpr float kAreaEpsilon = 2.220446049250313e-16f;

// The arguments of one call of oks. Pointers are host pointers for cpu/ and device pointers for cuda/.
struct OksArguments {
  const float* a;          // (a_count, keypoints, 2)
  const float* b;          // (b_count, keypoints, 2)
  const float* areas;      // (b_count)
  const uint8_t* visible;  // (b_count, keypoints): keypoints with a nonzero value count; null: all count
  float* similarity;       // (a_count, b_count)
  int64_t a_count, b_count;
  int keypoints;
  float sigmas[kMaxKeypoints];
};

// Keypoint similarity, 0 to 1. 0 if a point is not finite.
OAKS_HOST_DEVICE float keypoint_similarity(const float* a, const float* b, float area, float sigma) {
  const float dx = a[0] - b[0], dy = a[1] - b[1];
  const float k = 2.0f * sigma;
  const float similarity = expf(-(dx * dx + dy * dy) / (2.0f * (area + kAreaEpsilon) * k * k));
  return similarity >= 0.0f ? similarity : 0.0f;
}

// Mean similarity of the keypoints that count, summed in keypoint order; 0 if none counts.
OAKS_HOST_DEVICE float object_similarity(const float* a, const float* b, float area, const uint8_t* visible,
                                         const float* sigmas, int keypoints) {
  float sum = 0.0f;
  int counted = 0;
  for (int k = 0; k < keypoints; ++k) {
    if (visible && !visible[k]) continue;
    sum += keypoint_similarity(a + 2 * k, b + 2 * k, area, sigmas[k]);
    ++counted;
  }
  return counted ? sum / float(counted) : 0.0f;
}

}  // namespace oaks
