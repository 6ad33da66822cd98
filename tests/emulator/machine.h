// Runs the blocks of a kernel on the host, with a block's threads as coroutines, and reports errors:
// conflicting accesses to shared memory between two barriers, reads of shared memory that has not been
// written, indices out of bounds, and barriers and warp operations that not every thread reaches.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulator {

// The order in which blocks, and the threads of a block, run.
enum class Order { ascending, descending, shuffled };

struct Settings {
  Order order = Order::ascending;
  uint64_t seed = 0;
  int shared_limit = 48 * 1024;  // bytes of dynamic shared memory that a block may have
  int multiprocessors = 132;     // of the emulated device
  int skipped_barrier = -1;      // index of a barrier at which threads do not wait, a planted error; -1: none
};
Settings& settings();

// The errors reported since the last call.
std::vector<std::string> take_reports();

// Runs `kernel` once for each thread of each block. Throws std::runtime_error if it cannot continue
// after an error.
void run(const std::string& name, int64_t blocks, int threads, int shared_bytes,
         const std::function<void()>& kernel);

// ---- used by block.h

enum class Operation { barrier, shuffle_xor, shuffle, ballot, largest, smallest };

// Waits until all threads in `mask` (for a barrier: all of the block) have called it too. Returns the result
// of the operation for the calling thread.
uint64_t meet(Operation operation, unsigned mask, uint64_t value, int argument, int line);

// Report an error of the current thread; `stop` also ends the launch.
void report(const std::string& text);
[[noreturn]] void stop(const std::string& text);

// One array of shared memory, and the last accesses to each element.
class Region {
 public:
  Region(std::string name, int64_t count, size_t element_bytes);
  void read(int64_t index, void* to);
  void write(int64_t index, const void* from);

 private:
  struct Access {
    int64_t written_in = -1, read_in = -1;  // number of barriers that the block had passed
    int writer = -1, reader = -1;
    bool several_readers = false;
  };
  std::string element(int64_t index) const;
  Access& accessed(int64_t index, const char* how);

  std::string name_;
  int64_t count_;
  size_t element_bytes_;
  std::vector<unsigned char> bytes_;
  std::vector<Access> accesses_;
};

// The block's array that is declared at `place`; null: the dynamic shared memory.
Region& region(const void* place, const char* name, int64_t count, size_t element_bytes);

template <class T>
class Shared {
 public:
  class Element {
   public:
    Element(Region& region, int64_t index) : region_(region), index_(index) {}
    Element(const Element&) = default;
    operator T() const {
      T value;
      region_.read(index_, &value);
      return value;
    }
    const Element& operator=(const T& value) const {
      region_.write(index_, &value);
      return *this;
    }
    const Element& operator=(const Element& other) const { return *this = T(other); }

   private:
    Region& region_;
    int64_t index_;
  };

  explicit Shared(Region& region) : region_(&region) {}
  Element operator[](int64_t index) const { return {*region_, index}; }

 private:
  Region* region_;
};

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulator
