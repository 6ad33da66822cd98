#pragma once

#include <string>

namespace planted {

// Runs the kernel with this planted error; "nothing" and "fold" have none. The meaning of `argument` depends
// on it.
void start(const std::string& error, const float* from, float* to, int threads, int argument);

}  // namespace planted
