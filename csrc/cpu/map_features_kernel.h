// The hot loop of map_features and pose_features. Included by kernels.cpp alone.
#pragma once

#include <cfloat>

#include "core/map_features.h"
#include "cpu/decode_kernel.h"
#include "cpu/dispatch.h"

namespace oaks::cpu {
inline namespace OAKS_ISA {
namespace {

// One averaged map with a border, so that every cell has eight neighbors and every row can be read in whole
// vectors. Border cells are lower than any cell of the map.
struct BorderedMap {
  float* cells;  // (height + 2) * stride
  int height, width;

  static int64_t row_length(int width) {
    return int64_t(width + Widest::lanes - 1) / Widest::lanes * Widest::lanes + 2;
  }
  static int64_t size(int height, int width) { return (height + 2) * row_length(width); }

  void clear() const {
    for (int64_t i = 0; i < size(height, width); ++i) cells[i] = -FLT_MAX;
  }
  OAKS_HOST_DEVICE float* row(int y) const { return cells + (y + 1) * row_length(width) + 1; }
  OAKS_HOST_DEVICE float operator()(int y, int x) const { return row(y)[x]; }
};

OAKS_HOST_DEVICE float sum_of_lanes(Widest vector) {
  float lanes[Widest::lanes], sum = 0.0f;
  vector.store(lanes);
  for (float lane : lanes) sum += lane;
  return sum;
}

// For each lane, the largest of the cell and its two neighbors in the row.
OAKS_HOST_DEVICE Widest largest_of_three(const float* cell) {
  return larger(larger(Widest::load(cell - 1), Widest::load(cell)), Widest::load(cell + 1));
}

// Sums over a map, and its two highest local peaks. The map's peak must be at least kMinHeat.
struct MapWalk {
  MapSums sums;
  TopTwo peaks;
};

OAKS_HOST_DEVICE MapWalk walk_map(const BorderedMap& map, Cell peak) {
  const Widest zero = Widest::all(0.0f), one = Widest::all(1.0f), lowest = Widest::all(-INFINITY);
  const Widest per_heat = Widest::all(1.0f / peak.value), half = Widest::all(0.5f * peak.value);
  const Widest counted = Widest::all(kPeakPart * peak.value);
  Widest mass = zero, sum_x = zero, sum_y = zero, squared_distance = zero, squares = zero;
  Widest half_cells = zero, peak_cells = zero, nan_flag = zero;
  LaneTopTwo peaks;
  const Indices lanes = lane_numbers();
  float columns[Widest::lanes];
  for (int i = 0; i < Widest::lanes; ++i) columns[i] = float(i);
  const Widest from_peak = Widest::load(columns) + Widest::all(-float(peak.index % map.width));
  for (int y = 0; y < map.height; ++y) {
    const float *row = map.row(y), *above = map.row(y - 1), *below = map.row(y + 1);
    const Widest dy = Widest::all(float(y - peak.index / map.width));
    for (int x = 0; x < map.width; x += Widest::lanes) {
      const Widest value = Widest::load(row + x), dx = from_peak + Widest::all(float(x));
      nan_flag = nan_flag + Widest{value.v - value.v};
      const Widest part = larger(value, zero) * per_heat, part_x = part * dx, part_y = part * dy;
      mass = mass + part;
      sum_x = sum_x + part_x;
      sum_y = sum_y + part_y;
      squared_distance = fused(part_x, dx, fused(part_y, dy, squared_distance));
      squares = fused(part, part, squares);
      half_cells = half_cells + Widest{value.v >= half.v ? one.v : zero.v};
      const Widest before = larger(largest_of_three(above + x), Widest::load(row + x - 1));
      const Widest behind = larger(largest_of_three(below + x), Widest::load(row + x + 1));
      Widest local{value.v > before.v ? value.v : lowest.v};  // as is_local_peak
      local.v = value.v >= behind.v ? local.v : lowest.v;
      local.v = local.v > zero.v ? local.v : lowest.v;
      peak_cells = peak_cells + Widest{local.v >= counted.v ? one.v : zero.v};
      peaks.offer(local, lanes + (y * map.width + x));
    }
  }
  return {{sum_of_lanes(mass), sum_of_lanes(sum_x), sum_of_lanes(sum_y), sum_of_lanes(squared_distance),
           sum_of_lanes(squares), sum_of_lanes(half_cells), sum_of_lanes(peak_cells), sum_of_lanes(nan_flag)},
          peaks.of_all_lanes()};
}

// Working memory for one person.
struct PersonScratch {
  float* bordered;       // a BorderedMap
  float* mirrored_back;  // (height, width)
  float* heat;           // (keypoints)
  float* sorted;         // (keypoints), the heats in ascending order
  int* peaks;            // (keypoints), flat indices

  PersonScratch(const FeatureArguments& a, Scratch& scratch) {
    const int64_t border = a.heatmaps ? BorderedMap::size(a.height, a.width) : 0;
    const int64_t map = a.mirrored ? int64_t(a.height) * a.width : 0;
    bordered = scratch.floats(size_t(border + map + 2 * a.keypoints));
    mirrored_back = bordered + border;
    heat = mirrored_back + map;
    sorted = heat + a.keypoints;
    peaks = scratch.indices(size_t(a.keypoints));
  }
};

template <class T>
Cell highest_cell(const T* map, int height, int width) {
  const MapPair<T> alone{map, nullptr, false, height, width};
  return top_two_cells(alone, top_two_rows(alone, map, [](auto, int, int) {})).first;
}

template <class T>
void write_flip_features_of(const MapPair<T>& maps, Cell peak, float* mirrored_back, float* out) {
  const int height = maps.height, width = maps.width;
  for (int y = 0; y < height; ++y) {
    sweep_back(maps, y, [&](auto vector, int x) { vector.store(mirrored_back + y * width + x); });
  }
  const Cell own = highest_cell(maps.map, height, width), back = highest_cell(mirrored_back, height, width);
  const int y = peak.index / width, x = peak.index % width;
  write_flip_features(own, back, maps.own(y, x), maps.back(y, x), width, out);
}

// Writes the features of one keypoint's map, and its peak and heat into `scratch`. Returns whether all values
// of the averaged map are finite.
template <class T>
bool analyze_map(const FeatureArguments& a, int64_t person, int k, const PersonScratch& scratch, float* out) {
  const BorderedMap bordered{scratch.bordered, a.height, a.width};
  const MapPair<T> maps = map_pair<T>(a, person, k);
  const TopTwo rows = top_two_rows(maps, next_mirrored<T>(a, person * a.keypoints + k),
                                   [&](auto vector, int y, int x) { vector.store(bordered.row(y) + x); });
  const Cell peak = top_two_cells(maps, rows).first;
  if (peak.index < 0) return false;
  scratch.peaks[k] = peak.index;
  scratch.heat[k] = peak.value;
  const MapWalk walk = walk_map(bordered, peak);
  if (!is_finite(walk.sums.nan_flag)) return false;
  // An empty map may have no local peak; its peak is used instead.
  const bool empty = !(peak.value >= kMinHeat);
  const PeakWindow window =
      empty ? PeakWindow{} : peak_window(bordered, peak.index, a.height, a.width, 1.0f / peak.value);
  const TopTwo peaks = empty ? TopTwo{peak, {}} : walk.peaks;
  write_map_features(walk.sums, peaks, window, a.width, a.left[k] != 0, out);
  if (a.mirrored) write_flip_features_of(maps, peak, scratch.mirrored_back, out + kMapFeatures);
  return true;
}

template <class T>
bool analyze_maps(const FeatureArguments& a, int64_t person, const PersonScratch& scratch, float* features) {
  const int row = feature_count(a), first = first_map_feature(a.keypoints);
  BorderedMap{scratch.bordered, a.height, a.width}.clear();
  for (int k = 0; k < a.keypoints; ++k) {
    if (!analyze_map<T>(a, person, k, scratch, features + int64_t(k) * row + first)) return false;
  }
  const auto at = [&](int keypoint, int cell) {
    return map_pair<T>(a, person, keypoint)(cell / a.width, cell % a.width);
  };
  for (int k = 0; k < a.keypoints; ++k) {
    write_other_maps(a, at, scratch.peaks, k, features + int64_t(k) * row + first);
  }
  return true;
}

bool read_heat(const FeatureArguments& a, int64_t person, float* heat) {
  for (int k = 0; k < a.keypoints; ++k) heat[k] = a.heat[person * a.keypoints + k];
  return true;
}

// Insertion sort, which is fast for the few keypoints of a person.
void sort(const float* values, int count, float* sorted) {
  for (int k = 0; k < count; ++k) {
    int place = k;
    for (; place > 0 && sorted[place - 1] > values[k]; --place) sorted[place] = sorted[place - 1];
    sorted[place] = values[k];
  }
}

void person_features(const FeatureArguments& a, int64_t person, Scratch& memory) {
  const PersonScratch scratch(a, memory);
  const int row = feature_count(a);
  float* features = a.features + person * a.keypoints * row;
  const float* points = a.points + person * a.keypoints * 2;
  const bool half = a.element == Element::float16;
  const bool finite = !a.heatmaps ? read_heat(a, person, scratch.heat)
                      : half      ? analyze_maps<Half>(a, person, scratch, features)
                                  : analyze_maps<float>(a, person, scratch, features);
  const PersonFrame frame = person_frame(a.boxes + 4 * person, a.frame_sizes + 2 * person);
  float nan_flag = frame.nan_flag;
  for (int k = 0; k < a.keypoints; ++k) nan_flag += zero_or_nan(points + 2 * k, scratch.heat[k]);
  if (!finite || nan_flag != 0.0f) return mark_not_finite(features, a.keypoints * row);
  sort(scratch.heat, a.keypoints, scratch.sorted);
  const HeatFigures figures = heat_figures(scratch.sorted, a.keypoints);
  for (int k = 0; k < a.keypoints; ++k) {
    write_pose_features(a, k, frame, points, scratch.heat, figures, features + int64_t(k) * row);
  }
}

}  // namespace
}  // namespace OAKS_ISA
}  // namespace oaks::cpu
