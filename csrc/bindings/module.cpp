// The native module: oaks._native.cpu, and oaks._native.cuda if the build had a CUDA compiler.
#include "bindings/operations.h"
#include "cpu/dispatch.h"
#include "cpu/operations.h"
#if defined(OAKS_WITH_CUDA)
#include "bindings/cuda.h"
#endif

namespace py = pybind11;

namespace {

void register_cpu(py::module_ m) {
  using namespace oaks;
  bindings::register_crop(m, cpu::crop);
  bindings::register_decode(m, cpu::decode);
  bindings::register_score(m, cpu::score);
  bindings::register_oks(m, cpu::oks);
  bindings::register_oks_nms(m, cpu::oks_nms);
  bindings::register_box_nms(m, cpu::box_nms);
  bindings::register_decode_simcc(m, cpu::decode_simcc);
  bindings::register_map_features(m, cpu::map_features);
  bindings::register_forest(m, cpu::forest);
  bindings::register_opinion_features(m, cpu::opinion_features);
  m.def("instruction_sets", cpu::instruction_sets);
  m.def("instruction_set", cpu::instruction_set);
  m.def("use_instruction_set", cpu::use_instruction_set);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.attr("version") = OAKS_VERSION;
  m.attr("max_keypoints") = oaks::kMaxKeypoints;
  m.attr("max_tree_leaves") = oaks::kMaxTreeLeaves;
  m.attr("max_blur_sigma") = oaks::kLargestBlurSigma;
  register_cpu(m.def_submodule("cpu"));
#if defined(OAKS_WITH_CUDA)
  oaks::bindings::register_cuda(m.def_submodule("cuda"));
  m.attr("cuda_version") = OAKS_CUDA_VERSION;
  m.attr("cuda_architectures") = OAKS_CUDA_ARCHITECTURES;
#endif
}
