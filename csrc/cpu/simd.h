// Vectors of floats for the instruction set that the file is compiled for. Only kernels.cpp includes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/half.h"
#include "core/host_device.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace oaks::cpu {
inline namespace OAKS_ISA {

// A vector of one float, for the end of a row and for processors without the vectors below.
struct Vector1 {
  static constexpr int lanes = 1;
  float v;

  static Vector1 all(float x) { return {x}; }
  static Vector1 load(const float* p) { return {*p}; }
  static Vector1 load(const Half* p) { return {to_float(*p)}; }
  static Vector1 load_reversed(const float* p) { return {*p}; }
  static Vector1 load_reversed(const Half* p) { return load(p); }
  void store(float* p) const { *p = v; }
  void store(Half* p) const { *p = to_half(v); }
  template <class T>
  void stream(T* p) const {
    store(p);
  }
  void store_reversed(float* p) const { *p = v; }
  void store_reversed(Half* p) const { store(p); }
  float largest() const { return v; }
};
OAKS_HOST_DEVICE Vector1 operator+(Vector1 a, Vector1 b) { return {a.v + b.v}; }
OAKS_HOST_DEVICE Vector1 operator*(Vector1 a, Vector1 b) { return {a.v * b.v}; }
OAKS_HOST_DEVICE Vector1 operator*(Vector1 a, float b) { return {a.v * b}; }
OAKS_HOST_DEVICE Vector1 fused(Vector1 a, Vector1 b, Vector1 c) { return {oaks::fused(a.v, b.v, c.v)}; }
// `b` where either is NaN.
OAKS_HOST_DEVICE Vector1 larger(Vector1 a, Vector1 b) { return {a.v > b.v ? a.v : b.v}; }

#if defined(__GNUC__) && !defined(__AVX2__)
#define OAKS_VECTOR4 1
// The compiler's own vectors: SSE2 on x86-64, NEON on 64-bit Arm.
struct Vector4 {
  static constexpr int lanes = 4;
  typedef float Native __attribute__((vector_size(16)));
  Native v;

  static Vector4 all(float x) { return {Native{x, x, x, x}}; }
  static Vector4 load(const float* p) {
    Vector4 loaded;
    memcpy(&loaded.v, p, sizeof loaded.v);
    return loaded;
  }
  static Vector4 load(const Half* p) {
    return {Native{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}};
  }
  Vector4 reversed() const { return {Native{v[3], v[2], v[1], v[0]}}; }
  template <class T>
  static Vector4 load_reversed(const T* p) {
    return load(p).reversed();
  }
  void store(float* p) const { memcpy(p, &v, sizeof v); }
  void store(Half* p) const {
    for (int i = 0; i < 4; ++i) p[i] = to_half(v[i]);
  }
  template <class T>
  void stream(T* p) const {
    store(p);
  }
  template <class T>
  void store_reversed(T* p) const {
    reversed().store(p);
  }
  float largest() const {
    const float low = v[0] > v[1] ? v[0] : v[1], high = v[2] > v[3] ? v[2] : v[3];
    return low > high ? low : high;
  }
};
OAKS_HOST_DEVICE Vector4 operator+(Vector4 a, Vector4 b) { return {a.v + b.v}; }
OAKS_HOST_DEVICE Vector4 operator*(Vector4 a, Vector4 b) { return {a.v * b.v}; }
OAKS_HOST_DEVICE Vector4 operator*(Vector4 a, float b) { return {a.v * b}; }
OAKS_HOST_DEVICE Vector4 fused(Vector4 a, Vector4 b, Vector4 c) {
#if defined(__aarch64__)
  return {Vector4::Native{oaks::fused(a.v[0], b.v[0], c.v[0]), oaks::fused(a.v[1], b.v[1], c.v[1]),
                          oaks::fused(a.v[2], b.v[2], c.v[2]), oaks::fused(a.v[3], b.v[3], c.v[3])}};
#else
  return {a.v * b.v + c.v};  // no fused instruction here, and a function call is far slower
#endif
}
OAKS_HOST_DEVICE Vector4 larger(Vector4 a, Vector4 b) { return {a.v > b.v ? a.v : b.v}; }
#endif

#if defined(__AVX2__)
struct Vector8 {
  static constexpr int lanes = 8;
  __m256 v;

  static Vector8 all(float x) { return {_mm256_set1_ps(x)}; }
  static Vector8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vector8 load(const Half* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
  Vector8 reversed() const { return {_mm256_permutevar8x32_ps(v, _mm256_set_epi32(0, 1, 2, 3, 4, 5, 6, 7))}; }
  template <class T>
  static Vector8 load_reversed(const T* p) {
    return load(p).reversed();
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  __m128i halves() const { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  void store(Half* p) const { _mm_storeu_si128((__m128i*)p, halves()); }
  // Non-temporal stores, for results that are not read soon: they do not read memory into the cache before
  // they write. 16 bytes each, because NumPy's arrays are aligned to 16 bytes.
  void stream(float* p) const {
    if (uintptr_t(p) % 16 != 0) return store(p);
    _mm_stream_ps(p, _mm256_castps256_ps128(v));
    _mm_stream_ps(p + 4, _mm256_extractf128_ps(v, 1));
  }
  void stream(Half* p) const { uintptr_t(p) % 16 == 0 ? _mm_stream_si128((__m128i*)p, halves()) : store(p); }
  template <class T>
  void store_reversed(T* p) const {
    reversed().store(p);
  }
  float largest() const {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }
};
OAKS_HOST_DEVICE Vector8 operator+(Vector8 a, Vector8 b) { return {_mm256_add_ps(a.v, b.v)}; }
OAKS_HOST_DEVICE Vector8 operator*(Vector8 a, Vector8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
OAKS_HOST_DEVICE Vector8 operator*(Vector8 a, float b) { return {_mm256_mul_ps(a.v, _mm256_set1_ps(b))}; }
OAKS_HOST_DEVICE Vector8 fused(Vector8 a, Vector8 b, Vector8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
OAKS_HOST_DEVICE Vector8 larger(Vector8 a, Vector8 b) { return {_mm256_max_ps(a.v, b.v)}; }
#endif

#if defined(__AVX512F__)
struct Vector16 {
  static constexpr int lanes = 16;
  __m512 v;

  static Vector16 all(float x) { return {_mm512_set1_ps(x)}; }
  static Vector16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vector16 load(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
  Vector16 reversed() const {
    const __m512i order = _mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm512_permutexvar_ps(order, v)};
  }
  template <class T>
  static Vector16 load_reversed(const T* p) {
    return load(p).reversed();
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(Half* p) const {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  template <class T>
  void stream(T* p) const {
    Vector8{_mm512_castps512_ps256(v)}.stream(p);
    Vector8{_mm512_extractf32x8_ps(v, 1)}.stream(p + 8);
  }
  template <class T>
  void store_reversed(T* p) const {
    reversed().store(p);
  }
  float largest() const { return _mm512_reduce_max_ps(v); }
};
OAKS_HOST_DEVICE Vector16 operator+(Vector16 a, Vector16 b) { return {_mm512_add_ps(a.v, b.v)}; }
OAKS_HOST_DEVICE Vector16 operator*(Vector16 a, Vector16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
OAKS_HOST_DEVICE Vector16 operator*(Vector16 a, float b) { return {_mm512_mul_ps(a.v, _mm512_set1_ps(b))}; }
OAKS_HOST_DEVICE Vector16 fused(Vector16 a, Vector16 b, Vector16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
OAKS_HOST_DEVICE Vector16 larger(Vector16 a, Vector16 b) { return {_mm512_max_ps(a.v, b.v)}; }
#endif

// Calls body(Vector{}, column) from `first` to `last` in the widest vectors that fit, then in narrower ones.
template <class Body>
OAKS_HOST_DEVICE void sweep(int first, int last, const Body& body) {
  int column = first;
#if defined(__AVX512F__)
  for (; column + 16 <= last; column += 16) body(Vector16{}, column);
#endif
#if defined(__AVX2__)
  for (; column + 8 <= last; column += 8) body(Vector8{}, column);
#endif
#if defined(OAKS_VECTOR4)
  for (; column + 4 <= last; column += 4) body(Vector4{}, column);
#endif
  for (; column < last; ++column) body(Vector1{}, column);
}

// The widest vector. widened(v): v in its first lanes, and -infinity in the others.
#if defined(__AVX512F__)
using Widest = Vector16;
OAKS_HOST_DEVICE Widest widened(Vector8 v) { return {_mm512_insertf32x8(_mm512_set1_ps(-INFINITY), v.v, 0)}; }
#elif defined(__AVX2__)
using Widest = Vector8;
#elif defined(OAKS_VECTOR4)
using Widest = Vector4;
#else
using Widest = Vector1;
#endif
OAKS_HOST_DEVICE Widest widened(Widest v) { return v; }

// An integer for each lane of the widest vector.
#if defined(__GNUC__)
typedef int32_t Indices __attribute__((vector_size(4 * Widest::lanes)));
OAKS_HOST_DEVICE Widest widened(Vector1 v) {
  Widest wide = Widest::all(-INFINITY);
  wide.v[0] = v.v;
  return wide;
}
#else
typedef int32_t Indices;
#endif

}  // namespace OAKS_ISA
}  // namespace oaks::cpu
