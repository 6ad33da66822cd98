#include "core/opinion_features.h"

#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void opinion_features(const OpinionArguments& a, int threads) {
  const int columns = a.feature_count + kOpinionFeatures;
  for_each(a.count, a.count >= 64 ? threads : 1, [&](int64_t n, int /*worker*/) {
    for (int k = 0; k < a.keypoints; ++k) {
      float* const out = a.out + (n * a.keypoints + k) * columns;
      for (int c = 0; c < columns; ++c) out[c] = opinion_column(a, n, k, c);
    }
  });
}

}  // namespace oaks::cpu
