// A pool of threads that share the items of a loop.
#pragma once

#include <cstdint>
#include <functional>

namespace oaks::cpu {

// Calls body(item, worker) once for each item 0 to count - 1, on at most `threads` workers including the
// caller. Each worker takes the next remaining item, so a result must not depend on the worker.
void for_each(int64_t count, int threads, const std::function<void(int64_t item, int worker)>& body);

}  // namespace oaks::cpu
