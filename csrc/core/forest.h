// Boosted trees, evaluated without descending them (Lucchese et al., "QuickScorer", SIGIR 2015): all splits
// of a tree are tested, a split that sends the row to the right excludes the leaves of its left subtree, and
// the row's leaf is the first that remains.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"

namespace oaks {

constexpr int kMaxTreeLeaves = 32;

struct ForestSplit {
  int32_t feature;
  float threshold;  // a feature of at most this goes left
  uint32_t stay;  // bit mask of the leaves (bit 0: the leftmost) that are possible for a row that goes right
  int32_t nan_left;  // 1: NaN goes left
};

// Indices of a tree's first split and first leaf; they end where those of the next tree begin.
struct ForestTree {
  int32_t first_split, first_leaf;
};

// The arguments of one call of forest. Pointers are host pointers for cpu/ and device pointers for cuda/.
struct ForestArguments {
  const float* features;      // (count, feature_count)
  const ForestSplit* splits;  // of all trees
  const ForestTree* trees;    // (tree_count + 1)
  const float* leaves;        // of all trees, from the left
  float* values;              // (count)
  int64_t count;
  int feature_count, tree_count;
};

OAKS_HOST_DEVICE bool goes_left(const ForestSplit& split, float feature) {
  return split.nan_left ? !(feature > split.threshold) : feature <= split.threshold;
}

// Index of the first leaf that is still possible. `reachable` is never 0.
OAKS_HOST_DEVICE int first_leaf(uint32_t reachable) {
#if defined(__CUDA_ARCH__)
  return __ffs(int(reachable)) - 1;
#elif defined(__GNUC__)
  return __builtin_ctz(reachable);
#else
  int leaf = 0;
  while (!(reachable >> leaf & 1u)) ++leaf;
  return leaf;
#endif
}

OAKS_HOST_DEVICE float probability(double logit) { return float(1.0 / (1.0 + exp(-logit))); }

}  // namespace oaks
