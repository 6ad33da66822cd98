// The hot loops, compiled once per instruction set (cmake/cpu.cmake). They use no templates of the standard
// library: the linker keeps only one copy of each, which may use instructions that the processor lacks.
#include "cpu/crop_kernel.h"
#include "cpu/decode_kernel.h"
#include "cpu/decode_simcc_kernel.h"
#include "cpu/dispatch.h"
#include "cpu/forest_kernel.h"
#include "cpu/map_features_kernel.h"

namespace oaks::cpu {

#define OAKS_JOIN(a, b) a##b
#define OAKS_KERNELS(isa) OAKS_JOIN(kernels_, isa)
extern const Kernels OAKS_KERNELS(OAKS_ISA);
const Kernels OAKS_KERNELS(OAKS_ISA){decode_map, crop_rows, person_features, forest_rows,
                                     decode_simcc_keypoint};

}  // namespace oaks::cpu
