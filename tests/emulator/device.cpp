// The emulated device: the host, whose memory counts as device memory.
#include "cuda/device.h"

#include <stdexcept>

#include "emulator/machine.h"

namespace oaks::cuda {

int device_count() { return 1; }
int driver_version() { return 0; }
int runtime_version() { return 0; }
DeviceInfo device_info(int) { return {"emulated on the host", 0, 0, 1, 0, 0}; }
int device_of(const void*) { return 0; }
void wait_for(Stream, Stream, const void*) {}
int multiprocessors() { return emulator::settings().multiprocessors; }
int largest_shared_bytes() { return emulator::settings().shared_limit; }

DeviceGuard::DeviceGuard(const void*) : before_(0) {}
DeviceGuard::~DeviceGuard() = default;

void begin_capture(Stream) { throw std::runtime_error("the emulator records no graphs"); }
void abandon_capture(Stream) noexcept {}
Graph::Graph(Stream) : executable_(nullptr), node_count_(0) {
  throw std::runtime_error("the emulator records no graphs");
}
Graph::~Graph() = default;
void Graph::launch(Stream) const {}

}  // namespace oaks::cuda
