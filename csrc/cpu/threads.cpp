#include "cpu/threads.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace oaks::cpu {
namespace {

// Helper threads sleep until a loop starts, and end with the process. The pool runs one loop at a time: a
// caller that finds it busy runs its loop without helpers, with the same results.
class Pool {
 public:
  void run(int64_t count, int helpers, const std::function<void(int64_t, int)>& body) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      helpers = start_helpers(helpers);
      body_ = &body;
      count_ = count;
      next_.store(0);
      helpers_used_ = helpers;
      working_ = helpers;
      ++loop_;
    }
    start_.notify_all();
    take_items(body, count, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return working_ == 0; });
  }

  std::mutex busy;

 private:
  void take_items(const std::function<void(int64_t, int)>& body, int64_t count, int worker) {
    for (int64_t item; (item = next_.fetch_add(1)) < count;) body(item, worker);
  }

  // Returns the number of helpers, which is lower than requested if the system refuses more threads.
  int start_helpers(int requested) {
    try {
      while (int(threads_.size()) < requested) {
        threads_.emplace_back([this, worker = int(threads_.size()) + 1] { serve(worker); });
      }
    } catch (const std::system_error&) {
    }
    return requested < int(threads_.size()) ? requested : int(threads_.size());
  }

  [[noreturn]] void serve(int worker) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      start_.wait(lock, [&] { return loop_ != seen; });
      seen = loop_;
      if (worker > helpers_used_) continue;
      const std::function<void(int64_t, int)>& body = *body_;
      const int64_t count = count_;
      lock.unlock();
      take_items(body, count, worker);
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  int helpers_used_ = 0, working_ = 0;
  uint64_t loop_ = 0;
};

// Threads do not exist in a forked child, so the child gets a new pool and never destroys the parent's.
Pool*& pool() {
  static Pool* instance = [] {
#if !defined(_WIN32)
    pthread_atfork(nullptr, nullptr, [] { pool() = new Pool; });
#endif
    return new Pool;
  }();
  return instance;
}

}  // namespace

void for_each(int64_t count, int threads, const std::function<void(int64_t, int)>& body) {
  const int64_t helpers = (threads < count ? threads : count) - 1;
  if (helpers > 0) {
    Pool& shared = *pool();
    std::unique_lock<std::mutex> lock(shared.busy, std::try_to_lock);
    if (lock.owns_lock()) {
      shared.run(count, int(helpers), body);
      return;
    }
  }
  for (int64_t item = 0; item < count; ++item) body(item, 0);
}

}  // namespace oaks::cpu
