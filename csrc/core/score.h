// The OAKS score (equation 10 of the paper) and the conventional score (equation 3).
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace oaks {

// The arguments of one call of score or conventional_score. Pointers are host pointers for cpu/, device
// pointers for cuda/.
struct ScoreArguments {
  const float* values;      // (count, keypoints): predicted similarity, or heat
  const float* visibility;  // (count, keypoints); or null: the plain mean of equation 3
  const float* box_scores;  // (count); or null
  float* scores;            // (count)
  int64_t count;
  int keypoints;
};

// A person whose visibilities sum to less than this has score 0.
constexpr float kMinVisibility = 1e-6f;

// Score of one person. Sums run in keypoint order, so that host and device round alike.
OAKS_HOST_DEVICE float pose_score(const float* values, const float* visibility, int keypoints) {
  float sum = 0.0f, weight = 0.0f;
  for (int k = 0; k < keypoints; ++k) {
    const float w = visibility ? visibility[k] : 1.0f;
    sum += values[k] * w;
    weight += w;
  }
  return weight < kMinVisibility ? 0.0f : sum / weight;
}

}  // namespace oaks
