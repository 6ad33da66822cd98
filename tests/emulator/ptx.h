// Interprets the PTX that nvcc compiles kernels to, on the emulator that also runs their sources. Registers
// have 64 bits, global memory is host memory, and accesses to shared memory are checked byte by byte. PTX
// with an unknown instruction is refused when it is loaded.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <vector>

namespace emulator::ptx {

// Counts of one launch.
struct Count {
  std::string kernel;  // as in the source: crop_boxes<oaks::Half, 2>
  int64_t blocks = 0;
  int threads = 0;
  // Of warps: an instruction counts as often as the lane that executes it most often.
  int64_t instructions = 0, float64 = 0;
  // Of threads; bytes in global memory.
  int64_t thread_instructions = 0, bytes_read = 0, bytes_written = 0;
};

// Runs the kernels of these PTX files instead of the sources from now on; without files, the sources again.
// Throws std::invalid_argument for unknown instructions and syntax.
void load(const std::vector<std::string>& files);
bool is_loaded();
// Turns the counting of PTX launches on or off; take_counts returns the counts since its last call.
void set_counting(bool counting);
std::vector<Count> take_counts();

// Runs the PTX of a kernel. type: the mangled name of a type with the kernel as its template argument.
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
