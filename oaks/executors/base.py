"""The protocol between the Engine and a backend: Memory, Executor, Tensor; and the memory of CPU backends."""

from __future__ import annotations

import contextlib
import gc
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from oaks.errors import BundleError

Array = Any
"""A NumPy array in host memory, or an object with `__cuda_array_interface__` in device memory. Both have a
`shape`, and slice along the first axis without copying."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network.

    Attributes:
        shape: sizes of the axes after the batch axis, which comes first and can have any length.
        dtype: float32 or float16.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def checked_tensor(
    label: str, name: str, shape: Sequence[int | None], dtype: np.dtype | type, batch: int | None = None
) -> Tensor:
    """Return an input or output of a network, if the Engine can bind it.

    Args:
        label: name of the network in messages.
        name: name of the input or output.
        shape: its shape; None for a size that may vary.
        dtype: its type.
        batch: the only batch size that the network takes, as bundle.json states it; None: any.

    Raises:
        BundleError: it is not float32 or float16, or a size other than the first, the batch, may vary.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float16)):
        raise BundleError(f"{label}: {name!r} must be float32 or float16, got {dtype}")
    if not shape or shape[0] not in (None, batch) or None in shape[1:]:
        came = ["any" if size is None else size for size in shape]
        raise BundleError(
            f"{label}: {name!r} must have a batch of any size, and no other size that varies, got {came}"
        )
    return Tensor(tuple(size for size in shape[1:] if size is not None), dtype)


_CAPTURE = threading.RLock()


@contextlib.contextmanager
def exclusive_capture() -> Iterator[None]:
    """Allow one CUDA graph capture, or one wait for a whole device, at a time in this process.

    Waiting for a device while another thread captures makes that capture fail. Garbage collection is off inside,
    because freeing memory may wait for the device.
    """
    with _CAPTURE:
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


class Lane(Protocol):
    """A stream: work enqueued on it runs in order, and in parallel with other streams."""

    stream: int | None
    """The CUDA stream's handle, for oaks.ops; None on the host, where calls return when their work is done."""

    def current(self) -> AbstractContextManager[Any]:
        """Make the stream current in a library that has a current stream and whose arrays name none."""
        ...

    def upload(self, source: np.ndarray, target: Array) -> None:
        """Enqueue a copy of a staging array to an array of the same shape and type."""

    def download(self, source: Array, target: np.ndarray) -> None:
        """Enqueue a copy to a staging array, which holds the values after `synchronize`."""

    def wait_for(self, array: Array) -> None:
        """Make the stream, or the caller, wait for work queued elsewhere on a device array."""

    def set(self, mark: Any) -> None:
        """Set a mark of the Memory after all work that the stream holds now. A mark can be set again."""

    def after(self, mark: Any) -> None:
        """Make the stream wait for the work before a mark; a mark that was never set is not waited for."""

    def synchronize(self) -> None:
        """Wait until all enqueued work is done."""


class Memory(Lane, Protocol):
    """Allocates arrays, and owns the stream on which work with them runs in order."""

    device: str
    """"cpu", or "cuda:0" and so on."""
    graphs: str
    """State of CUDA graphs: "none" (nothing recorded yet, or on the host), "captured", or "failed: why"."""

    @property
    def ahead(self) -> Lane:
        """A second stream, on which the next call is prepared while this one runs; on the host the Memory itself."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make the device current in this thread during the block."""
        ...

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> Array:
        """Allocate a contiguous array in this memory, aligned to 256 bytes on a device."""

    def view(self, buffer: Array, start: int, shape: Sequence[int], dtype: np.dtype | type) -> Array:
        """Return a contiguous array inside a flat uint8 array, starting at an aligned byte."""

    def staging(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """Allocate a host array for fast `upload` and `download` (pinned, for a device)."""
        ...

    def drop_staging(self, staging: np.ndarray) -> None:
        """Free a staging array. No copy may still use it, and the caller must hold its last reference."""

    def mark(self) -> Any:
        """Create a mark for streams of this memory (on a device, an event)."""

    def reach(self, mark: Any) -> None:
        """Wait until the work before a mark is done."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a call that repeats `work`, which enqueues on the stream and uses the same arrays each time.

        On a device: run `work` once, wait, capture it as a CUDA graph and return its replay; if the capture
        fails, log why once and return `work`. On the host: return `work`.
        """
        ...

    def close(self) -> None:
        """Free all memory. Its arrays must not be used afterwards."""


class Executor(Protocol):
    """One network on one runtime. With `recordable = False` it never becomes part of a CUDA graph."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """By name."""
        ...

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """By name."""
        ...

    @property
    def details(self) -> Mapping[str, Any]:
        """Entries for reports: runtime version, precision in use, threads, plan file."""
        ...

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """Bind the network to arrays, all of the same batch size, and return the call that runs it.

        On a device the call enqueues on the memory's stream and returns; on the host it returns when the
        outputs are written. Arrays keep their addresses and shapes; binding others leaves this call valid.
        """
        ...

    def close(self) -> None:
        """Free the network's memory."""


class HostMemory:
    """Memory of executors that run on the CPU: NumPy arrays; nothing ever waits."""

    device: str = "cpu"
    stream: int | None = None
    graphs: str = "none"

    @property
    def ahead(self) -> HostMemory:
        return self

    def active(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    current = active

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """Allocate an array aligned to a cache line, so that runtimes use it without a copy."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        raw = np.zeros(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + size].view(dtype).reshape(tuple(shape))

    staging = empty

    def view(self, buffer: Array, start: int, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        return np.ndarray(tuple(shape), dtype, buffer, start)

    def upload(self, source: Array, target: Array) -> None:
        np.copyto(target, source)

    download = upload

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def _nothing(self, *_arguments: Any, **_named: Any) -> None:
        """Do nothing: on the host, work is done when a call returns."""

    wait_for = drop_staging = mark = set = after = reach = synchronize = close = _nothing


__all__ = [
    "Array",
    "Executor",
    "HostMemory",
    "Lane",
    "Memory",
    "Tensor",
    "checked_tensor",
    "exclusive_capture",
]
