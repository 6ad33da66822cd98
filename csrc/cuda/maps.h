// The averaged map of a keypoint in a kernel.
#pragma once

#include "core/decode.h"
#include "cuda/block.h"

namespace oaks::cuda {

// Reads the averages from shared memory if they were kept there, otherwise averages each cell again.
template <class T>
struct KeptMap {
  MapPair<T> maps;
  SharedArray<float> kept;
  bool is_kept;

  __device__ float operator()(int y, int x) const {
    if (is_kept) return kept[y * maps.width + x];
    return maps(y, x);
  }

  // A cell, or -infinity outside the map.
  __device__ float or_lowest(int y, int x) const {
    return y >= 0 && y < maps.height && x >= 0 && x < maps.width ? (*this)(y, x) : -INFINITY;
  }
};

}  // namespace oaks::cuda
