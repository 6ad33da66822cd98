"""GPU memory, streams and contexts through PyCUDA; all of PyCUDA that oaks uses is in this file.

The device's primary context is used, the one that torch, CuPy and the CUDA runtime share. It is current only
inside `active()`, so that other libraries in the same thread find what they left. One context object serves
every thread: PyCUDA frees memory only where the very object is current under which it was allocated.
What PyCUDA lacks, graphs, the native module does on the stream's handle.
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
from oaks.ops import array_stream

log = logging.getLogger("oaks")

_SMALLEST = 256
"""Bytes; no allocation is smaller, since CUDA refuses to allocate none."""

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default stream, nor it for the stream."""

_LEGACY_DEFAULT = 1
"""How `__cuda_array_interface__` names the default stream."""


class Device:
    """A GPU and its primary context, which this process holds until it ends.

    Attributes:
        index: as CUDA counts.
        name: what the maker calls it.
        compute_capability: "90" for 9.0.
        multiprocessors: how many; tells partitions of one GPU apart.
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
        """Makes the context current for this thread while the block runs. May be nested."""
        self._context.push()
        try:
            yield
        finally:
            _driver().Context.pop()


@functools.cache
def device(index: int) -> Device:
    """The GPU of that number; the same object each time.

    Raises:
        BackendUnavailable: PyCUDA, the driver or the GPU is not there.
    """
    if reason := unavailable(index):
        raise BackendUnavailable(reason)
    return Device(index)


def index_of(device: str) -> int:
    """The number of a GPU named "cuda" or "cuda:NUMBER".

    Raises:
        ArgumentError: it is named otherwise.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise ArgumentError(f"device must be 'cuda' or 'cuda:NUMBER', got {device!r}")
    return int(number or 0)


def compute_capability(index: int) -> str:
    """ "89" for 8.9, of a GPU that is available; takes no context."""
    return "".join(map(str, _driver().Device(index).compute_capability()))


def unavailable(index: int) -> str | None:
    """Why the GPU of that number cannot be used, or None."""
    try:
        count = _driver().Device.count()
    except ImportError as error:
        return f"PyCUDA cannot be imported: {error}; `pip install 'oaks[tensorrt]'`"
    except Exception as error:  # PyCUDA's own, which cannot be named where it does not import
        return f"CUDA does not start: {error}; check `nvidia-smi`"
    if index >= count:
        return f"there is no GPU {index}, CUDA sees {count}"
    return None


def _driver() -> Any:
    import pycuda.driver

    pycuda.driver.init()
    return pycuda.driver


class DeviceArray:
    """A contiguous array on a GPU, or a part of one; keeps the memory that it lies in alive.

    Attributes:
        address: of the first element.
        shape, dtype: as NumPy's.
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
        """The rows of a slice without steps."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ArgumentError(f"rows must be a slice without steps, got {rows}")
        count = max(stop - start, 0)
        row = self.nbytes // self.shape[0] if self.shape[0] else 0
        return DeviceArray(self._block, self.address + start * row, (count, *self.shape[1:]), self.dtype)

    def view(self, start: int, shape: Sequence[int], dtype: np.dtype | type) -> DeviceArray:
        """An array of another shape and type within this one, from a byte on.

        Raises:
            ArgumentError: it would not lie within.
        """
        part = DeviceArray(self._block, self.address + start, shape, dtype)
        if start < 0 or start + part.nbytes > self.nbytes:
            raise ArgumentError(f"start: {part.nbytes} bytes from {start} on do not lie in {self.nbytes}")
        return part


class _Block:
    """One allocation. When nobody holds it any more, the DeviceMemory that made it learns so and frees it."""

    __slots__ = ("_address", "_dropped")

    def __init__(self, address: int, dropped: deque[int]) -> None:
        self._address, self._dropped = address, dropped

    def __del__(self) -> None:
        self._dropped.append(self._address)


class Mark:
    """A point on one of a memory's streams; nothing waits for it before it is set."""

    __slots__ = ("event", "is_set")

    def __init__(self, event: Any) -> None:
        self.event, self.is_set = event, False


class DeviceLane:
    """A stream of a GPU, on which what is enqueued runs in order.

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
        """Makes the device current for this thread while the block runs."""
        return self.place.active()

    def current(self) -> AbstractContextManager[None]:
        """Nothing: PyCUDA has no current stream."""
        return nullcontext()

    def upload(self, source: np.ndarray, target: DeviceArray) -> None:
        """Enqueues a copy of a staging array into an array of the same shape and type."""
        self._driver.memcpy_htod_async(target.address, source, self._stream)

    def download(self, source: DeviceArray, target: np.ndarray) -> None:
        """Enqueues a copy into a staging array, whose content is there after `synchronize`."""
        self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def wait_for(self, array: Any) -> None:
        """Make the stream wait for work queued elsewhere on a device array.

        By an event on the stream that the array names, torch's current one for a torch tensor. Where an array of
        an older interface names none, everything on the device is waited for.
        """
        stream = array_stream(array)
        if stream is None and array.__cuda_array_interface__.get("version", 0) >= 3:
            return
        with self.active():
            if stream == _LEGACY_DEFAULT or stream == 0:
                event = self._driver.Event()
                event.record(None)
                self._stream.wait_for_event(event)
                del event  # while its context is current
            elif stream is not None:
                from oaks.ops import native

                assert native.cuda is not None
                assert self.stream is not None
                native.cuda.wait_for(self.stream, stream, array.__cuda_array_interface__["data"][0])
            else:
                with exclusive_capture():
                    self._driver.Context.synchronize()

    def set(self, mark: Mark) -> None:
        """Sets a mark behind all that the stream holds now."""
        mark.event.record(self._stream)
        mark.is_set = True

    def after(self, mark: Mark) -> None:
        """Lets the stream wait for what stands before a mark."""
        if mark.is_set:
            self._stream.wait_for_event(mark.event)

    def synchronize(self) -> None:
        """Waits until everything enqueued is done."""
        with self.active():
            self._stream.synchronize()


class DeviceMemory(DeviceLane):
    """A GPU's memory for one Engine, with two streams of its own.

    Attributes:
        ahead: the second stream.
        capturing: whether what is enqueued now becomes part of a CUDA graph.

    Raises:
        BackendUnavailable: PyCUDA, the driver or the GPU is not there.
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
        """A contiguous array, aligned to 256 bytes; its content is undefined."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self.active():
            self._free_dropped()
            try:
                allocation = self._driver.mem_alloc(max(size, _SMALLEST))
            except Exception as error:  # PyCUDA's own, which cannot be named where it does not import
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
        """A contiguous array within a flat uint8 array, from an aligned byte on."""
        return buffer.view(start, shape, dtype)

    def staging(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """A pinned host array, which copies to and from the device need not copy once more."""
        with self.active():
            pinned = self._driver.pagelocked_empty(tuple(shape), np.dtype(dtype))
        self._pinned.append(pinned)
        return pinned

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A call that repeats `work`: a CUDA graph of it, or, where it cannot be captured, `work` itself.

        Runs `work` once and waits, as TensorRT needs before a capture. A failure is logged once, stands in
        `graphs`, and is for good: later calls do not try again.
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
                log.warning("runs without a CUDA graph, with more launches per batch: %s", error)
                self.synchronize()
                return work
        self.graphs = "captured"
        stream = self.stream
        return lambda: graph.launch(stream)

    def _capture(self, work: Callable[[], None]) -> Any:
        from oaks.ops import native

        if native.cuda is None:
            raise BackendUnavailable("this build of oaks has no CUDA half, which captures graphs")
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
        """Gives a pinned array back, which no copy may need any more."""
        with self.active():
            self._pinned = [pinned for pinned in self._pinned if pinned is not staging]
            del staging

    def mark(self) -> Mark:
        """A new mark for the two streams."""
        with self.active():
            made = Mark(self._driver.Event(self._driver.event_flags.DISABLE_TIMING))
        self._marks.append(made)
        return made

    def reach(self, mark: Mark) -> None:
        """Waits until what stands before a mark is done."""
        if mark.is_set:
            with self.active():
                mark.event.synchronize()

    def close(self) -> None:
        """Waits, then frees everything. Arrays from here must not be used afterwards. May be called again.

        Never raises: after an error of CUDA's that lasts, every step fails, and all are tried all the same.
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
            log.warning("%s: %d steps of closing failed, first: %s", self.device, len(failures), failures[0])

    def _free_dropped(self) -> None:
        while self._dropped:
            self._allocations.pop(self._dropped.popleft()).free()


__all__ = ["Device", "DeviceArray", "DeviceMemory", "compute_capability", "device", "index_of", "unavailable"]
