// One warp per keypoint: its lanes share the bins of both axes.
#include "core/decode_simcc.h"
#include "cuda/launch.h"
#include "cuda/peaks.h"

namespace oaks::cuda {
namespace {

constexpr int kSimccThreads = 128;
constexpr int kKeypoints = kSimccThreads / kWarp;  // per block

// The highest bin of one axis, returned to every lane.
template <class T>
__device__ Cell first_bin(const T* own, const T* mirrored, int bins, bool along_x) {
  TopTwo top;
  for (int bin = int(threadIdx.x) % kWarp; bin < bins; bin += kWarp) {
    float value = to_float(own[bin]);
    if (mirrored) value = flip_average(value, to_float(mirrored[mirrored_bin(bin, bins, along_x)]));
    if (is_finite(value)) top.offer({value, bin});
  }
  return first_of_warp(top.first);
}

template <class T>
__device__ Cell first_bin_of(const void* vectors, const void* mirrored, const SimccArguments& a,
                             int64_t index, int bins, bool along_x) {
  const int64_t opposite = index - index % a.keypoints + a.pair[index % a.keypoints];
  return first_bin(static_cast<const T*>(vectors) + index * bins,
                   mirrored ? static_cast<const T*>(mirrored) + opposite * bins : nullptr, bins, along_x);
}

template <class T>
__global__ void __launch_bounds__(kSimccThreads) decode_vectors(const __grid_constant__ SimccArguments a) {
  const int64_t index = int64_t(blockIdx.x) * kKeypoints + int(threadIdx.x) / kWarp;
  if (index >= a.count * a.keypoints) return;
  const Cell x = first_bin_of<T>(a.x, a.mirrored_x, a, index, a.x_bins, true);
  const Cell y = first_bin_of<T>(a.y, a.mirrored_y, a, index, a.y_bins, false);
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
