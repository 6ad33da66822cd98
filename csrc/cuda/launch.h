// Launches of kernels, and functions that the launching code shares.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/block.h"
#include "cuda/device.h"

namespace oaks::cuda {

template <class T>
constexpr T divided_up(T amount, T by) {
  return (amount + by - 1) / by;
}

// Whether vectors of `bytes` bytes can be read and written at this address; a null pointer counts as aligned.
inline bool is_aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

struct Shape {
  int64_t blocks;
  int threads;  // per block: whole warps
  int shared_bytes = 0;
};

inline void check_shape(const char* kernel_name, const Shape& shape) {
  if (shape.blocks > INT32_MAX) {
    throw std::runtime_error(std::string(kernel_name) + ": " + std::to_string(shape.blocks) +
                             " blocks are more than CUDA can start at once; pass smaller batches");
  }
}

#if defined(__CUDACC__)

// Throws the error that occurred while `doing` something.
void check(cudaError_t error, const std::string& doing);

template <class... Parameters, class... Arguments>
void launch_function(const char* name, void (*kernel)(Parameters...), const Shape& shape, Stream stream,
                     const Arguments&... arguments) {
  check_shape(name, shape);
  const void* function = reinterpret_cast<const void*>(kernel);
  constexpr int kDefaultSharedBytes = 48 * 1024;
  if (shape.shared_bytes > kDefaultSharedBytes) {
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes),
          std::string("asking for ") + std::to_string(shape.shared_bytes) + " bytes of shared memory for " +
              name);
  }
  const auto start = [&](Parameters... values) {
    void* addresses[] = {const_cast<void*>(static_cast<const void*>(&values))...};
    return cudaLaunchKernel(function, dim3(unsigned(shape.blocks)), dim3(unsigned(shape.threads)), addresses,
                            size_t(shape.shared_bytes), static_cast<cudaStream_t>(stream));
  };
  check(start(arguments...), std::string("launching ") + name);
}

template <auto kernel, class... Arguments>
void launch(const char* name, const Shape& shape, Stream stream, const Arguments&... arguments) {
  launch_function(name, kernel, shape, stream, arguments...);
}

#else

template <auto kernel, class... Arguments>
void launch(const char* name, const Shape& shape, Stream /*stream*/, const Arguments&... arguments) {
  check_shape(name, shape);
  if (emulator::ptx::is_loaded()) {
    return emulator::ptx::Kernel<kernel>::run(name, shape.blocks, shape.threads, shape.shared_bytes,
                                              arguments...);
  }
  emulator::run(name, shape.blocks, shape.threads, shape.shared_bytes, [&] { kernel(arguments...); });
}

#endif

}  // namespace oaks::cuda
