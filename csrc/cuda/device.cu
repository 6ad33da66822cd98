#include "cuda/device.h"
#include "cuda/launch.h"

namespace oaks::cuda {

void check(cudaError_t error, const std::string& doing) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears the error, so that it is not reported again elsewhere
  throw std::runtime_error(std::string(cudaGetErrorName(error)) + " (" + cudaGetErrorString(error) +
                           ") while " + doing);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

int driver_version() {
  int version = 0;
  check(cudaDriverGetVersion(&version), "asking for the driver's version");
  return version;
}

int runtime_version() {
  int version = 0;
  check(cudaRuntimeGetVersion(&version), "asking for the runtime's version");
  return version;
}

namespace {

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "asking which device is current");
  return device;
}

void make_current(int device) {
  check(cudaSetDevice(device), "making device " + std::to_string(device) + " current");
}

cudaStream_t handle(Stream stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

DeviceInfo device_info(int device) {
  const std::string doing = "asking about device " + std::to_string(device);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), doing);
  DeviceInfo info{properties.name, properties.major, properties.minor, properties.multiProcessorCount, 0, 0};
  const int before = current_device();
  make_current(device);
  const cudaError_t error = cudaMemGetInfo(&info.free_bytes, &info.total_bytes);
  make_current(before);
  check(error, doing + "'s memory");
  return info;
}

int device_of(const void* pointer) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, pointer), "asking where an array is stored");
  if (attributes.type == cudaMemoryTypeUnregistered) {
    throw std::runtime_error("an array must be in device memory, got one in host memory");
  }
  if (attributes.type == cudaMemoryTypeManaged) return current_device();
  return attributes.device;
}

DeviceGuard::DeviceGuard(const void* pointer) : before_(current_device()) {
  const int device = device_of(pointer);
  if (device == before_) {
    before_ = -1;
  } else {
    make_current(device);
  }
}

DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) cudaSetDevice(before_);
}

void wait_for(Stream stream, Stream other, const void* pointer) {
  const DeviceGuard guard(pointer);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(handle(stream), &capture), "asking whether a stream is under capture");
  if (capture != cudaStreamCaptureStatusNone) return;
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  cudaError_t error = cudaEventRecord(event, handle(other));
  if (error == cudaSuccess) error = cudaStreamWaitEvent(handle(stream), event, 0);
  cudaEventDestroy(event);  // takes effect once the event has completed
  check(error, "waiting for another stream");
}

namespace {

int attribute(cudaDeviceAttr which, const char* doing) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, current_device()), doing);
  return value;
}

}  // namespace

int largest_shared_bytes() {
  return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin,
                   "asking for the largest shared memory of a block");
}

int multiprocessors() {
  return attribute(cudaDevAttrMultiProcessorCount, "asking how many multiprocessors a device has");
}

void begin_capture(Stream stream) {
  check(cudaStreamBeginCapture(handle(stream), cudaStreamCaptureModeThreadLocal),
        "starting to capture a graph");
}

void abandon_capture(Stream stream) noexcept {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(handle(stream), &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
}

Graph::Graph(Stream stream) : executable_(nullptr), node_count_(0) {
  cudaGraph_t captured = nullptr;
  check(cudaStreamEndCapture(handle(stream), &captured), "ending the capture of a graph");
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaGraphGetNodes(captured, nullptr, &node_count_);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&executable, captured, 0);
  cudaGraphDestroy(captured);
  check(error, "instantiating a graph");
  executable_ = executable;
}

Graph::~Graph() { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_)); }

void Graph::launch(Stream stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), handle(stream)), "launching a graph");
}

}  // namespace oaks::cuda
