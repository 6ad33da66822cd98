// IEEE half precision. It is converted in software on the host, where compilers may have no half type, and by
// one instruction on a device.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace oaks {

// The storage of one float16. Arithmetic is done in float.
struct Half {
  uint16_t bits;
};

OAKS_HOST_DEVICE float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

OAKS_HOST_DEVICE uint32_t bits_from_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Exact: every half is a float.
OAKS_HOST_DEVICE float to_float(Half half) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half.bits));
  return value;
#else
  const uint32_t sign = uint32_t(half.bits & 0x8000u) << 16;
  const uint32_t magnitude = half.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_from_bits(sign | 0x7f800000u | (magnitude << 13));  // infinity, NaN
  if (magnitude >= 0x0400u) return float_from_bits(sign | ((magnitude << 13) + 0x38000000u));
  return float_from_bits(sign | bits_from_float(float(magnitude) * 5.9604644775390625e-8f));  // times 2^-24
#endif
}

OAKS_HOST_DEVICE float to_float(float value) { return value; }

// Rounds to nearest, ties to even, as the hardware instructions do.
OAKS_HOST_DEVICE Half to_half(float value) {
#if defined(__CUDA_ARCH__)
  Half half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
  return half;
#else
  const uint32_t bits = bits_from_float(value);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return Half{uint16_t(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return Half{uint16_t(sign | 0x7c00u)};  // 65520 and more round to infinity
  if (magnitude < 0x38800000u) {                                        // below 2^-14: subnormal
    // The unit of floats from 0.5 to 1 is 2^-24, that of subnormal halves: adding 0.5 rounds to that unit,
    // and the low bits of the sum are the half.
    const uint32_t sum = bits_from_float(float_from_bits(magnitude) + 0.5f);
    return Half{uint16_t(sign | (sum - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u);
  return Half{uint16_t(sign | (rounded >> 13))};
#endif
}

// Unpacks the two halves of a word, the one in the low bits first.
OAKS_HOST_DEVICE void to_float_pair(uint32_t pair, float& first, float& second) {
#if defined(__CUDA_ARCH__)
  asm("{ .reg .f16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
      : "=f"(first), "=f"(second)
      : "r"(pair));
#else
  first = to_float(Half{uint16_t(pair)});
  second = to_float(Half{uint16_t(pair >> 16)});
#endif
}

// Packs two halves into a word, the first in the low bits; one instruction from compute capability 8.0 on.
OAKS_HOST_DEVICE uint32_t to_half_pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return uint32_t(to_half(first).bits) | uint32_t(to_half(second).bits) << 16;
#endif
}

OAKS_HOST_DEVICE void store(float* to, float value) { *to = value; }
OAKS_HOST_DEVICE void store(Half* to, float value) { *to = to_half(value); }

}  // namespace oaks
