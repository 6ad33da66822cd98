// The hot loop of decode_simcc. Included by kernels.cpp alone.
#pragma once

#include "core/decode_simcc.h"
#include "cpu/decode_kernel.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// The highest bin of the average. `bins` is passed by value, so that the compiler hoists the tests of
// `mirrored` and `along_x` out of the loops.
template <class T>
Cell first_bin(AxisBins<T> bins) {
  LaneTopTwo top;
  const Indices lanes = lane_numbers();
  sweep(0, bins.count, [&](auto vector, int bin) {
    using Vector = decltype(vector);
    auto value = Vector::load(bins.own + bin);
    if (bins.mirrored) {
      const T* mirrored = bins.mirrored + bins.mirrored_bin(bin);
      value = flip_average(value, bins.along_x ? Vector::load_reversed(mirrored - (Vector::lanes - 1))
                                               : Vector::load(mirrored));
    }
    top.offer(finite_or_lowest(widened(value)), lanes + bin);
  });
  return top.of_all_lanes().first;
}

template <class T>
void decode_typed_simcc(const SimccArguments& a, int64_t index) {
  const int64_t person = index / a.keypoints;
  write_simcc_point(a, first_bin(axis_bins<T>(a, index, true)), first_bin(axis_bins<T>(a, index, false)),
                    a.transforms ? a.transforms + 6 * person : nullptr, a.points + 2 * index, a.heat + index);
}

void decode_simcc_keypoint(const SimccArguments& a, int64_t index) {
  if (a.element == Element::float16) {
    decode_typed_simcc<Half>(a, index);
  } else {
    decode_typed_simcc<float>(a, index);
  }
}

}  // namespace
}  // namespace OAKS_ISA
}  // namespace oaks::cpu
