#include "core/oks.h"

#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void oks(const OksArguments& args, int threads) {
  const int64_t pose = int64_t(args.keypoints) * 2;
  for_each(args.a_count, args.b_count >= 64 ? threads : 1, [&](int64_t i, int /*worker*/) {
    for (int64_t j = 0; j < args.b_count; ++j) {
      const uint8_t* visible = args.visible ? args.visible + j * args.keypoints : nullptr;
      args.similarity[i * args.b_count + j] = object_similarity(
          args.a + i * pose, args.b + j * pose, args.areas[j], visible, args.sigmas, args.keypoints);
    }
  });
}

}  // namespace oaks::cpu
