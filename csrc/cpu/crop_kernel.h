// The hot loop of crop. Included by kernels.cpp alone.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/simd.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// For each crop column: byte offsets of its two neighbors in a frame row, and their weights.
struct Columns {
  int *low, *high;
  float *low_weight, *high_weight;
};

Columns find_columns(CropAxis axis, int crop_width, int image_width, int* indices, float* weights) {
  const Columns columns{indices, indices + crop_width, weights, weights + crop_width};
  for (int x = 0; x < crop_width; ++x) {
    const Tap t = tap(axis, x, image_width);
    columns.low[x] = 3 * t.low;
    columns.high[x] = 3 * t.high;
    columns.low_weight[x] = t.low_weight;
    columns.high_weight[x] = t.high_weight;
  }
  return columns;
}

// Interpolates one row of the frame at the crop's columns, into three planes of `width` gray levels each, in
// the frame's channel order.
void blend_columns(const uint8_t* row, [[maybe_unused]] int row_length, Columns columns, int width,
                   float* planes) {
  int x = 0;
#if defined(__AVX512F__)
  // A gather reads 4 bytes although a pixel has 3: for the last pixel of the row it starts one byte earlier.
  const __m512i end = _mm512_set1_epi32(row_length - 4), byte = _mm512_set1_epi32(255);
  if (row_length >= 4) {
    for (; x + 16 <= width; x += 16) {
      const auto pixels_at = [&](const int* offsets) {
        const __m512i offset = _mm512_loadu_si512(offsets);
        const __m512i start = _mm512_min_epi32(offset, end);
        const __m512i bytes = _mm512_i32gather_epi32(start, row, 1);
        return _mm512_srlv_epi32(bytes, _mm512_slli_epi32(_mm512_sub_epi32(offset, start), 3));
      };
      const __m512i low = pixels_at(columns.low + x), high = pixels_at(columns.high + x);
      const Vector16 low_weight = Vector16::load(columns.low_weight + x);
      const Vector16 high_weight = Vector16::load(columns.high_weight + x);
      for (int c = 0; c < 3; ++c) {
        const auto channel = [&](__m512i pixel) {
          return Vector16{_mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(pixel, 8 * c), byte))};
        };
        blend(channel(low), channel(high), low_weight, high_weight).store(planes + c * width + x);
      }
    }
  }
#elif defined(__AVX2__)
  const __m256i end = _mm256_set1_epi32(row_length - 4), byte = _mm256_set1_epi32(255);
  if (row_length >= 4) {
    for (; x + 8 <= width; x += 8) {
      const auto pixels_at = [&](const int* offsets) {
        const __m256i offset = _mm256_loadu_si256((const __m256i*)offsets);
        const __m256i start = _mm256_min_epi32(offset, end);
        const __m256i bytes = _mm256_i32gather_epi32((const int*)row, start, 1);
        return _mm256_srlv_epi32(bytes, _mm256_slli_epi32(_mm256_sub_epi32(offset, start), 3));
      };
      const __m256i low = pixels_at(columns.low + x), high = pixels_at(columns.high + x);
      const Vector8 low_weight = Vector8::load(columns.low_weight + x);
      const Vector8 high_weight = Vector8::load(columns.high_weight + x);
      for (int c = 0; c < 3; ++c) {
        const auto channel = [&](__m256i pixel) {
          return Vector8{_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(pixel, 8 * c), byte))};
        };
        blend(channel(low), channel(high), low_weight, high_weight).store(planes + c * width + x);
      }
    }
  }
#endif
  for (; x < width; ++x) {
    for (int c = 0; c < 3; ++c) {
      planes[c * width + x] = blend(float(row[columns.low[x] + c]), float(row[columns.high[x] + c]),
                                    columns.low_weight[x], columns.high_weight[x]);
    }
  }
}

// The two frame rows that a crop row is interpolated from, already interpolated at the crop's columns. The
// next crop row often needs one or both of them again.
struct BlendedRows {
  float* planes[2];
  int held[2] = {-1, -1};  // their y in the frame

  // Row y of the frame; row `keep` is not overwritten.
  const float* find(const FrameView& frame, int y, int keep, Columns columns, int width) {
    for (int i = 0; i < 2; ++i) {
      if (held[i] == y) return planes[i];
    }
    const int free_slot = held[0] == keep ? 1 : 0;
    blend_columns(frame.pixels + y * frame.row_bytes, 3 * frame.width, columns, width, planes[free_slot]);
    held[free_slot] = y;
    return planes[free_slot];
  }
};

template <class T>
void write_row(const CropArguments& a, const float* low, const float* high, Tap t, T* pixels, T* mirrored) {
  const int64_t plane = int64_t(a.height) * a.width;
  for (int c = 0; c < 3; ++c) {
    const int source = (a.bgr ? 2 - c : c) * a.width;
    T* to = pixels + c * plane;
    T* back = mirrored ? mirrored + c * plane + a.width : nullptr;
    sweep(0, a.width, [&](auto vector, int x) {
      using Vector = decltype(vector);
      const auto level = blend(Vector::load(low + source + x), Vector::load(high + source + x),
                               Vector::all(t.low_weight), Vector::all(t.high_weight));
      const auto value = fused(level, Vector::all(a.scale[c]), Vector::all(a.bias[c]));
      value.store(to + x);
      if (back) value.store_reversed(back - x - Vector::lanes);
    });
  }
}

template <class T>
void crop_typed_rows(const CropArguments& a, int64_t box, int first_row, int last_row, Scratch& scratch) {
  const FrameView& frame = a.frames[a.frame_index ? a.frame_index[box] : 0];
  const CropWindow window = crop_window(a.boxes + 4 * box, a.height, a.width, a.padding);
  if (first_row == 0) write_transform(window, a.transforms + 6 * box);

  const size_t width = size_t(a.width);
  float* floats = scratch.floats(8 * width);
  const Columns columns = find_columns(window.x, a.width, frame.width, scratch.indices(2 * width), floats);
  BlendedRows rows{{floats + 2 * width, floats + 5 * width}};

  const int64_t crop_size = int64_t(3) * a.height * a.width;
  T* pixels = static_cast<T*>(a.pixels) + box * crop_size;
  T* mirrored = a.mirrored ? pixels + a.count * crop_size : nullptr;
  for (int y = first_row; y < last_row; ++y) {
    const Tap t = tap(window.y, y, frame.height);
    const float* low = rows.find(frame, t.low, t.high, columns, a.width);
    const float* high = rows.find(frame, t.high, t.low, columns, a.width);
    const int64_t offset = int64_t(y) * a.width;
    write_row(a, low, high, t, pixels + offset, mirrored ? mirrored + offset : nullptr);
  }
}

void crop_rows(const CropArguments& a, int64_t box, int first_row, int last_row, Scratch& scratch) {
  if (a.half) {
    crop_typed_rows<Half>(a, box, first_row, last_row, scratch);
  } else {
    crop_typed_rows<float>(a, box, first_row, last_row, scratch);
  }
}

}  // namespace
}  // namespace OAKS_ISA
}  // namespace oaks::cpu
