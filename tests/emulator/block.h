// The primitives of csrc/cuda/block.h, for the host.
#pragma once

#include <cmath>

#include "emulator/machine.h"
#include "emulator/ptx.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __grid_constant__

#define OAKS_SHARED(Type, name, count)        \
  static const char oaks_place_of_##name = 0; \
  const emulator::Shared<Type> name(emulator::region(&oaks_place_of_##name, #name, count, sizeof(Type)))
#define OAKS_DYNAMIC_SHARED(Type, name) \
  const emulator::Shared<Type> name(emulator::region(nullptr, #name, 0, sizeof(Type)))

namespace oaks::cuda {
template <class T>
using SharedArray = emulator::Shared<T>;
}

struct EmulatedIndex {
  unsigned x;
};
inline EmulatedIndex threadIdx{0}, blockIdx{0}, blockDim{0}, gridDim{0};

inline void __syncthreads(int line = __builtin_LINE()) {
  emulator::meet(emulator::Operation::barrier, 0, 0, 0, line);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int line = __builtin_LINE()) {
  return emulator::from_bits<T>(
      emulator::meet(emulator::Operation::shuffle_xor, mask, emulator::to_bits(value), distance, line));
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int line = __builtin_LINE()) {
  return emulator::from_bits<T>(
      emulator::meet(emulator::Operation::shuffle, mask, emulator::to_bits(value), lane, line));
}

inline unsigned __ballot_sync(unsigned mask, bool vote, int line = __builtin_LINE()) {
  return unsigned(emulator::meet(emulator::Operation::ballot, mask, vote, 0, line));
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
  return unsigned(emulator::meet(emulator::Operation::largest, mask, value, 0, line));
}

inline unsigned __reduce_min_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
  return unsigned(emulator::meet(emulator::Operation::smallest, mask, value, 0, line));
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= unsigned(bytes >> (8 * (selector >> (4 * i) & 7u)) & 0xffu) << (8 * i);
  return result;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31u));
}

// The sum of `sum` and the products of the two 16-bit numbers in `words` with the lower or the upper two
// bytes.
inline unsigned __dp2a_lo(unsigned words, unsigned bytes, unsigned sum) {
  return sum + (words & 0xffffu) * (bytes & 0xffu) + (words >> 16) * (bytes >> 8 & 0xffu);
}

inline unsigned __dp2a_hi(unsigned words, unsigned bytes, unsigned sum) {
  return __dp2a_lo(words, bytes >> 16, sum);
}
