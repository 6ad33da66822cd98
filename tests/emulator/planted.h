#pragma once

#include <string>

namespace planted {

// Runs the kernel that holds an error, or none; what `argument` says depends on it.
void start(const std::string& error, const float* from, float* to, int threads, int argument);

}  // namespace planted
