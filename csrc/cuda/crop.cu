// A block writes a band of rows of one box's crop, and of the mirrored crop. A thread keeps to its columns,
// so that where they lie in the frame is found once.
#include <type_traits>

#include "core/crop.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kMostThreads = 256;
constexpr int kFramesPerLaunch = 64;
constexpr int64_t kEnoughBlocks = 4096;  // beyond that, longer bands save work
constexpr int kLongestBand = 32;
constexpr int kMostRows = 2 * kLongestBand;  // a band is whole rounds of the threads' rows

// The frames of one launch. They travel with it, so that no device memory is needed for their table.
struct FrameTable {
  FrameView frames[kFramesPerLaunch];
  int part;  // it holds frames part * kFramesPerLaunch and on
};

// How a launch divides the crops.
struct Tiling {
  int columns;  // threads side by side
  int rows;     // threads above one another
  int bands;    // of each crop
  int band;     // rows of a band
};

// Where a row of the crop lies in the frame.
struct CropRow {
  int64_t low, high;  // bytes from the frame's first to the two rows that are blended
  float low_weight, high_weight;
  bool inner;  // neither is the frame's first or last row
};

// What counts nothing is not read: the frame may be missing.
__device__ bool counts(float low_weight, float high_weight) {
  return low_weight != 0.0f || high_weight != 0.0f;
}

__device__ CropRow find_row(CropAxis axis, int row, const FrameView& frame) {
  const Tap t = tap(axis, row, frame.height);
  return {t.low * frame.row_bytes, t.high * frame.row_bytes, t.low_weight, t.high_weight,
          t.low > 0 && t.high < frame.height - 1};
}

// The columns of the crop that one thread works on, in bytes of a frame's row.
template <int width>
struct Columns {
  int low[width], high[width];
  float low_weight[width], high_weight[width];
  bool side_by_side;  // every pixel and its right neighbour lie in the frame

  __device__ Columns(CropAxis axis, int first, int frame_width) : side_by_side(true) {
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const Tap t = tap(axis, first + i, frame_width);
      low[i] = 3 * t.low, high[i] = 3 * t.high;
      low_weight[i] = t.low_weight, high_weight[i] = t.high_weight;
      side_by_side = side_by_side && t.high == t.low + 1;
    }
  }
};

// Two pixels of a row that are blended; bytes 0 to 2 are a pixel's channels.
struct Neighbours {
  uint32_t low, high;

  __device__ float blended(int channel, float low_weight, float high_weight) const {
    return blend(level(low, channel), level(high, channel), low_weight, high_weight);
  }

  __device__ static float level(uint32_t pixel, int channel) {
    return float(int(__byte_perm(pixel, 0, 0x4440u + unsigned(channel))));
  }
};

__device__ uint32_t read_bytes(const uint8_t* pixel) {
  return uint32_t(pixel[0]) | uint32_t(pixel[1]) << 8 | uint32_t(pixel[2]) << 16;
}

// A pixel and its right neighbour, in whole words: up to 3 bytes before and after them are read too, which
// belong to some other row if the row is neither the first nor the last.
__device__ Neighbours read_words(const uint8_t* pixel) {
  const unsigned skipped = unsigned(reinterpret_cast<uintptr_t>(pixel) % 4);
  const uint32_t* const word = reinterpret_cast<const uint32_t*>(pixel - skipped);
  const uint32_t first = word[0], second = word[1], third = skipped == 3 ? word[2] : 0;
  const uint32_t low = __funnelshift_r(first, second, 8 * skipped);
  return {low, __byte_perm(low, __funnelshift_r(second, third, 8 * skipped), 0x6543)};
}

template <int width>
struct TwoRows {
  Neighbours low[width], high[width];
};

template <int width>
__device__ TwoRows<width> read_rows(const uint8_t* pixels, const Columns<width>& x, const CropRow& y) {
  TwoRows<width> rows;
  const bool row_counts = counts(y.low_weight, y.high_weight);
  if (x.side_by_side && y.inner && row_counts) {
#pragma unroll
    for (int i = 0; i < width; ++i) {
      rows.low[i] = read_words(pixels + y.low + x.low[i]);
      rows.high[i] = read_words(pixels + y.high + x.low[i]);
    }
    return rows;
  }
#pragma unroll
  for (int i = 0; i < width; ++i) {
    rows.low[i] = rows.high[i] = {0, 0};
    if (!row_counts || !counts(x.low_weight[i], x.high_weight[i])) continue;
    rows.low[i] = {read_bytes(pixels + y.low + x.low[i]), read_bytes(pixels + y.low + x.high[i])};
    rows.high[i] = {read_bytes(pixels + y.high + x.low[i]), read_bytes(pixels + y.high + x.high[i])};
  }
  return rows;
}

// One store for the whole vector.
template <class T, int width>
__device__ void write(T* to, const Vector<T, width>& vector) {
  using Word = std::conditional_t<sizeof(vector) == 8, uint64_t,
                                  std::conditional_t<sizeof(vector) == 4, uint32_t, uint16_t>>;
  static_assert(sizeof(Word) == sizeof(vector));
  Word word;
  memcpy(&word, &vector, sizeof(word));
  *reinterpret_cast<Word*>(to) = word;
}

// Fills `width` columns of a crop and of the mirrored one from the band's first row to its last.
template <class T, int width>
__device__ void write_columns(const CropArguments& a, const FrameView& frame, CropAxis axis, T* crop,
                              int column, SharedArray<CropRow> rows, int first_row, int row_count,
                              const Tiling& tiling) {
  const Columns<width> x(axis, column, frame.width);
  const int plane = a.height * a.width, row_of_thread = int(threadIdx.x) / tiling.columns;
  // The frame's first channel goes into the first plane or the last, and the others follow from there.
  const int next_plane = a.bgr ? -plane : plane, step = tiling.rows * a.width;
  crop += (a.bgr ? 2 * plane : 0) + (first_row + row_of_thread) * a.width;
  T* to = crop + column;
  T* mirrored_to = crop + a.count * (3 * plane) + (a.width - width - column);
  const float scale[3] = {a.scale[a.bgr ? 2 : 0], a.scale[1], a.scale[a.bgr ? 0 : 2]};
  const float bias[3] = {a.bias[a.bgr ? 2 : 0], a.bias[1], a.bias[a.bgr ? 0 : 2]};
  for (int r = row_of_thread; r < row_count; r += tiling.rows, to += step, mirrored_to += step) {
    const CropRow y = rows[r];
    const TwoRows<width> pixels = read_rows(frame.pixels, x, y);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      Vector<T, width> forwards, backwards;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const float low = pixels.low[i].blended(c, x.low_weight[i], x.high_weight[i]);
        const float high = pixels.high[i].blended(c, x.low_weight[i], x.high_weight[i]);
        T value;
        store(&value, fused(blend(low, high, y.low_weight, y.high_weight), scale[c], bias[c]));
        forwards.value[i] = backwards.value[width - 1 - i] = value;
      }
      write(to + c * next_plane, forwards);
      if (a.mirrored) write(mirrored_to + c * next_plane, backwards);
    }
  }
}

template <class T, int width>
__global__ void __launch_bounds__(kMostThreads, 4)
    crop_boxes(const __grid_constant__ CropArguments a, const __grid_constant__ FrameTable table,
               const Tiling tiling) {
  OAKS_SHARED(CropWindow, window_of_box, 1);
  OAKS_SHARED(CropRow, rows, kMostRows);
  const int64_t box = blockIdx.x / unsigned(tiling.bands);
  const int band = int(blockIdx.x % unsigned(tiling.bands));
  const int which = a.frame_index ? a.frame_index[box] : 0;
  const bool known = which >= 0 && which < a.frame_count;
  if ((known ? which / kFramesPerLaunch : 0) != table.part) return;  // another launch's, for the whole block
  const FrameView frame = known ? table.frames[which % kFramesPerLaunch] : FrameView{nullptr, 0, 0, 0};
  const int first_row = band * tiling.band;
  const int row_count = tiling.band < a.height - first_row ? tiling.band : a.height - first_row;

  if (threadIdx.x == 0) {
    const CropWindow window = crop_window(a.boxes + 4 * box, a.height, a.width, a.padding);
    if (band == 0) write_transform(window, a.transforms + 6 * box);
    window_of_box[0] = window;
  }
  __syncthreads();
  const CropWindow window = window_of_box[0];
  for (int r = int(threadIdx.x); r < row_count; r += int(blockDim.x)) {
    rows[r] = find_row(window.y, first_row + r, frame);
  }
  __syncthreads();
  if (int(threadIdx.x) >= tiling.rows * tiling.columns) return;
  T* const crop = static_cast<T*>(a.pixels) + box * (3 * a.height * a.width);
  const int step = tiling.columns * width;
  for (int column = int(threadIdx.x) % tiling.columns * width; column < a.width; column += step) {
    write_columns<T, width>(a, frame, window.x, crop, column, rows, first_row, row_count, tiling);
  }
}

Tiling tile(const CropArguments& a, int width) {
  Tiling tiling;
  const int groups = a.width / width;
  tiling.columns = groups < kMostThreads ? groups : kMostThreads;
  tiling.rows = kMostThreads / tiling.columns;
  if (tiling.rows > kLongestBand) tiling.rows = kLongestBand;
  if (tiling.rows > a.height) tiling.rows = a.height;
  const int64_t rows = divided_up<int64_t>(a.count * a.height, kEnoughBlocks);
  const int longest = int(rows < kLongestBand ? rows : kLongestBand);
  tiling.band = divided_up(longest, tiling.rows) * tiling.rows;
  tiling.bands = divided_up(a.height, tiling.band);
  return tiling;
}

template <class T, int width>
void start(const CropArguments& a, Stream stream) {
  const Tiling tiling = tile(a, width);
  const int threads = divided_up(tiling.columns * tiling.rows, kWarp) * kWarp;
  FrameTable table{};
  for (int first = 0; first < a.frame_count || first == 0; first += kFramesPerLaunch) {
    table.part = first / kFramesPerLaunch;
    for (int i = 0; i < kFramesPerLaunch && first + i < a.frame_count; ++i)
      table.frames[i] = a.frames[first + i];
    launch("crop", crop_boxes<T, width>, {a.count * tiling.bands, threads}, stream, a, table, tiling);
  }
}

// Two pixels at a time where rows and addresses allow: more would spread a warp's reads over more of the
// frame.
template <class T>
void start_widest(const CropArguments& a, Stream stream) {
  constexpr int kWidest = 2;
  if (a.width % kWidest == 0 && lies_on(a.pixels, kWidest * sizeof(T))) return start<T, kWidest>(a, stream);
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
