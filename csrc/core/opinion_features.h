// The arithmetic of opinion_features: features of a second estimator's pose of the same person, appended to
// those of the first. oaks/ops/_opinion_features.py names and defines them, in the order of the enum below.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/decode.h"
#include "core/host_device.h"

namespace oaks {

enum OpinionFeature : int {
  kSecondDx,
  kSecondDy,
  kSecondReach,
  kSecondHeatOf,
  kSecondHeatOverMean,
  kOpinionFeatures
};

// The arguments of one call of opinion_features. Pointers are host pointers for cpu/, device pointers for
// cuda/.
struct OpinionArguments {
  const float* features;       // (count, keypoints, feature_count); or null where that is 0
  const float* points;         // (count, keypoints, 2) image pixels
  const float* second_points;  // (count, keypoints, 2)
  const float* second_heat;    // (count, keypoints)
  const float* boxes;          // (count, 4): x1, y1, x2, y2
  float* out;                  // (count, keypoints, feature_count + kOpinionFeatures)
  int64_t count;
  int keypoints, feature_count;
  float sigmas[kMaxKeypoints];
  uint8_t left[kMaxKeypoints];  // nonzero: a left keypoint, whose x differences change sign
};

// Differences between the two positions are clamped to this, in units of 2 sigma times the square root of the
// person's area.
constexpr float kMaxDifference = 99.0f;
// The area of an annotated person is about this fraction of the box's: AREA_OF_BOX of oaks/coco.py.
constexpr float kAreaOfBox = 0.53f;

// A heat that is not finite counts as 0.
OAKS_HOST_DEVICE float finite_heat(float heat) { return heat - heat == 0.0f ? heat : 0.0f; }

// fmaxf ignores NaN, so a difference to a missing position becomes -kMaxDifference.
OAKS_HOST_DEVICE float bounded(float difference) {
  return fminf(fmaxf(difference, -kMaxDifference), kMaxDifference);
}

// The OpinionFeature `which` of keypoint k of person n.
OAKS_HOST_DEVICE float opinion_feature(const OpinionArguments& a, int64_t n, int k, int which) {
  const int64_t row = n * a.keypoints;
  if (which == kSecondHeatOf) return finite_heat(a.second_heat[row + k]);
  if (which == kSecondHeatOverMean) {
    float sum = 0.0f;
    for (int i = 0; i < a.keypoints; ++i) sum += finite_heat(a.second_heat[row + i]);
    return finite_heat(a.second_heat[row + k]) - sum / float(a.keypoints);
  }
  const float* const box = a.boxes + 4 * n;
  const float width = fmaxf(box[2] - box[0], 1.0f), height = fmaxf(box[3] - box[1], 1.0f);
  const float reach = 2.0f * sqrtf(kAreaOfBox * width * height) * a.sigmas[k];
  const float* const own = a.points + 2 * (row + k);
  const float* const other = a.second_points + 2 * (row + k);
  const float dx = bounded((other[0] - own[0]) / reach), dy = bounded((other[1] - own[1]) / reach);
  if (which == kSecondDx) return a.left[k] ? -dx : dx;
  if (which == kSecondDy) return dy;
  return sqrtf(dx * dx + dy * dy);
}

// Column c of the output for keypoint k of person n: a given feature, or an OpinionFeature.
OAKS_HOST_DEVICE float opinion_column(const OpinionArguments& a, int64_t n, int k, int c) {
  if (c >= a.feature_count) return opinion_feature(a, n, k, c - a.feature_count);
  return a.features[(n * a.keypoints + k) * a.feature_count + c];
}

}  // namespace oaks
