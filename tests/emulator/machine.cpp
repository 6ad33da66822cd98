#include "emulator/machine.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>

#include "emulator/block.h"
#include "emulator/coroutine.h"

namespace emulator {
namespace {

constexpr int kWarp = 32;
constexpr size_t kMostReports = 20;  // of one launch

// Thrown to unwind a thread whose block cannot continue.
struct Stopped {};

struct Thread {
  enum class State { waiting, ready, done } state = State::ready;
  bool started = false;
  Operation operation = Operation::barrier;
  unsigned mask = 0;
  uint64_t value = 0, result = 0;
  int argument = 0, line = 0, barriers = 0;
};

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::barrier:
      return "__syncthreads";
    case Operation::shuffle_xor:
      return "__shfl_xor_sync";
    case Operation::shuffle:
      return "__shfl_sync";
    case Operation::ballot:
      return "__ballot_sync";
    case Operation::largest:
      return "__reduce_max_sync";
    case Operation::smallest:
      return "__reduce_min_sync";
  }
  return "?";
}

class Machine {
 public:
  Settings settings;
  std::vector<std::string> reports;

  void launch(const std::string& name, int64_t blocks, int threads, int shared_bytes,
              const std::function<void()>& kernel);
  uint64_t meet(Operation operation, unsigned mask, uint64_t value, int argument, int line);
  Region& region(const void* place, const char* name, int64_t count, size_t element_bytes);

  void report(const std::string& text) {
    if (reports_of_launch_++ < kMostReports) reports.push_back(where() + text);
  }
  // Reports an error after which the launch cannot continue.
  [[noreturn]] void stop(const std::string& text) {
    report(text);
    if (error_.empty()) error_ = where() + text;
    throw Stopped{};
  }
  int64_t epoch() const { return epoch_; }
  int current() const { return current_; }

 private:
  std::vector<int64_t> turns(int64_t count);
  void run_block();
  void give_turns();
  static void run_thread(void* machine);
  void unwind();
  bool release_warps();
  bool release_warp(int first);
  void answer(int first, unsigned mask);
  bool release_barrier();
  std::string deadlock() const;
  std::string where() const {
    std::string text = name_ + ", block " + std::to_string(block_);
    if (current_ >= 0) text += ", thread " + std::to_string(current_);
    return text + ": ";
  }

  std::string name_, error_;
  const std::function<void()>* kernel_ = nullptr;
  int64_t block_ = 0, epoch_ = 0;
  int current_ = -1, shared_bytes_ = 0;
  size_t reports_of_launch_ = 0;
  bool stopping_ = false;
  std::vector<Thread> threads_;
  std::vector<std::unique_ptr<Coroutine>> coroutines_;
  std::map<const void*, Region> regions_;
  std::mt19937_64 random_;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

std::vector<int64_t> Machine::turns(int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t(0));
  if (settings.order == Order::descending) std::reverse(order.begin(), order.end());
  if (settings.order == Order::shuffled) std::shuffle(order.begin(), order.end(), random_);
  return order;
}

void Machine::launch(const std::string& name, int64_t blocks, int threads, int shared_bytes,
                     const std::function<void()>& kernel) {
  name_ = name;
  error_.clear();
  kernel_ = &kernel;
  shared_bytes_ = shared_bytes;
  reports_of_launch_ = 0;
  random_.seed(settings.seed);
  if (threads < 1 || threads > 1024 || threads % kWarp) {
    throw std::runtime_error(name + ": a block of " + std::to_string(threads) + " threads");
  }
  if (shared_bytes > settings.shared_limit) {
    throw std::runtime_error(name + ": " + std::to_string(shared_bytes) +
                             " bytes of shared memory are too many");
  }
  while (coroutines_.size() < size_t(threads)) coroutines_.push_back(std::make_unique<Coroutine>());
  blockDim.x = unsigned(threads);
  gridDim.x = unsigned(blocks);
  for (const int64_t block : turns(blocks)) {
    block_ = block;
    blockIdx.x = unsigned(block);
    threads_.assign(size_t(threads), Thread());
    run_block();
    if (!error_.empty()) throw std::runtime_error(error_);
  }
}

void Machine::run_block() {
  regions_.clear();
  epoch_ = 0;
  stopping_ = false;
  while (true) {
    give_turns();
    current_ = -1;
    if (error_.empty()) {
      const bool done = std::all_of(threads_.begin(), threads_.end(),
                                    [](const Thread& t) { return t.state == Thread::State::done; });
      if (done) return;
      try {
        if (release_warps() || release_barrier()) continue;
        stop(deadlock());
      } catch (const Stopped&) {
      }
    }
    return unwind();
  }
}

// Runs every thread that is ready until it waits or ends.
void Machine::give_turns() {
  for (const int64_t id : turns(int64_t(threads_.size()))) {
    Thread& thread = threads_[size_t(id)];
    if (thread.state != Thread::State::ready) continue;
    current_ = int(id);
    threadIdx.x = unsigned(id);
    if (thread.started) {
      coroutines_[size_t(id)]->resume();
    } else {
      thread.started = true;
      coroutines_[size_t(id)]->start(run_thread, this);
    }
    if (!error_.empty()) return;
  }
}

void Machine::run_thread(void* self) {
  auto& machine = *static_cast<Machine*>(self);
  const int id = machine.current_;
  try {
    (*machine.kernel_)();
  } catch (const Stopped&) {
  }
  machine.threads_[size_t(id)].state = Thread::State::done;
}

// Unwinds the threads of a block that cannot continue.
void Machine::unwind() {
  stopping_ = true;
  for (size_t id = 0; id < threads_.size(); ++id) {
    if (!threads_[id].started || threads_[id].state == Thread::State::done) continue;
    current_ = int(id);
    coroutines_[id]->resume();
  }
  current_ = -1;
}

uint64_t Machine::meet(Operation operation, unsigned mask, uint64_t value, int argument, int line) {
  const int id = current_;
  Thread& thread = threads_[size_t(id)];
  if (operation == Operation::barrier) {
    if (thread.barriers++ == settings.skipped_barrier) return 0;
  } else if (!(mask >> (id % kWarp) & 1u)) {
    stop(std::string(name_of(operation)) + " in line " + std::to_string(line) +
         " with a mask that leaves out the caller");
  }
  thread.state = Thread::State::waiting;
  thread.operation = operation;
  thread.mask = mask;
  thread.value = value;
  thread.argument = argument;
  thread.line = line;
  coroutines_[size_t(id)]->pause();
  if (stopping_) throw Stopped{};
  return thread.result;
}

bool Machine::release_warps() {
  bool released = false;
  for (int first = 0; first < int(threads_.size()); first += kWarp) released |= release_warp(first);
  return released;
}

// Completes the warp's operations that all threads in their masks have reached.
bool Machine::release_warp(int first) {
  bool released = false;
  for (int lane = 0; lane < kWarp; ++lane) {
    const Thread& own = threads_[size_t(first + lane)];
    if (own.state != Thread::State::waiting || own.operation == Operation::barrier) continue;
    bool complete = true;
    for (int other = 0; other < kWarp; ++other) {
      if (!(own.mask >> other & 1u)) continue;
      const Thread& peer = threads_[size_t(first + other)];
      if (peer.state != Thread::State::waiting || peer.operation == Operation::barrier) {
        complete = false;
      } else if (peer.operation != own.operation || peer.mask != own.mask || peer.line != own.line) {
        stop("lanes " + std::to_string(lane) + " and " + std::to_string(other) +
             " of a warp meet in different operations: " + name_of(own.operation) + " in line " +
             std::to_string(own.line) + ", " + name_of(peer.operation) + " in line " +
             std::to_string(peer.line) + (peer.mask != own.mask ? ", with different masks" : ""));
      }
    }
    if (!complete) continue;
    answer(first, own.mask);
    released = true;
  }
  return released;
}

void Machine::answer(int first, unsigned mask) {
  unsigned votes = 0;
  uint64_t largest = 0, smallest = UINT64_MAX;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    const uint64_t value = threads_[size_t(first + lane)].value;
    if (value) votes |= 1u << lane;
    largest = std::max(largest, value);
    smallest = std::min(smallest, value);
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    Thread& thread = threads_[size_t(first + lane)];
    if (thread.operation == Operation::ballot) {
      thread.result = votes;
    } else if (thread.operation == Operation::largest || thread.operation == Operation::smallest) {
      thread.result = thread.operation == Operation::largest ? largest : smallest;
    } else {
      const int from =
          (thread.operation == Operation::shuffle_xor ? lane ^ thread.argument : thread.argument) % kWarp;
      if (from < 0 || !(mask >> from & 1u)) {
        stop("lane " + std::to_string(lane) + " reads from lane " + std::to_string(from) +
             ", which takes no part in " + name_of(thread.operation) + " in line " +
             std::to_string(thread.line));
      }
      thread.result = threads_[size_t(first + from)].value;
    }
    thread.state = Thread::State::ready;
  }
}

bool Machine::release_barrier() {
  int line = -1;
  bool left = false;
  for (const Thread& thread : threads_) {
    if (thread.state == Thread::State::done) {
      left = true;
    } else if (thread.operation != Operation::barrier) {
      return false;
    } else if (line >= 0 && line != thread.line) {
      stop("the block's threads meet at different barriers: lines " + std::to_string(line) + " and " +
           std::to_string(thread.line));
    } else {
      line = thread.line;
    }
  }
  if (left) stop("some threads have ended, others wait at the barrier in line " + std::to_string(line));
  ++epoch_;
  for (Thread& thread : threads_) thread.state = Thread::State::ready;
  return true;
}

std::string Machine::deadlock() const {
  std::map<std::string, std::pair<int, size_t>>
      groups;  // what threads wait for -> the first of them, and their number
  for (size_t id = 0; id < threads_.size(); ++id) {
    const Thread& t = threads_[id];
    const std::string what = t.state == Thread::State::done ? std::string("have ended")
                                                            : std::string("wait in ") + name_of(t.operation) +
                                                                  " in line " + std::to_string(t.line);
    auto& group = groups.try_emplace(what, int(id), 0).first->second;
    ++group.second;
  }
  std::string text = "deadlock, the block's threads diverged:";
  for (const auto& [what, group] : groups) {
    text +=
        " " + std::to_string(group.second) + " " + what + " (first: " + std::to_string(group.first) + ");";
  }
  return text;
}

Region& Machine::region(const void* place, const char* name, int64_t count, size_t element_bytes) {
  const int64_t size = place ? count : shared_bytes_ / int64_t(element_bytes);
  return regions_.try_emplace(place, name, size, element_bytes).first->second;
}

}  // namespace

// ---- shared memory

Region::Region(std::string name, int64_t count, size_t element_bytes)
    : name_(std::move(name)),
      count_(count),
      element_bytes_(element_bytes),
      bytes_(size_t(count) * element_bytes),
      accesses_(size_t(count)) {}

std::string Region::element(int64_t index) const {
  return "shared memory " + name_ + "[" + std::to_string(index) + "]";
}

Region::Access& Region::accessed(int64_t index, const char* how) {
  if (index < 0 || index >= count_) {
    machine().stop(std::string(how) + " of " + element(index) + ", which has " + std::to_string(count_) +
                   " elements");
  }
  return accesses_[size_t(index)];
}

void Region::read(int64_t index, void* to) {
  Access& access = accessed(index, "read");
  const int thread = machine().current();
  const int64_t epoch = machine().epoch();
  if (access.writer < 0) {
    machine().report("read of " + element(index) + ", which has not been written");
  } else if (access.written_in == epoch && access.writer != thread) {
    machine().report("conflict: " + element(index) + " is read without a barrier after thread " +
                     std::to_string(access.writer) + " wrote it");
  }
  access.several_readers = access.read_in == epoch && (access.several_readers || access.reader != thread);
  access.reader = thread;
  access.read_in = epoch;
  std::memcpy(to, &bytes_[size_t(index) * element_bytes_], element_bytes_);
}

void Region::write(int64_t index, const void* from) {
  Access& access = accessed(index, "write");
  const int thread = machine().current();
  const int64_t epoch = machine().epoch();
  const bool written = access.written_in == epoch && access.writer != thread;
  const bool read = access.read_in == epoch && (access.several_readers || access.reader != thread);
  if (written || read) {
    machine().report("conflict: " + element(index) + " is written without a barrier after thread " +
                     std::to_string(written ? access.writer : access.reader) +
                     (written ? " wrote it" : " read it"));
  }
  access.writer = thread;
  access.written_in = epoch;
  std::memcpy(&bytes_[size_t(index) * element_bytes_], from, element_bytes_);
}

// ---- the interface

Settings& settings() { return machine().settings; }

std::vector<std::string> take_reports() {
  std::vector<std::string> reports;
  reports.swap(machine().reports);
  return reports;
}

void run(const std::string& name, int64_t blocks, int threads, int shared_bytes,
         const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  machine().launch(name, blocks, threads, shared_bytes, kernel);
}

uint64_t meet(Operation operation, unsigned mask, uint64_t value, int argument, int line) {
  return machine().meet(operation, mask, value, argument, line);
}

void report(const std::string& text) { machine().report(text); }
void stop(const std::string& text) { machine().stop(text); }

Region& region(const void* place, const char* name, int64_t count, size_t element_bytes) {
  return machine().region(place, name, count, element_bytes);
}

}  // namespace emulator
