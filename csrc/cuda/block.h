// The primitives that kernels may use: these names of CUDA, and two macros for shared memory. The tests
// compile the same kernels for the host, where emulator/block.h implements the primitives and reports
// conflicting accesses of a block's threads. The names of CUDA are:
//   threadIdx blockIdx blockDim gridDim (x only), __syncthreads, __shfl_xor_sync, __shfl_sync, __ballot_sync,
//   __popc, __byte_perm, __funnelshift_r, __dp2a_lo, __dp2a_hi; and from 8.0 on
//   __reduce_max_sync, __reduce_min_sync.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

// An array of `count` elements in shared memory. Kernels must read and assign whole elements.
#define OAKS_SHARED(Type, name, count) __shared__ Type name[count]
// The dynamic shared memory, aligned to 16 bytes; the launch sets its size.
#define OAKS_DYNAMIC_SHARED(Type, name)          \
  extern __shared__ uint4 oaks_dynamic_shared[]; \
  Type* const name = reinterpret_cast<Type*>(oaks_dynamic_shared)

namespace oaks::cuda {
template <class T>
using SharedArray = T*;
}

#else
#include "emulator/block.h"
#endif

namespace oaks::cuda {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

// The sum over all lanes, returned to every lane.
template <class T>
__device__ T sum_of_warp(T value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

// `width` values that are read or written at once; they must be aligned to their total size.
template <class T, int width>
struct alignas(sizeof(T) * width) Vector {
  T value[width];
};

}  // namespace oaks::cuda
