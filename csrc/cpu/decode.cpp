#include <atomic>

#include "cpu/dispatch.h"
#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void decode(const DecodeArguments& arguments, int threads) {
  const Kernels& compiled = kernels();
  // With enough people, each thread takes whole people, because reading adjacent maps in order is fastest.
  const int64_t maps = arguments.count * arguments.keypoints;
  const int64_t together = arguments.count >= 2 * threads ? arguments.keypoints : 1;
  for_each(maps / together, threads, [&](int64_t item, int /*worker*/) {
    for (int64_t map = item * together; map < (item + 1) * together; ++map) {
      compiled.decode_map(arguments, map);
    }
    // Non-temporal stores must be visible to other threads before the caller continues.
    std::atomic_thread_fence(std::memory_order_seq_cst);
  });
}

}  // namespace oaks::cpu
