// Two launches: the candidates' ranks by counting, across the device; then one block goes through them best
// first, 32 at a time, as greedy suppression must. `kept` itself holds the ranked candidates and their marks
// meanwhile, so that no memory is allocated and the call can be recorded into a graph.
#include "core/nms.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kRankThreads = 128;
constexpr int kMostThreads = 1024;
constexpr int64_t kSuppressed = int64_t(1) << 62;  // marks an entry of `kept`; no index is so large

template <class Arguments>
__global__ void __launch_bounds__(kRankThreads) rank_candidates(const __grid_constant__ Arguments a) {
  const int64_t i = int64_t(blockIdx.x) * kRankThreads + threadIdx.x;
  if (i >= a.count) return;
  const float own = rank_score(a, i);
  int64_t rank = 0;
  for (int64_t j = 0; j < a.count; ++j) rank += ranks_before(rank_score(a, j), j, own, i);
  a.kept[rank] = i;
}

// Which of 32 better candidates, one per lane, suppress `worse`: a bit each. Called by a whole warp.
template <class Arguments>
__device__ unsigned suppressors(const Arguments& a, bool counts, int64_t better, int64_t worse) {
  return __ballot_sync(kWholeWarp, counts && suppresses(a, better, worse));
}

// Marks what is suppressed among the ranked candidates.
template <class Arguments>
__device__ void mark_suppressed(const Arguments& a, SharedArray<unsigned> suppressors_of) {
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, warps = int(blockDim.x) / kWarp;
  const int count = int(a.count);
  for (int first = 0; first < count; first += kWarp) {
    const int members = count - first < kWarp ? count - first : kWarp;
    const int64_t own = lane < members ? a.kept[first + lane] : kSuppressed;
    const unsigned standing = __ballot_sync(kWholeWarp, own < kSuppressed);
    for (int t = warp; t < members; t += warps) {
      const bool counts = lane < t && own < kSuppressed && (standing >> t & 1u);
      const unsigned before = suppressors(a, counts, own, a.kept[first + t] & ~kSuppressed);
      if (lane == 0) suppressors_of[t] = before;
    }
    __syncthreads();
    unsigned stay = 0;
    for (int t = 0; t < members; ++t) {
      if ((standing >> t & 1u) && !(suppressors_of[t] & stay)) stay |= 1u << t;
    }
    if (warp == 0 && lane < members && !(stay >> lane & 1u)) a.kept[first + lane] = own | kSuppressed;
    for (int t = first + kWarp + warp; t < count; t += warps) {
      const int64_t worse = a.kept[t];
      if (worse >= kSuppressed) continue;
      if (suppressors(a, stay >> lane & 1u, own, worse) && lane == 0) a.kept[t] = worse | kSuppressed;
    }
    __syncthreads();
  }
}

// Brings the candidates that stay to the front, in their order, and fills up with -1.
__device__ void gather_kept(const Candidates& a, SharedArray<int> staying) {
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, warps = int(blockDim.x) / kWarp;
  const int count = int(a.count), threads = int(blockDim.x);
  int filled = 0;
  for (int first = 0; first < count; first += threads) {
    const int t = first + int(threadIdx.x);
    const int64_t own = t < count ? a.kept[t] : kSuppressed;
    const unsigned stay = __ballot_sync(kWholeWarp, own < kSuppressed);
    if (lane == 0) staying[warp] = __popc(stay);
    __syncthreads();
    int place = filled + __popc(stay & ((1u << lane) - 1u));
    for (int w = 0; w < warps; ++w) {
      const int in_warp = staying[w];
      if (w < warp) place += in_warp;
      filled += in_warp;
    }
    if (own < kSuppressed) a.kept[place] = own;
    __syncthreads();
  }
  for (int t = filled + int(threadIdx.x); t < count; t += threads) a.kept[t] = -1;
}

template <class Arguments>
__global__ void __launch_bounds__(kMostThreads) suppress(const __grid_constant__ Arguments a) {
  OAKS_SHARED(unsigned, suppressors_of, kWarp);
  OAKS_SHARED(int, staying, kMostThreads / kWarp);
  mark_suppressed(a, suppressors_of);
  gather_kept(a, staying);
}

template <class Arguments>
void start(const char* ranking, const char* suppressing, const Arguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.kept);
  launch(ranking, rank_candidates<Arguments>, {divided_up<int64_t>(a.count, kRankThreads), kRankThreads},
         stream, a);
  const int threads = int(a.count < kWarp ? a.count : kWarp) * kWarp;  // a warp for each of 32 candidates
  launch(suppressing, suppress<Arguments>, {1, threads}, stream, a);
}

}  // namespace

void oks_nms(const OksNmsArguments& a, Stream stream) { start("oks_nms's ranks", "oks_nms", a, stream); }
void box_nms(const BoxNmsArguments& a, Stream stream) { start("box_nms's ranks", "box_nms", a, stream); }

}  // namespace oaks::cuda
