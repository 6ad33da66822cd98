// The hot loop of decode. Only kernels.cpp includes it.
#pragma once

#include "core/decode.h"
#include "cpu/simd.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// Passes vectors of row y of the mirrored-back map to use(vector, column). The row of the mirrored map is
// read backwards: a vector's first lane holds its column `last`, the next lanes the columns before that. With
// the shift, column 0 does not follow this order and is handled separately.
template <class T, class Use>
OAKS_HOST_DEVICE void sweep_back(const MapPair<T>& maps, int y, const Use& use) {
  const T* back = maps.mirrored + y * maps.width;
  const auto reversed = [&](auto vector, int x) {
    using Vector = decltype(vector);
    const int last = mirrored_column(x, maps.width, maps.shift);
    use(Vector::load_reversed(back + last - (Vector::lanes - 1)), x);
  };
  if (maps.shift) reversed(Vector1{}, 0);
  sweep(maps.shift ? 1 : 0, maps.width, reversed);
}

// Passes every vector of row y of the average to write(vector, column); returns the largest value in each
// lane, ignoring NaN.
template <class T, class Write>
OAKS_HOST_DEVICE Widest sweep_row(const MapPair<T>& maps, int y, const Write& write) {
  Widest maximum = Widest::all(-INFINITY);
  const T* own = maps.map + y * maps.width;
  const auto keep = [&](auto value, int x) {
    write(value, x);
    maximum = larger(widened(value), maximum);
  };
  if (maps.mirrored) {
    sweep_back(maps, y,
               [&](auto back, int x) { keep(flip_average(decltype(back)::load(own + x), back), x); });
  } else {
    sweep(0, maps.width, [&](auto vector, int x) { keep(decltype(vector)::load(own + x), x); });
  }
  return maximum;
}

// Prefetches a row of the mirrored map: hardware prefetchers do not predict the order in which mirrored maps
// are read, with rows backwards and left and right keypoints exchanged.
template <class T>
OAKS_HOST_DEVICE void prefetch_row([[maybe_unused]] const T* row, [[maybe_unused]] int width) {
#if defined(__GNUC__)
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int i = 0; i < width * int(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, 0, 2);
#endif
}

constexpr int kPrefetchBytes = 2048;  // distance of the prefetched row from the row that is read

// A TopTwo for each lane of a sequence of vectors, updated without branches, because the position of a new
// maximum cannot be predicted. NaN is not allowed.
struct LaneTopTwo {
  Widest first = Widest::all(-INFINITY), second = first;
  Indices first_index = Indices{} - 1, second_index = first_index;

  // Indices must ascend in each lane: a later cell never wins a tie.
  OAKS_HOST_DEVICE void offer(Widest value, Indices index) {
    const auto before_first = value.v > first.v, before_second = value.v > second.v;
    second.v = before_first ? first.v : (before_second ? value.v : second.v);
    second_index = before_first ? first_index : (before_second ? index : second_index);
    first.v = before_first ? value.v : first.v;
    first_index = before_first ? index : first_index;
  }

  // The two highest cells over all lanes. The second is the highest of the remaining cells, in any lane.
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

// The two rows of the average with the largest maxima: TopTwo with a row's maximum as value and y as index.
// Every vector of the average is also passed to write(vector, y, x). next_mirrored: the mirrored map that is
// read after this one; its first rows are prefetched.
template <class T, class Write>
OAKS_HOST_DEVICE TopTwo top_two_rows(const MapPair<T>& maps, const T* next_mirrored, const Write& write) {
  const int ahead = kPrefetchBytes / (maps.width * int(sizeof(T)));
  LaneTopTwo rows;
  for (int y = 0; y < maps.height; ++y) {
    if (maps.mirrored) {
      const int left = y + ahead - maps.height;
      prefetch_row(left < 0 ? maps.mirrored + (y + ahead) * maps.width : next_mirrored + left * maps.width,
                   maps.width);
    }
    const Widest maximum = sweep_row(maps, y, [&](auto vector, int x) { write(vector, y, x); });
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

// The value with NaN and +infinity replaced by -infinity, which is never a peak.
OAKS_HOST_DEVICE Widest finite_or_lowest(Widest value) {
  return {value.v < INFINITY ? value.v : Widest::all(-INFINITY).v};
}

// Offers the finite cells of row y to `top`.
template <class T>
OAKS_HOST_DEVICE void offer_row(const MapPair<T>& maps, int y, LaneTopTwo& top) {
  const Indices lanes = lane_numbers();
  sweep_row(maps, y, [&](auto vector, int x) {
    top.offer(finite_or_lowest(widened(vector)), lanes + (y * maps.width + x));
  });
}

// The two highest finite cells. They are in the two rows with the largest maxima, unless a maximum is
// +infinity: then all rows are searched, because +infinity cannot be a peak.
template <class T>
TopTwo top_two_cells(const MapPair<T>& maps, TopTwo rows) {
  LaneTopTwo top;
  if (rows.first.index >= 0 && !is_finite(rows.first.value)) {
    for (int y = 0; y < maps.height; ++y) offer_row(maps, y, top);
    return top.of_all_lanes();
  }
  const int a = rows.first.index, b = rows.second.index, upper = a < b ? a : b, lower = a < b ? b : a;
  if (upper >= 0) offer_row(maps, upper, top);
  if (lower >= 0) offer_row(maps, lower, top);
  return top.of_all_lanes();
}

template <class T>
Offset refinement_offset(const DecodeArguments& a, const MapPair<T>& maps, TopTwo top) {
  switch (a.refine) {
    case Refine::second_peak:
      return second_peak_offset(top.first.index, top.second.index, a.width);
    case Refine::gradient:
      return gradient_offset(maps, top.first.index, a.height, a.width);
    case Refine::dark: {
      BlurredPatch patch;
      const int reach = a.blur.radius + 1;
      const int x = top.first.index % a.width, y = top.first.index / a.width;
      for (int dy = -reach; dy <= reach; ++dy) {
        patch.add(blur_row(maps, y + dy, x, a.height, a.width, a.blur), dy, a.blur);
      }
      return dark_offset(patch, top.first.index, a.height, a.width);
    }
    case Refine::none:
      break;
  }
  return {0.0f, 0.0f};
}

// index: person * keypoints + keypoint.
template <class T, class Arguments>
OAKS_HOST_DEVICE MapPair<T> map_pair_at(const Arguments& a, int64_t index) {
  return map_pair<T>(a, index / a.keypoints, int(index % a.keypoints));
}

// The mirrored map that is read after that of `index`; that of `index` itself if it is the last.
template <class T, class Arguments>
OAKS_HOST_DEVICE const T* next_mirrored(const Arguments& a, int64_t index) {
  return map_pair_at<T>(a, index + 1 < a.count * a.keypoints ? index + 1 : index).mirrored;
}

template <class T>
void decode_typed_map(const DecodeArguments& a, int64_t index) {
  MapPair<T> maps = map_pair_at<T>(a, index);
  const T* next = next_mirrored<T>(a, index);
  T* averaged = a.averaged ? static_cast<T*>(a.averaged) + index * (a.height * a.width) : nullptr;

  // Averages are written while the rows are searched, except half averages in place: top_two_cells averages
  // rows again, and must not read rounded averages.
  const bool in_place = averaged == maps.map;
  const bool rounds = sizeof(T) < sizeof(float);
  TopTwo rows;
  if (averaged && !in_place) {
    rows = top_two_rows(maps, next,
                        [&](auto vector, int y, int x) { vector.stream(averaged + y * a.width + x); });
  } else if (averaged && !rounds) {
    rows = top_two_rows(maps, next,
                        [&](auto vector, int y, int x) { vector.store(averaged + y * a.width + x); });
    maps.mirrored = nullptr;
  } else {
    rows = top_two_rows(maps, next, [](auto, int, int) {});
  }

  const TopTwo top = top_two_cells(maps, rows);
  const Offset offset = top.first.index < 0 ? Offset{0.0f, 0.0f} : refinement_offset(a, maps, top);
  const int64_t person = index / a.keypoints;
  write_point(a, top.first, offset, a.transforms ? a.transforms + 6 * person : nullptr, a.points + 2 * index,
              a.heat + index);
  if (in_place && rounds) {
    for (int y = 0; y < a.height; ++y) {
      sweep_row(maps, y, [&](auto vector, int x) { vector.store(averaged + y * a.width + x); });
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
