// The arithmetic of pose_features and map_features, the inputs of scorers. oaks/ops/_map_features.py names
// and defines the features, in the order of the enums below.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/decode.h"
#include "core/host_device.h"

namespace oaks {

// Features of the pose. They are followed by the heat of each of the person's keypoints, then by the x, then
// by the y of each relative to this keypoint.
enum PoseFeature : int {
  kJoint,
  kHeat,
  kBoxX,
  kBoxY,
  kBoxBorder,
  kFrameLeft,
  kFrameTop,
  kFrameRight,
  kFrameBottom,
  kScale,
  kAspect,
  kHeatMin,
  kHeatLowerQuartile,
  kHeatMedian,
  kHeatUpperQuartile,
  kHeatMax,
  kHeatMean,
  kPoseFeatures
};

// Features of the heatmap; only in map_features.
enum MapFeature : int {
  kSecondHeat,
  kSecondRatio,
  kSecondX,
  kSecondY,
  kSecondDistance,
  kMass,
  kMassNear,
  kCenterX,
  kCenterY,
  kSpread,
  kLocalSpread,
  kEntropy,
  kPeaks,
  kRing,
  kHalfArea,
  kPairAtPeak,
  kAtPairPeak,
  kOthersAtPeak,
  kMapFeatures
};

// Features of the mirrored crop's map; only where that is given.
enum FlipFeature : int { kFlipDistance, kFlipDifference, kFlipHeat, kFlipFeatures };

// The arguments of one call of pose_features or map_features. Pointers are host pointers for cpu/, device
// pointers for cuda/.
struct FeatureArguments {
  const void* heatmaps;  // (count, keypoints, height, width), `element`; or null: features of the pose alone
  const void* mirrored;  // the same shape: the raw output for the mirrored crop; or null
  const float* points;   // (count, keypoints, 2) x, y in image pixels
  const float* heat;     // (count, keypoints); null where it is read from the heatmaps
  const float* boxes;    // (count, 4) x1, y1, x2, y2
  const float* frame_sizes;  // (count, 2) width, height
  float* features;           // (count, keypoints, feature_count)
  int64_t count;
  int keypoints, height, width;
  Element element;
  bool shift_mirrored;          // as in DecodeArguments
  int16_t pair[kMaxKeypoints];  // index of each keypoint's left-right counterpart, or its own
  uint8_t left[kMaxKeypoints];  // 1: a left keypoint; its features are computed mirrored, as a right one's
};

// Index of the heatmap's first feature in a keypoint's row.
OAKS_HOST_DEVICE int first_map_feature(int keypoints) { return kPoseFeatures + 3 * keypoints; }

OAKS_HOST_DEVICE int feature_count(int keypoints, bool maps, bool mirrored) {
  return first_map_feature(keypoints) + (maps ? int(kMapFeatures) : 0) + (mirrored ? int(kFlipFeatures) : 0);
}

OAKS_HOST_DEVICE int feature_count(const FeatureArguments& a) {
  return feature_count(a.keypoints, a.heatmaps != nullptr, a.mirrored != nullptr);
}

OAKS_HOST_DEVICE float smaller(float a, float b) { return a < b ? a : b; }
OAKS_HOST_DEVICE float larger_of(float a, float b) { return a > b ? a : b; }

// The person's box and frame, in which features of the pose are measured.
struct PersonFrame {
  float x1, y1, width, height;  // the box; a side shorter than a pixel counts as one pixel
  float frame_width, frame_height;
  float scale;     // the square root of the box's area
  float nan_flag;  // NaN if any of the input is not finite, else 0
};

// NaN if the value is not finite, else 0. Sums of it tell whether all values are finite, without a branch.
OAKS_HOST_DEVICE float zero_or_nan(float value) { return value - value; }

// NaN if a keypoint's position or heat is not finite, else 0.
OAKS_HOST_DEVICE float zero_or_nan(const float* point, float heat) {
  return zero_or_nan(point[0]) + zero_or_nan(point[1]) + zero_or_nan(heat);
}

OAKS_HOST_DEVICE PersonFrame person_frame(const float* box, const float* frame_size) {
  PersonFrame frame{box[0], box[1], box[2] - box[0], box[3] - box[1], frame_size[0], frame_size[1],
                    0.0f,   0.0f};
  for (int i = 0; i < 4; ++i) frame.nan_flag += zero_or_nan(box[i]);
  frame.nan_flag += zero_or_nan(frame_size[0]) + zero_or_nan(frame_size[1]);
  if (frame.width < 1.0f) frame.width = 1.0f;
  if (frame.height < 1.0f) frame.height = 1.0f;
  frame.scale = sqrtf(frame.width * frame.height);
  return frame;
}

// The quantile `part`, 0 to 1, of sorted values, interpolated linearly. Values: any type that can be indexed.
template <class Values>
OAKS_HOST_DEVICE float quantile(const Values& sorted, int count, float part) {
  const float place = part * float(count - 1);
  const int low = int(place), high = low + 1 < count ? low + 1 : low;
  const float fraction = place - float(low);
  const float below = sorted[low], above = sorted[high];
  return below + (above - below) * fraction;
}

struct HeatFigures {
  float least, lower_quartile, median, upper_quartile, largest, mean;
};

template <class Values>
OAKS_HOST_DEVICE HeatFigures heat_figures(const Values& sorted, int count) {
  float mean = 0.0f;
  for (int k = 0; k < count; ++k) mean += sorted[k] / float(count);
  return {sorted[0],
          quantile(sorted, count, 0.25f),
          quantile(sorted, count, 0.5f),
          quantile(sorted, count, 0.75f),
          sorted[count - 1],
          mean};
}

// Features of the pose for keypoint k. points: (keypoints, 2) of the person; heat: (keypoints).
template <class Values>
OAKS_HOST_DEVICE void write_pose_features(const FeatureArguments& a, int k, const PersonFrame& frame,
                                          const float* points, const Values& heat, const HeatFigures& figures,
                                          float* out) {
  const bool left = a.left[k] != 0;
  const float x = points[2 * k], y = points[2 * k + 1];
  // A box edge at 0 is half a pixel before the center of pixel 0.
  const float in_box_x = x + 0.5f - frame.x1, in_box_y = y + 0.5f - frame.y1;
  const float across = in_box_x / frame.width;
  const float before = (x + 0.5f) / frame.scale, behind = (frame.frame_width - x - 0.5f) / frame.scale;
  out[kJoint] = float(left ? a.pair[k] : k);
  out[kHeat] = heat[k];
  out[kBoxX] = left ? 1.0f - across : across;
  out[kBoxY] = in_box_y / frame.height;
  out[kBoxBorder] =
      smaller(smaller(in_box_x, frame.width - in_box_x), smaller(in_box_y, frame.height - in_box_y)) /
      frame.scale;
  out[kFrameLeft] = left ? behind : before;
  out[kFrameTop] = (y + 0.5f) / frame.scale;
  out[kFrameRight] = left ? before : behind;
  out[kFrameBottom] = (frame.frame_height - y - 0.5f) / frame.scale;
  out[kScale] = frame.scale;
  out[kAspect] = frame.width / frame.height;
  out[kHeatMin] = figures.least;
  out[kHeatLowerQuartile] = figures.lower_quartile;
  out[kHeatMedian] = figures.median;
  out[kHeatUpperQuartile] = figures.upper_quartile;
  out[kHeatMax] = figures.largest;
  out[kHeatMean] = figures.mean;
  for (int i = 0; i < a.keypoints; ++i) {
    const int other = left ? a.pair[i] : i;
    const float dx = (points[2 * other] - x) / frame.scale;
    out[kPoseFeatures + i] = heat[other];
    out[kPoseFeatures + a.keypoints + i] = left ? -dx : dx;
    out[kPoseFeatures + 2 * a.keypoints + i] = (points[2 * other + 1] - y) / frame.scale;
  }
}

// Makes all features of a person NaN, because an input is not finite.
OAKS_HOST_DEVICE void mark_not_finite(float* out, int features) {
  for (int i = 0; i < features; ++i) out[i] = NAN;
}

// A map whose largest value is below this counts as empty: it has no peak.
constexpr float kMinHeat = 1e-30f;
// Local peaks below this fraction of the heat are not counted.
constexpr float kPeakPart = 0.25f;

// Distances from the peak, as the larger of those along x and y.
constexpr int kNearReach = 2;   // mass_near: up to this distance, 5 x 5 cells
constexpr int kRingReach = 3;   // ring: at exactly this distance, the border of 7 x 7 cells
constexpr int kLocalReach = 4;  // local_spread: up to this distance, 9 x 9 cells

// Sums over all cells of a map. Values are divided by the heat, negative values count as 0, and x, y and
// distances are relative to the peak.
struct MapSums {
  float mass = 0.0f, x = 0.0f, y = 0.0f, squared_distance = 0.0f, squares = 0.0f;
  float half = 0.0f;      // cells of at least half the heat
  float peaks = 0.0f;     // local peaks of at least kPeakPart of the heat
  float nan_flag = 0.0f;  // NaN if any value is not finite
};

// Whether a positive cell ranks before all of its 8 neighbors: larger values first, ties to the lower index.
// before: the largest neighbor with a lower flat index; behind: the largest with a higher one.
OAKS_HOST_DEVICE bool is_local_peak(float value, float before, float behind) {
  return value > 0.0f && value > before && value >= behind;
}

// Sums over the cells near the peak, in the units of MapSums.
struct PeakWindow {
  float near = 0.0f, local = 0.0f, squared_distance = 0.0f, ring = 0.0f;
  int ring_cells = 0;
};

// at(y, x): the averaged map. per_heat: 1 / heat.
template <class Map>
OAKS_HOST_DEVICE PeakWindow peak_window(const Map& at, int peak, int height, int width, float per_heat) {
  const int peak_x = peak % width, peak_y = peak / width;
  PeakWindow window;
  for (int dy = -kLocalReach; dy <= kLocalReach; ++dy) {
    if (peak_y + dy < 0 || peak_y + dy >= height) continue;
    for (int dx = -kLocalReach; dx <= kLocalReach; ++dx) {
      if (peak_x + dx < 0 || peak_x + dx >= width) continue;
      const float value = larger_of(at(peak_y + dy, peak_x + dx), 0.0f) * per_heat;
      const int reach = abs(dx) > abs(dy) ? abs(dx) : abs(dy);
      window.local += value;
      window.squared_distance += value * float(dx * dx + dy * dy);
      if (reach <= kNearReach) window.near += value;
      if (reach == kRingReach) window.ring += value, ++window.ring_cells;
    }
  }
  return window;
}

// Features of one map, except those that read other keypoints' maps. mirrored: a left keypoint, whose x
// differences change sign.
OAKS_HOST_DEVICE void write_map_features(const MapSums& sums, const TopTwo& peaks, const PeakWindow& window,
                                         int width, bool mirrored, float* out) {
  const float sign = mirrored ? -1.0f : 1.0f;
  for (int i = 0; i < kMapFeatures; ++i) out[i] = 0.0f;
  if (!(peaks.first.value >= kMinHeat)) return;
  if (peaks.second.index >= 0 && peaks.second.value > 0.0f) {
    const float dx = float(peaks.second.index % width - peaks.first.index % width);
    const float dy = float(peaks.second.index / width - peaks.first.index / width);
    out[kSecondHeat] = peaks.second.value;
    out[kSecondRatio] = peaks.second.value / peaks.first.value;
    out[kSecondX] = sign * dx;
    out[kSecondY] = dy;
    out[kSecondDistance] = sqrtf(dx * dx + dy * dy);
  }
  out[kMass] = sums.mass;
  out[kMassNear] = window.near / sums.mass;
  out[kCenterX] = sign * sums.x / sums.mass;
  out[kCenterY] = sums.y / sums.mass;
  out[kSpread] = sqrtf(sums.squared_distance / sums.mass);
  out[kLocalSpread] = sqrtf(window.squared_distance / window.local);
  out[kEntropy] = logf(sums.mass * sums.mass / sums.squares);
  out[kPeaks] = sums.peaks;
  out[kRing] = window.ring_cells ? window.ring / float(window.ring_cells) : 0.0f;
  out[kHalfArea] = sums.half;
}

// Values of other keypoints' maps at the peak of keypoint k, and of its map at its counterpart's peak.
// at(keypoint, cell): the averaged maps; peaks: the flat index of each keypoint's peak.
template <class Maps, class Peaks>
OAKS_HOST_DEVICE void write_other_maps(const FeatureArguments& a, const Maps& at, const Peaks& peaks, int k,
                                       float* out) {
  const int counterpart = a.pair[k], cell = peaks[k];
  float others = 0.0f;
  bool any = false;
  for (int i = 0; i < a.keypoints; ++i) {
    if (i == k || i == counterpart) continue;
    const float value = at(i, cell);
    others = any ? larger_of(others, value) : value;
    any = true;
  }
  out[kPairAtPeak] = counterpart == k ? 0.0f : at(counterpart, cell);
  out[kAtPairPeak] = counterpart == k ? 0.0f : at(k, int(peaks[counterpart]));
  out[kOthersAtPeak] = others;
}

// own, mirrored: the highest cells of the map and of the mirrored-back map; own_value, mirrored_value: values
// of the two maps at the peak of their average.
OAKS_HOST_DEVICE void write_flip_features(Cell own, Cell mirrored, float own_value, float mirrored_value,
                                          int width, float* out) {
  const float dx = float(mirrored.index % width - own.index % width);
  const float dy = float(mirrored.index / width - own.index / width);
  out[kFlipDistance] = sqrtf(dx * dx + dy * dy);
  out[kFlipDifference] = fabsf(own_value - mirrored_value);
  out[kFlipHeat] = mirrored.value;
}

}  // namespace oaks
