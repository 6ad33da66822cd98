#include "core/forest.h"

#include "cpu/dispatch.h"
#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void forest(const ForestArguments& arguments, int threads) {
  constexpr int64_t kRows = 64;
  const Kernels& compiled = kernels();
  std::vector<Scratch> scratch(static_cast<size_t>(threads));
  for_each((arguments.count + kRows - 1) / kRows, threads, [&](int64_t item, int worker) {
    const int64_t first = item * kRows, last = first + kRows;
    compiled.forest_rows(arguments, first, last < arguments.count ? last : arguments.count,
                         scratch[size_t(worker)]);
  });
}

}  // namespace oaks::cpu
