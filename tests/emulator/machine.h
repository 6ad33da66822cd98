// Runs a kernel's blocks on the host, a block's threads as coroutines, and reports what the threads of a
// block may not do to one another: conflicting accesses to shared memory between two barriers, reading shared
// memory that nobody has written, indices outside it, barriers and warp operations that not every thread
// reaches.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulator {

// The order in which blocks, and the threads of a block, get their turns.
enum class Order { ascending, descending, shuffled };

struct Settings {
  Order order = Order::ascending;
  uint64_t seed = 0;
  int shared_limit = 48 * 1024;  // bytes of dynamic shared memory that a block may have
  int multiprocessors = 132;     // of the device that the launchers reckon with
  int skipped_barrier = -1;  // each thread passes its barrier of this number without waiting: a planted error
};
Settings& settings();

// What was found since the last call, in words.
std::vector<std::string> take_reports();

// Runs `kernel` once for each thread of each block. Throws std::runtime_error if it cannot go on.
void run(const std::string& name, int64_t blocks, int threads, int shared_bytes,
         const std::function<void()>& kernel);

// ---- what block.h is made of

enum class Operation { barrier, shuffle_xor, shuffle, ballot, largest, smallest };

// Waits until all threads that `mask` names (for a barrier: all of the block) have come as well.
uint64_t meet(Operation operation, unsigned mask, uint64_t value, int argument, int line);

// Puts on record what the current thread may not do; `stop` also ends the launch.
void report(const std::string& text);
[[noreturn]] void stop(const std::string& text);

// One array of shared memory, and who touched its elements since the last barrier.
class Region {
 public:
  Region(std::string name, int64_t count, size_t element_bytes);
  void read(int64_t index, void* to);
  void write(int64_t index, const void* from);

 private:
  struct Access {
    int64_t written_in = -1, read_in = -1;  // the number of barriers passed before it
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

// The block's array that is declared at `place`; null: the one whose size the launch gave.
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
