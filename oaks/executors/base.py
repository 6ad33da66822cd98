"""What the Engine knows of a backend: Memory, Executor, Tensor; and the host's memory."""

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
        shape: sizes after the batch axis, which is always the first and may have any length.
        dtype: float32 or float16.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def checked_tensor(
    label: str, name: str, shape: Sequence[int | None], dtype: np.dtype | type, batch: int | None = None
) -> Tensor:
    """An input or output of a network that the Engine can bind.

    Args:
        label: the network's, for messages.
        name: of the input or output.
        shape: of it, None for a size that may vary.
        dtype: of it.
        batch: the one batch size that bundle.json says the network takes, or None: any.

    Raises:
        BundleError: it is not float32 or float16, or something else than its first size, the batch, may vary.
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
    """One CUDA graph capture, or one wait for a whole device, at a time in this process.

    Waiting for a device while another thread captures spoils that capture for good. Garbage collection is off
    inside, since what it frees may wait for the device.
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
    """A stream: what is enqueued on it runs in order, and beside what is on others."""

    stream: int | None
    """The CUDA stream's handle, for oaks.ops; None on the host, where everything is done at once."""

    def current(self) -> AbstractContextManager[Any]:
        """Makes the stream the current one of a library that has such, and whose arrays name no other."""
        ...

    def upload(self, source: np.ndarray, target: Array) -> None:
        """Enqueues a copy of a staging array into an array of the same shape and type."""

    def download(self, source: Array, target: np.ndarray) -> None:
        """Enqueues a copy into a staging array, whose content is there after `synchronize`."""

    def wait_for(self, array: Array) -> None:
        """Make the stream, or the caller, wait for work queued elsewhere on a device array."""

    def set(self, mark: Any) -> None:
        """Sets a mark of the Memory behind all that the stream holds now. A mark may be set again."""

    def after(self, mark: Any) -> None:
        """Lets the stream wait for what stands before a mark; for nothing if it was never set."""

    def synchronize(self) -> None:
        """Waits until everything enqueued is done."""


class Memory(Lane, Protocol):
    """Where arrays lie, and the stream on which work with them runs in order."""

    device: str
    """"cpu", or "cuda:0" and so on."""
    graphs: str
    """How `record` fares: "none" (nothing recorded yet, or host), "captured", or "failed: why"."""

    @property
    def ahead(self) -> Lane:
        """A second stream, for what the next work needs while this runs; the Memory itself on the host."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Makes the device current for this thread while the block runs."""
        ...

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> Array:
        """A contiguous array in this memory, aligned to 256 bytes on a device."""

    def view(self, buffer: Array, start: int, shape: Sequence[int], dtype: np.dtype | type) -> Array:
        """A contiguous array within a flat uint8 array, from an aligned byte on."""

    def staging(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """A host array from which `upload` and into which `download` are fast (pinned, on a device)."""
        ...

    def drop_staging(self, staging: np.ndarray) -> None:
        """Gives a staging array back, which no copy may need any more; the caller's must be its last reference."""

    def mark(self) -> Any:
        """A new mark for streams of this memory (an event, on a device)."""

    def reach(self, mark: Any) -> None:
        """Waits until what stands before a mark is done."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A call that repeats `work`, which enqueues on the stream and touches the same arrays each time.

        On a device: runs `work` once, waits, captures it as a CUDA graph and returns the replay; where
        capture fails, logs why once and returns `work`. On the host: returns `work`.
        """
        ...

    def close(self) -> None:
        """Gives back what it holds. Arrays from it must not be used afterwards."""


class Executor(Protocol):
    """One network on one runtime. One that has `recordable = False` never becomes part of a CUDA graph."""

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
        """What a report should say: runtime version, precision as it runs, threads, plan file."""
        ...

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """Ties the network to arrays, all of the same batch size, and returns the call that runs it.

        On a device the call enqueues on the memory's stream and returns; on the host it returns when the
        outputs are written. Arrays keep their addresses and shapes; binding others leaves this call valid.
        """
        ...

    def close(self) -> None:
        """Gives the network's memory back."""


class HostMemory:
    """The memory of executors that run on the CPU: NumPy arrays, and nothing to wait for."""

    device: str = "cpu"
    stream: int | None = None
    graphs: str = "none"

    @property
    def ahead(self) -> HostMemory:
        return self

    def active(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def current(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """Aligned to a cache line, so that runtimes take it without a copy."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        raw = np.zeros(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + size].view(dtype).reshape(tuple(shape))

    staging = empty

    def view(self, buffer: Array, start: int, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        return np.ndarray(tuple(shape), dtype, buffer, start)

    def upload(self, source: np.ndarray, target: Array) -> None:
        np.copyto(target, source)

    def download(self, source: Array, target: np.ndarray) -> None:
        np.copyto(target, source)

    def wait_for(self, array: Array) -> None:
        pass

    def drop_staging(self, staging: np.ndarray) -> None:
        pass

    def mark(self) -> None:
        pass

    def set(self, mark: None) -> None:
        pass

    def after(self, mark: None) -> None:
        pass

    def reach(self, mark: None) -> None:
        pass

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


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
