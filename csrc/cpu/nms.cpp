#include "core/nms.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/operations.h"

namespace oaks::cpu {
namespace {

// Marks the suppressed ones among the candidates order[first] to order[last - 1], which are those of one
// frame, best first.
template <class Arguments>
void suppress_in_frame(const Arguments& a, const std::vector<int64_t>& order, size_t first, size_t last,
                       std::vector<char>& suppressed) {
  for (size_t i = first; i < last; ++i) {
    const int64_t better = order[i];
    if (suppressed[size_t(better)]) continue;
    for (size_t j = i + 1; j < last; ++j) {
      const int64_t worse = order[j];
      if (!suppressed[size_t(worse)] && suppresses(a, better, worse)) suppressed[size_t(worse)] = 1;
    }
  }
}

template <class Arguments>
void suppress(const Arguments& a) {
  const auto frame = [&](int64_t i) { return a.frame_index ? a.frame_index[i] : 0; };
  std::vector<int64_t> ranked(static_cast<size_t>(a.count));
  std::iota(ranked.begin(), ranked.end(), int64_t(0));
  std::sort(ranked.begin(), ranked.end(),
            [&](int64_t i, int64_t j) { return ranks_before(rank_score(a, i), i, rank_score(a, j), j); });
  std::vector<int64_t> by_frame = ranked;
  std::stable_sort(by_frame.begin(), by_frame.end(),
                   [&](int64_t i, int64_t j) { return frame(i) < frame(j); });

  std::vector<char> suppressed(ranked.size(), 0);
  for (size_t first = 0; first < by_frame.size();) {
    size_t last = first;
    while (last < by_frame.size() && frame(by_frame[last]) == frame(by_frame[first])) ++last;
    suppress_in_frame(a, by_frame, first, last, suppressed);
    first = last;
  }
  int64_t* kept = a.kept;
  for (int64_t i : ranked) {
    if (!suppressed[size_t(i)]) *kept++ = i;
  }
  std::fill(kept, a.kept + a.count, int64_t(-1));
}

}  // namespace

void oks_nms(const OksNmsArguments& arguments, int /*threads*/) { suppress(arguments); }
void box_nms(const BoxNmsArguments& arguments, int /*threads*/) { suppress(arguments); }

}  // namespace oaks::cpu
