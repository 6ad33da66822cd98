// A function on a stack of its own, which can pause in the middle.
#pragma once

#include <cstddef>

namespace emulator {

class Coroutine {
 public:
  Coroutine();
  ~Coroutine();
  Coroutine(const Coroutine&) = delete;
  Coroutine& operator=(const Coroutine&) = delete;

  // From outside: begins to run `function(argument)`, until it pauses or ends. It must not throw.
  void start(void (*function)(void*), void* argument);
  // From outside: goes on after the pause.
  void resume();
  // From inside.
  void pause();

 private:
  struct Contexts;
  static void enter(unsigned low, unsigned high);
  Contexts* contexts_;
};

}  // namespace emulator
