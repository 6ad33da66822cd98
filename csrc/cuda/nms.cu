// The first launch ranks the candidates by counting. Then one launch for each 32 candidates, in order of
// rank, decides which of them are kept ("stay"), and marks the worse candidates that these suppress. The last
// launch moves the candidates that stay to the front. Until then `kept` holds the ranked candidates and their
// marks, so that no memory is allocated and the call can be captured in a graph. All but the last launch use
// the whole device.
#include "core/nms.h"
#include "cuda/launch.h"

namespace oaks::cuda {
namespace {

constexpr int kRankThreads = 128;
constexpr int kSuppressThreads = 256;
constexpr int kGatherThreads = 256;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int64_t kSuppressed = int64_t(1) << 62;  // flag in an entry of `kept`, above all indices

template <class Arguments>
__global__ void __launch_bounds__(kRankThreads) rank_candidates(const __grid_constant__ Arguments a) {
  const int64_t i = int64_t(blockIdx.x) * kRankThreads + threadIdx.x;
  if (i >= a.count) return;
  const float own = rank_score(a, i);
  int64_t rank = 0;
  for (int64_t j = 0; j < a.count; ++j) rank += ranks_before(rank_score(a, j), j, own, i);
  a.kept[rank] = i;
}

// Bit mask of the lanes whose candidate `better` suppresses `worse`; lanes without `counts` are left out.
// Called by a whole warp.
template <class Arguments>
__device__ unsigned suppressors(const Arguments& a, bool counts, int64_t better, int64_t worse) {
  return __ballot_sync(kWholeWarp, counts && suppresses(a, better, worse));
}

// Bit mask of those of the 32 ranked candidates from `first` on that stay, returned to every thread. own: the
// lane's candidate, perhaps with the flag. Another block of this launch may already have flagged some of the
// 32; the result is the same, because these do not stay.
template <class Arguments>
__device__ unsigned staying_of(const Arguments& a, int first, int members, int64_t own,
                               SharedArray<unsigned> suppressors_of) {
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, warps = int(blockDim.x) / kWarp;
  const unsigned standing = __ballot_sync(kWholeWarp, own < kSuppressed);
  for (int t = warp; t < members; t += warps) {
    // Computed without the flags, so that it is equal in every warp even if another block sets flags
    // meanwhile.
    const unsigned before = suppressors(a, lane < t, own & ~kSuppressed, a.kept[first + t] & ~kSuppressed);
    if (lane == 0) suppressors_of[t] = before;
  }
  __syncthreads();
  unsigned stay = 0;
  for (int t = 0; t < members; ++t) {
    if ((standing >> t & 1u) && !(suppressors_of[t] & stay)) stay |= 1u << t;
  }
  return stay;
}

template <class Arguments>
__global__ void __launch_bounds__(kSuppressThreads)
    suppress_worse(const __grid_constant__ Arguments a, const int first) {
  OAKS_SHARED(unsigned, suppressors_of, kWarp);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, warps = int(blockDim.x) / kWarp;
  const int count = int(a.count), members = count - first < kWarp ? count - first : kWarp;
  const int64_t own = lane < members ? a.kept[first + lane] : kSuppressed;
  const unsigned stay = staying_of(a, first, members, own, suppressors_of);
  const bool stays = stay >> lane & 1u;
  if (blockIdx.x == 0 && warp == 0 && lane < members && !stays) a.kept[first + lane] = own | kSuppressed;
  const int64_t next = first + kWarp + int64_t(blockIdx.x) * warps + warp;
  for (int64_t t = next; t < count; t += int64_t(gridDim.x) * warps) {
    const int64_t worse = a.kept[t];
    if (worse >= kSuppressed) continue;
    if (suppressors(a, stays, own & ~kSuppressed, worse) && lane == 0) a.kept[t] = worse | kSuppressed;
  }
}

// Moves the candidates that stay to the front, in order, and fills the rest with -1.
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

__global__ void __launch_bounds__(kGatherThreads) gather(const __grid_constant__ Candidates a) {
  OAKS_SHARED(int, staying, kGatherThreads / kWarp);
  gather_kept(a, staying);
}

template <class Arguments>
void start(const char* ranking, const char* suppressing, const Arguments& a, Stream stream) {
  if (a.count <= 0) return;
  const DeviceGuard guard(a.kept);
  launch<rank_candidates<Arguments>>(ranking, {divided_up<int64_t>(a.count, kRankThreads), kRankThreads},
                                     stream, a);
  const int count = int(a.count), warps = kSuppressThreads / kWarp;
  const int max_blocks = kBlocksPerMultiprocessor * multiprocessors();
  for (int first = 0; first < count; first += kWarp) {
    const int blocks = divided_up(count - first, warps);
    const Shape shape{blocks < max_blocks ? blocks : max_blocks, kSuppressThreads};
    launch<suppress_worse<Arguments>>(suppressing, shape, stream, a, first);
  }
  const int threads = count < kGatherThreads ? divided_up(count, kWarp) * kWarp : kGatherThreads;
  launch<gather>("nms's rest", {1, threads}, stream, static_cast<const Candidates&>(a));
}

}  // namespace

void oks_nms(const OksNmsArguments& a, Stream stream) { start("oks_nms's ranks", "oks_nms", a, stream); }
void box_nms(const BoxNmsArguments& a, Stream stream) { start("box_nms's ranks", "box_nms", a, stream); }

}  // namespace oaks::cuda
