"""GPU memory, streams and contexts through PyCUDA. No other file imports PyCUDA.

It uses the device's primary context, which torch, CuPy and the CUDA runtime share. The context is current only
inside `active()`, so that other libraries in the same thread find their own state unchanged. One context object
serves every thread: PyCUDA frees memory only while the context object is current under which it was allocated.
PyCUDA has no CUDA graphs; the native module records them on the stream's handle.
"""

from __future__ import annotations

import atexit
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from oaks.errors import ArgumentError, BackendUnavailable
from oaks.executors.base import exclusive_capture
from oaks.ops import array_stream, native

log = logging.getLogger("oaks")

_SMALLEST = 256
"""Smallest allocation in bytes, because CUDA refuses to allocate 0 bytes."""

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream and the default stream do not wait for each other."""

_LEGACY_DEFAULT = 1
"""The default stream in `__cuda_array_interface__`."""


class Device:
    """A GPU and its primary context, which this process keeps until it ends.

    Attributes:
        index: CUDA's index of the GPU.
        name: its product name.
        compute_capability: "90" for 9.0.
        multiprocessors: number of them; it distinguishes partitions of one GPU.
        cuda_major: major version of CUDA that the driver supports.
    """

    def __init__(self, index: int) -> None:
        driver = _driver()
        device = driver.Device(index)
        self.index = index
        self.name: str = device.name()
        self.compute_capability = "".join(map(str, device.compute_capability()))
        self.multiprocessors = int(device.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT))
        self.cuda_major = driver.get_driver_version() // 1000
        self._context = device.retain_primary_context()
        atexit.register(self._context.detach)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current in this thread during the block. Can be nested."""
        self._context.push()
        try:
            yield
        finally:
            _driver().Context.pop()


@functools.cache
def device(index: int) -> Device:
    """Return the GPU with an index; the same object each time.

    Raises:
        BackendUnavailable: PyCUDA, the driver or the GPU is missing.
    """
    if reason := unavailable(index):
        raise BackendUnavailable(reason)
    return Device(index)


def index_of(device: str) -> int:
    """Return the index of a GPU named "cuda" or "cuda:NUMBER".

    Raises:
        ArgumentError: the name has another form.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise ArgumentError(f"device must be 'cuda' or 'cuda:NUMBER', got {device!r}")
    return int(number or 0)


def compute_capability(index: int) -> str:
    """Return an available GPU's compute capability, "89" for 8.9, without using its context."""
    return "".join(map(str, _driver().Device(index).compute_capability()))


def unavailable(index: int) -> str | None:
    """Return why the GPU with an index cannot be used, or None."""
    try:
        count = _driver().Device.count()
    except ImportError as error:
        return f"PyCUDA cannot be imported: {error}; `pip install 'oaks[tensorrt]'`"
    except Exception as error:  # of PyCUDA's own classes, which cannot be named before it is imported
        return f"CUDA does not start: {error}; check `nvidia-smi`"
    if index >= count:
        return f"there is no GPU {index}; CUDA finds {count}"
    return None


def _driver() -> Any:
    import pycuda.driver

    pycuda.driver.init()
    return pycuda.driver


class DeviceArray:
    """A contiguous array on a GPU, or a part of one; keeps its memory alive.

    Attributes:
        address: address of the first element.
        shape, dtype: as in NumPy.
    """

    __slots__ = ("_block", "address", "dtype", "shape")

    def __init__(self, block: _Block, address: int, shape: Sequence[int], dtype: np.dtype | type) -> None:
        self._block, self.address = block, address
        self.shape, self.dtype = tuple(int(size) for size in shape), np.dtype(dtype)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
        }

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Return the rows of a slice without a step."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ArgumentError(f"rows must be a slice without a step, got {rows}")
        count = max(stop - start, 0)
        row = self.nbytes // self.shape[0] if self.shape[0] else 0
        return DeviceArray(self._block, self.address + start * row, (count, *self.shape[1:]), self.dtype)

    def view(self, start: int, shape: Sequence[int], dtype: np.dtype | type) -> DeviceArray:
        """Return an array of another shape and type inside this one, starting at a byte.

        Raises:
            ArgumentError: it would reach beyond this one.
        """
        part = DeviceArray(self._block, self.address + start, shape, dtype)
        if start < 0 or start + part.nbytes > self.nbytes:
            raise ArgumentError(
                f"start must leave room for {part.nbytes} bytes within {self.nbytes}, got {start}"
            )
        return part


class _Block:
    """One allocation. Its DeviceMemory frees it when nothing refers to it any more."""

    __slots__ = ("_address", "_dropped")

    def __init__(self, address: int, dropped: deque[int]) -> None:
        self._address, self._dropped = address, dropped

    def __del__(self) -> None:
        self._dropped.append(self._address)


class Mark:
    """A point on one of a memory's streams. Before it is set, nothing waits for it."""

    __slots__ = ("event", "is_set")

    def __init__(self, event: Any) -> None:
        self.event, self.is_set = event, False


class DeviceLane:
    """A stream of a GPU: `base.Lane`.

    Attributes:
        place: the GPU.
        stream: the handle of the stream.
    """

    def __init__(self, index: int) -> None:
        self.place = device(index)
        self._driver = _driver()
        with self.place.active():
            self._stream: Any = self._driver.Stream(_NON_BLOCKING)
        self.stream: int | None = self._stream.handle

    def active(self) -> Any:
        return self.place.active()

    def current(self) -> AbstractContextManager[None]:
        """Do nothing: PyCUDA has no current stream."""
        return nullcontext()

    def upload(self, source: np.ndarray, target: DeviceArray) -> None:
        self._driver.memcpy_htod_async(target.address, source, self._stream)

    def download(self, source: DeviceArray, target: np.ndarray) -> None:
        self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def wait_for(self, array: Any) -> None:
        """Make the stream wait for work queued elsewhere on a device array.

        It waits for an event on the stream that the array names; for a torch tensor, on torch's current stream. If
        an array of an older interface names none, it waits for the whole device.
        """
        stream = array_stream(array)
        if stream is None and array.__cuda_array_interface__.get("version", 0) >= 3:
            return
        with self.active():
            if stream == _LEGACY_DEFAULT or stream == 0:
                event = self._driver.Event()
                event.record(None)
                self._stream.wait_for_event(event)
                del event  # must happen while its context is current
            elif stream is not None:
                assert native.cuda is not None
                assert self.stream is not None
                native.cuda.wait_for(self.stream, stream, array.__cuda_array_interface__["data"][0])
            else:
                with exclusive_capture():
                    self._driver.Context.synchronize()

    def set(self, mark: Mark) -> None:
        mark.event.record(self._stream)
        mark.is_set = True

    def after(self, mark: Mark) -> None:
        if mark.is_set:
            self._stream.wait_for_event(mark.event)

    def synchronize(self) -> None:
        with self.active():
            self._stream.synchronize()


class DeviceMemory(DeviceLane):
    """A GPU's memory for one Engine, with two streams of its own: `base.Memory`.

    Attributes:
        capturing: whether enqueued work is being captured in a CUDA graph.

    Raises:
        BackendUnavailable: PyCUDA, the driver or the GPU is missing.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.ahead = DeviceLane(index)
        self.device = f"cuda:{index}"
        self.graphs = "none"
        self.capturing = False
        self._allocations: dict[int, Any] = {}
        self._dropped: deque[int] = deque()
        self._pinned: list[np.ndarray] = []
        self._marks: list[Mark] = []

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> DeviceArray:
        """Allocate a contiguous array, aligned to 256 bytes; its content is undefined."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self.active():
            self._free_dropped()
            try:
                allocation = self._driver.mem_alloc(max(size, _SMALLEST))
            except Exception as error:  # of PyCUDA's own classes
                if "out of memory" not in str(error):
                    raise
                raise MemoryError(
                    f"{self.device} has no room for {size / 1e6:.0f} MB: {error}; pass a smaller max_batch, or "
                    "close other Engines and programs on this GPU"
                ) from error
        address = int(allocation)
        self._allocations[address] = allocation
        return DeviceArray(_Block(address, self._dropped), address, shape, dtype)

    def view(
        self, buffer: DeviceArray, start: int, shape: Sequence[int], dtype: np.dtype | type
    ) -> DeviceArray:
        return buffer.view(start, shape, dtype)

    def staging(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """Allocate a pinned host array, which the device copies from and to directly."""
        with self.active():
            pinned = self._driver.pagelocked_empty(tuple(shape), np.dtype(dtype))
        self._pinned.append(pinned)
        return pinned

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a call that repeats `work`: its CUDA graph, or `work` itself if it cannot be captured.

        Runs `work` once and waits, as TensorRT needs before a capture. A failure is logged once and kept in `graphs`;
        later calls do not try again.
        """
        with self.active():
            work()
            self.synchronize()
            if self.graphs.startswith("failed"):
                return work
            try:
                with exclusive_capture():
                    graph = self._capture(work)
            except Exception as error:
                self.graphs = f"failed: {error}"
                log.warning("CUDA graph capture failed, so every batch needs more kernel launches: %s", error)
                self.synchronize()
                return work
        self.graphs = "captured"
        stream = self.stream
        return lambda: graph.launch(stream)

    def _capture(self, work: Callable[[], None]) -> Any:
        if native.cuda is None:
            raise BackendUnavailable("this build of oaks has no CUDA support, hence no CUDA graphs")
        assert self.stream is not None
        native.cuda.begin_capture(self.stream)
        self.capturing = True
        try:
            work()
            return native.cuda.Graph(self.stream)
        except BaseException:
            native.cuda.abandon_capture(self.stream)
            raise
        finally:
            self.capturing = False

    def drop_staging(self, staging: np.ndarray) -> None:
        with self.active():
            self._pinned = [pinned for pinned in self._pinned if pinned is not staging]
            del staging

    def mark(self) -> Mark:
        with self.active():
            made = Mark(self._driver.Event(self._driver.event_flags.DISABLE_TIMING))
        self._marks.append(made)
        return made

    def reach(self, mark: Mark) -> None:
        if mark.is_set:
            with self.active():
                mark.event.synchronize()

    def close(self) -> None:
        """Wait, then free everything. Its arrays must not be used afterwards. Can be called again.

        Never raises: after a permanent CUDA error every step fails, and all steps are tried nevertheless.
        """
        if self._stream is None:
            return
        allocations, streams = list(self._allocations.values()), [self.ahead._stream, self._stream]
        self._stream = self.ahead._stream = None
        self._allocations.clear()
        self._dropped.clear()
        failures = []
        with self.active():
            waits = [stream.synchronize for stream in streams]
            for step in (*waits, *(allocation.free for allocation in allocations)):
                try:
                    step()
                except Exception as error:
                    failures.append(error)
            self._pinned.clear()
            for mark in self._marks:
                mark.event = None
            self._marks.clear()
            del streams, waits, step
        if failures:
            log.warning(
                "%s: %d steps of closing failed; the first: %s", self.device, len(failures), failures[0]
            )

    def _free_dropped(self) -> None:
        while self._dropped:
            self._allocations.pop(self._dropped.popleft()).free()


__all__ = ["Device", "DeviceArray", "DeviceMemory", "compute_capability", "device", "index_of", "unavailable"]
