// What lets one header of arithmetic serve both the host compiler and the CUDA compiler.
#pragma once

#include <cmath>

// Always inlined on the host: cpu/kernels.cpp is compiled once per instruction set, and the linker could use
// a function that is not inlined for another instruction set.
#if defined(__CUDACC__)
#define OAKS_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define OAKS_HOST_DEVICE __forceinline
#else
#define OAKS_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace oaks {

// a * b + c, rounded once. cpu/simd.h has the same for vectors, so that one formula serves both.
OAKS_HOST_DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }

}  // namespace oaks
