// The hot loop of decode. Included by kernels.cpp alone.
#pragma once

#include "core/decode.h"
#include "cpu/simd.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// The flip-averaged map of one keypoint of one person. It is not stored: averaging a row again where it is
// needed again costs less than writing every row.
template <class T>
struct AveragedMap {
  const T* map;
  const T* mirrored;       // null: no averaging
  const T* next_mirrored;  // the mirrored map that is read next; only prefetched
  bool shift;
  int height, width;

  const T* row(int y) const { return map + y * width; }
  const T* mirrored_row(int y) const { return mirrored + y * width; }

  float operator()(int y, int x) const {
    const float value = to_float(row(y)[x]);
    if (!mirrored) return value;
    return flip_average(value, to_float(mirrored_row(y)[mirrored_column(x, width, shift)]));
  }

  // Passes every vector of row y to write(vector, column); returns the largest value of each lane, never NaN.
  template <class Write>
  OAKS_HOST_DEVICE Widest sweep_row(int y, const Write& write) const {
    Widest maximum = Widest::all(-INFINITY);
    const T* from = row(y);
    if (!mirrored) {
      sweep(0, width, [&](auto vector, int x) {
        const auto value = decltype(vector)::load(from + x);
        write(value, x);
        maximum = larger(widened(value), maximum);
      });
      return maximum;
    }
    // The mirrored row is read backwards: a vector's first lane takes column `last`, the next lanes the
    // columns before it. With the shift, column 0 is handled alone.
    const T* back = mirrored_row(y);
    const auto average = [&](auto vector, int x) {
      using Vector = decltype(vector);
      const int last = mirrored_column(x, width, shift);
      const auto value =
          flip_average(Vector::load(from + x), Vector::load_reversed(back + last - (Vector::lanes - 1)));
      write(value, x);
      maximum = larger(widened(value), maximum);
    };
    if (shift) average(Vector1{}, 0);
    sweep(shift ? 1 : 0, width, average);
    return maximum;
  }
};

// Prefetches a row of the mirrored map: hardware prefetchers follow the map's own rows, but not rows read
// backwards and from pair to pair.
template <class T>
OAKS_HOST_DEVICE void prefetch_row([[maybe_unused]] const T* row, [[maybe_unused]] int width) {
#if defined(__GNUC__)
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int i = 0; i < width * int(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, 0, 2);
#endif
}

constexpr int kPrefetchBytes = 2048;

// TopTwo per lane over a sequence of vectors, without a branch: where a maximum changes is unpredictable, and
// a mispredicted branch stalls the loads. NaN is not allowed.
struct LaneTopTwo {
  Widest first = Widest::all(-INFINITY), second = first;
  Indices first_index = Indices{} - 1, second_index = first_index;

  // Each lane's indices must be ascending: a later one never wins a tie.
  OAKS_HOST_DEVICE void offer(Widest value, Indices index) {
    const auto before_first = value.v > first.v, before_second = value.v > second.v;
    second.v = before_first ? first.v : (before_second ? value.v : second.v);
    second_index = before_first ? first_index : (before_second ? index : second_index);
    first.v = before_first ? value.v : first.v;
    first_index = before_first ? index : first_index;
  }

  // The two best over all lanes. The index of the first is excluded in every lane.
  OAKS_HOST_DEVICE TopTwo of_all_lanes() const {
    TopTwo top;
    top.first = first_of(first, first_index);
    const auto won = first_index == top.first.index;
    top.second = first_of({won ? second.v : first.v}, won ? second_index : first_index);
    return top;
  }

 private:
  OAKS_HOST_DEVICE static Cell first_of(Widest values, Indices indices) {
    const float largest = values.largest();
    const Indices candidates = values.v == Widest::all(largest).v ? indices : Indices{} + INT32_MAX;
    int32_t listed[Widest::lanes];
    memcpy(listed, &candidates, sizeof listed);
    int32_t lowest = INT32_MAX;
    for (int32_t index : listed) lowest = index < lowest ? index : lowest;
    return {largest, lowest};
  }
};

// The rows with the two largest maxima. Every vector is also passed to write(vector, row, column).
template <class T, class Write>
OAKS_HOST_DEVICE TopTwo top_two_rows(const AveragedMap<T>& map, const Write& write) {
  const int ahead = kPrefetchBytes / (map.width * int(sizeof(T)));
  LaneTopTwo rows;
  for (int y = 0; y < map.height; ++y) {
    if (map.mirrored) {
      const int left = y + ahead - map.height;
      prefetch_row(left < 0 ? map.mirrored_row(y + ahead) : map.next_mirrored + left * map.width, map.width);
    }
    const Widest maximum = map.sweep_row(y, [&](auto vector, int x) { write(vector, y, x); });
    rows.offer(maximum, Indices{} + y);
  }
  return rows.of_all_lanes();
}

OAKS_HOST_DEVICE Indices lane_numbers() {
  int32_t counted[Widest::lanes];
  for (int i = 0; i < Widest::lanes; ++i) counted[i] = i;
  Indices lanes;
  memcpy(&lanes, counted, sizeof lanes);
  return lanes;
}

// -infinity, which never wins, in the lanes that are not finite.
OAKS_HOST_DEVICE Widest finite_or_lowest(Widest value) {
  return {value.v < INFINITY ? value.v : Widest::all(-INFINITY).v};
}

// Offers the cells of row y that are finite.
template <class T>
OAKS_HOST_DEVICE void offer_row(const AveragedMap<T>& map, int y, LaneTopTwo& top) {
  const Indices lanes = lane_numbers();
  map.sweep_row(y, [&](auto vector, int x) {
    top.offer(finite_or_lowest(widened(vector)), lanes + (y * map.width + x));
  });
}

// The two highest cells lie in the two rows with the highest maxima, unless an +infinity, which cannot be a
// peak, hides the order of the rows.
template <class T>
TopTwo top_two_cells(const AveragedMap<T>& map, TopTwo rows) {
  LaneTopTwo top;
  if (rows.first.index >= 0 && !is_finite(rows.first.value)) {
    for (int y = 0; y < map.height; ++y) offer_row(map, y, top);
    return top.of_all_lanes();
  }
  const int a = rows.first.index, b = rows.second.index, upper = a < b ? a : b, lower = a < b ? b : a;
  if (upper >= 0) offer_row(map, upper, top);
  if (lower >= 0) offer_row(map, lower, top);
  return top.of_all_lanes();
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

template <class T, class Arguments>
const T* mirrored_map(const Arguments& a, int64_t index) {
  if (!a.mirrored) return nullptr;
  const int64_t map = index - index % a.keypoints + a.pair[index % a.keypoints];
  return static_cast<const T*>(a.mirrored) + map * a.height * a.width;
}

template <class T>
void decode_typed_map(const DecodeArguments& a, int64_t index) {
  const int64_t person = index / a.keypoints;
  const int64_t size = int64_t(a.height) * a.width;
  const T* own = static_cast<const T*>(a.heatmaps) + index * size;
  const T* mirrored = mirrored_map<T>(a, index);
  const T* next = mirrored_map<T>(a, index + 1 < a.count * a.keypoints ? index + 1 : index);
  T* averaged = a.averaged ? static_cast<T*>(a.averaged) + index * size : nullptr;
  AveragedMap<T> map{own, mirrored, next, a.shift_mirrored, a.height, a.width};

  // Averages are written in the same pass, except half averages in place: rows are averaged again below, and
  // that must not start from rounded averages.
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

  const TopTwo top = top_two_cells(map, rows);
  const Offset offset = top.first.index < 0 ? Offset{0.0f, 0.0f} : offset_beside(a, map, top);
  write_point(a, top.first, offset, a.transforms ? a.transforms + 6 * person : nullptr, a.points + 2 * index,
              a.heat + index);
  if (in_place && rounds) {
    for (int y = 0; y < a.height; ++y) {
      map.sweep_row(y, [&](auto vector, int x) { vector.store(averaged + y * a.width + x); });
    }
  }
}

void decode_map(const DecodeArguments& a, int64_t index) {
  if (a.element == Element::float16) {
    decode_typed_map<Half>(a, index);
  } else {
    decode_typed_map<float>(a, index);
  }
}

}  // namespace
}  // namespace OAKS_ISA
}  // namespace oaks::cpu
