// Runs the kernels that nvcc compiled: their PTX, an instruction at a time, on the machine that runs their
// sources. Registers are 64 bits wide, global memory is the host's, and every byte of shared memory is
// watched. An instruction that is not known here is refused when it is loaded, never skipped.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <vector>

namespace emulator::ptx {

// What one launch executed.
struct Count {
  std::string kernel;  // as in the source: crop_boxes<oaks::Half, 2>
  int64_t blocks = 0;
  int threads = 0;
  // By warps: an instruction counts as often as the lane of the warp that executes it most often.
  int64_t instructions = 0, float64 = 0;
  // By threads; bytes of global memory.
  int64_t thread_instructions = 0, bytes_read = 0, bytes_written = 0;
};

// Takes the kernels of PTX files in the place of the sources; none: the sources again.
// Throws std::invalid_argument for what it does not know.
void load(const std::vector<std::string>& files);
bool is_loaded();
// Whether launches of PTX are counted from here on, and the counts since they were last taken.
void set_counting(bool counting);
std::vector<Count> take_counts();

// Runs the PTX of a kernel. `type`: the name of a type that has the kernel as its template argument.
void run(const std::string& name, const char* type, int64_t blocks, int threads, int shared_bytes,
         const std::vector<const void*>& parameters);

template <auto kernel>
struct Kernel;

template <class... Parameters, void (*kernel)(Parameters...)>
struct Kernel<kernel> {
  template <class... Arguments>
  static void run(const std::string& name, int64_t blocks, int threads, int shared_bytes,
                  const Arguments&... arguments) {
    const auto go = [&](Parameters... values) {
      ptx::run(name, typeid(Kernel).name(), blocks, threads, shared_bytes,
               {static_cast<const void*>(&values)...});
    };
    go(arguments...);
  }
};

}  // namespace emulator::ptx
