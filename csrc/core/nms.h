// Greedy non-maximum suppression: the order of candidates, and the similarity of two candidates.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/decode.h"
#include "core/host_device.h"
#include "core/oks.h"

namespace oaks {

// The arguments that oks_nms and box_nms share. Pointers are host pointers for cpu/ and device pointers for
// cuda/.
struct Candidates {
  const float* scores;         // (count)
  const int32_t* frame_index;  // (count): only candidates of the same frame suppress each other; or null
  int64_t* kept;               // (count) kept indices, best first, then -1
  int64_t count;
  float threshold;  // a candidate is suppressed if its similarity to a better kept one is above this
};

// The arguments of one call of oks_nms.
struct OksNmsArguments : Candidates {
  const float* points;  // (count, keypoints, 2)
  const float* areas;   // (count)
  int keypoints;
  float sigmas[kMaxKeypoints];
};

// The arguments of one call of box_nms.
struct BoxNmsArguments : Candidates {
  const float* boxes;  // (count, 4) x1, y1, x2, y2
};

// Intersection over union of two boxes, 0 to 1; 0 if a box has no area or is not finite.
OAKS_HOST_DEVICE float box_iou(const float* a, const float* b) {
  const float left = a[0] > b[0] ? a[0] : b[0], right = a[2] < b[2] ? a[2] : b[2];
  const float top = a[1] > b[1] ? a[1] : b[1], bottom = a[3] < b[3] ? a[3] : b[3];
  if (!(right > left && bottom > top)) return 0.0f;
  const float intersection = (right - left) * (bottom - top);
  const float areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
  const float iou = intersection / (areas - intersection);
  return iou >= 0.0f ? iou : 0.0f;
}

OAKS_HOST_DEVICE float pair_similarity(const OksNmsArguments& a, int64_t i, int64_t j) {
  const int64_t pose = int64_t(a.keypoints) * 2;
  const float area = 0.5f * (a.areas[i] + a.areas[j]);
  return object_similarity(a.points + i * pose, a.points + j * pose, area, nullptr, a.sigmas, a.keypoints);
}

OAKS_HOST_DEVICE float pair_similarity(const BoxNmsArguments& a, int64_t i, int64_t j) {
  return box_iou(a.boxes + 4 * i, a.boxes + 4 * j);
}

// The score that a candidate is ranked by.
OAKS_HOST_DEVICE float rank_score(const OksNmsArguments& a, int64_t i) { return a.scores[i]; }

// NaN, which ranks last, for a box that is not finite.
OAKS_HOST_DEVICE float rank_score(const BoxNmsArguments& a, int64_t i) {
  const float* box = a.boxes + 4 * i;
  const bool finite = is_finite(box[0]) && is_finite(box[1]) && is_finite(box[2]) && is_finite(box[3]);
  return finite ? a.scores[i] : NAN;
}

// Whether candidate i ranks before candidate j: higher scores first, ties to the lower index, NaN last.
OAKS_HOST_DEVICE bool ranks_before(float score_i, int64_t i, float score_j, int64_t j) {
  const bool nan_i = score_i != score_i, nan_j = score_j != score_j;
  if (nan_i || nan_j) return nan_i == nan_j ? i < j : nan_j;
  return score_i > score_j || (score_i == score_j && i < j);
}

// Whether candidate `worse` is suppressed if `better`, which ranks before it, is kept.
template <class Arguments>
OAKS_HOST_DEVICE bool suppresses(const Arguments& a, int64_t better, int64_t worse) {
  if (a.frame_index && a.frame_index[better] != a.frame_index[worse]) return false;
  return pair_similarity(a, better, worse) > a.threshold;
}

}  // namespace oaks
