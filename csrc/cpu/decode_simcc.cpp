#include "core/decode_simcc.h"

#include "cpu/dispatch.h"
#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void decode_simcc(const SimccArguments& arguments, int threads) {
  const Kernels& compiled = kernels();
  for_each(arguments.count, threads, [&](int64_t person, int /*worker*/) {
    for (int64_t k = 0; k < arguments.keypoints; ++k) {
      compiled.decode_simcc_keypoint(arguments, person * arguments.keypoints + k);
    }
  });
}

}  // namespace oaks::cpu
