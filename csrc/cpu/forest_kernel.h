// The hot loop of forest. Included by kernels.cpp alone.
#pragma once

#include "core/forest.h"
#include "cpu/dispatch.h"
#include "cpu/simd.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

constexpr int kVectors = 2;  // vectors of rows that are evaluated together
constexpr int kRowsTogether = kVectors * Widest::lanes;

// Bit masks of the leaves of a tree that are possible for each of kRowsTogether rows. columns: features as
// (feature_count, kRowsTogether).
OAKS_HOST_DEVICE void reach_leaves(const ForestArguments& a, int tree, const float* columns,
                                   uint32_t* reachable) {
  Indices leaves[kVectors];
  for (Indices& vector : leaves) vector = Indices{} - 1;
  for (int s = a.trees[tree].first_split; s < a.trees[tree + 1].first_split; ++s) {
    const ForestSplit split = a.splits[s];
    const float* column = columns + int64_t(split.feature) * kRowsTogether;
    const Widest threshold = Widest::all(split.threshold);
    const Indices stay = Indices{} + int32_t(split.stay);
    for (int v = 0; v < kVectors; ++v) {
      const Widest feature = Widest::load(column + v * Widest::lanes);
      // As goes_left.
      if (split.nan_left) {
        leaves[v] = feature.v > threshold.v ? leaves[v] & stay : leaves[v];
      } else {
        leaves[v] = feature.v <= threshold.v ? leaves[v] : leaves[v] & stay;
      }
    }
  }
  memcpy(reachable, leaves, sizeof leaves);
}

// Values of the rows first to last - 1, at most kRowsTogether of them.
OAKS_HOST_DEVICE void sum_rows(const ForestArguments& a, int64_t first, int64_t last, float* columns) {
  for (int r = 0; r < kRowsTogether; ++r) {
    const float* row = a.features + (first + r < last ? first + r : last - 1) * a.feature_count;
    for (int f = 0; f < a.feature_count; ++f) columns[int64_t(f) * kRowsTogether + r] = row[f];
  }
  double sums[kRowsTogether] = {};
  for (int tree = 0; tree < a.tree_count; ++tree) {
    uint32_t reachable[kRowsTogether];
    reach_leaves(a, tree, columns, reachable);
    const float* leaves = a.leaves + a.trees[tree].first_leaf;
    for (int r = 0; r < kRowsTogether; ++r) sums[r] += double(leaves[first_leaf(reachable[r])]);
  }
  for (int r = 0; first + r < last; ++r) a.values[first + r] = probability(sums[r]);
}

void forest_rows(const ForestArguments& a, int64_t first, int64_t last, Scratch& scratch) {
  float* columns = scratch.floats(size_t(a.feature_count) * kRowsTogether);
  for (int64_t row = first; row < last; row += kRowsTogether) {
    sum_rows(a, row, row + kRowsTogether < last ? row + kRowsTogether : last, columns);
  }
}

}  // namespace
}  // namespace OAKS_ISA
}  // namespace oaks::cpu
