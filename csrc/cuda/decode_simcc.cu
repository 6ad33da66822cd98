// One warp per keypoint: its lanes share the bins of both axes.
#include "core/decode_simcc.h"
#include "cuda/launch.h"
#include "cuda/peaks.h"

namespace oaks::cuda {
namespace {

constexpr int kSimccThreads = 128;
constexpr int kKeypoints = kSimccThreads / kWarp;  // per block

// The highest bin of the average, returned to every lane.
template <class T>
__device__ Cell first_bin(const AxisBins<T>& bins) {
  TopTwo top;
  for (int bin = int(threadIdx.x) % kWarp; bin < bins.count; bin += kWarp) {
    float value = to_float(bins.own[bin]);
    if (bins.mirrored) value = flip_average(value, to_float(bins.mirrored[bins.mirrored_bin(bin)]));
    if (is_finite(value)) top.offer({value, bin});
  }
  return first_of_warp(top.first);
}

template <class T>
__global__ void __launch_bounds__(kSimccThreads) decode_vectors(const __grid_constant__ SimccArguments a) {
  const int64_t index = int64_t(blockIdx.x) * kKeypoints + int(threadIdx.x) / kWarp;
  if (index >= a.count * a.keypoints) return;
  const Cell x = first_bin(axis_bins<T>(a, index, true)), y = first_bin(axis_bins<T>(a, index, false));
  if (threadIdx.x % kWarp != 0) return;
  const float* const transform = a.transforms ? a.transforms + 6 * (index / a.keypoints) : nullptr;
  write_simcc_point(a, x, y, transform, a.points + 2 * index, a.heat + index);
}

}  // namespace

void decode_simcc(const SimccArguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.points);
  const Shape shape{divided_up<int64_t>(a.count * a.keypoints, kKeypoints), kSimccThreads};
  if (a.element == Element::float16) {
    launch<decode_vectors<Half>>("decode_simcc", shape, stream, a);
  } else {
    launch<decode_vectors<float>>("decode_simcc", shape, stream, a);
  }
}

}  // namespace oaks::cuda
