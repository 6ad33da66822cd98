#include "cpu/features.h"
#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void decode(const DecodeArguments& arguments, int threads) {
  std::vector<Scratch> scratch(static_cast<size_t>(threads));
  const Kernels& compiled = kernels();
  for_each(arguments.count * arguments.keypoints, threads,
           [&](int64_t map, int worker) { compiled.decode_map(arguments, map, scratch[size_t(worker)]); });
}

}  // namespace oaks::cpu
