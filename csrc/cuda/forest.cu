// One block per kRows rows. Each thread evaluates some of the trees, reading each split once for all rows;
// the threads' sums are added in a fixed order.
#include "core/forest.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kForestThreads = 128;
constexpr int kForestWarps = kForestThreads / kWarp;
constexpr int kRows = 4;  // per block

// Adds a tree's leaf for each row to the thread's sums.
__device__ void add_tree(const ForestArguments& a, int tree, const float* const (&rows)[kRows],
                         double (&sums)[kRows]) {
  uint32_t reachable[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) reachable[r] = 0xffffffffu;
  for (int s = a.trees[tree].first_split; s < a.trees[tree + 1].first_split; ++s) {
    const ForestSplit split = a.splits[s];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!goes_left(split, rows[r][split.feature])) reachable[r] &= split.stay;
    }
  }
  const float* const leaves = a.leaves + a.trees[tree].first_leaf;
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] += double(leaves[first_leaf(reachable[r])]);
}

__global__ void __launch_bounds__(kForestThreads) sum_trees(const __grid_constant__ ForestArguments a) {
  OAKS_SHARED(double, sums_of_warps, kForestWarps* kRows);
  const int64_t first = int64_t(blockIdx.x) * kRows;
  const float* rows[kRows];
  double sums[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    rows[r] = a.features + (first + r < a.count ? first + r : a.count - 1) * a.feature_count;
    sums[r] = 0.0;
  }
  for (int tree = int(threadIdx.x); tree < a.tree_count; tree += kForestThreads)
    add_tree(a, tree, rows, sums);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const double sum = sum_of_warp(sums[r]);
    if (lane == 0) sums_of_warps[warp * kRows + r] = sum;
  }
  __syncthreads();
  const int own = int(threadIdx.x);
  if (own >= kRows || first + own >= a.count) return;
  double sum = 0.0;
  for (int w = 0; w < kForestWarps; ++w) sum += sums_of_warps[w * kRows + own];
  a.values[first + own] = probability(sum);
}

}  // namespace

void forest(const ForestArguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.values);
  launch<sum_trees>("forest", {divided_up<int64_t>(a.count, kRows), kForestThreads}, stream, a);
}

}  // namespace oaks::cuda
