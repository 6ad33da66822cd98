// A pool of threads that share the items of a loop.
#pragma once

#include <cstdint>
#include <functional>

namespace oaks::cpu {

// Calls body(item, worker) once for each item 0 to count - 1, by at most `threads` workers, the caller among
// them. Every worker takes the next item that is left, so a body's result must not depend on its worker.
void for_each(int64_t count, int threads, const std::function<void(int64_t item, int worker)>& body);

}  // namespace oaks::cpu
