#include "emulator/coroutine.h"

#include <ucontext.h>

#include <cstdint>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {
namespace {

// Stack frames are much larger with AddressSanitizer.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif

// The point where a coroutine continues: leave_for saves it, and another leave_for returns to it.
struct Place {
  ucontext_t context;
  void* registers[5];
};

#if defined(__GNUC__) && !defined(__clang__)
// Not swapcontext, which also saves the signal mask by a slow system call.
[[noreturn]] __attribute__((noinline, no_sanitize("address"))) void jump(void** registers) {
  __builtin_longjmp(registers, 1);
}

__attribute__((noinline, no_sanitize("address"))) void leave_for(Place& from, Place& to,
                                                                 bool for_the_first_time) {
  if (__builtin_setjmp(from.registers)) return;
  if (for_the_first_time) setcontext(&to.context);
  jump(to.registers);
}
#else
void leave_for(Place& from, Place& to, bool) { swapcontext(&from.context, &to.context); }
#endif

}  // namespace

struct Coroutine::Contexts {
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  Place inside, outside;
  void (*function)(void*) = nullptr;
  void* argument = nullptr;
  const void* outer_stack = nullptr;
  size_t outer_bytes = 0;

  void go_in(bool for_the_first_time) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, stack.get(), kStackBytes);
    leave_for(outside, inside, for_the_first_time);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    leave_for(outside, inside, for_the_first_time);
#endif
  }

  void go_out([[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack, outer_stack, outer_bytes);
    leave_for(inside, outside, false);
    __sanitizer_finish_switch_fiber(fake_stack, &outer_stack, &outer_bytes);
#else
    leave_for(inside, outside, false);
#endif
  }
};

Coroutine::Coroutine() : contexts_(new Contexts) {}
Coroutine::~Coroutine() { delete contexts_; }

// makecontext passes ints.
void Coroutine::enter(unsigned low, unsigned high) {
  Contexts& c = *reinterpret_cast<Contexts*>(uintptr_t(uint64_t(high) << 32 | low));
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &c.outer_stack, &c.outer_bytes);
#endif
  c.function(c.argument);
  c.go_out(true);
}

void Coroutine::start(void (*function)(void*), void* argument) {
  Contexts& c = *contexts_;
  c.function = function;
  c.argument = argument;
  getcontext(&c.inside.context);
  c.inside.context.uc_stack.ss_sp = c.stack.get();
  c.inside.context.uc_stack.ss_size = kStackBytes;
  c.inside.context.uc_link = nullptr;
  const auto address = uint64_t(reinterpret_cast<uintptr_t>(contexts_));
  makecontext(&c.inside.context, reinterpret_cast<void (*)()>(enter), 2, unsigned(address),
              unsigned(address >> 32));
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(c.stack.get(),
                                kStackBytes);  // the previous function's stack frames are still poisoned
#endif
  c.go_in(true);
}

void Coroutine::resume() { contexts_->go_in(false); }
void Coroutine::pause() { contexts_->go_out(false); }

}  // namespace emulator
