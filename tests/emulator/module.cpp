// The CUDA operations as in the native module, on emulated blocks, and the emulator's settings and reports.
#include <pybind11/stl.h>

#include "bindings/cuda.h"
#include "emulator/machine.h"
#include "emulator/planted.h"
#include "emulator/ptx.h"

namespace py = pybind11;

PYBIND11_MODULE(_emulated, m) {
  oaks::bindings::register_cuda(m.def_submodule("cuda"));

  py::enum_<emulator::Order>(m, "Order")
      .value("ascending", emulator::Order::ascending)
      .value("descending", emulator::Order::descending)
      .value("shuffled", emulator::Order::shuffled);
  py::class_<emulator::Settings>(m, "Settings")
      .def_readwrite("order", &emulator::Settings::order)
      .def_readwrite("seed", &emulator::Settings::seed)
      .def_readwrite("shared_limit", &emulator::Settings::shared_limit)
      .def_readwrite("multiprocessors", &emulator::Settings::multiprocessors)
      .def_readwrite("skipped_barrier", &emulator::Settings::skipped_barrier);
  m.def("settings", emulator::settings, py::return_value_policy::reference);
  m.def("take_reports", emulator::take_reports);
  m.def("load_ptx", emulator::ptx::load);
  m.def("set_counting", emulator::ptx::set_counting);
  m.def("take_counts", [] {
    py::list counts;
    for (const emulator::ptx::Count& count : emulator::ptx::take_counts()) {
      counts.append(py::dict(
          py::arg("kernel") = count.kernel, py::arg("blocks") = count.blocks,
          py::arg("threads") = count.threads, py::arg("instructions") = count.instructions,
          py::arg("float64") = count.float64, py::arg("thread_instructions") = count.thread_instructions,
          py::arg("bytes_read") = count.bytes_read, py::arg("bytes_written") = count.bytes_written));
    }
    return counts;
  });
  m.def("planted", [](const std::string& error, uintptr_t from, uintptr_t to, int threads, int argument) {
    planted::start(error, oaks::bindings::at<const float>(from), oaks::bindings::at<float>(to), threads,
                   argument);
  });
#if defined(__SANITIZE_ADDRESS__)
  m.attr("sanitized") = true;
#else
  m.attr("sanitized") = false;
#endif
}
