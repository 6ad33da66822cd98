// The hot loops of decode and crop. Compiled once per instruction set (cmake/cpu.cmake), hence without the
// standard library's templates, whose one linked copy might hold instructions that this machine lacks.
#include "cpu/features.h"
#include "cpu/simd.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// ---- decode
// -------------------------------------------------------------------------------------------------

// Averages one row into `average` and returns what is largest in it.
template <class T>
RunningMaximum average_row(const T* row, const T* mirrored, bool shift, int width, float* average) {
  RunningMaximum maximum;
  if (!mirrored) {
    sweep(0, width, [&](auto vector, int x) {
      const auto value = decltype(vector)::load(row + x);
      value.store(average + x);
      maximum.add(value);
    });
    return maximum;
  }
  // Columns of the mirrored map run backwards: column x of a vector takes `last`, the lanes after it the
  // columns before that. With the shift, column 0 stands alone.
  if (shift) {
    const float value = flip_average(to_float(row[0]), to_float(mirrored[mirrored_column(0, width, true)]));
    average[0] = value;
    maximum.add(Vector1{value});
  }
  sweep(shift ? 1 : 0, width, [&](auto vector, int x) {
    using Vector = decltype(vector);
    const int last = mirrored_column(x, width, shift);
    const auto value =
        flip_average(Vector::load(row + x), Vector::load_reversed(mirrored + last - (Vector::lanes - 1)));
    value.store(average + x);
    maximum.add(value);
  });
  return maximum;
}

// The same for a row of floats that needs no averaging.
RunningMaximum row_maximum(const float* row, int width) {
  RunningMaximum maximum;
  sweep(0, width, [&](auto vector, int x) { maximum.add(decltype(vector)::load(row + x)); });
  return maximum;
}

// The first column of a row that holds `value`, other than `skipped`.
int column_of(const float* row, int width, float value, int skipped) {
  for (int x = 0; x < width; ++x) {
    if (row[x] == value && x != skipped) return x;
  }
  return -1;
}

float largest_but(const float* row, int width, int skipped) {
  const float before = row_maximum(row, skipped).value();
  const float after = row_maximum(row + skipped + 1, width - skipped - 1).value();
  return before > after ? before : after;
}

// The two highest cells from the two rows with the highest maxima.
TopTwo top_two_of(const float* map, int width, TopTwo rows) {
  TopTwo top;
  const float* row = map + int64_t(rows.first.index) * width;
  const int x = column_of(row, width, rows.first.value, -1);
  top.first = {rows.first.value, rows.first.index * width + x};
  const float beside = largest_but(row, width, x);
  if (beside > -INFINITY) top.second = {beside, rows.first.index * width + column_of(row, width, beside, x)};
  if (rows.second.index >= 0) {
    const float* other = map + int64_t(rows.second.index) * width;
    const int column = column_of(other, width, rows.second.value, -1);
    const Cell cell{rows.second.value, rows.second.index * width + column};
    if (precedes(cell, top.second)) top.second = cell;
  }
  return top;
}

// The same for maps with +infinity in them, which is no peak: cell by cell.
TopTwo top_two_finite(const float* map, int size) {
  TopTwo top;
  for (int i = 0; i < size; ++i) {
    if (is_finite(map[i])) top.offer({map[i], i});
  }
  return top;
}

Offset offset_beside(const DecodeArguments& a, const float* map, TopTwo top) {
  const auto at = [&](int y, int x) { return map[y * a.width + x]; };
  switch (a.refine) {
    case Refine::second_peak:
      return second_peak_offset(top.first.index, top.second.index, a.width);
    case Refine::gradient:
      return gradient_offset(at, top.first.index, a.height, a.width);
    case Refine::dark: {
      BlurredPatch patch;
      const int reach = blur_radius(a.blur_sigma) + 1;
      const int x = top.first.index % a.width, y = top.first.index / a.width;
      for (int dy = -reach; dy <= reach; ++dy) {
        patch.add(blur_row(at, y + dy, x, a.height, a.width, a.blur_sigma), dy, a.blur_sigma);
      }
      return dark_offset(patch, top.first.index, a.height, a.width);
    }
    case Refine::none:
      break;
  }
  return {0.0f, 0.0f};
}

// The whole averaged map, past the cache: nobody reads it again soon.
void write_average(const float* map, float* to, int64_t size) {
  int64_t i = 0;
#if defined(__AVX512F__)
  if (uintptr_t(to) % 64 == 0) {
    for (; i + 16 <= size; i += 16) _mm512_stream_ps(to + i, _mm512_loadu_ps(map + i));
  }
#elif defined(__AVX2__)
  if (uintptr_t(to) % 32 == 0) {
    for (; i + 8 <= size; i += 8) _mm256_stream_ps(to + i, _mm256_loadu_ps(map + i));
  }
#endif
  for (; i < size; ++i) to[i] = map[i];
}

void write_average(const float* map, Half* to, int64_t size) {
  int64_t i = 0;
#if defined(__AVX512F__)
  if (uintptr_t(to) % 32 == 0) {
    for (; i + 16 <= size; i += 16) {
      _mm256_stream_si256((__m256i*)(to + i),
                          _mm512_cvtps_ph(_mm512_loadu_ps(map + i), _MM_FROUND_TO_NEAREST_INT));
    }
  }
#elif defined(__AVX2__)
  for (; i + 8 <= size; i += 8) Vector8::load(map + i).store(to + i);
#endif
  for (; i < size; ++i) to[i] = to_half(map[i]);
}

// A map that is read as it lies, averaged where it lies, or averaged into working memory.
float* working_map(const float* map, const float* mirrored, float* averaged, int size, Scratch& scratch) {
  const bool stays = !mirrored || averaged == map;
  return stays ? const_cast<float*>(map) : scratch.floats(size_t(size));
}

float* working_map(const Half*, const Half*, Half*, int size, Scratch& scratch) {
  return scratch.floats(size_t(size));
}

template <class T>
void decode_typed_map(const DecodeArguments& a, int64_t index, Scratch& scratch) {
  const int64_t person = index / a.keypoints;
  const int keypoint = int(index % a.keypoints);
  const int size = a.height * a.width;
  const T* map = static_cast<const T*>(a.heatmaps) + index * size;
  const T* mirrored =
      a.mirrored ? static_cast<const T*>(a.mirrored) + (person * a.keypoints + a.pair[keypoint]) * size
                 : nullptr;
  T* averaged = a.averaged ? static_cast<T*>(a.averaged) + index * size : nullptr;
  float* work = working_map(map, mirrored, averaged, size, scratch);
  const bool already_there = static_cast<const void*>(work) == static_cast<const void*>(map) && !mirrored;

  TopTwo rows;
  for (int y = 0; y < a.height; ++y) {
    float* row = work + y * a.width;
    const RunningMaximum maximum =
        already_there ? row_maximum(row, a.width)
                      : average_row(map + y * a.width, mirrored ? mirrored + y * a.width : nullptr,
                                    a.shift_mirrored, a.width, row);
    // Few rows pass, which saves their reduction to one number; a later row never wins a tie.
    const float to_beat = rows.second.index < 0 ? -INFINITY : rows.second.value;
    if (maximum.exceeds(to_beat)) rows.offer({maximum.value(), y});
  }
  TopTwo top;
  if (rows.first.index >= 0) {
    top = is_finite(rows.first.value) ? top_two_of(work, a.width, rows) : top_two_finite(work, size);
  }
  const Offset offset = top.first.index < 0 ? Offset{0.0f, 0.0f} : offset_beside(a, work, top);
  write_point(a, top.first, offset, a.transforms ? a.transforms + 6 * person : nullptr, a.points + 2 * index,
              a.heat + index);
  if (averaged && static_cast<void*>(averaged) != static_cast<void*>(work))
    write_average(work, averaged, size);
}

void decode_map(const DecodeArguments& a, int64_t index, Scratch& scratch) {
  if (a.element == Element::float16) {
    decode_typed_map<Half>(a, index, scratch);
  } else {
    decode_typed_map<float>(a, index, scratch);
  }
}

// ---- crop
// ---------------------------------------------------------------------------------------------------

// Where each crop column lies in a row of the frame: byte offsets of its two neighbours and their weights.
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

// One row of the frame at the crop's columns: three planes of `width` grey levels, in the frame's channel
// order.
void blend_columns(const uint8_t* row, [[maybe_unused]] int row_length, Columns columns, int width,
                   float* planes) {
  int x = 0;
#if defined(__AVX512F__)
  // A gather reads 4 bytes where a pixel has 3: near the row's end it starts one byte earlier.
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

// The two frame rows that crop rows are blended from, each with its columns already blended; a crop row needs
// at most one or two that the row before it did not have.
struct BlendedRows {
  float* planes[2];
  int held[2] = {-1, -1};

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

#define OAKS_JOIN(a, b) a##b
#define OAKS_KERNELS(isa) OAKS_JOIN(kernels_, isa)
extern const Kernels OAKS_KERNELS(OAKS_ISA);
const Kernels OAKS_KERNELS(OAKS_ISA){decode_map, crop_rows};

}  // namespace oaks::cpu
