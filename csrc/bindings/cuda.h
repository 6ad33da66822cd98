// Registers the CUDA operations, device information and graphs. Streams are passed as integer handles.
#pragma once

#include <memory>

#include "bindings/operations.h"
#include "cuda/device.h"
#include "cuda/operations.h"

namespace oaks::bindings {

inline void register_cuda(py::module_ m) {
  register_crop(m, cuda::crop);
  register_decode(m, cuda::decode);
  register_score(m, cuda::score);
  register_oks(m, cuda::oks);
  register_oks_nms(m, cuda::oks_nms);
  register_box_nms(m, cuda::box_nms);
  register_decode_simcc(m, cuda::decode_simcc);
  register_map_features(m, cuda::map_features);
  register_forest(m, cuda::forest);
  register_opinion_features(m, cuda::opinion_features);

  m.def("device_count", cuda::device_count);
  m.def("driver_version", cuda::driver_version);
  m.def("runtime_version", cuda::runtime_version);
  m.def("device_info", [](int device) {
    const cuda::DeviceInfo info = cuda::device_info(device);
    py::dict fields;
    fields["name"] = info.name;
    fields["capability"] = py::make_tuple(info.major, info.minor);
    fields["multiprocessors"] = info.multiprocessors;
    fields["total_bytes"] = info.total_bytes;
    fields["free_bytes"] = info.free_bytes;
    return fields;
  });
  m.def("device_of", [](uintptr_t address) { return cuda::device_of(at<const void>(address)); });
  m.def("wait_for", [](uintptr_t stream, uintptr_t other, uintptr_t address) {
    cuda::wait_for(at<void>(stream), at<void>(other), at<const void>(address));
  });

  m.def("begin_capture", [](uintptr_t stream) { cuda::begin_capture(at<void>(stream)); });
  m.def("abandon_capture", [](uintptr_t stream) { cuda::abandon_capture(at<void>(stream)); });
  py::class_<cuda::Graph, std::unique_ptr<cuda::Graph>>(m, "Graph", py::module_local())
      .def(py::init([](uintptr_t stream) { return std::make_unique<cuda::Graph>(at<void>(stream)); }))
      .def("launch",
           [](const cuda::Graph& graph, uintptr_t stream) {
             py::gil_scoped_release release;
             graph.launch(at<void>(stream));
           })
      .def_property_readonly("node_count", &cuda::Graph::node_count);
}

}  // namespace oaks::bindings
