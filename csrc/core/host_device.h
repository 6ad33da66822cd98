// What the operations' arithmetic needs so that one header serves the host compiler and the CUDA compiler.
#pragma once

#if defined(__CUDACC__)
#define OAKS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define OAKS_HOST_DEVICE inline
#endif
