// The two first cells of all threads of a warp or a block.
#pragma once

#include "core/decode.h"
#include "cuda/block.h"

namespace oaks::cuda {

__device__ inline Cell first_of_warp(Cell cell) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Cell other{__shfl_xor_sync(kWholeWarp, cell.value, distance),
                     __shfl_xor_sync(kWholeWarp, cell.index, distance)};
    if (precedes(other, cell)) cell = other;
  }
  return cell;
}

// The two first of all lanes' cells, known to every lane. No two lanes hold the same cell.
__device__ inline TopTwo top_two_of_warp(const TopTwo& own) {
  TopTwo top;
  top.first = first_of_warp(own.first);
  top.second = first_of_warp(own.first.index == top.first.index ? own.second : own.first);
  return top;
}

// The same for the block, known to its first warp. `best` has two cells for each warp.
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
