"""torch, on CUDA or the CPU, where it is installed. Networks come from a bundle's ONNX or safetensors files.

On CUDA this module also owns the memory: torch tensors, one stream, and a CUDA graph per batch size. The
native operations are launched on that stream's handle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.bundle import Network
from oaks.errors import ArgumentError, BundleError
from oaks.executors.base import Array, HostMemory, Memory, Tensor, exclusive_capture
from oaks.forks import inherited
from oaks.ops import native

if TYPE_CHECKING:
    import torch

log = logging.getLogger("oaks")

_INPUT = {"pose": "crops", "ks": "heatmaps", "detector": "pixels"}
_OUTPUTS = {
    "pose": ("heatmaps", "visibility"),
    "ks": ("similarity", "visibility"),
    "detector": ("centers", "sizes", "offsets"),
}
_WARM_RUNS = 2
_LEGACY_DEFAULT, _PER_THREAD_DEFAULT = 1, 2
"""The default streams in `__cuda_array_interface__`."""


def default_device() -> str:
    try:
        import torch
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def unavailable(device: str) -> str | None:
    if device != "cpu" and not device.startswith("cuda"):
        return f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}"
    if device != "cpu" and native.cuda is None:
        return "this build of oaks has no CUDA support; reinstall oaks with nvcc on the PATH, or pass device 'cpu'"
    if inherited("torch"):
        return (
            "torch was loaded before this process was forked, and its threads do not run in the fork; start processes "
            "with multiprocessing's method 'spawn', or pass backend 'onnxruntime'"
        )
    try:
        import torch

        import oaks.training.checkpoint  # noqa: F401  (needs safetensors too)
    except ImportError as error:
        return f"{error}; `pip install 'oaks[training]'`"
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        return "torch finds no CUDA device; pass device 'cpu', or install torch for CUDA and its driver"
    if (torch.device(device).index or 0) >= torch.cuda.device_count():
        return f"there is no {device}; torch finds {torch.cuda.device_count()} CUDA devices"
    return None


def open_memory(device: str) -> Memory:
    return HostMemory() if device == "cpu" else TorchMemory(device)


def open_executor(
    network: Network, *, memory: Memory, threads: int | None, batches: Sequence[int]
) -> TorchExecutor:
    """Build a network and load its weights.

    Raises:
        ArgumentError: int8, which this backend does not support.
        BundleError: the weights cannot be loaded.
    """
    return TorchExecutor(network, memory, threads)


class TorchLane:
    """A CUDA stream of torch. `callers` returns the stream that was current when the memory was made active."""

    def __init__(self, device: torch.device, callers: Callable[[], torch.cuda.Stream]) -> None:
        import torch

        self._device, self._callers = device, callers
        self._stream = torch.cuda.Stream(device)
        self.stream: int | None = self._stream.cuda_stream

    def current(self) -> Any:
        import torch

        return torch.cuda.stream(self._stream)

    def upload(self, source: np.ndarray, target: torch.Tensor) -> None:
        import torch

        with self.current():
            target.copy_(torch.from_numpy(source), non_blocking=True)

    def download(self, source: torch.Tensor, target: np.ndarray) -> None:
        import torch

        with self.current():
            torch.from_numpy(target).copy_(source, non_blocking=True)

    def wait_for(self, array: Array) -> None:
        import torch

        handle = array.__cuda_array_interface__.get("stream")
        if isinstance(array, torch.Tensor):
            self._stream.wait_stream(self._callers())
        elif handle == _LEGACY_DEFAULT:  # torch accepts it only as default_stream()
            self._stream.wait_stream(torch.cuda.default_stream(self._device))
        elif handle and handle != _PER_THREAD_DEFAULT:
            self._stream.wait_stream(torch.cuda.ExternalStream(handle, device=self._device))
        else:
            with exclusive_capture():
                torch.cuda.synchronize(self._device)

    def set(self, mark: torch.cuda.Event) -> None:
        mark.record(self._stream)

    def after(self, mark: torch.cuda.Event) -> None:
        self._stream.wait_event(mark)  # returns at once if it was never recorded

    def synchronize(self) -> None:
        self._stream.synchronize()


class TorchMemory(TorchLane):
    """Tensors on a CUDA device, and the streams on which work with them runs."""

    def __init__(self, device: str) -> None:
        import torch

        place = torch.device("cuda", torch.device(device).index or 0)
        super().__init__(place, lambda: self._current)
        self._current: torch.cuda.Stream = torch.cuda.default_stream(place)
        self.ahead = TorchLane(place, self._callers)
        self.device = str(place)
        self.graphs = "none"

    @contextmanager
    def active(self) -> Iterator[None]:
        import torch

        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            if current != self._stream:
                self._current = current
            with torch.cuda.stream(self._stream):
                yield

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> torch.Tensor:
        import torch

        return torch.zeros(tuple(shape), dtype=_torch_dtype(dtype), device=self._device)

    def view(
        self, buffer: torch.Tensor, start: int, shape: Sequence[int], dtype: np.dtype | type
    ) -> torch.Tensor:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return buffer[start : start + size].view(_torch_dtype(dtype)).reshape(tuple(shape))

    def staging(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        import torch

        return torch.zeros(tuple(shape), dtype=_torch_dtype(dtype)).pin_memory().numpy()

    def drop_staging(self, staging: np.ndarray) -> None:
        pass  # freed with its last reference

    def mark(self) -> torch.cuda.Event:
        import torch

        return torch.cuda.Event()

    def reach(self, mark: torch.cuda.Event) -> None:
        mark.synchronize()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        import torch

        for _ in range(_WARM_RUNS):  # libraries choose their algorithms and workspaces in the first runs
            work()
        self._stream.synchronize()
        if self.graphs.startswith("failed"):
            return work
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                exclusive_capture(),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                work()
        except RuntimeError as error:
            self.graphs = f"failed: {error}"
            log.warning("CUDA graph capture failed, so every kernel is launched separately: %s", error)
            return work
        self.graphs = "captured"
        return graph.replay

    def close(self) -> None:
        self.ahead.synchronize()
        self.synchronize()


class TorchExecutor:
    """A network of oaks.training.networks in evaluation mode, channels last."""

    def __init__(self, network: Network, memory: Memory, threads: int | None) -> None:
        import torch

        from oaks.training.checkpoint import load_from_bundle
        from oaks.training.networks import build, channels_last

        if network.precision == "int8":
            raise ArgumentError(
                "precision must be fp32, bf16 or fp16 with backend 'torch', got 'int8'; 'openvino' has it"
            )
        if threads:
            torch.set_num_threads(threads)
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        self._dtype = kinds[network.precision]
        try:
            module, description = load_from_bundle(network)
            channels, (width, height) = _input_of(network)
            with torch.device("meta"):
                shapes = _listed(
                    build(description["architecture"]).eval()(torch.empty(1, channels, height, width))
                )
        except (ValueError, RuntimeError, OSError) as error:
            raise BundleError(f"{network.label}: torch cannot load it: {error}") from error
        self._module = channels_last(module.to(device=torch.device(memory.device), dtype=self._dtype))
        element = np.dtype(np.float16 if network.precision == "fp16" else np.float32)
        self._role = network.role
        self.inputs = {_INPUT[network.role]: Tensor((channels, height, width), element)}
        self.outputs = {
            name: Tensor(tuple(value.shape[1:]), element)
            for name, value in zip(_OUTPUTS[network.role], shapes, strict=False)
        }
        self.details: dict[str, Any] = {
            "runtime": f"torch {torch.__version__}",
            "file": network.file,
            "precision": network.precision,
            "threads": torch.get_num_threads() if memory.device == "cpu" else None,
        }

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        given = _as_tensor(inputs[_INPUT[self._role]])
        targets = [_as_tensor(outputs[name]) for name in self.outputs]
        return BoundModule(self._module, self._dtype, given, targets)

    def close(self) -> None:
        del self._module


@dataclass(frozen=True)
class BoundModule:
    """Runs a module on one tensor and writes its outputs to others."""

    module: Any
    dtype: torch.dtype
    given: torch.Tensor
    targets: Sequence[torch.Tensor]

    def __call__(self) -> None:
        import torch

        with torch.inference_mode(), _strict(self.given):
            crops = self.given.to(self.dtype, memory_format=torch.channels_last)
            for target, value in zip(self.targets, _listed(self.module(crops)), strict=True):
                target.copy_(value, non_blocking=True)


def _input_of(network: Network) -> tuple[int, tuple[int, int]]:
    """Return the channels and (width, height) of a network's input."""
    bundle = network.bundle
    if network.role == "ks":
        return bundle.skeleton.count, bundle.pose.heatmap_size
    return 3, bundle.detector.size if network.role == "detector" else bundle.pose.size


def _strict(tensor: torch.Tensor) -> Any:
    """Disable TF32, to which cuDNN would otherwise round fp32."""
    import torch

    return (
        torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        if tensor.is_cuda
        else nullcontext()
    )


def _listed(result: Any) -> list[torch.Tensor]:
    """Return a network's outputs without the missing ones, which are None."""
    return [value for value in (result if isinstance(result, tuple) else (result,)) if value is not None]


def _as_tensor(array: Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def _torch_dtype(dtype: np.dtype | type) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}[np.dtype(dtype).name]


__all__ = ["TorchExecutor", "TorchMemory", "default_device", "open_executor", "open_memory", "unavailable"]
