#include "cpu/dispatch.h"

#include <atomic>
#include <stdexcept>

namespace oaks::cpu {

extern const Kernels kernels_baseline;
#if defined(OAKS_X86_DISPATCH)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

namespace {

struct Choice {
  const char* name;
  const Kernels* kernels;
};

std::vector<Choice> available() {
  std::vector<Choice> choices{{"baseline", &kernels_baseline}};
#if defined(OAKS_X86_DISPATCH)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2) choices.push_back({"avx2", &kernels_avx2});
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    choices.push_back({"avx512", &kernels_avx512});
  }
#endif
  return choices;
}

const std::vector<Choice>& choices() {
  static const std::vector<Choice> found = available();
  return found;
}

std::atomic<const Choice*>& current() {
  static std::atomic<const Choice*> choice{&choices().back()};
  return choice;
}

}  // namespace

float* Scratch::floats(size_t count) {
  if (floats_.size() < count) floats_.resize(count);
  return floats_.data();
}

int* Scratch::indices(size_t count) {
  if (indices_.size() < count) indices_.resize(count);
  return indices_.data();
}

const Kernels& kernels() { return *current().load()->kernels; }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Choice& choice : choices()) names.push_back(choice.name);
  return names;
}

std::string instruction_set() { return current().load()->name; }

void use_instruction_set(const std::string& name) {
  std::string known;
  for (const Choice& choice : choices()) {
    if (name == choice.name) {
      current().store(&choice);
      return;
    }
    known += known.empty() ? choice.name : std::string(", ") + choice.name;
  }
  throw std::invalid_argument("name must be an instruction set of this processor (" + known + "), got '" +
                              name + "'");
}

}  // namespace oaks::cpu
