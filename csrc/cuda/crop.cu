// Two launches. In the first, one thread per box computes the box's window. In the second, each block writes
// a band of rows of one crop and of its mirrored crop; a thread processes the same columns in all rows, so
// that their positions in the frame are computed once.
#include <type_traits>

#include "core/crop.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kWindowThreads = 128;
constexpr int kMaxThreads = 256;
constexpr int kFramesPerLaunch = 64;
constexpr int kBlocksPerMultiprocessor = 4;  // that are resident together; more blocks would repeat work
constexpr int kMaxBandRows = 32;
constexpr int kMaxRows = 2 * kMaxBandRows;  // of a band after rounding up to whole passes of the block

// The frames of one launch, passed by value, so that they need no device memory.
struct FrameTable {
  FrameView frames[kFramesPerLaunch];
  int part;  // the first is frame part * kFramesPerLaunch
};

// How a launch divides crops among blocks and threads.
struct Tiling {
  int columns;  // threads of a block along x
  int rows;     // threads of a block along y
  int bands;    // per crop
  int band;     // rows per band
  // Bytes in the output: from a value to that of the frame's next channel, from a value to that of the
  // thread's next row, and from a crop to its mirrored crop.
  int64_t next_plane, next_row, mirrored;
};

// For half crops, rows are blended in integers: weights are multiples of 2^-15, so that the weighted sum of
// two bytes is an integer below 2^23, which a float holds exactly.
constexpr float kWeightUnit = 1.0f / 32768.0f;
constexpr uint32_t kTwoTo23 = 0x4b000000u;  // bits of the float 2^23

// The position of a crop row in the frame.
struct CropRow {
  const uint8_t *low, *high;  // the two rows of the frame that are blended
  float low_weight, high_weight;
  // Both weights in units of 2^-15, the low row's in the low 16 bits. 0 if one of the rows is the
  // frame's first or last, or the position is outside the frame: then blend_near_border reads the pixels.
  uint32_t weights;
};

__device__ CropRow find_row(CropAxis axis, int row, const FrameView& frame) {
  const Tap t = tap(axis, row, frame.height);
  CropRow found{frame.pixels + t.low * frame.row_bytes, frame.pixels + t.high * frame.row_bytes, t.low_weight,
                t.high_weight, 0};
  if (t.low > 0 && t.high < frame.height - 1) {
    const uint32_t high = uint32_t(t.high_weight * 32768.0f + 0.5f);
    found.weights = high << 16 | (32768u - high);
  }
  return found;
}

// Scale and bias from gray levels to network values, in the frame's channel order.
struct Normalization {
  float scale[3], bias[3];

  __device__ explicit Normalization(const CropArguments& a)
      : scale{a.scale[a.bgr ? 2 : 0], a.scale[1], a.scale[a.bgr ? 0 : 2]},
        bias{a.bias[a.bgr ? 2 : 0], a.bias[1], a.bias[a.bgr ? 0 : 2]} {}
};

// The network values of one pixel, in the frame's channel order.
struct Values {
  float channel[3];
};

// A byte of `pixel` as a float: the mantissa of a float from 2^23 to 2^24 is an integer.
__device__ float level(uint32_t pixel, unsigned byte) {
  return float_from_bits(__byte_perm(pixel, kTwoTo23, 0x7440u + byte)) - 8388608.0f;
}

// Blends four pixels, in bytes 0 to 2 of each argument, in single precision.
__device__ Values blend_pixels(uint32_t low_left, uint32_t low_right, uint32_t high_left, uint32_t high_right,
                               float left_weight, float right_weight, const CropRow& y,
                               const Normalization& normal) {
  Values values;
#pragma unroll
  for (unsigned c = 0; c < 3; ++c) {
    const float low = blend(level(low_left, c), level(low_right, c), left_weight, right_weight);
    const float high = blend(level(high_left, c), level(high_right, c), left_weight, right_weight);
    values.channel[c] = fused(blend(low, high, y.low_weight, y.high_weight), normal.scale[c], normal.bias[c]);
  }
  return values;
}

__device__ uint32_t read_bytes(const uint8_t* pixel) {
  return uint32_t(pixel[0]) | uint32_t(pixel[1]) << 8 | uint32_t(pixel[2]) << 16;
}

// Blends a pixel at any position. Nothing is read if all weights along an axis are 0: the frame may be
// missing.
__device__ Values blend_near_border(const Tap& x, const CropRow& y, const Normalization& normal) {
  uint32_t low_left = 0, low_right = 0, high_left = 0, high_right = 0;
  const bool column_counts = x.low_weight != 0.0f || x.high_weight != 0.0f;
  if (column_counts && (y.low_weight != 0.0f || y.high_weight != 0.0f)) {
    low_left = read_bytes(y.low + 3 * x.low), low_right = read_bytes(y.low + 3 * x.high);
    high_left = read_bytes(y.high + 3 * x.low), high_right = read_bytes(y.high + 3 * x.high);
  }
  return blend_pixels(low_left, low_right, high_left, high_right, x.low_weight, x.high_weight, y, normal);
}

// The six bytes of a pixel and its right neighbor: 0 to 3 in `first`, 4 and 5 in `second`.
struct PixelPair {
  uint32_t first, second;
};

// Reads whole words, including up to 3 bytes before and 6 bytes after the pixels. These may belong to
// adjacent rows, so it must not be called for the frame's first and last rows.
__device__ PixelPair read_words(const uint8_t* pixel) {
  const auto address = reinterpret_cast<uintptr_t>(pixel);
  const uint32_t* const word = reinterpret_cast<const uint32_t*>(address & ~uintptr_t(3));
  const uint32_t first = word[0], second = word[1], third = word[2];
  const unsigned skipped = unsigned(address) << 3;  // in bits; only the lowest five bits are used
  return {__funnelshift_r(first, second, skipped), __funnelshift_r(second, third, skipped)};
}

// A column of the crop whose two frame columns are in the frame: what a thread computes once, to blend any
// rows but the frame's first and last. One specialization per element type of the crop.
template <class T>
struct Column;

template <>
struct Column<float> {
  int64_t offset;  // bytes into a row
  float left_weight, right_weight;

  __device__ void set(const Tap& x, const Normalization&) {
    offset = 3 * x.low, left_weight = x.low_weight, right_weight = x.high_weight;
  }

  __device__ Values blend_rows(const CropRow& y, const Normalization& normal) const {
    const PixelPair low = read_words(y.low + offset), high = read_words(y.high + offset);
    return blend_pixels(low.first, __byte_perm(low.first, low.second, 0x6543), high.first,
                        __byte_perm(high.first, high.second, 0x6543), left_weight, right_weight, y, normal);
  }
};

// Blends along y in integers, then along x with weights that include the normalization.
template <>
struct Column<Half> {
  int64_t offset;
  float left[3], right[3], bias[3];

  __device__ void set(const Tap& x, const Normalization& normal) {
    offset = 3 * x.low;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      left[c] = normal.scale[c] * kWeightUnit * x.low_weight;
      right[c] = normal.scale[c] * kWeightUnit * x.high_weight;
      // The blended integers have 2^23 added.
      bias[c] = fused(-8388608.0f, left[c], fused(-8388608.0f, right[c], normal.bias[c]));
    }
  }

  __device__ Values blend_rows(const CropRow& y, const Normalization&) const {
    const PixelPair low = read_words(y.low + offset), high = read_words(y.high + offset);
    // Bytes 0 and 1, 2 and 3, 4 and 5 of the six, each of the low row next to that of the high row.
    const uint32_t bytes[3] = {__byte_perm(low.first, high.first, 0x5140),
                               __byte_perm(low.first, high.first, 0x7362),
                               __byte_perm(low.second, high.second, 0x5140)};
    float blended[6];
#pragma unroll
    for (int b = 0; b < 3; ++b) {
      blended[2 * b] = float_from_bits(__dp2a_lo(y.weights, bytes[b], kTwoTo23));
      blended[2 * b + 1] = float_from_bits(__dp2a_hi(y.weights, bytes[b], kTwoTo23));
    }
    Values values;
#pragma unroll
    for (int c = 0; c < 3; ++c)
      values.channel[c] = fused(blended[3 + c], right[c], fused(blended[c], left[c], bias[c]));
    return values;
  }
};

// Adjacent values of a plane, written with one store, in order or in reverse order.
template <class T, int width>
struct Packed {
  Vector<T, width> values;

  Packed() = default;
  __device__ explicit Packed(const float (&from)[width]) {
#pragma unroll
    for (int i = 0; i < width; ++i) store(&values.value[i], from[i]);
  }
  __device__ void write(void* to) const { *static_cast<Vector<T, width>*>(to) = values; }
  __device__ void write_backwards(void* to) const {
    Vector<T, width> backwards;
#pragma unroll
    for (int i = 0; i < width; ++i) backwards.value[i] = values.value[width - 1 - i];
    *static_cast<Vector<T, width>*>(to) = backwards;
  }
};

template <>
struct Packed<Half, 2> {
  uint32_t pair;

  Packed() = default;
  __device__ explicit Packed(const float (&from)[2]) : pair(to_half_pair(from[0], from[1])) {}
  __device__ void write(void* to) const { *static_cast<uint32_t*>(to) = pair; }
  __device__ void write_backwards(void* to) const {
    *static_cast<uint32_t*>(to) = __byte_perm(pair, pair, 0x1032);
  }
};

// Writes the three channels of adjacent pixels to their planes, and in reverse order to those of the mirrored
// crop if there is one.
template <class T, int width>
__device__ void write_channels(const Values (&values)[width], unsigned char* to, unsigned char* mirrored_to,
                               int64_t next_plane, bool mirrored) {
  Packed<T, width> packed[3];
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    float neighbors[width];
#pragma unroll
    for (int i = 0; i < width; ++i) neighbors[i] = values[i].channel[c];
    packed[c] = Packed<T, width>(neighbors);
    packed[c].write(to + c * next_plane);
  }
  if (!mirrored) return;
#pragma unroll
  for (int c = 0; c < 3; ++c) packed[c].write_backwards(mirrored_to + c * next_plane);
}

// Fills `width` columns of a crop, and of its mirrored crop, over all rows of the band.
template <class T, int width>
__device__ void write_columns(const CropArguments& a, int frame_width, CropAxis axis, T* crop, int column,
                              SharedArray<CropRow> rows, int first_row, int row_count, const Tiling& tiling) {
  const Normalization normal(a);
  Column<T> columns[width];
  bool side_by_side = true;  // both frame columns of every crop column are in the frame
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const Tap x = tap(axis, column + i, frame_width);
    columns[i].set(x, normal);
    side_by_side = side_by_side && x.high == x.low + 1;
  }
  const int plane = a.height * a.width, row_of_thread = int(threadIdx.x) / tiling.columns;
  // The frame's first channel goes to the first plane or, for BGR, to the last.
  crop += (a.bgr ? 2 * plane : 0) + (first_row + row_of_thread) * a.width + column;
  auto* to = reinterpret_cast<unsigned char*>(crop);
  auto* mirrored_to = to + tiling.mirrored + (a.width - width - 2 * column) * int(sizeof(T));
  for (int r = row_of_thread; r < row_count; r += tiling.rows) {
    const CropRow y = rows[r];
    Values values[width];
    if (side_by_side && y.weights) {
#pragma unroll
      for (int i = 0; i < width; ++i) values[i] = columns[i].blend_rows(y, normal);
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i)
        values[i] = blend_near_border(tap(axis, column + i, frame_width), y, normal);
    }
    write_channels<T>(values, to, mirrored_to, tiling.next_plane, a.mirrored != 0);
    to += tiling.next_row, mirrored_to += tiling.next_row;
  }
}

// Writes the transform of each box, from which crop_boxes reads the window: double precision is slow on many
// devices, so this is done only once per box.
__global__ void __launch_bounds__(kWindowThreads) find_windows(const __grid_constant__ CropArguments a) {
  const int64_t box = int64_t(blockIdx.x) * kWindowThreads + threadIdx.x;
  if (box >= a.count) return;
  write_transform(crop_window(a.boxes + 4 * box, a.height, a.width, a.padding), a.transforms + 6 * box);
}

template <class T, int width>
__global__ void __launch_bounds__(kMaxThreads, kBlocksPerMultiprocessor)
    crop_boxes(const __grid_constant__ CropArguments a, const __grid_constant__ FrameTable table,
               const Tiling tiling) {
  OAKS_SHARED(CropRow, rows, kMaxRows);
  const int64_t box = blockIdx.x / unsigned(tiling.bands);
  const int band = int(blockIdx.x % unsigned(tiling.bands));
  const int which = a.frame_index ? a.frame_index[box] : 0;
  const bool known = which >= 0 && which < a.frame_count;
  if ((known ? which / kFramesPerLaunch : 0) != table.part) return;  // another launch has this block's frame
  const FrameView frame = known ? table.frames[which % kFramesPerLaunch] : FrameView{nullptr, 0, 0, 0};
  const int first_row = band * tiling.band;
  const int row_count = tiling.band < a.height - first_row ? tiling.band : a.height - first_row;
  const CropWindow window = read_transform(a.transforms + 6 * box);

  for (int r = int(threadIdx.x); r < row_count; r += int(blockDim.x)) {
    rows[r] = find_row(window.y, first_row + r, frame);
  }
  __syncthreads();
  if (int(threadIdx.x) >= tiling.rows * tiling.columns) return;
  T* const crop = static_cast<T*>(a.pixels) + box * (3 * a.height * a.width);
  const int step = tiling.columns * width;
  for (int column = int(threadIdx.x) % tiling.columns * width; column < a.width; column += step) {
    write_columns<T, width>(a, frame.width, window.x, crop, column, rows, first_row, row_count, tiling);
  }
}

Tiling tile(const CropArguments& a, int width, int element_bytes) {
  Tiling tiling;
  const int groups = a.width / width;
  tiling.columns = groups < kMaxThreads ? groups : kMaxThreads;
  tiling.rows = kMaxThreads / tiling.columns;
  if (tiling.rows > kMaxBandRows) tiling.rows = kMaxBandRows;
  if (tiling.rows > a.height) tiling.rows = a.height;
  const int64_t enough_blocks = int64_t(kBlocksPerMultiprocessor) * multiprocessors();
  const int64_t rows = divided_up<int64_t>(a.count * a.height, enough_blocks);
  const int longest = int(rows < kMaxBandRows ? rows : kMaxBandRows);
  tiling.band = divided_up(longest, tiling.rows) * tiling.rows;
  tiling.bands = divided_up(a.height, tiling.band);
  const int64_t plane = int64_t(a.height) * a.width * element_bytes;
  tiling.next_plane = a.bgr ? -plane : plane;
  tiling.next_row = int64_t(tiling.rows) * a.width * element_bytes;
  tiling.mirrored = 3 * plane * a.count;
  return tiling;
}

template <class T, int width>
void start(const CropArguments& a, Stream stream) {
  const Tiling tiling = tile(a, width, int(sizeof(T)));
  const int threads = divided_up(tiling.columns * tiling.rows, kWarp) * kWarp;
  launch<find_windows>("crop's windows", {divided_up<int64_t>(a.count, kWindowThreads), kWindowThreads},
                       stream, a);
  FrameTable table{};
  for (int first = 0; first < a.frame_count || first == 0; first += kFramesPerLaunch) {
    table.part = first / kFramesPerLaunch;
    for (int i = 0; i < kFramesPerLaunch && first + i < a.frame_count; ++i)
      table.frames[i] = a.frames[first + i];
    launch<crop_boxes<T, width>>("crop", {a.count * tiling.bands, threads}, stream, a, table, tiling);
  }
}

// Writes two pixels at a time where the width and the alignment allow it. With more, the reads of a warp
// would be spread over more of the frame.
template <class T>
void start_widest(const CropArguments& a, Stream stream) {
  constexpr int kWidest = 2;
  if (a.width % kWidest == 0 && is_aligned(a.pixels, kWidest * sizeof(T)))
    return start<T, kWidest>(a, stream);
  start<T, 1>(a, stream);
}

}  // namespace

void crop(const CropArguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.pixels);
  if (a.half) {
    start_widest<Half>(a, stream);
  } else {
    start_widest<float>(a, stream);
  }
}

}  // namespace oaks::cuda
