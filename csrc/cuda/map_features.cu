// Two launches. In the first, one block per map writes the features of that map alone. In the second, one
// block per person writes the features that need all of the person's maps. The first passes heat and peak to
// the second in each keypoint's row of features, so that no memory is allocated and the call can be captured
// in a graph.
#include "core/map_features.h"
#include "cuda/launch.h"
#include "cuda/maps.h"
#include "cuda/peaks.h"

namespace oaks::cuda {
namespace {

constexpr int kMapThreads = 128;
constexpr int kMapWarps = kMapThreads / kWarp;
constexpr int kMaxPersonThreads = 256;
constexpr int kNoPeak = -1;  // instead of the peak's index: a value of the map is not finite
constexpr int kSums = 8;     // fields of MapSums

// The highest cells of the average, the map and the mirrored-back map, among the cells of one thread.
struct Highest {
  TopTwo average, own, back;
  float nan_flag = 0.0f;  // NaN if any value is not finite
};

__device__ void offer_finite(TopTwo& top, float value, int index) {
  if (is_finite(value)) top.offer({value, index});
}

template <class T>
__device__ Highest find_highest(const MapPair<T>& maps, int size, SharedArray<float> kept, bool keep) {
  Highest highest;
  for (int i = int(threadIdx.x); i < size; i += kMapThreads) {
    const int y = i / maps.width, x = i % maps.width;
    const float value = maps(y, x);
    if (keep) kept[i] = value;
    highest.nan_flag += zero_or_nan(value);
    offer_finite(highest.average, value, i);
    if (maps.mirrored) {
      offer_finite(highest.own, maps.own(y, x), i);
      offer_finite(highest.back, maps.back(y, x), i);
    }
  }
  return highest;
}

// Sums and local peaks of the cells of one thread.
template <class T>
__device__ void walk_map(const KeptMap<T>& map, int size, Cell peak, MapSums& sums, TopTwo& peaks) {
  const int width = map.maps.width;
  const float per_heat = 1.0f / peak.value;
  for (int i = int(threadIdx.x); i < size; i += kMapThreads) {
    const int y = i / width, x = i % width;
    const float value = map(y, x), part = larger_of(value, 0.0f) * per_heat;
    const float dx = float(x - peak.index % width), dy = float(y - peak.index / width);
    sums.mass += part;
    sums.x += part * dx;
    sums.y += part * dy;
    sums.squared_distance += part * (dx * dx + dy * dy);
    sums.squares += part * part;
    if (value >= 0.5f * peak.value) sums.half += 1.0f;
    if (!(value > 0.0f)) continue;
    float before = map.or_lowest(y, x - 1), behind = map.or_lowest(y, x + 1);
    for (int j = -1; j <= 1; ++j) {
      before = larger_of(before, map.or_lowest(y - 1, x + j));
      behind = larger_of(behind, map.or_lowest(y + 1, x + j));
    }
    if (!is_local_peak(value, before, behind)) continue;
    if (value >= kPeakPart * peak.value) sums.peaks += 1.0f;
    peaks.offer({value, i});
  }
}

// The sums of all threads, returned to the first thread only. by_warp: (kMapWarps, kSums).
__device__ MapSums sums_of_block(const MapSums& own, SharedArray<float> by_warp) {
  const float values[kSums] = {own.mass,    own.x,    own.y,     own.squared_distance,
                               own.squares, own.half, own.peaks, own.nan_flag};
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    const float sum = sum_of_warp(values[i]);
    if (lane == 0) by_warp[warp * kSums + i] = sum;
  }
  __syncthreads();
  float sums[kSums] = {};
  if (threadIdx.x == 0) {
    for (int w = 0; w < kMapWarps; ++w) {
      for (int i = 0; i < kSums; ++i) sums[i] += by_warp[w * kSums + i];
    }
  }
  return {sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7]};
}

// Passes a keypoint's heat and peak to finish_features.
__device__ void store_peak(float* row, Cell peak, bool finite) {
  row[kHeat] = peak.value;
  row[kJoint] = float_from_bits(uint32_t(finite ? peak.index : kNoPeak));
}

template <class T>
__global__ void __launch_bounds__(kMapThreads)
    analyze_maps(const __grid_constant__ FeatureArguments a, const bool keep) {
  OAKS_DYNAMIC_SHARED(float, kept);
  OAKS_SHARED(Cell, best, 2 * kMapWarps);
  OAKS_SHARED(Cell, best_own, 2 * kMapWarps);
  OAKS_SHARED(Cell, best_back, 2 * kMapWarps);
  OAKS_SHARED(Cell, best_local, 2 * kMapWarps);
  OAKS_SHARED(float, by_warp, kMapWarps* kSums);
  OAKS_SHARED(Cell, peak_of_block, 1);
  const int64_t person = blockIdx.x / unsigned(a.keypoints);
  const int keypoint = int(blockIdx.x % unsigned(a.keypoints)), size = a.height * a.width;
  float* const row = a.features + int64_t(blockIdx.x) * feature_count(a);
  float* const out = row + first_map_feature(a.keypoints);
  const MapPair<T> maps = map_pair<T>(a, person, keypoint);
  const KeptMap<T> map{maps, kept, keep};

  const Highest highest = find_highest(maps, size, kept, keep);
  const Cell first = top_two_of_block(highest.average, best).first;
  if (threadIdx.x == 0) peak_of_block[0] = first;
  __syncthreads();
  const Cell peak = peak_of_block[0];
  if (peak.index < 0) {
    if (threadIdx.x == 0) store_peak(row, peak, false);
    return;
  }
  MapSums own_sums;
  TopTwo own_peaks;
  own_sums.nan_flag = highest.nan_flag;
  const bool empty = !(peak.value >= kMinHeat);
  if (!empty) walk_map(map, size, peak, own_sums, own_peaks);
  const MapSums sums = sums_of_block(own_sums, by_warp);
  TopTwo peaks = top_two_of_block(own_peaks, best_local);
  if (empty) peaks = {peak, {}};
  Cell own = peak, back = peak;
  if (a.mirrored) {
    own = top_two_of_block(highest.own, best_own).first;
    back = top_two_of_block(highest.back, best_back).first;
  }
  if (threadIdx.x != 0) return;
  const bool finite = is_finite(sums.nan_flag);
  store_peak(row, peak, finite);
  if (!finite) return;
  const PeakWindow window =
      empty ? PeakWindow{} : peak_window(map, peak.index, a.height, a.width, 1.0f / peak.value);
  write_map_features(sums, peaks, window, a.width, a.left[keypoint] != 0, out);
  if (!a.mirrored) return;
  const int y = peak.index / a.width, x = peak.index % a.width;
  write_flip_features(own, back, maps.own(y, x), maps.back(y, x), a.width, out + kMapFeatures);
}

// Whether all of the person's values are finite. Every thread computes the same.
__device__ bool all_finite(const FeatureArguments& a, const PersonFrame& frame, const float* points,
                           SharedArray<float> heat, SharedArray<int> peaks) {
  float nan_flag = frame.nan_flag;
  bool found = true;
  for (int k = 0; k < a.keypoints; ++k) {
    nan_flag += zero_or_nan(points + 2 * k, heat[k]);
    found = found && peaks[k] != kNoPeak;
  }
  return found && nan_flag == 0.0f;
}

// Sorts the heats in ascending order by counting; of equal heats the lower keypoint comes first.
__device__ void sort_heat(int keypoints, SharedArray<float> heat, SharedArray<float> sorted) {
  for (int k = int(threadIdx.x); k < keypoints; k += int(blockDim.x)) {
    const float own = heat[k];
    int rank = 0;
    for (int i = 0; i < keypoints; ++i) {
      const float other = heat[i];
      rank += other < own || (other == own && i < k);
    }
    sorted[rank] = own;
  }
}

template <class T>
__global__ void __launch_bounds__(kMaxPersonThreads)
    finish_features(const __grid_constant__ FeatureArguments a) {
  OAKS_SHARED(float, heat, kMaxKeypoints);
  OAKS_SHARED(float, sorted, kMaxKeypoints);
  OAKS_SHARED(int, peaks, kMaxKeypoints);
  const int64_t person = blockIdx.x;
  const int row = feature_count(a), threads = int(blockDim.x);
  float* const features = a.features + person * a.keypoints * row;
  const float* const points = a.points + person * a.keypoints * 2;
  for (int k = int(threadIdx.x); k < a.keypoints; k += threads) {
    const float* const own = features + int64_t(k) * row;
    heat[k] = a.heatmaps ? own[kHeat] : a.heat[person * a.keypoints + k];
    peaks[k] = a.heatmaps ? int(bits_from_float(own[kJoint])) : 0;
  }
  __syncthreads();
  const PersonFrame frame = person_frame(a.boxes + 4 * person, a.frame_sizes + 2 * person);
  const bool finite = all_finite(a, frame, points, heat, peaks);
  if (!finite) {
    for (int i = int(threadIdx.x); i < a.keypoints * row; i += threads) features[i] = NAN;
    return;
  }
  sort_heat(a.keypoints, heat, sorted);
  __syncthreads();
  const HeatFigures figures = heat_figures(sorted, a.keypoints);
  const auto at = [&](int keypoint, int cell) {
    return map_pair<T>(a, person, keypoint)(cell / a.width, cell % a.width);
  };
  for (int k = int(threadIdx.x); k < a.keypoints; k += threads) {
    float* const own = features + int64_t(k) * row;
    write_pose_features(a, k, frame, points, heat, figures, own);
    if (a.heatmaps) write_other_maps(a, at, peaks, k, own + first_map_feature(a.keypoints));
  }
}

template <class T>
void start(const FeatureArguments& a, Stream stream) {
  if (a.heatmaps) {
    const int64_t bytes = int64_t(a.height) * a.width * int64_t(sizeof(float));
    const bool keep = bytes <= largest_shared_bytes() - 1024;
    launch<analyze_maps<T>>("map_features's maps",
                            {a.count * a.keypoints, kMapThreads, keep ? int(bytes) : 0}, stream, a, keep);
  }
  const int threads = divided_up(a.keypoints, kWarp) * kWarp;
  launch<finish_features<T>>("map_features",
                             {a.count, threads < kMaxPersonThreads ? threads : kMaxPersonThreads}, stream, a);
}

}  // namespace

void map_features(const FeatureArguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.features);
  if (a.element == Element::float16) {
    start<Half>(a, stream);
  } else {
    start<float>(a, stream);
  }
}

}  // namespace oaks::cuda
