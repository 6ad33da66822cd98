// One block per map. Each thread keeps the two vectors with the largest maxima, the block reduces these to
// two, and the two highest cells are searched in these two vectors only.
#include "core/decode.h"
#include "cuda/launch.h"
#include "cuda/maps.h"
#include "cuda/peaks.h"

namespace oaks::cuda {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kInFlight = 4;  // vectors that a thread loads before it uses the first

// `lanes` adjacent values, read with one load.
template <class T, int lanes>
struct Packed {
  Vector<T, lanes> values;

  __device__ void unpack(float (&to)[lanes]) const {
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) to[lane] = to_float(values.value[lane]);
  }
  __device__ void pack(const float (&from)[lanes]) {
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) store(&values.value[lane], from[lane]);
  }
};

// Two halves per register.
template <int lanes>
struct Packed<Half, lanes> {
  Vector<uint32_t, lanes / 2> words;

  __device__ void unpack(float (&to)[lanes]) const {
#pragma unroll
    for (int lane = 0; lane < lanes; lane += 2) to_float_pair(words.value[lane / 2], to[lane], to[lane + 1]);
  }
  __device__ void pack(const float (&from)[lanes]) {
#pragma unroll
    for (int lane = 0; lane < lanes; lane += 2)
      words.value[lane / 2] = to_half_pair(from[lane], from[lane + 1]);
  }
};

template <>
struct Packed<Half, 1> {
  Half value;

  __device__ void unpack(float (&to)[1]) const { to[0] = to_float(value); }
  __device__ void pack(const float (&from)[1]) { value = to_half(from[0]); }
};

// A MapPair, read in vectors.
template <class T, int lanes>
struct MapVectors {
  using Values = Packed<T, lanes>;
  MapPair<T> maps;

  __device__ Values own(int i) const { return reinterpret_cast<const Values*>(maps.map)[i]; }

  // The mirrored vector that is averaged with vector `i` of the map, number `column` of its row; its lanes
  // are reversed.
  __device__ Values across(int i, int column) const {
    return reinterpret_cast<const Values*>(maps.mirrored)[i + maps.width / lanes - 1 - 2 * column];
  }

  __device__ void average(const Values& own, const Values& across, int i, float (&averaged)[lanes]) const {
    own.unpack(averaged);
    if (!maps.mirrored) return;
    float backwards[lanes];
    across.unpack(backwards);
    if (!maps.shift) {
#pragma unroll
      for (int lane = 0; lane < lanes; ++lane)
        averaged[lane] = flip_average(averaged[lane], backwards[lanes - 1 - lane]);
      return;
    }
    // Shifted by one column: the values of all lanes but the first are in the vector; that of the first is
    // beside it.
    const int row = i * lanes / maps.width * maps.width;
    const int first = row + mirrored_column(i * lanes - row, maps.width, true);
    averaged[0] = flip_average(averaged[0], to_float(maps.mirrored[first]));
#pragma unroll
    for (int lane = 1; lane < lanes; ++lane)
      averaged[lane] = flip_average(averaged[lane], backwards[lanes - lane]);
  }
};

// As TopTwo::offer, for a cell with a higher index than all offered before, which never wins a tie. A cell of
// -infinity is ignored.
__device__ void offer_later(TopTwo& top, Cell cell) {
  const bool is_first = cell.value > top.first.value, is_second = cell.value > top.second.value;
  top.second = is_first ? top.first : (is_second ? cell : top.second);
  top.first = is_first ? cell : top.first;
}

// The largest finite value, or -infinity if there is none.
template <int lanes>
__device__ float largest_finite(const float (&values)[lanes]) {
  float largest = values[0];
#pragma unroll
  for (int lane = 1; lane < lanes; ++lane) largest = fmaxf(largest, values[lane]);  // fmaxf ignores NaN
  if (is_finite(largest)) return largest;
  largest = -INFINITY;
#pragma unroll
  for (int lane = 0; lane < lanes; ++lane) {
    if (is_finite(values[lane])) largest = fmaxf(largest, values[lane]);
  }
  return largest;
}

// The two highest finite cells of the two vectors. Called by a whole warp.
template <int lanes, class T>
__device__ TopTwo top_two_cells(const TopTwo& vectors, const KeptMap<T>& averaged) {
  const int lane = int(threadIdx.x) % kWarp;
  const int vector = lane < lanes ? vectors.first.index : vectors.second.index;
  TopTwo own;
  if (lane < 2 * lanes && vector >= 0) {
    const int index = vector * lanes + lane % lanes;
    const float value = averaged(index / averaged.maps.width, index % averaged.maps.width);
    if (is_finite(value)) own.first = {value, index};
  }
  return top_two_of_warp(own);
}

// Each lane blurs one row; then every lane accumulates all rows from top to bottom.
template <class T>
__device__ Offset dark_offset_of_warp(const KeptMap<T>& averaged, int peak, int height, const Blur& blur) {
  const int width = averaged.maps.width;
  const int reach = blur.radius + 1;
  BlurredPatch patch;
  for (int top = -reach; top <= reach; top += kWarp) {
    const int own = top + int(threadIdx.x) % kWarp;
    BlurredRow row{0.0f, 0.0f, 0.0f};
    if (own <= reach) row = blur_row(averaged, peak / width + own, peak % width, height, width, blur);
    for (int dy = top; dy < top + kWarp && dy <= reach; ++dy) {
      const BlurredRow next{__shfl_sync(kWholeWarp, row.left, dy - top),
                            __shfl_sync(kWholeWarp, row.center, dy - top),
                            __shfl_sync(kWholeWarp, row.right, dy - top)};
      patch.add(next, dy, blur);
    }
  }
  return dark_offset(patch, peak, height, width);
}

template <class T>
__device__ Offset refinement_offset(const DecodeArguments& a, const TopTwo& top, const KeptMap<T>& averaged) {
  if (top.first.index < 0) return {0.0f, 0.0f};
  switch (a.refine) {
    case Refine::second_peak:
      return second_peak_offset(top.first.index, top.second.index, a.width);
    case Refine::gradient:
      return gradient_offset(averaged, top.first.index, a.height, a.width);
    case Refine::dark:
      return dark_offset_of_warp(averaged, top.first.index, a.height, a.blur);
    case Refine::none:
      break;
  }
  return {0.0f, 0.0f};
}

// Where the average of a map is written in the pass over the map.
struct Destinations {
  bool keep;   // to shared memory
  bool write;  // to DecodeArguments::averaged
};

// Reads every vector of the map once. Returns the thread's two vectors with the largest finite values: their
// maxima and indices.
template <class T, int lanes>
__device__ TopTwo pass_over_map(const MapVectors<T, lanes>& from, int vectors, T* averaged,
                                SharedArray<float> kept, Destinations go) {
  const int threads = int(blockDim.x);
  const int row = from.maps.width / lanes > 0 ? from.maps.width / lanes : 1, step = threads % row;
  int column = int(threadIdx.x) % row;
  TopTwo top;
  for (int first = int(threadIdx.x); first < vectors; first += kInFlight * threads) {
    Packed<T, lanes> own[kInFlight], across[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int i = first + j * threads;
      if (i < vectors) own[j] = from.own(i);
      if (i < vectors && from.maps.mirrored) across[j] = from.across(i, column);
      column += step;
      if (column >= row) column -= row;
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int i = first + j * threads;
      if (i >= vectors) break;
      float values[lanes];
      from.average(own[j], across[j], i, values);
      if (go.write) {
        Packed<T, lanes> stored;
        stored.pack(values);
        reinterpret_cast<Packed<T, lanes>*>(averaged)[i] = stored;
      }
      if (go.keep) {
#pragma unroll
        for (int lane = 0; lane < lanes; ++lane) kept[i * lanes + lane] = values[lane];
      }
      offer_later(top, {largest_finite(values), i});
    }
  }
  return top;
}

template <class T, int lanes>
__global__ void __launch_bounds__(kMaxThreads, 4)
    decode_maps(const __grid_constant__ DecodeArguments a, const Destinations go) {
  OAKS_DYNAMIC_SHARED(float, kept);
  OAKS_SHARED(Cell, best, 2 * kMaxThreads / kWarp);
  const int64_t index = blockIdx.x, person = blockIdx.x / unsigned(a.keypoints);
  const int keypoint = int(blockIdx.x % unsigned(a.keypoints));
  const int size = a.height * a.width;
  const MapPair<T> maps = map_pair<T>(a, person, keypoint);
  T* const averaged = a.averaged ? static_cast<T*>(a.averaged) + index * size : nullptr;

  const TopTwo own = pass_over_map(MapVectors<T, lanes>{maps}, size / lanes, averaged, kept, go);
  const TopTwo vectors = top_two_of_block(own, best);
  if (threadIdx.x < kWarp) {
    const KeptMap<T> readable{maps, kept, go.keep};
    const TopTwo top = top_two_cells<lanes>(vectors, readable);
    const Offset offset = refinement_offset(a, top, readable);
    if (threadIdx.x == 0) {
      write_point(a, top.first, offset, a.transforms ? a.transforms + 6 * person : nullptr,
                  a.points + 2 * index, a.heat + index);
    }
  }
  if (averaged && !go.write) {
    __syncthreads();  // the first warp reads the map until here
    for (int i = int(threadIdx.x); i < size; i += int(blockDim.x)) {
      store(averaged + i, maps(i / a.width, i % a.width));
    }
  }
}

template <class T, int lanes>
void start(const DecodeArguments& a, Stream stream) {
  const int size = a.height * a.width, vectors = size / lanes;
  const bool in_place = a.averaged == a.heatmaps && a.averaged;
  const int64_t kept_bytes = int64_t(size) * int64_t(sizeof(float));
  // Averages are kept in shared memory if the map is averaged in place, because cells are read again after
  // they are overwritten, and for dark, which reads many cells again.
  Destinations go;
  go.keep = (in_place || a.refine == Refine::dark) && kept_bytes <= largest_shared_bytes() - 1024;
  // In place, a map that does not fit into shared memory is written in a second pass, after its point is
  // known.
  go.write = a.averaged && (go.keep || !in_place);
  // As few rounds of kInFlight vectors per thread as the largest block needs, and no more threads than these
  // rounds occupy.
  const int rounds = divided_up(vectors, kInFlight * kMaxThreads);
  const int threads = divided_up(divided_up(vectors, kInFlight * rounds), kWarp) * kWarp;
  launch<decode_maps<T, lanes>>("decode", {a.count * a.keypoints, threads, go.keep ? int(kept_bytes) : 0},
                                stream, a, go);
}

// Reads 16 bytes at once where the map's rows and the arrays' addresses allow it.
template <class T>
void start_widest(const DecodeArguments& a, Stream stream) {
  constexpr int kWidest = 16 / int(sizeof(T));
  const int together = a.mirrored ? a.width : a.height * a.width;
  const bool allows = together % kWidest == 0 && is_aligned(a.heatmaps, 16) && is_aligned(a.mirrored, 16) &&
                      is_aligned(a.averaged, 16);
  if (allows) return start<T, kWidest>(a, stream);
  start<T, 1>(a, stream);
}

}  // namespace

void decode(const DecodeArguments& a, Stream stream) {
  if (a.count <= 0 || a.keypoints <= 0) return;
  const DeviceGuard guard(a.points);
  if (a.element == Element::float16) {
    start_widest<Half>(a, stream);
  } else {
    start_widest<float>(a, stream);
  }
}

}  // namespace oaks::cuda
