// What the operations' arithmetic needs so that one header serves the host compiler and the CUDA compiler.
#pragma once

#include <cmath>

// Always inlined on the host: cpu/kernels.cpp is compiled once per instruction set, and a copy left standing
// could be linked into the build for another one.
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
