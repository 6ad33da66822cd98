// A function that runs on its own stack and can pause.
#pragma once

#include <cstddef>

namespace emulator {

class Coroutine {
 public:
  Coroutine();
  ~Coroutine();
  Coroutine(const Coroutine&) = delete;
  Coroutine& operator=(const Coroutine&) = delete;

  // Runs function(argument) until it pauses or ends. It must not throw.
  void start(void (*function)(void*), void* argument);
  // Continues after a pause.
  void resume();
  // Called by the function.
  void pause();

 private:
  struct Contexts;
  static void enter(unsigned low, unsigned high);
  Contexts* contexts_;
};

}  // namespace emulator
