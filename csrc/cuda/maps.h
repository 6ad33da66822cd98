// The averaged map of a keypoint within a kernel.
#pragma once

#include "core/decode.h"
#include "cuda/block.h"

namespace oaks::cuda {

// From shared memory if the pass over the map has kept it there, otherwise cells are averaged again.
template <class T>
struct KeptMap {
  MapPair<T> maps;
  SharedArray<float> kept;
  bool is_kept;

  __device__ float operator()(int y, int x) const {
    if (is_kept) return kept[y * maps.width + x];
    return maps(y, x);
  }

  // Outside the map, lower than any cell.
  __device__ float or_lowest(int y, int x) const {
    return y >= 0 && y < maps.height && x >= 0 && x < maps.width ? (*this)(y, x) : -INFINITY;
  }
};

}  // namespace oaks::cuda
