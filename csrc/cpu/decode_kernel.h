// The hot loop of decode. Included by kernels.cpp alone.
#pragma once

#include "cpu/features.h"
#include "cpu/simd.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// The flip-averaged map of one keypoint of one person. Nothing of it is kept: a row that is wanted again is
// averaged again, which costs less than writing every row down.
template <class T>
struct AveragedMap {
  const T* map;
  const T* mirrored;       // null: the map is taken as it lies
  const T* next_mirrored;  // where the walk goes on after this map; only ever prefetched
  bool shift;
  int height, width;

  const T* row(int y) const { return map + y * width; }
  const T* mirrored_row(int y) const { return mirrored + y * width; }

  float operator()(int y, int x) const {
    const float value = to_float(row(y)[x]);
    if (!mirrored) return value;
    return flip_average(value, to_float(mirrored_row(y)[mirrored_column(x, width, shift)]));
  }

  // Hands every vector of row y to write(vector, column) and returns what is largest in the row.
  template <class Write>
  OAKS_HOST_DEVICE RunningMaximum sweep_row(int y, const Write& write) const {
    RunningMaximum maximum;
    const T* from = row(y);
    if (!mirrored) {
      sweep(0, width, [&](auto vector, int x) {
        const auto value = decltype(vector)::load(from + x);
        write(value, x);
        maximum.add(value);
      });
      return maximum;
    }
    // The mirrored row runs backwards: a vector's first lane takes column `last`, the next ones those before
    // it. With the shift, column 0 stands alone.
    const T* back = mirrored_row(y);
    const auto average = [&](auto vector, int x) {
      using Vector = decltype(vector);
      const int last = mirrored_column(x, width, shift);
      const auto value =
          flip_average(Vector::load(from + x), Vector::load_reversed(back + last - (Vector::lanes - 1)));
      write(value, x);
      maximum.add(value);
    };
    if (shift) average(Vector1{}, 0);
    sweep(shift ? 1 : 0, width, average);
    return maximum;
  }
};

// Asks for a row before it is needed: backwards through rows that follow one another is no pattern that
// processors foresee.
template <class T>
OAKS_HOST_DEVICE void prefetch_row([[maybe_unused]] const T* row, [[maybe_unused]] int width) {
#if defined(__GNUC__)
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int i = 0; i < width * int(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, 0, 2);
#endif
}

constexpr int kPrefetchBytes = 4096;

// The rows with the two largest maxima. Every vector goes to write(vector, row, column) on its way.
template <class T, class Write>
OAKS_HOST_DEVICE TopTwo top_two_rows(const AveragedMap<T>& map, const Write& write) {
  const int ahead = kPrefetchBytes / (map.width * int(sizeof(T)));
  TopTwo rows;
  for (int y = 0; y < map.height; ++y) {
    prefetch_row(map.row(y + ahead), map.width);
    if (map.mirrored) {
      const int left = y + ahead - map.height;
      prefetch_row(left < 0 ? map.mirrored_row(y + ahead) : map.next_mirrored + left * map.width, map.width);
    }
    const RunningMaximum maximum = map.sweep_row(y, [&](auto vector, int x) { write(vector, y, x); });
    // Few rows pass, which saves their reduction to one number; a later row never wins a tie.
    const float to_beat = rows.second.index < 0 ? -INFINITY : rows.second.value;
    if (maximum.exceeds(to_beat)) rows.offer({maximum.value(), y});
  }
  return rows;
}

// Offers the cells of row y that are finite.
template <class T>
void offer_row(const AveragedMap<T>& map, int y, float* row, TopTwo& top) {
  map.sweep_row(y, [&](auto vector, int x) { vector.store(row + x); });
  for (int x = 0; x < map.width; ++x) {
    // Nearly every cell fails this, NaN too.
    if (top.second.index >= 0 && !(row[x] >= top.second.value)) continue;
    if (is_finite(row[x])) top.offer({row[x], y * map.width + x});
  }
}

// The two highest cells lie in the two rows with the highest maxima, unless +infinity, which is no peak, has
// hidden the order of the rows.
template <class T>
TopTwo top_two_cells(const AveragedMap<T>& map, TopTwo rows, float* row) {
  TopTwo top;
  if (rows.first.index >= 0 && !is_finite(rows.first.value)) {
    for (int y = 0; y < map.height; ++y) offer_row(map, y, row, top);
    return top;
  }
  if (rows.first.index >= 0) offer_row(map, rows.first.index, row, top);
  if (rows.second.index >= 0) offer_row(map, rows.second.index, row, top);
  return top;
}

template <class T>
Offset offset_beside(const DecodeArguments& a, const AveragedMap<T>& map, TopTwo top) {
  switch (a.refine) {
    case Refine::second_peak:
      return second_peak_offset(top.first.index, top.second.index, a.width);
    case Refine::gradient:
      return gradient_offset(map, top.first.index, a.height, a.width);
    case Refine::dark: {
      BlurredPatch patch;
      const int reach = a.blur.radius + 1;
      const int x = top.first.index % a.width, y = top.first.index / a.width;
      for (int dy = -reach; dy <= reach; ++dy) {
        patch.add(blur_row(map, y + dy, x, a.height, a.width, a.blur), dy, a.blur);
      }
      return dark_offset(patch, top.first.index, a.height, a.width);
    }
    case Refine::none:
      break;
  }
  return {0.0f, 0.0f};
}

template <class T>
const T* mirrored_map(const DecodeArguments& a, int64_t index) {
  if (!a.mirrored) return nullptr;
  const int64_t map = index - index % a.keypoints + a.pair[index % a.keypoints];
  return static_cast<const T*>(a.mirrored) + map * a.height * a.width;
}

template <class T>
void decode_typed_map(const DecodeArguments& a, int64_t index, Scratch& scratch) {
  const int64_t person = index / a.keypoints;
  const int64_t size = int64_t(a.height) * a.width;
  const T* own = static_cast<const T*>(a.heatmaps) + index * size;
  const T* mirrored = mirrored_map<T>(a, index);
  const T* next = mirrored_map<T>(a, index + 1 < a.count * a.keypoints ? index + 1 : index);
  T* averaged = a.averaged ? static_cast<T*>(a.averaged) + index * size : nullptr;
  AveragedMap<T> map{own, mirrored, next, a.shift_mirrored, a.height, a.width};

  // Averages go out on the way past, except those that would be rounded onto the values they are made of.
  const bool in_place = averaged == own;
  const bool rounds = sizeof(T) < sizeof(float);
  TopTwo rows;
  if (averaged && !in_place) {
    rows = top_two_rows(map, [&](auto vector, int y, int x) { vector.stream(averaged + y * a.width + x); });
  } else if (averaged && !rounds) {
    rows = top_two_rows(map, [&](auto vector, int y, int x) { vector.store(averaged + y * a.width + x); });
    map.mirrored = nullptr;
  } else {
    rows = top_two_rows(map, [](auto, int, int) {});
  }

  const TopTwo top = top_two_cells(map, rows, scratch.floats(size_t(a.width)));
  const Offset offset = top.first.index < 0 ? Offset{0.0f, 0.0f} : offset_beside(a, map, top);
  write_point(a, top.first, offset, a.transforms ? a.transforms + 6 * person : nullptr, a.points + 2 * index,
              a.heat + index);
  if (in_place && rounds) {
    for (int y = 0; y < a.height; ++y) {
      map.sweep_row(y, [&](auto vector, int x) { vector.store(averaged + y * a.width + x); });
    }
  }
}

void decode_map(const DecodeArguments& a, int64_t index, Scratch& scratch) {
  if (a.element == Element::float16) {
    decode_typed_map<Half>(a, index, scratch);
  } else {
    decode_typed_map<float>(a, index, scratch);
  }
}

}  // namespace
}  // namespace OAKS_ISA
}  // namespace oaks::cpu
