// The hot loop of decode_simcc. Included by kernels.cpp alone.
#pragma once

#include "core/decode_simcc.h"
#include "cpu/decode_kernel.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// The highest bin of one axis, averaged with the mirrored vector unless that is null.
template <class T>
Cell first_bin(const T* own, const T* mirrored, int bins, bool along_x) {
  LaneTopTwo top;
  const Indices lanes = lane_numbers();
  sweep(0, bins, [&](auto vector, int bin) {
    using Vector = decltype(vector);
    auto value = Vector::load(own + bin);
    if (mirrored && along_x) {
      const T* last = mirrored + mirrored_bin(bin, bins, true);
      value = flip_average(value, Vector::load_reversed(last - (Vector::lanes - 1)));
    } else if (mirrored) {
      value = flip_average(value, Vector::load(mirrored + bin));
    }
    top.offer(finite_or_lowest(widened(value)), lanes + bin);
  });
  return top.of_all_lanes().first;
}

template <class T>
Cell first_bin_of(const void* vectors, const void* mirrored, const SimccArguments& a, int64_t index, int bins,
                  bool along_x) {
  const int64_t opposite = index - index % a.keypoints + a.pair[index % a.keypoints];
  return first_bin(static_cast<const T*>(vectors) + index * bins,
                   mirrored ? static_cast<const T*>(mirrored) + opposite * bins : nullptr, bins, along_x);
}

template <class T>
void decode_typed_simcc(const SimccArguments& a, int64_t index) {
  const int64_t person = index / a.keypoints;
  write_simcc_point(a, first_bin_of<T>(a.x, a.mirrored_x, a, index, a.x_bins, true),
                    first_bin_of<T>(a.y, a.mirrored_y, a, index, a.y_bins, false),
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
