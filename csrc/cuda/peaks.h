// The two highest cells over all threads of a warp or a block.
#pragma once

#include "core/decode.h"
#include "cuda/block.h"

namespace oaks::cuda {

// Maps floats to integers of the same order. NaN is not allowed.
__device__ inline unsigned in_order(float value) {
  const uint32_t bits = bits_from_float(value + 0.0f);  // -0 becomes +0
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ inline float from_order(unsigned number) {
  return float_from_bits(number ^ (number >> 31 ? 0x80000000u : 0xffffffffu));
}

// The highest of the lanes' cells, returned to every lane.
__device__ inline Cell first_of_warp(Cell cell) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  const unsigned own = in_order(cell.value);
  const unsigned largest = __reduce_max_sync(kWholeWarp, own);
  const unsigned index = own == largest ? unsigned(cell.index) : unsigned(-1);
  return {from_order(largest), int(__reduce_min_sync(kWholeWarp, index))};
#else
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Cell other{__shfl_xor_sync(kWholeWarp, cell.value, distance),
                     __shfl_xor_sync(kWholeWarp, cell.index, distance)};
    if (precedes(other, cell)) cell = other;
  }
  return cell;
#endif
}

// The two highest of the lanes' cells, returned to every lane. No two lanes may have the same cell.
__device__ inline TopTwo top_two_of_warp(const TopTwo& own) {
  TopTwo top;
  top.first = first_of_warp(own.first);
  top.second = first_of_warp(own.first.index == top.first.index ? own.second : own.first);
  return top;
}

// The two highest cells of all threads of the block, returned to its first warp. best: two cells for each
// warp.
__device__ inline TopTwo top_two_of_block(const TopTwo& own, SharedArray<Cell> best) {
  TopTwo top = top_two_of_warp(own);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int cells = 2 * int(blockDim.x) / kWarp;
  if (lane == 0) {
    best[2 * warp] = top.first;
    best[2 * warp + 1] = top.second;
  }
  __syncthreads();
  if (warp == 0 && cells > 2) {
    TopTwo candidate;
    if (lane < cells) candidate.first = best[lane];
    top = top_two_of_warp(candidate);
  }
  return top;
}

}  // namespace oaks::cuda
