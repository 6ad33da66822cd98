// One thread per pair of poses. Adjacent threads share the pose of `a`; poses of `b` stay in the cache for
// the next rows of the result.
#include "core/oks.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kOksThreads = 128;

__global__ void __launch_bounds__(kOksThreads) oks_of_pairs(const __grid_constant__ OksArguments args) {
  const int64_t pair = int64_t(blockIdx.x) * kOksThreads + threadIdx.x;
  if (pair >= args.a_count * args.b_count) return;
  const int64_t i = pair / args.b_count, j = pair - i * args.b_count;
  const int64_t pose = int64_t(args.keypoints) * 2;
  const uint8_t* const visible = args.visible ? args.visible + j * args.keypoints : nullptr;
  args.similarity[pair] = object_similarity(args.a + i * pose, args.b + j * pose, args.areas[j], visible,
                                            args.sigmas, args.keypoints);
}

}  // namespace

void oks(const OksArguments& args, Stream stream) {
  const int64_t pairs = args.a_count * args.b_count;
  if (pairs <= 0) return;
  const DeviceGuard guard(args.similarity);
  launch<oks_of_pairs>("oks", {divided_up<int64_t>(pairs, kOksThreads), kOksThreads}, stream, args);
}

}  // namespace oaks::cuda
