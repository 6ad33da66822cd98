// One thread per output value, so that adjacent threads access adjacent addresses.
#include "core/opinion_features.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kOpinionThreads = 128;

__global__ void __launch_bounds__(kOpinionThreads)
    append_opinion(const __grid_constant__ OpinionArguments a) {
  const int columns = a.feature_count + kOpinionFeatures;
  const int64_t at = int64_t(blockIdx.x) * kOpinionThreads + threadIdx.x;
  if (at >= a.count * a.keypoints * columns) return;
  const int64_t row = at / columns;
  const int64_t n = row / a.keypoints;
  a.out[at] = opinion_column(a, n, int(row - n * a.keypoints), int(at - row * columns));
}

}  // namespace

void opinion_features(const OpinionArguments& a, Stream stream) {
  const int64_t numbers = a.count * a.keypoints * (a.feature_count + kOpinionFeatures);
  if (numbers <= 0) return;
  const DeviceGuard guard(a.out);
  launch<append_opinion>("opinion_features", {divided_up<int64_t>(numbers, kOpinionThreads), kOpinionThreads},
                         stream, a);
}

}  // namespace oaks::cuda
