// Kernels with one error each, which the emulator must detect. They are written like those of csrc/cuda, so
// that the same errors would be detected there.
#include "cuda/launch.h"
#include "emulator/planted.h"

namespace planted {
namespace {

using namespace oaks::cuda;

// Reverses a block's values through shared memory.
__global__ void reverse(const float* from, float* to, bool with_barrier) {
  OAKS_SHARED(float, values, 64);
  values[threadIdx.x] = from[threadIdx.x];
  if (with_barrier) __syncthreads();
  to[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

// Reads `reach` values beyond its own.
__global__ void shift(const float* from, float* to, int reach) {
  to[threadIdx.x] = from[int(threadIdx.x) + reach];
}

__global__ void write_beyond(float* to, int reach) { to[int(threadIdx.x) + reach] = 1.0f; }

__global__ void read_vectors(const float* from, float* to) {
  const auto vector = reinterpret_cast<const Vector<float, 4>*>(from)[threadIdx.x];
  to[threadIdx.x] = vector.value[0] + vector.value[3];
}

__global__ void shared_index(float* to, int index) {
  OAKS_SHARED(float, values, 64);
  values[threadIdx.x] = 1.0f;
  __syncthreads();
  to[threadIdx.x] = values[index];
}

__global__ void dynamic_index(float* to, int index) {
  OAKS_DYNAMIC_SHARED(float, values);
  if (threadIdx.x == 0) values[index] = 1.0f;
  to[threadIdx.x] = 0.0f;
}

__global__ void unwritten(float* to) {
  OAKS_SHARED(float, values, 64);
  if (threadIdx.x != 5) values[threadIdx.x] = 1.0f;
  __syncthreads();
  to[threadIdx.x] = values[threadIdx.x];
}

__global__ void same_element(float* to) {
  OAKS_SHARED(float, values, 1);
  values[0] = 1.0f;
  __syncthreads();
  to[threadIdx.x] = values[0];
}

__global__ void half_at_barrier(float* to) {
  if (threadIdx.x < 40) __syncthreads();
  to[threadIdx.x] = 1.0f;
}

__global__ void two_barriers(float* to) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  to[threadIdx.x] = 1.0f;
}

__global__ void barrier_or_shuffle(float* to) {
  float value = 1.0f;
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    value = __shfl_xor_sync(kWholeWarp, value, 2);
  }
  to[threadIdx.x] = value;
}

__global__ void half_in_shuffle(float* to) {
  float value = 1.0f;
  if (threadIdx.x % kWarp < 16) value = __shfl_xor_sync(kWholeWarp, value, 1);
  to[threadIdx.x] = value;
}

__global__ void shuffle_with_mask(float* to, unsigned mask, int distance) {
  float value = float(threadIdx.x);
  if (mask >> threadIdx.x % kWarp & 1u) value = __shfl_xor_sync(mask, value, distance);
  to[threadIdx.x] = value;
}

__global__ void shuffle_left_out(float* to) { to[threadIdx.x] = __shfl_sync(kWholeWarp & ~4u, 1.0f, 0); }

__global__ void shuffle_or_ballot(float* to) {
  float value = 1.0f;
  if (threadIdx.x % kWarp < 16) {
    value = __shfl_sync(kWholeWarp, value, 0);
  } else {
    value = float(__ballot_sync(kWholeWarp, true));
  }
  to[threadIdx.x] = value;
}

__global__ void fold(const float* from, float* to) {
  float value = from[threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  to[threadIdx.x] = value;
}

}  // namespace

void start(const std::string& error, const float* from, float* to, int threads, int argument) {
  const Shape shape{1, threads}, with_shared{1, threads, 64 * int(sizeof(float))};
  const char* const name = "planted";
  if (error == "nothing") return launch<reverse>(name, shape, nullptr, from, to, true);
  if (error == "no barrier") return launch<reverse>(name, shape, nullptr, from, to, false);
  if (error == "read beyond") return launch<shift>(name, shape, nullptr, from, to, argument);
  if (error == "write beyond") return launch<write_beyond>(name, shape, nullptr, to, argument);
  if (error == "read vectors") return launch<read_vectors>(name, shape, nullptr, from, to);
  if (error == "shared index") return launch<shared_index>(name, shape, nullptr, to, argument);
  if (error == "dynamic index") return launch<dynamic_index>(name, with_shared, nullptr, to, argument);
  if (error == "unwritten") return launch<unwritten>(name, shape, nullptr, to);
  if (error == "same element") return launch<same_element>(name, shape, nullptr, to);
  if (error == "half at barrier") return launch<half_at_barrier>(name, shape, nullptr, to);
  if (error == "two barriers") return launch<two_barriers>(name, shape, nullptr, to);
  if (error == "barrier or shuffle") return launch<barrier_or_shuffle>(name, shape, nullptr, to);
  if (error == "half in shuffle") return launch<half_in_shuffle>(name, shape, nullptr, to);
  if (error == "narrow mask") return launch<shuffle_with_mask>(name, shape, nullptr, to, 0xffffu, argument);
  if (error == "left out of mask") return launch<shuffle_left_out>(name, shape, nullptr, to);
  if (error == "shuffle or ballot") return launch<shuffle_or_ballot>(name, shape, nullptr, to);
  if (error == "fold") return launch<fold>(name, shape, nullptr, from, to);
  throw std::invalid_argument("no planted error is called " + error);
}

}  // namespace planted
