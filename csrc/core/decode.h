// The arithmetic of decode: average with the mirrored crop's maps, peak, sub-pixel refinement, and transform
// to image pixels. The loops over maps are in cpu/ and cuda/.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "core/half.h"
#include "core/host_device.h"

namespace oaks {

constexpr int kMaxKeypoints = 512;

enum class Element : int { float32 = 0, float16 = 1 };
enum class Refine : int { none = 0, second_peak = 1, gradient = 2, dark = 3 };

// Heatmap index -> crop index along one axis: crop = scale * index + shift.
struct AxisMap {
  float scale, shift;
};

// The Gaussian blur of DARK, cut off at 2.5 standard deviations.
constexpr float kLargestBlurSigma = 64.0f;
constexpr int kLargestBlurRadius = 160;

struct Blur {
  int radius;
  float weight[kLargestBlurRadius + 3];  // along one axis, by distance; 0 beyond the radius
};

// Called once per call of decode, on the host. sigma: in heatmap pixels, 0 to kLargestBlurSigma.
OAKS_HOST_DEVICE Blur make_blur(float sigma) {
  Blur blur{int(ceilf(2.5f * sigma)), {}};
  for (int distance = 0; distance <= blur.radius; ++distance) {
    blur.weight[distance] = expf(-float(distance * distance) / (2.0f * sigma * sigma));
  }
  return blur;
}

// The arguments of one call of decode. Pointers are host pointers for cpu/ and device pointers for cuda/.
struct DecodeArguments {
  const void* heatmaps;     // (count, keypoints, height, width), `element`
  const void* mirrored;     // the same shape: the raw output for the mirrored crop; or null
  const float* transforms;  // (count, 2, 3) crop pixel -> image pixel; or null: points stay crop pixels
  float* points;            // (count, keypoints, 2) x, y
  float* heat;              // (count, keypoints)
  void* averaged;           // (count, keypoints, height, width), `element`; may be `heatmaps` itself; or null
  int64_t count;
  int keypoints, height, width;
  Element element;
  Refine refine;
  bool shift_mirrored;  // hrnet: the mirrored-back map is shifted one pixel to the right; column 0 stays
  AxisMap x, y;
  Blur blur;                    // for dark
  int16_t pair[kMaxKeypoints];  // index of each keypoint's left-right counterpart, or its own
};

// A cell of a map: its value and flat index. Index -1 means "no cell" and ranks below every cell. Only finite
// values are ever offered as peaks.
struct Cell {
  float value;
  int index;
};

// Number: float, or a vector of floats.
template <class Number>
OAKS_HOST_DEVICE Number flip_average(Number value, Number mirrored) {
  return (value + mirrored) * 0.5f;
}

// The column of the mirrored network output that is averaged with `column` of the map.
OAKS_HOST_DEVICE int mirrored_column(int column, int width, bool shift_mirrored) {
  if (!shift_mirrored) return width - 1 - column;
  return column == 0 ? width - 1 : width - column;
}

// The map of one keypoint of one person, and the mirrored crop's map of the keypoint's left-right
// counterpart. Their average is computed whenever a cell is read: that costs less than storing it.
template <class T>
struct MapPair {
  const T* map;
  const T* mirrored;  // or null: operator() gives the map itself
  bool shift;         // as DecodeArguments::shift_mirrored
  int height, width;

  OAKS_HOST_DEVICE float own(int y, int x) const { return to_float(map[y * width + x]); }
  // A cell of the mirrored-back map, that is, of `mirrored` with its columns reversed (and shifted).
  OAKS_HOST_DEVICE float back(int y, int x) const {
    return to_float(mirrored[y * width + mirrored_column(x, width, shift)]);
  }
  // A cell of the average.
  OAKS_HOST_DEVICE float operator()(int y, int x) const {
    return mirrored ? flip_average(own(y, x), back(y, x)) : own(y, x);
  }
};

// Arguments: DecodeArguments or FeatureArguments.
template <class T, class Arguments>
OAKS_HOST_DEVICE MapPair<T> map_pair(const Arguments& a, int64_t person, int keypoint) {
  const int size = a.height * a.width;
  const int64_t first = person * a.keypoints;
  const T* const mirrored = static_cast<const T*>(a.mirrored);
  return {static_cast<const T*>(a.heatmaps) + (first + keypoint) * size,
          mirrored ? mirrored + (first + a.pair[keypoint]) * size : nullptr, a.shift_mirrored, a.height,
          a.width};
}

OAKS_HOST_DEVICE bool is_finite(float value) { return value - value == 0.0f; }

// Whether `a` ranks before `b`: larger values first, ties to the lower index, "no cell" last (-1 as uint32_t
// is the largest index).
OAKS_HOST_DEVICE bool precedes(Cell a, Cell b) {
  return a.value > b.value || (a.value == b.value && uint32_t(a.index) < uint32_t(b.index));
}

// The two highest of the cells offered so far, in any order.
struct TopTwo {
  Cell first{-INFINITY, -1}, second{-INFINITY, -1};

  OAKS_HOST_DEVICE void offer(Cell cell) {
    if (precedes(cell, first)) {
      second = first;
      first = cell;
    } else if (precedes(cell, second)) {
      second = cell;
    }
  }
};

struct Offset {
  float x, y;
};

// Section 5.1 of the paper: a quarter pixel from the peak towards the second-highest cell.
OAKS_HOST_DEVICE Offset second_peak_offset(int first, int second, int width) {
  if (second < 0) return {0.0f, 0.0f};
  const float dx = float(second % width - first % width);
  const float dy = float(second / width - first / width);
  const float quarter = 0.25f / sqrtf(dx * dx + dy * dy);
  return {dx * quarter, dy * quarter};
}

OAKS_HOST_DEVICE float quarter_by_sign(float before, float after) {
  return after > before ? 0.25f : (after < before ? -0.25f : 0.0f);
}

// A quarter pixel per axis towards the larger neighbor; 0 along an axis where the peak is on the border.
// at(y, x): the averaged map.
template <class Map>
OAKS_HOST_DEVICE Offset gradient_offset(const Map& at, int peak, int height, int width) {
  const int x = peak % width, y = peak / width;
  Offset offset{0.0f, 0.0f};
  if (x > 0 && x < width - 1) offset.x = quarter_by_sign(at(y, x - 1), at(y, x + 1));
  if (y > 0 && y < height - 1) offset.y = quarter_by_sign(at(y - 1, x), at(y + 1, x));
  return offset;
}

// DARK (Zhang et al., CVPR 2020, equations 6 to 9): one Newton step on the logarithm of the blurred map. Only
// the 3 x 3 cells around the peak are blurred, from the rows within radius + 1 of the peak.

// One row of the map, blurred along x, at the columns x - 1, x and x + 1. Cells outside the map and
// non-finite cells count as 0.
struct BlurredRow {
  float left, center, right;
};

template <class Map>
OAKS_HOST_DEVICE BlurredRow blur_row(const Map& at, int y, int x, int height, int width, const Blur& blur) {
  BlurredRow row{0.0f, 0.0f, 0.0f};
  if (y < 0 || y >= height) return row;
  const int reach = blur.radius + 1;
  for (int d = -reach; d <= reach; ++d) {
    if (x + d < 0 || x + d >= width) continue;
    const float value = at(y, x + d);
    if (!is_finite(value)) continue;
    row.left += value * blur.weight[abs(d + 1)];
    row.center += value * blur.weight[abs(d)];
    row.right += value * blur.weight[abs(d - 1)];
  }
  return row;
}

// The 3 x 3 blurred values around the peak, accumulated row by row from the top.
struct BlurredPatch {
  float value[3][3] = {{0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}};

  // dy: the row's y minus the peak's, from -radius - 1 to radius + 1.
  OAKS_HOST_DEVICE void add(BlurredRow row, int dy, const Blur& blur) {
    for (int j = 0; j < 3; ++j) {
      const int distance = abs(dy - (j - 1));
      if (distance > blur.radius) continue;
      const float weight = blur.weight[distance];
      value[j][0] += row.left * weight;
      value[j][1] += row.center * weight;
      value[j][2] += row.right * weight;
    }
  }
};

OAKS_HOST_DEVICE float clamp(float value, float low, float high) {
  return value < low ? low : (value > high ? high : value);
}

// The Newton step, clamped to one pixel per axis; 0 where the Hessian is not that of a maximum. Outside the
// map, blurred values of the border are repeated.
OAKS_HOST_DEVICE Offset dark_offset(const BlurredPatch& patch, int peak, int height, int width) {
  const int x = peak % width, y = peak / width;
  float log_value[3][3];
  // Constant indices, so that the values stay in registers.
  for (int j = 0; j < 3; ++j) {
    for (int i = 0; i < 3; ++i) {
      const bool row_outside = y + j - 1 < 0 || y + j - 1 >= height;
      const bool column_outside = x + i - 1 < 0 || x + i - 1 >= width;
      const float of_row = row_outside ? patch.value[1][i] : patch.value[j][i];
      const float of_center = row_outside ? patch.value[1][1] : patch.value[j][1];
      const float blurred = column_outside ? of_center : of_row;
      log_value[j][i] = logf(blurred > 1e-10f ? blurred : 1e-10f);
    }
  }
  const float center = log_value[1][1];
  const float gx = 0.5f * (log_value[1][2] - log_value[1][0]);
  const float gy = 0.5f * (log_value[2][1] - log_value[0][1]);
  const float xx = log_value[1][2] - 2.0f * center + log_value[1][0];
  const float yy = log_value[2][1] - 2.0f * center + log_value[0][1];
  const float xy = 0.25f * (log_value[2][2] - log_value[2][0] - log_value[0][2] + log_value[0][0]);
  const float determinant = xx * yy - xy * xy;
  if (!(xx < 0.0f && determinant > 1e-12f)) return {0.0f, 0.0f};
  return {clamp((xy * gy - yy * gx) / determinant, -1.0f, 1.0f),
          clamp((xy * gx - xx * gy) / determinant, -1.0f, 1.0f)};
}

// Crop pixel -> image pixel (transform: 2 x 3, or null: it stays a crop pixel).
OAKS_HOST_DEVICE void write_image_point(float x, float y, const float* transform, float* point) {
  point[0] = transform ? fmaf(transform[0], x, fmaf(transform[1], y, transform[2])) : x;
  point[1] = transform ? fmaf(transform[3], x, fmaf(transform[4], y, transform[5])) : y;
}

// Heatmap position -> crop pixel -> image pixel. NaN if the map has no peak.
OAKS_HOST_DEVICE void write_point(const DecodeArguments& a, Cell peak, Offset offset, const float* transform,
                                  float* point, float* heat) {
  if (peak.index < 0) {
    point[0] = point[1] = *heat = NAN;
    return;
  }
  const float x = fmaf(a.x.scale, float(peak.index % a.width) + offset.x, a.x.shift);
  const float y = fmaf(a.y.scale, float(peak.index / a.width) + offset.y, a.y.shift);
  write_image_point(x, y, transform, point);
  *heat = peak.value;
}

}  // namespace oaks
