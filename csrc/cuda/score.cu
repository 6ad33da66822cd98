// One thread per person.
#include "core/score.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kScoreThreads = 128;

__global__ void __launch_bounds__(kScoreThreads) score_poses(const __grid_constant__ ScoreArguments a) {
  const int64_t n = int64_t(blockIdx.x) * kScoreThreads + threadIdx.x;
  if (n >= a.count) return;
  const int64_t row = n * a.keypoints;
  const float own = pose_score(a.values + row, a.visibility ? a.visibility + row : nullptr, a.keypoints);
  a.scores[n] = a.box_scores ? own * a.box_scores[n] : own;
}

}  // namespace

void score(const ScoreArguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.scores);
  launch<score_poses>("score", {divided_up<int64_t>(a.count, kScoreThreads), kScoreThreads}, stream, a);
}

}  // namespace oaks::cuda
