// Macros for functions that both the host compiler and nvcc compile.
#pragma once

#include <cmath>

// Always inlined on the host: cpu/kernels.cpp is compiled once per instruction set, and of functions that are
// not inlined the linker keeps only one copy, which may use instructions that the processor lacks.
#if defined(__CUDACC__)
#define OAKS_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define OAKS_HOST_DEVICE __forceinline
#else
#define OAKS_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace oaks {

// a * b + c, rounded once. cpu/simd.h overloads it for vectors.
OAKS_HOST_DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }

}  // namespace oaks
