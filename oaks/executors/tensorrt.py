"""TensorRT on NVIDIA GPUs, from a plan that is built once and kept: ordinary TensorRT, or TensorRT for RTX.

Backend "tensorrt" uses ordinary TensorRT, which tunes its plan on the GPU itself, if it is installed; otherwise TensorRT
for RTX on the GPUs that it supports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.bundle import Network
from oaks.errors import ArgumentError, BackendUnavailable, BundleError
from oaks.executors import pycuda as gpus
from oaks.executors.base import Tensor, checked_tensor
from oaks.executors.pycuda import DeviceArray, DeviceMemory
from oaks.forks import inherited
from oaks.ops import native

if TYPE_CHECKING:
    from oaks.engines.plans.cache import Plan
    from oaks.engines.plans.library import Library
    from oaks.engines.plans.library import tensorrt as trt
    from oaks.engines.plans.rtx import RuntimeCache

log = logging.getLogger("oaks")

FLAVORS = ("tensorrt", "tensorrt_rtx")
"""Flavors of oaks.engines.plans.library, in the order in which they are tried."""


def default_device() -> str:
    return "cuda"


def unavailable(device: str, flavors: Sequence[str] = FLAVORS) -> str | None:
    """Return why no library of these flavors can run there, and what to install or change; or None."""
    if inherited("pycuda.driver"):
        return (
            "CUDA was loaded before this process was forked and does not work in the fork; start processes with "
            "multiprocessing's method 'spawn'"
        )
    return _choose(device, flavors)[1]


def open_memory(device: str) -> DeviceMemory:
    return DeviceMemory(gpus.index_of(device))


def open_executor(
    network: Network,
    *,
    memory: DeviceMemory,
    threads: int | None,
    batches: Sequence[int],
    flavors: Sequence[str] = FLAVORS,
) -> TensorRTExecutor:
    """Load the network's plan; build it first if there is none that fits.

    Raises:
        ArgumentError: bf16, which a plan supports only if the ONNX file states it.
        BackendUnavailable: no library of these flavors can run on the memory's device.
        BundleError: the ONNX file has changed, or has inputs or outputs that a pose network cannot have.
        TensorRTError: TensorRT cannot build or load the plan.
    """
    if network.precision == "bf16":
        raise ArgumentError(
            "precision must be that of an ONNX file with backend 'tensorrt', got 'bf16'; pass 'fp16'"
        )
    flavor, reason = _choose(memory.device, flavors)
    if flavor is None:
        raise BackendUnavailable(f"{memory.device}: {reason}")
    return TensorRTExecutor(network, memory, batches, flavor)


def _choose(device: str, flavors: Sequence[str]) -> tuple[str, None] | tuple[None, str]:
    """Return the first flavor whose library is installed and supports the device; or why there is none."""
    try:
        index = gpus.index_of(device)
    except ValueError as error:
        return None, str(error)
    if reason := gpus.unavailable(index):
        return None, reason
    from oaks.engines.plans import rtx
    from oaks.engines.plans.library import RTX, library

    if native.cuda is None:
        return None, "this build of oaks has no CUDA support; reinstall oaks with nvcc on the PATH"
    try:
        import filelock  # noqa: F401  (locks between processes that build the same plan)
    except ImportError as error:
        return None, f"{error}; `pip install 'oaks[tensorrt]'`"
    reasons = []
    for flavor in flavors:
        if flavor == RTX and (reason := rtx.unavailable(gpus.compute_capability(index))):
            reasons.append(reason)
            continue
        try:
            library(flavor)
        except BackendUnavailable as error:
            reasons.append(str(error))
            continue
        return flavor, None
    return None, "; ".join(reasons)


class TensorRTExecutor:
    """A TensorRT engine with one execution context per bound batch size.

    The contexts run one after another on the memory's stream, so they share one block of memory for activations.
    """

    def __init__(self, network: Network, memory: DeviceMemory, batches: Sequence[int], flavor: str) -> None:
        from oaks.engines.plans.cache import load_plan
        from oaks.engines.plans.library import RTX, library
        from oaks.engines.plans.rtx import RuntimeCache

        self._library: Library = library(flavor)
        self._label, self._memory = network.label, memory
        if flavor == RTX and network.precision == "int8":
            log.warning(
                "%s: TensorRT-RTX moves more bytes in int8 than in fp16; prefer precision 'fp16'",
                network.label,
            )
        plan = load_plan(network, memory.place, batches=batches, flavor=flavor)
        self._plan: Plan | None = plan
        self._kernels: RuntimeCache | None = None
        if flavor == RTX:
            self._kernels = RuntimeCache(self._library, plan.engine, plan.kernels)
        engine = plan.engine
        trt = self._library.trt
        tensors: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            tensors[is_input][name] = self._tensor(engine, name)
        self.inputs, self.outputs = tensors[True], tensors[False]
        size = max(engine.get_device_memory_size_for_profile_v2(index) for index in range(len(plan.profiles)))
        self._activations: DeviceArray | None = memory.empty((size,), np.uint8)
        self.details: dict[str, Any] = {
            "runtime": f"{flavor} {self._library.version}",
            "file": network.file,
            "precision": network.precision,
            "plan": str(plan.path),
            "gpu": memory.place.name,
        }

    def _tensor(self, engine: trt.ICudaEngine, name: str) -> Tensor:
        trt = self._library.trt
        dtypes = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16}
        dtype, shape = engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))
        if dtype not in dtypes:
            raise BundleError(f"{self._label}: {name!r} must be float32 or float16, got {dtype}")
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise BundleError(
                f"{self._label}: {name!r} must be data on the device, got a shape tensor on the host"
            )
        sizes = [None if size == -1 else size for size in shape]
        return checked_tensor(self._label, name, sizes, dtypes[dtype])

    def bind(
        self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Callable[[], None]:
        """Create an execution context for these arrays and return the call that enqueues it.

        Raises:
            ArgumentError: an array is missing, unknown to the network, or has the wrong shape or type.
            TensorRTError: no profile of the plan fits the batch, or TensorRT refuses the arrays.
        """
        batch = self._check_arrays(inputs, outputs)
        mark = self._library.log.mark()
        context = self._context(batch)
        for name in self.inputs:
            if not context.set_input_shape(name, inputs[name].shape):
                raise self._library.failure(f"{self._label}: a batch of {batch} does not fit the plan", mark)
        if unset := context.infer_shapes():
            raise self._library.failure(f"{self._label}: TensorRT lacks the shapes of {unset}", mark)
        arrays = {**inputs, **outputs}
        for name, array in arrays.items():
            shape = tuple(context.get_tensor_shape(name))
            if shape != array.shape:
                raise self._library.failure(
                    f"{self._label}: {name!r} must have shape {array.shape}, got {shape}", mark
                )
            if not context.set_tensor_address(name, array.address):
                raise self._library.failure(f"{self._label}: TensorRT refuses the memory of {name!r}", mark)
        assert self._activations is not None
        return BoundContext(
            self._library, context, self._memory, self._label, (*arrays.values(), self._activations)
        )

    def _check_arrays(self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> int:
        """Return the batch size, which all arrays must have."""
        tensors = {**self.inputs, **self.outputs}
        arrays = {**inputs, **outputs}
        if set(inputs) != set(self.inputs) or set(outputs) != set(self.outputs):
            raise ArgumentError(
                f"{self._label}: inputs must be {sorted(self.inputs)} and outputs {sorted(self.outputs)}, "
                f"got {sorted(inputs)} and {sorted(outputs)}"
            )
        batch = arrays[next(iter(self.inputs))].shape[0]
        for name, array in arrays.items():
            expected = ((batch, *tensors[name].shape), tensors[name].dtype)
            if (array.shape, array.dtype) != expected:
                raise ArgumentError(
                    f"{self._label}: {name!r} must be {expected}, got {(array.shape, array.dtype)}"
                )
        return batch

    def _context(self, batch: int) -> trt.IExecutionContext:
        """Create a context with the profile for a batch; its activations use the shared block."""
        trt, mark = self._library.trt, self._library.log.mark()
        assert self._plan is not None, "the executor is closed"
        assert self._activations is not None
        engine, profiles = self._plan.engine, self._plan.profiles
        number = next((i for i, p in enumerate(profiles) if p.smallest <= batch <= p.largest), None)
        if number is None:
            raise ArgumentError(
                f"{self._label}: the batch must be from 1 to {profiles[-1].largest}, as the plan allows, got {batch}"
            )
        if self._kernels is not None:
            context = self._kernels.context()
        else:
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self._library.failure(f"{self._label}: TensorRT cannot create an execution context", mark)
        if not context.set_optimization_profile_async(number, self._memory.stream):
            raise self._library.failure(f"{self._label}: TensorRT refuses profile {number}", mark)
        context.set_device_memory(self._activations.address, self._activations.nbytes)
        return context

    def close(self) -> None:
        """Free the engine and its memory, and save the kernels that TensorRT for RTX has compiled."""
        if self._kernels is not None:
            try:
                self._kernels.save()
            except OSError as error:
                log.warning("%s: the compiled kernels cannot be saved: %s", self._label, error)
        self._kernels = self._activations = None
        self._plan = None


@dataclass(frozen=True)
class BoundContext:
    """Enqueues a network on bound arrays, and keeps them alive: TensorRT holds only their addresses."""

    library: Library
    context: trt.IExecutionContext
    memory: DeviceMemory
    label: str
    arrays: Sequence[DeviceArray]

    def __call__(self) -> None:
        from oaks.engines.plans.rtx import can_be_captured

        mark, stream = self.library.log.mark(), self.memory.stream
        asks = self.memory.capturing and self.library.flavor == "tensorrt_rtx"
        if asks and not can_be_captured(self.context, stream):
            raise self.library.failure(f"{self.label}: TensorRT-RTX cannot be captured here", mark)
        if not self.context.execute_async_v3(stream):
            raise self.library.failure(f"{self.label}: TensorRT could not run it", mark)


__all__ = ["TensorRTExecutor", "default_device", "open_executor", "open_memory", "unavailable"]
