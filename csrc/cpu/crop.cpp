#include "cpu/dispatch.h"
#include "cpu/operations.h"
#include "cpu/threads.h"

namespace oaks::cpu {

void crop(const CropArguments& arguments, int threads) {
  // With few crops, each is divided into bands of rows, so that all threads have work.
  const int bands = arguments.count < 2 * threads ? (threads > 1 ? 2 * threads : 1) : 1;
  std::vector<Scratch> scratch(static_cast<size_t>(threads));
  const Kernels& compiled = kernels();
  for_each(arguments.count * bands, threads, [&](int64_t item, int worker) {
    const int64_t box = item / bands, band = item % bands;
    compiled.crop_rows(arguments, box, int(band * arguments.height / bands),
                       int((band + 1) * arguments.height / bands), scratch[size_t(worker)]);
  });
}

}  // namespace oaks::cpu
