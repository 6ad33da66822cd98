// Devices, and capture of graphs on a stream given by its handle, which PyCUDA does not offer.
// Errors are std::runtime_error with CUDA's error name and what was being done.
#pragma once

#include <cstddef>
#include <string>

#include "cuda/operations.h"

namespace oaks::cuda {

// The number of devices; 0 if there is no driver.
int device_count();

// CUDA versions as 1000 * major + 10 * minor. The driver's is 0 if there is none.
int driver_version();
int runtime_version();

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int multiprocessors;
  size_t total_bytes, free_bytes;
};
DeviceInfo device_info(int device);

// The device that holds a pointer's memory; the current device for managed memory, which every device can
// access. Throws for memory that no device can access.
int device_of(const void* pointer);

// Makes a stream of the pointer's device wait for the work that another stream has been given so far. A
// stream under capture does not wait: a graph cannot depend on work outside it.
void wait_for(Stream stream, Stream other, const void* pointer);

// Makes the device of a pointer current, and restores the previous one when it is destroyed.
class DeviceGuard {
 public:
  explicit DeviceGuard(const void* pointer);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_;
};

// The maximum bytes of dynamic shared memory of a block on the current device.
int largest_shared_bytes();

// The number of multiprocessors of the current device.
int multiprocessors();

// Captures what is launched on `stream` from now on instead of running it. The capture mode is thread-local:
// other threads may allocate and synchronize meanwhile. The default stream cannot be captured.
void begin_capture(Stream stream);
// Ends and discards a failed capture, so that the stream can be used again.
void abandon_capture(Stream stream) noexcept;

// A captured graph, which can be launched any number of times.
class Graph {
 public:
  // Ends the capture that begin_capture started.
  explicit Graph(Stream stream);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(Stream stream) const;
  size_t node_count() const { return node_count_; }

 private:
  void* executable_;  // cudaGraphExec_t
  size_t node_count_;
};

}  // namespace oaks::cuda
