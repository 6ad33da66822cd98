#include "core/map_features.h"

#include "cpu/dispatch.h"
#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void map_features(const FeatureArguments& arguments, int threads) {
  // Without maps, a few people are too little work for several threads.
  const int used = arguments.heatmaps || arguments.count >= 64 ? threads : 1;
  std::vector<Scratch> scratch(static_cast<size_t>(used));
  const Kernels& compiled = kernels();
  for_each(arguments.count, used, [&](int64_t person, int worker) {
    compiled.person_features(arguments, person, scratch[size_t(worker)]);
  });
}

}  // namespace oaks::cpu
