#include "core/score.h"

#include "cpu/operations.h"

namespace oaks::cpu {

// In one thread: a few numbers per person are too little work for several.
void score(const ScoreArguments& a, int /*threads*/) {
  for (int64_t n = 0; n < a.count; ++n) {
    const int64_t row = n * a.keypoints;
    const float own = pose_score(a.values + row, a.visibility ? a.visibility + row : nullptr, a.keypoints);
    a.scores[n] = a.box_scores ? own * a.box_scores[n] : own;
  }
}

}  // namespace oaks::cpu
