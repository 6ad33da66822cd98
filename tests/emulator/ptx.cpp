#include "emulator/ptx.h"

#include <cxxabi.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "core/half.h"
#include "emulator/block.h"
#include "emulator/machine.h"

namespace emulator::ptx {
namespace {

using Slot = uint64_t;
constexpr int kNone = -1;
constexpr int kMaxWidth = 4;  // registers of one load or store

struct Instruction;
using Handler = void (*)(Slot* registers, const Instruction& instruction);
enum class Flow { next, branch, end, memory, meet };
enum class Space { global, shared, other };

struct Instruction {
  Handler handler = nullptr;
  Flow flow = Flow::next;
  int line = 0;
  int guard = kNone;
  bool negated = false;
  int to = kNone, a = kNone, b = kNone, c = kNone;  // indices of registers
  int target = kNone;                               // of a branch
  // Loads and stores.
  Space space = Space::other;
  bool writes = false;
  bool is_signed = false;
  int size = 0, wide = 0;  // bytes of a register, and registers
  int64_t offset = 0;
  std::array<int, kMaxWidth> data{kNone, kNone, kNone, kNone};
  // Barriers and warp operations.
  Operation operation = Operation::barrier;
  bool float64 = false;
};

struct Program {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Slot> slots;                      // initial values: constants
  std::vector<std::pair<int, int>> parameters;  // register that gets the address of parameter
  int shared_bytes = 0, local_bytes = 0, dynamic_slot = kNone;
  int thread_slot = kNone, block_slot = kNone, threads_slot = kNone, blocks_slot = kNone;
  int local_slot = kNone;
};

// ---- registers

// Of a predicate. True is -1 in constants.
bool is_true(Slot slot) { return slot & 1u; }

template <class T>
T get(Slot slot) {
  T value;
  std::memcpy(&value, &slot, sizeof value);
  return value;
}

template <class T>
void put(Slot& slot, T value) {
  slot = 0;
  std::memcpy(&slot, &value, sizeof value);
}

// Calls `use` with a value of the type of a suffix; returns null for an unknown suffix.
template <class Use>
Handler with_type(const std::string& type, Use use) {
  if (type == "s8") return use(int8_t());
  if (type == "u8" || type == "b8") return use(uint8_t());
  if (type == "s16") return use(int16_t());
  if (type == "u16" || type == "b16") return use(uint16_t());
  if (type == "s32") return use(int32_t());
  if (type == "u32" || type == "b32") return use(uint32_t());
  if (type == "s64") return use(int64_t());
  if (type == "u64" || type == "b64") return use(uint64_t());
  if (type == "f32") return use(float());
  if (type == "f64") return use(double());
  return nullptr;
}

int size_of(const std::string& type) {
  static const std::map<std::string, int> sizes{{"8", 1}, {"16", 2}, {"32", 4}, {"64", 8}};
  const auto found = sizes.find(type.substr(1));
  return found == sizes.end() ? 0 : found->second;
}

template <class T>
using Wide = std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::common_type<T>>;

// ---- arithmetic: one structure for each instruction, for any type

struct Add {
  template <class T>
  static T of(T a, T b) {
    using U = typename Wide<T>::type;
    return T(U(a) + U(b));
  }
};
struct Subtract {
  template <class T>
  static T of(T a, T b) {
    using U = typename Wide<T>::type;
    return T(U(a) - U(b));
  }
};
struct Multiply {
  template <class T>
  static T of(T a, T b) {
    using U = typename Wide<T>::type;
    if constexpr (sizeof(T) == 2) return T(uint32_t(a) * uint32_t(b));
    return T(U(a) * U(b));
  }
};
struct Divide {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) return b == 0 ? T(-1) : T(a / b);
    return a / b;
  }
};
struct Remainder {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) return b == 0 ? a : T(a % b);
    return a;
  }
};
struct Smaller {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
    return std::min(a, b);
  }
};
struct Larger {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
    return std::max(a, b);
  }
};
struct And {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) return T(a & b);
    return a;
  }
};
struct Or {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) return T(a | b);
    return a;
  }
};
struct Xor {
  template <class T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) return T(a ^ b);
    return a;
  }
};
struct Same {
  template <class T>
  static T of(T a) {
    return a;
  }
};
struct Not {
  template <class T>
  static T of(T a) {
    if constexpr (std::is_integral_v<T>) return T(~a);
    return a;
  }
};
struct Negate {
  template <class T>
  static T of(T a) {
    if constexpr (std::is_integral_v<T>) return Subtract::of(T(0), a);
    return -a;
  }
};
struct Absolute {
  template <class T>
  static T of(T a) {
    if constexpr (std::is_floating_point_v<T>) return std::fabs(a);
    return a < T(0) ? Negate::of(a) : a;
  }
};
struct Root {
  template <class T>
  static T of(T a) {
    return T(std::sqrt(a));
  }
};
struct Reciprocal {
  template <class T>
  static T of(T a) {
    if constexpr (std::is_floating_point_v<T>) return T(1) / a;
    return a;
  }
};
struct FusedMultiplyAdd {
  template <class T>
  static T of(T a, T b, T c) {
    if constexpr (std::is_floating_point_v<T>) return std::fma(a, b, c);
    return Add::of(Multiply::of(a, b), c);
  }
};
struct FusedDownwards {
  template <class T>
  static T of(T a, T b, T c) {
    if constexpr (std::is_floating_point_v<T>) {
      const int before = std::fegetround();
      std::fesetround(FE_DOWNWARD);
      volatile T x = a, y = b, z = c;
      volatile T result = std::fma(x, y, z);
      std::fesetround(before);
      return result;
    }
    return a;
  }
};

template <class Operation, class T>
void one(Slot* r, const Instruction& i) {
  put<T>(r[i.to], Operation::template of<T>(get<T>(r[i.a])));
}
template <class Operation, class T>
void two(Slot* r, const Instruction& i) {
  put<T>(r[i.to], Operation::template of<T>(get<T>(r[i.a]), get<T>(r[i.b])));
}
template <class Operation, class T>
void three(Slot* r, const Instruction& i) {
  put<T>(r[i.to], Operation::template of<T>(get<T>(r[i.a]), get<T>(r[i.b]), get<T>(r[i.c])));
}
template <class Operation>
Handler one_of(const std::string& type) {
  return with_type(type, [](auto t) -> Handler { return one<Operation, decltype(t)>; });
}
template <class Operation>
Handler two_of(const std::string& type) {
  return with_type(type, [](auto t) -> Handler { return two<Operation, decltype(t)>; });
}
template <class Operation>
Handler three_of(const std::string& type) {
  return with_type(type, [](auto t) -> Handler { return three<Operation, decltype(t)>; });
}

// ---- comparisons

enum class Relation { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, nan, num };

template <class T, Relation relation>
bool holds(T a, T b) {
  switch (relation) {
    case Relation::eq:
      return a == b;
    case Relation::ne:
      return std::is_integral_v<T> ? a != b : a < b || a > b;
    case Relation::lt:
      return a < b;
    case Relation::le:
      return a <= b;
    case Relation::gt:
      return a > b;
    case Relation::ge:
      return a >= b;
    case Relation::equ:
      return !(a < b) && !(a > b);
    case Relation::neu:
      return !(a == b);
    case Relation::ltu:
      return !(a >= b);
    case Relation::leu:
      return !(a > b);
    case Relation::gtu:
      return !(a <= b);
    case Relation::geu:
      return !(a < b);
    case Relation::nan:
      return a != a || b != b;
    case Relation::num:
      return a == a && b == b;
  }
  return false;
}

template <Relation relation>
Handler comparison(const std::string& type) {
  return with_type(type, [](auto t) -> Handler {
    using T = decltype(t);
    return [](Slot* r, const Instruction& i) {
      put<bool>(r[i.to], holds<T, relation>(get<T>(r[i.a]), get<T>(r[i.b])));
    };
  });
}

Handler compare(const std::string& relation, const std::string& type) {
  using Make = Handler (*)(const std::string&);
  static const std::map<std::string, Make> made{
      {"eq", comparison<Relation::eq>},   {"ne", comparison<Relation::ne>},
      {"lt", comparison<Relation::lt>},   {"lo", comparison<Relation::lt>},
      {"le", comparison<Relation::le>},   {"ls", comparison<Relation::le>},
      {"gt", comparison<Relation::gt>},   {"hi", comparison<Relation::gt>},
      {"ge", comparison<Relation::ge>},   {"hs", comparison<Relation::ge>},
      {"equ", comparison<Relation::equ>}, {"neu", comparison<Relation::neu>},
      {"ltu", comparison<Relation::ltu>}, {"leu", comparison<Relation::leu>},
      {"gtu", comparison<Relation::gtu>}, {"geu", comparison<Relation::geu>},
      {"nan", comparison<Relation::nan>}, {"num", comparison<Relation::num>}};
  const auto found = made.find(relation);
  return found == made.end() ? nullptr : found->second(type);
}

// ---- conversions

template <class To, class From>
To truncated(From value) {
  if (value != value) return 0;
  if (value <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (value >= From(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return To(value);
}

// `rounding`: "", "rn", "rzi", "rmi" or "sat".
Handler convert(const std::string& rounding, const std::string& to, const std::string& from) {
  if (to == "f32" && from == "f16" && rounding.empty()) {
    return [](Slot* r, const Instruction& i) {
      put<float>(r[i.to], oaks::to_float(oaks::Half{get<uint16_t>(r[i.a])}));
    };
  }
  if (to == "f16" && from == "f32" && rounding == "rn") {
    return
        [](Slot* r, const Instruction& i) { put<uint16_t>(r[i.to], oaks::to_half(get<float>(r[i.a])).bits); };
  }
  if (to == "f32" && from == "f32" && rounding == "sat") {
    return [](Slot* r, const Instruction& i) {
      const float value = get<float>(r[i.a]);
      put<float>(r[i.to], value != value ? 0.0f : std::min(1.0f, std::max(0.0f, value)));
    };
  }
  if (to == "f32" && from == "f32" && rounding == "rmi") {
    return [](Slot* r, const Instruction& i) { put<float>(r[i.to], std::floor(get<float>(r[i.a]))); };
  }
  const bool from_float = from[0] == 'f', to_float = to[0] == 'f';
  const bool exact = !from_float && !to_float;
  const bool widening = from == "f32" && to == "f64";
  if (rounding != (exact || widening ? "" : to_float ? "rn" : "rzi")) return nullptr;
  return with_type(to, [&](auto t) -> Handler {
    using To = decltype(t);
    return with_type(from, [](auto f) -> Handler {
      using From = decltype(f);
      return [](Slot* r, const Instruction& i) {
        const From value = get<From>(r[i.a]);
        if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
          put<To>(r[i.to], truncated<To>(value));
        } else {
          put<To>(r[i.to], To(value));
        }
      };
    });
  });
}

template <class T, class Product>
void multiply_wide(Slot* r, const Instruction& i) {
  put<Product>(r[i.to], Product(get<T>(r[i.a])) * Product(get<T>(r[i.b])));
}

Handler multiply_wide_of(const std::string& type) {
  if (type == "s16") return multiply_wide<int16_t, int32_t>;
  if (type == "u16") return multiply_wide<uint16_t, uint32_t>;
  if (type == "s32") return multiply_wide<int32_t, int64_t>;
  if (type == "u32") return multiply_wide<uint32_t, uint64_t>;
  return nullptr;
}

Handler shift(bool left, const std::string& type) {
  return with_type(type, [left](auto t) -> Handler {
    using T = decltype(t);
    if constexpr (std::is_integral_v<T>) {
      constexpr unsigned bits = 8 * sizeof(T);
      if (left) {
        return [](Slot* r, const Instruction& i) {
          const unsigned by = get<uint32_t>(r[i.b]);
          put<T>(r[i.to], by >= bits ? T(0) : T(get<T>(r[i.a]) << by));
        };
      }
      return [](Slot* r, const Instruction& i) {
        const unsigned by = get<uint32_t>(r[i.b]);
        const T value = get<T>(r[i.a]);
        const T empty = std::is_signed_v<T> ? T(value < T(0) ? -1 : 0) : T(0);
        put<T>(r[i.to], by >= bits ? empty : T(value >> by));
      };
    }
    return nullptr;
  });
}

uint32_t permuted(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned number = selector >> (4 * i) & 15u;
    unsigned value = unsigned(bytes >> (8 * (number & 7u))) & 0xffu;
    if (number & 8u) value = value & 0x80u ? 0xffu : 0u;
    result |= value << (8 * i);
  }
  return result;
}

uint32_t reversed(uint32_t bits) {
  uint32_t result = 0;
  for (int i = 0; i < 32; ++i) result |= (bits >> i & 1u) << (31 - i);
  return result;
}

// Two 16-bit numbers times two bytes, and a sum.
template <int shift>
void dot(Slot* r, const Instruction& i) {
  const uint32_t words = get<uint32_t>(r[i.a]), bytes = get<uint32_t>(r[i.b]) >> shift;
  put<uint32_t>(r[i.to], get<uint32_t>(r[i.c]) + (words & 0xffffu) * (bytes & 0xffu) +
                             (words >> 16) * (bytes >> 8 & 0xffu));
}

// ---- the function of an instruction, by its name

using Words = std::vector<std::string>;

bool has(const Words& words, const char* word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

Handler arithmetic(const Words& words) {
  const std::string& head = words.front();
  const std::string& type = words.back();
  const bool real = type[0] == 'f';
  const bool rounded = words.size() == 3 && words[1] == "rn", plain = words.size() == 2;
  const bool low = words.size() == 3 && words[1] == "lo";
  if (head == "add" && (real ? rounded : plain)) return two_of<Add>(type);
  if (head == "sub" && (real ? rounded : plain)) return two_of<Subtract>(type);
  if (head == "mul" && (real ? rounded : low)) return two_of<Multiply>(type);
  if (head == "mul" && words.size() == 3 && words[1] == "wide") return multiply_wide_of(type);
  if (head == "mad" && low && !real) return three_of<FusedMultiplyAdd>(type);
  if (head == "fma" && rounded) return three_of<FusedMultiplyAdd>(type);
  if (head == "fma" && words.size() == 3 && words[1] == "rm") return three_of<FusedDownwards>(type);
  if (head == "div" && (real ? rounded : plain)) return two_of<Divide>(type);
  if (head == "rem" && plain && !real) return two_of<Remainder>(type);
  if (head == "min" && plain) return two_of<Smaller>(type);
  if (head == "max" && plain) return two_of<Larger>(type);
  if (head == "neg" && plain) return one_of<Negate>(type);
  if (head == "abs" && plain) return one_of<Absolute>(type);
  if (head == "sqrt" && rounded && real) return one_of<Root>(type);
  if (head == "rcp" && rounded && real) return one_of<Reciprocal>(type);
  if (head == "ex2" && words == Words{"ex2", "approx", "ftz", "f32"}) {
    return [](Slot* r, const Instruction& i) {
      const float value = std::exp2(get<float>(r[i.a]));
      put<float>(r[i.to], value < 1.17549435e-38f ? 0.0f : value);
    };
  }
  return nullptr;
}

Handler on_bits(const Words& words) {
  const std::string& head = words.front();
  const bool plain = words.size() == 2;
  const std::string type = words.back() == "pred" ? "b8" : words.back();
  if (!plain) {
    if (words == Words{"dp2a", "lo", "u32", "u32"}) return dot<0>;
    if (words == Words{"dp2a", "hi", "u32", "u32"}) return dot<16>;
    if (words == Words{"shf", "r", "wrap", "b32"}) {
      return [](Slot* r, const Instruction& i) {
        const uint64_t both = uint64_t(get<uint32_t>(r[i.b])) << 32 | get<uint32_t>(r[i.a]);
        put<uint32_t>(r[i.to], uint32_t(both >> (get<uint32_t>(r[i.c]) & 31u)));
      };
    }
    if (words == Words{"bfind", "shiftamt", "u32"}) {
      return [](Slot* r, const Instruction& i) {
        const uint32_t bits = get<uint32_t>(r[i.a]);
        put<uint32_t>(r[i.to], bits ? uint32_t(__builtin_clz(bits)) : 0xffffffffu);
      };
    }
    return nullptr;
  }
  if (head == "and") return two_of<And>(type);
  if (head == "or") return two_of<Or>(type);
  if (head == "xor") return two_of<Xor>(type);
  if (head == "not" && words.back() == "pred") {
    return [](Slot* r, const Instruction& i) { put<bool>(r[i.to], !is_true(r[i.a])); };
  }
  if (head == "not") return one_of<Not>(type);
  if (head == "mov") return one_of<Same>(type);
  if (head == "shl") return shift(true, type);
  if (head == "shr") return shift(false, type);
  if (head == "prmt") {
    return [](Slot* r, const Instruction& i) {
      put<uint32_t>(r[i.to], permuted(get<uint32_t>(r[i.a]), get<uint32_t>(r[i.b]), get<uint32_t>(r[i.c])));
    };
  }
  if (head == "popc" && type == "b32") {
    return [](Slot* r, const Instruction& i) {
      put<uint32_t>(r[i.to], uint32_t(__builtin_popcount(get<uint32_t>(r[i.a]))));
    };
  }
  if (head == "brev" && type == "b32") {
    return [](Slot* r, const Instruction& i) { put<uint32_t>(r[i.to], reversed(get<uint32_t>(r[i.a]))); };
  }
  return nullptr;
}

Handler selected(const std::string& type) {
  return with_type(type, [](auto t) -> Handler {
    using T = decltype(t);
    return [](Slot* r, const Instruction& i) {
      put<T>(r[i.to], is_true(r[i.c]) ? get<T>(r[i.a]) : get<T>(r[i.b]));
    };
  });
}

// ---- reading PTX

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("PTX: " + what); }

Words split(const std::string& text, char at) {
  Words parts;
  std::string part;
  int depth = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (c == at && depth == 0) {
      parts.push_back(part);
      part.clear();
    } else if (c != ' ' && c != '\t' && c != '\n') {
      part += c;
    }
  }
  if (!part.empty()) parts.push_back(part);
  return parts;
}

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                    std::free);
  if (status != 0) refuse(std::string("no name that a compiler made: ") + name);
  return text.get();
}

// A kernel's name and template arguments: the part of its demangled name, or of that of a type with the
// kernel as template argument, between the anonymous namespace and the parameters.
std::string kernel_name(const std::string& text) {
  size_t begin = std::string::npos;
  for (const std::string mark : {"(anonymous namespace)::", "_GLOBAL__N_"}) {
    const size_t found = text.find(mark);
    if (found != std::string::npos) begin = text.find("::", found) + 2;
  }
  if (begin == std::string::npos) refuse("no kernel of a nameless namespace: " + text);
  std::string name;
  int depth = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (depth == 0 && (c == '(' || c == '>' || c == ',')) break;
    if (c == '<') ++depth;
    if (c == '>') --depth;
    name += c;
  }
  for (size_t cast; (cast = name.find("(int)")) != std::string::npos;) name.erase(cast, 5);
  return name;
}

// Reads one kernel: its declarations, then its instructions.
class KernelReader {
 public:
  explicit KernelReader(std::string name) { kernel_.name = std::move(name); }

  void parameter(const std::string& name) {
    const int slot = slot_of(name);
    kernel_.parameters.emplace_back(slot, int(kernel_.parameters.size()));
  }

  // `text`: a statement without its semicolon.
  void statement(std::string text, int line);
  void label(const std::string& name) { labels_[name] = int(kernel_.code.size()); }
  Program finished();

 private:
  int slot_of(const std::string& name) {
    const auto made = slots_.try_emplace(name, int(kernel_.slots.size()));
    if (made.second) kernel_.slots.push_back(0);
    return made.first->second;
  }
  int constant(Slot value) {
    kernel_.slots.push_back(value);
    return int(kernel_.slots.size()) - 1;
  }
  void declare(const std::string& text);
  int operand(const std::string& text);
  void address(const std::string& text, Instruction& i);
  void access(const Words& words, const Words& operands, Instruction& i);
  void meeting(const Words& words, const Words& operands, Instruction& i);
  void decode(const std::string& name, const Words& operands, Instruction& i);
  void pack(const Words& words, const Words& operands, Instruction& i);

  Program kernel_;
  std::map<std::string, int> slots_, labels_;
  std::vector<std::pair<size_t, std::string>> jumps_;
};

void KernelReader::declare(const std::string& text) {
  if (text.rfind(".pragma", 0) == 0) return;
  if (text.rfind(".reg", 0) == 0) {  // registers are created at their first use
    const size_t type = text.find('.', 4);
    for (const std::string& name : split(text.substr(text.find_first_of(" \t", type)), ',')) {
      if (name[0] != '%') slot_of(name);
    }
    return;
  }
  // .shared .align 4 .b8 name[32], .local .align 16 .b8 name[36], .shared .align 4 .f32 name
  const Words words = [&] {
    Words parts;
    std::string part;
    for (const char c : text + ' ') {
      if (c != ' ' && c != '\t' && c != '\n') {
        part += c;
      } else if (!part.empty()) {
        parts.push_back(part);
        part.clear();
      }
    }
    return parts;
  }();
  if (words.size() != 5 || words[1] != ".align") refuse("declaration " + text);
  const int align = std::stoi(words[2]), element = size_of(words[3].substr(1));
  const size_t bracket = words[4].find('[');
  const int count = bracket == std::string::npos ? 1 : std::stoi(words[4].substr(bracket + 1));
  const std::string name = words[4].substr(0, bracket);
  int& bytes = words[0] == ".shared" ? kernel_.shared_bytes : kernel_.local_bytes;
  bytes = (bytes + align - 1) / align * align;
  if (words[0] == ".shared") {
    kernel_.slots[size_t(slot_of(name))] = Slot(bytes);
  } else if (words[0] == ".local" && bytes == 0) {
    kernel_.local_slot = slot_of(name);
  } else {
    refuse("declaration " + text);
  }
  bytes += element * count;
}

int KernelReader::operand(const std::string& text) {
  if (text == "%tid.x") return kernel_.thread_slot = slot_of(text);
  if (text == "%ctaid.x") return kernel_.block_slot = slot_of(text);
  if (text == "%ntid.x") return kernel_.threads_slot = slot_of(text);
  if (text == "%nctaid.x") return kernel_.blocks_slot = slot_of(text);
  if (text.find("oaks_dynamic_shared") != std::string::npos) return kernel_.dynamic_slot = slot_of(text);
  if (text[0] == '%' && text.find('.') == std::string::npos) return slot_of(text);
  if (text.rfind("0f", 0) == 0 || text.rfind("0F", 0) == 0 || text.rfind("0d", 0) == 0 ||
      text.rfind("0D", 0) == 0) {
    return constant(std::stoull(text.substr(2), nullptr, 16));
  }
  if (text[0] == '-') return constant(Slot(std::stoll(text)));
  if (text[0] >= '0' && text[0] <= '9') return constant(std::stoull(text, nullptr, 0));
  if (slots_.count(text)) return slot_of(text);
  refuse("operand " + text + " in " + kernel_.name);
}

void KernelReader::address(const std::string& text, Instruction& i) {
  if (text.size() < 3 || text.front() != '[' || text.back() != ']') refuse("address " + text);
  const std::string inside = text.substr(1, text.size() - 2);
  const size_t plus = inside.find('+');
  i.a = operand(inside.substr(0, plus));
  i.offset = plus == std::string::npos ? 0 : std::stoll(inside.substr(plus + 1));
}

void KernelReader::access(const Words& words, const Words& operands, Instruction& i) {
  i.flow = Flow::memory;
  i.writes = words[0] == "st";
  if (operands.size() != 2) refuse("operands of " + words[0]);
  // Generic addresses are those of global memory, except those of arrays in parameters.
  const bool elsewhere = has(words, "local") || has(words, "param");
  i.space = has(words, "shared") ? Space::shared : elsewhere ? Space::other : Space::global;
  for (const std::string& word : words) {
    // Cache hints are ignored.
    static const Words known{
        "ld", "st", "global", "shared", "local",           "param",          "v2", "v4", "nc", "relaxed",
        "cs", "lu", "wt",     "cg",     "L1::no_allocate", "L1::evict_first"};
    if (&word != &words.back() && std::find(known.begin(), known.end(), word) == known.end()) {
      refuse("a load or store with " + word);
    }
  }
  i.size = size_of(words.back());
  i.is_signed = words.back()[0] == 's';
  i.wide = has(words, "v2") ? 2 : has(words, "v4") ? 4 : 1;
  if (i.size == 0) refuse("a load or store of " + words.back());
  std::string data = operands[i.writes ? 1 : 0];
  if (data.front() == '{') data = data.substr(1, data.size() - 2);
  const Words registers = split(data, ',');
  if (int(registers.size()) != i.wide) refuse("a load or store of " + data);
  for (size_t n = 0; n < registers.size(); ++n) i.data[n] = operand(registers[n]);
  address(operands[i.writes ? 0 : 1], i);
}

void KernelReader::meeting(const Words& words, const Words& operands, Instruction& i) {
  i.flow = Flow::meet;
  const auto take = [&](size_t number) { return operand(operands.at(number)); };
  if (words == Words{"bar", "sync"} && operands == Words{"0"}) {
    i.operation = Operation::barrier;
  } else if (words[0] == "shfl" && words.size() == 4 && words[1] == "sync" && words[3] == "b32" &&
             (words[2] == "bfly" || words[2] == "idx") && operands.size() == 5) {
    i.operation = words[2] == "bfly" ? Operation::shuffle_xor : Operation::shuffle;
    const Words targets = split(operands[0], '|');
    i.to = operand(targets[0]);
    if (targets.size() == 2) i.data[0] = operand(targets[1]);
    i.a = take(1), i.b = take(2), i.data[1] = take(3), i.c = take(4);
  } else if (words == Words{"vote", "sync", "ballot", "b32"} && operands.size() == 3) {
    i.operation = Operation::ballot;
    i.to = take(0), i.a = take(1), i.c = take(2);
  } else if (words[0] == "redux" && words.size() == 4 && words[1] == "sync" && operands.size() == 3 &&
             (words[3] == "u32" || words[3] == "s32") && (words[2] == "max" || words[2] == "min")) {
    const bool largest = words[2] == "max";
    if (words[3] == "s32") refuse("redux of signed numbers");
    i.operation = largest ? Operation::largest : Operation::smallest;
    i.to = take(0), i.a = take(1), i.c = take(2);
  } else {
    refuse("instruction " + words[0] + " " + words.back());
  }
}

template <class Half, class Both>
void take_apart(Slot* r, const Instruction& i) {
  const Both both = get<Both>(r[i.a]);
  put<Half>(r[i.to], Half(both));
  put<Half>(r[i.b], Half(both >> (8 * sizeof(Half))));
}

template <class Half, class Both>
void put_together(Slot* r, const Instruction& i) {
  put<Both>(r[i.to], Both(Both(get<Half>(r[i.a])) | Both(get<Half>(r[i.b])) << (8 * sizeof(Half))));
}

// Packs two halves into a register, or unpacks them.
void KernelReader::pack(const Words& words, const Words& operands, Instruction& i) {
  const bool apart = operands[0].front() == '{';
  const std::string& both = operands[apart ? 0 : 1];
  const Words halves = split(both.substr(1, both.size() - 2), ',');
  if (halves.size() != 2) refuse("packing of " + both);
  const int low = operand(halves[0]), high = operand(halves[1]);
  if (words.back() == "b32") {
    i.handler = apart ? take_apart<uint16_t, uint32_t> : put_together<uint16_t, uint32_t>;
  } else if (words.back() == "b64") {
    i.handler = apart ? take_apart<uint32_t, uint64_t> : put_together<uint32_t, uint64_t>;
  } else {
    refuse("packing of " + words.back());
  }
  if (apart) {
    i.to = low, i.b = high, i.a = operand(operands[1]);
  } else {
    i.to = operand(operands[0]), i.a = low, i.b = high;
  }
}

void KernelReader::decode(const std::string& name, const Words& operands, Instruction& i) {
  const Words words = split(name, '.');
  const std::string& head = words[0];
  i.float64 = has(words, "f64");
  if (head == "ret") {
    i.flow = Flow::end;
    return;
  }
  if (head == "bra") {
    i.flow = Flow::branch;
    jumps_.emplace_back(kernel_.code.size(), operands.at(0));
    return;
  }
  if (head == "ld" || head == "st") return access(words, operands, i);
  if (head == "bar" || head == "shfl" || head == "vote" || head == "redux")
    return meeting(words, operands, i);
  if (head == "mov" && (operands[0].front() == '{' || operands[1].front() == '{')) {
    return pack(words, operands, i);
  }
  if (head == "setp" && words.size() == 3) i.handler = compare(words[1], words[2]);
  if (head == "selp" && words.size() == 2) i.handler = selected(words[1]);
  if (words == Words{"cvt", "rn", "f16x2", "f32"}) {
    i.handler = [](Slot* r, const Instruction& own) {
      put<uint32_t>(r[own.to], uint32_t(oaks::to_half(get<float>(r[own.b])).bits) |
                                   uint32_t(oaks::to_half(get<float>(r[own.a])).bits) << 16);
    };
  } else if (head == "cvt" && (words.size() == 3 || words.size() == 4)) {
    i.handler = convert(words.size() == 4 ? words[1] : "", words[words.size() - 2], words.back());
  }
  // Addresses are host addresses in all spaces but shared memory, where they are offsets.
  if (head == "cvta" && !has(words, "shared")) i.handler = one<Same, uint64_t>;
  if (!i.handler) i.handler = arithmetic(words);
  if (!i.handler) i.handler = on_bits(words);
  if (!i.handler) refuse("instruction " + name + " in " + kernel_.name);
  if (operands.size() < 2 || operands.size() > 4) refuse("operands of " + name);
  i.to = operand(operands[0]), i.a = operand(operands[1]);
  if (operands.size() > 2) i.b = operand(operands[2]);
  if (operands.size() > 3) i.c = operand(operands[3]);
}

void KernelReader::statement(std::string text, int line) {
  if (text[0] == '.') return declare(text);
  Instruction i;
  i.line = line;
  if (text[0] == '@') {
    const size_t end = text.find_first_of(" \t");
    i.negated = text[1] == '!';
    i.guard = operand(text.substr(i.negated ? 2 : 1, end - (i.negated ? 2 : 1)));
    text = text.substr(text.find_first_not_of(" \t", end));
  }
  const size_t end = text.find_first_of(" \t\n");
  decode(text.substr(0, end), end == std::string::npos ? Words{} : split(text.substr(end), ','), i);
  kernel_.code.push_back(i);
}

Program KernelReader::finished() {
  for (const auto& [at, name] : jumps_) {
    const auto found = labels_.find(name);
    if (found == labels_.end()) refuse("no label " + name + " in " + kernel_.name);
    kernel_.code[at].target = found->second;
  }
  return std::move(kernel_);
}

// The kernels of a file.
void read_file(const std::string& text, std::map<std::string, Program>& kernels) {
  std::unique_ptr<KernelReader> reader;
  std::string pending;
  int line = 1, scopes = 0;
  bool in_body = false, in_parameters = false;
  const auto skip_line = [&](size_t& i) {
    while (i < text.size() && text[i] != '\n') ++i;
    ++line;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '/' && text.compare(i, 2, "//") == 0) {
      skip_line(i);
      continue;
    }
    if (c == '\n') ++line;
    const bool blank = c == ' ' || c == '\t' || c == '\n';
    if (pending.empty() && blank) continue;
    if (!in_body) {
      // Outside kernels, only the heads of kernels are read: .visible .entry name( .param ..., .param ... )
      // .maxntid ... {
      if (in_parameters && (c == ',' || c == ')')) {
        const Words words = split(pending, '.');
        if (!words.empty()) {
          const size_t begin = pending.find_last_of(" \t") + 1;
          reader->parameter(pending.substr(begin, pending.find_first_of("[\n", begin) - begin));
        }
        pending.clear();
        in_parameters = c == ',';
      } else if (c == '(' && pending.find(".entry") != std::string::npos) {
        const std::string mangled = pending.substr(pending.find_last_of(" \t") + 1);
        reader = std::make_unique<KernelReader>(kernel_name(demangled(mangled.c_str())));
        pending.clear();
        in_parameters = true;
      } else if (c == '{') {
        if (!reader) refuse("a body without a kernel: " + pending);
        pending.clear();
        in_body = true;
      } else if (c == ';') {
        pending.clear();  // .extern
      } else if (c == '\n' && !in_parameters && pending.find(".entry") == std::string::npos) {
        pending.clear();  // .version, .target
      } else {
        if (pending.empty() && text.compare(i, 5, ".func") == 0) refuse("a function that is called");
        pending += c;
      }
      continue;
    }
    if (pending.empty() && c == '{') {
      ++scopes;
      continue;
    }
    if (pending.empty() && c == '}') {
      if (scopes-- > 0) continue;
      scopes = 0;
      Program kernel = reader->finished();
      const std::string name = kernel.name;
      if (!kernels.emplace(name, std::move(kernel)).second) refuse("two kernels called " + name);
      reader.reset();
      in_body = false;
      continue;
    }
    if (c == ';') {
      reader->statement(pending, line);
      pending.clear();
    } else if (c == ':' && pending.find_first_of(" \t.") == std::string::npos) {
      reader->label(pending);
      pending.clear();
    } else {
      pending += c;
    }
  }
}

// ---- execution

struct State {
  std::map<std::string, Program> kernels;
  bool counting = false;
  std::vector<Count> counts;
};

State& state() {
  static State instance;
  return instance;
}

// How often the lanes of a block's warps execute each instruction.
class Tally {
 public:
  Tally(const Program& kernel, int threads, Count& count)
      : kernel_(kernel),
        most_(size_t((threads + 31) / 32), std::vector<uint32_t>(kernel.code.size())),
        count_(count) {}

  // Adds what a thread of block `block` executed.
  void add(int64_t block, unsigned thread, const std::vector<uint32_t>& executed) {
    if (block != block_) finish_block();
    block_ = block;
    std::vector<uint32_t>& most = most_[thread / 32];
    for (size_t i = 0; i < executed.size(); ++i) {
      most[i] = std::max(most[i], executed[i]);
      count_.thread_instructions += executed[i];
    }
  }

  void finish_block() {
    for (std::vector<uint32_t>& most : most_) {
      for (size_t i = 0; i < most.size(); ++i) {
        count_.instructions += most[i];
        if (kernel_.code[i].float64) count_.float64 += most[i];
      }
      std::fill(most.begin(), most.end(), 0u);
    }
  }

 private:
  const Program& kernel_;
  std::vector<std::vector<uint32_t>> most_;
  Count& count_;
  int64_t block_ = -1;
};

constexpr Slot kMinHostAddress = 1 << 20;  // addresses below are offsets into shared memory

void access_shared(Slot* r, const Instruction& i, Region& shared) {
  const int64_t first = int64_t(r[i.a]) + i.offset;
  if (first % (i.size * i.wide)) {
    report("shared access of " + std::to_string(i.size * i.wide) + " bytes off its boundary, PTX line " +
           std::to_string(i.line));
  }
  for (int n = 0; n < i.wide; ++n) {
    auto* const bytes = reinterpret_cast<unsigned char*>(&r[i.data[size_t(n)]]);
    if (!i.writes) r[i.data[size_t(n)]] = 0;
    for (int b = 0; b < i.size; ++b) {
      const int64_t at = first + n * i.size + b;
      if (i.writes) {
        shared.write(at, bytes + b);
      } else {
        shared.read(at, bytes + b);
      }
    }
  }
}

void access_host(Slot* r, const Instruction& i, Count* count) {
  const Slot first = r[i.a] + Slot(i.offset);
  const int size = i.size * i.wide;
  if (first < kMinHostAddress)
    stop("address " + std::to_string(first) + ", PTX line " + std::to_string(i.line));
  if (i.space == Space::global) {
    if (count) (i.writes ? count->bytes_written : count->bytes_read) += size;
    if (first % Slot(size)) {
      report("global access of " + std::to_string(size) + " bytes off its boundary, PTX line " +
             std::to_string(i.line));
    }
  }
  for (int n = 0; n < i.wide; ++n) {
    Slot& slot = r[i.data[size_t(n)]];
    auto* const at = reinterpret_cast<unsigned char*>(first) + n * i.size;
    if (i.writes) {
      std::memcpy(at, &slot, size_t(i.size));
      continue;
    }
    slot = 0;
    std::memcpy(&slot, at, size_t(i.size));
    const unsigned unused = unsigned(64 - 8 * i.size);
    if (i.is_signed) slot = Slot(int64_t(slot << unused) >> unused);
  }
}

void meet_others(Slot* r, const Instruction& i) {
  if (i.operation == Operation::barrier) {
    meet(i.operation, 0, 0, 0, i.line);
    return;
  }
  const bool ballot = i.operation == Operation::ballot;
  const uint64_t own = ballot ? uint64_t(is_true(r[i.a])) : get<uint32_t>(r[i.a]);
  if (i.data[1] != kNone && get<uint32_t>(r[i.data[1]]) != 31) stop("a shuffle within parts of a warp");
  const int argument = i.b == kNone ? 0 : get<int32_t>(r[i.b]);
  put<uint32_t>(r[i.to], uint32_t(meet(i.operation, get<uint32_t>(r[i.c]), own, argument, i.line)));
  if (i.data[0] != kNone) put<bool>(r[i.data[0]], true);  // whether the source lane is in the warp
}

void run_thread(const Program& kernel, const std::vector<const void*>& parameters, int shared_bytes,
                Tally* tally, Count* count) {
  std::vector<Slot> slots = kernel.slots;
  std::vector<unsigned char> local(size_t(kernel.local_bytes) + 16);
  std::vector<uint32_t> executed(count ? kernel.code.size() : 0);
  Slot* const r = slots.data();
  const auto set = [&](int slot, Slot value) {
    if (slot != kNone) r[slot] = value;
  };
  const unsigned thread = threadIdx.x;
  const int64_t block = blockIdx.x;
  set(kernel.thread_slot, thread);
  set(kernel.block_slot, Slot(block));
  set(kernel.threads_slot, blockDim.x);
  set(kernel.blocks_slot, gridDim.x);
  const int fixed = (kernel.shared_bytes + 15) / 16 * 16;
  set(kernel.dynamic_slot, Slot(fixed));
  set(kernel.local_slot, (reinterpret_cast<Slot>(local.data()) + 15) / 16 * 16);
  for (const auto& [slot, number] : kernel.parameters) {
    r[slot] = reinterpret_cast<Slot>(parameters[size_t(number)]);
  }
  static const char place = 0;
  Region& shared = region(&place, "of the compiled block, byte ", fixed + shared_bytes, 1);
  size_t next = 0;
  while (next < kernel.code.size()) {
    const Instruction& i = kernel.code[next];
    if (count) ++executed[next];
    ++next;
    if (i.guard != kNone && is_true(r[i.guard]) == i.negated) continue;
    switch (i.flow) {
      case Flow::next:
        i.handler(r, i);
        break;
      case Flow::branch:
        next = size_t(i.target);
        break;
      case Flow::memory:
        if (i.space == Space::shared) {
          access_shared(r, i, shared);
        } else {
          access_host(r, i, count);
        }
        break;
      case Flow::meet:
        meet_others(r, i);
        break;
      case Flow::end:
        next = kernel.code.size();
        break;
    }
  }
  if (tally) tally->add(block, thread, executed);
}

}  // namespace

void load(const std::vector<std::string>& files) {
  std::map<std::string, Program> kernels;
  for (const std::string& file : files) read_file(file, kernels);
  state().kernels = std::move(kernels);
}

bool is_loaded() { return !state().kernels.empty(); }

void set_counting(bool counting) { state().counting = counting; }

std::vector<Count> take_counts() {
  std::vector<Count> counts;
  counts.swap(state().counts);
  return counts;
}

void run(const std::string& name, const char* type, int64_t blocks, int threads, int shared_bytes,
         const std::vector<const void*>& parameters) {
  const std::string kernel_key = kernel_name(demangled(type));
  const auto found = state().kernels.find(kernel_key);
  if (found == state().kernels.end()) refuse("no kernel " + kernel_key);
  const Program& kernel = found->second;
  if (parameters.size() != kernel.parameters.size()) refuse("other parameters of " + kernel_key);
  const auto start = [&](Tally* tally, Count* count) {
    emulator::run(name, blocks, threads, shared_bytes,
                  [&] { run_thread(kernel, parameters, shared_bytes, tally, count); });
  };
  if (!state().counting) return start(nullptr, nullptr);
  Count count;
  count.kernel = kernel_key;
  count.blocks = blocks;
  count.threads = threads;
  Tally tally(kernel, threads, count);
  start(&tally, &count);
  tally.finish_block();
  state().counts.push_back(count);
}

}  // namespace emulator::ptx
