"""A `pycuda.driver` that has what oaks.executors.pycuda uses and is as strict as the real one.

Its device memory is the host's. A stream is a queue that runs when it is waited for, so that a buffer freed
or overwritten too early shows. As in PyCUDA, what is allocated needs a current context, and is freed only
where the same context object is current; else it leaks, which is an error here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from oaks.ops import native


class Error(Exception):
    """pycuda.driver.Error"""


class Gpu:
    """What there is on the other side of the driver: devices, streams, memory, and what went wrong."""

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.names = ["Stand-In 9000", "Stand-In 9100"]
        self.capabilities = [(9, 0), (9, 1)]
        self.streams: dict[int, Stream] = {}
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: list[np.ndarray] = []
        self.leaks: list[str] = []
        self.synchronized = 0
        self.default_recorded = 0
        self.waited: list[tuple[int, int]] = []
        self.broken = False
        self.room = 1 << 40
        self.capture_fails: str | None = None
        self._local = threading.local()

    @property
    def stack(self) -> list[Any]:
        """The contexts of this thread, the current one last."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack

    def current(self) -> Any:
        if not self.stack:
            raise Error("no currently active context?")
        return self.stack[-1]

    def check_health(self) -> None:
        """What every call of CUDA's does after an error that lasts."""
        if self.broken:
            raise Error("cuStreamSynchronize failed: an illegal memory access was encountered")

    def at(self, address: int, size: int) -> np.ndarray:
        """`size` bytes of device memory; they must lie in one allocation."""
        for start, block in self.memory.items():
            if start <= address and address + size <= start + block.size:
                return block[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address} are not device memory")


class Stream:
    def __init__(self, gpu: Gpu, flags: int = 0) -> None:
        self._gpu, self._context = gpu, gpu.current()
        assert flags == 1, "a stream that waits for the default stream serializes everything"
        self.handle = 1000 + len(gpu.streams)
        gpu.streams[self.handle] = self
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.waited: list[Event] = []

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        self._gpu.current()
        self._gpu.check_health()
        assert self.recording is None, "waited for a stream that is being recorded"
        while self.queue:
            self.queue.pop(0)()

    def wait_for_event(self, event: Event) -> None:
        assert event.recorded
        self.waited.append(event)
        if (point := event.point) is not None:
            self.enqueue(lambda: point.reach())

    def __del__(self) -> None:
        _check_owner(self._gpu, self._context, "a stream")


class Point:
    """A place in a stream's queue."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._passed = stream, False

    def __call__(self) -> None:
        self._passed = True

    def reach(self) -> None:
        """Run what stands before it in its stream, and no more."""
        while not self._passed:
            self._stream.queue.pop(0)()


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._context, self.recorded = gpu, gpu.current(), False
        self.point: Point | None = None

    def record(self, stream: Stream | None = None) -> Event:
        self._gpu.default_recorded += stream is None
        self.recorded = True
        if stream is not None:
            self.point = Point(stream)
            stream.enqueue(self.point)
        return self

    def synchronize(self) -> None:
        self._gpu.current()
        self._gpu.check_health()
        if self.point is not None:
            self.point.reach()

    def __del__(self) -> None:
        _check_owner(self._gpu, self._context, "an event")


class Allocation:
    def __init__(self, gpu: Gpu, size: int) -> None:
        if size <= 0:
            raise Error("cuMemAlloc failed: invalid argument")
        if size > gpu.room:
            raise Error("cuMemAlloc failed: out of memory")
        self._gpu, self._context = gpu, gpu.current()
        raw = np.full(size + 256, 119, np.uint8)
        start = -raw.ctypes.data % 256
        self._block = raw[start : start + size]
        self.address: int | None = self._block.ctypes.data
        gpu.memory[self.address] = self._block

    def __int__(self) -> int:
        assert self.address is not None
        return self.address

    def free(self) -> None:
        _check_owner(self._gpu, self._context, "device memory")
        self._gpu.check_health()
        assert self.address is not None, "freed twice"
        self._gpu.memory.pop(self.address)[:] = 119
        self.address = None

    def __del__(self) -> None:
        if getattr(self, "address", None) is not None:
            _check_owner(self._gpu, self._context, "device memory")


class Context:
    def __init__(self, gpu: Gpu, device: int) -> None:
        self._gpu, self.device, self.detached = gpu, device, False

    def push(self) -> None:
        self._gpu.stack.append(self)

    def detach(self) -> None:
        self.detached = True


def _check_owner(gpu: Gpu, context: Context, what: str) -> None:
    if not context.detached and (not gpu.stack or gpu.stack[-1] is not context):
        gpu.leaks.append(f"{what} in out-of-thread context could not be cleaned up")


def install(monkeypatch: pytest.MonkeyPatch, devices: int = 1, *, cuda_half: bool = True) -> Gpu:
    """Put the stand-in where `import pycuda.driver` finds it, and one for the native module's CUDA half."""
    from oaks.executors import pycuda

    gpu = Gpu(devices)
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    package.driver = driver
    driver.__dict__.update(_driver(gpu))
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(native, "cuda", Native(gpu) if cuda_half else None)
    pycuda.device.cache_clear()
    monkeypatch.setattr(pycuda.atexit, "register", lambda function: function)
    return gpu


def _driver(gpu: Gpu) -> dict[str, Any]:
    started: list[bool] = []

    def init() -> None:
        if gpu.devices == 0:
            raise Error("cuInit failed: no CUDA-capable device is detected")
        started.append(True)

    class Device:
        def __init__(self, index: int) -> None:
            assert started, "not initialized"
            assert 0 <= index < gpu.devices
            self._index = index

        @staticmethod
        def count() -> int:
            return gpu.devices

        def name(self) -> str:
            return gpu.names[self._index]

        def compute_capability(self) -> tuple[int, int]:
            return gpu.capabilities[self._index]

        def get_attribute(self, attribute: str) -> int:
            return {"multiprocessors": 132}[attribute]

        def retain_primary_context(self) -> Context:
            return Context(gpu, self._index)

    def synchronize() -> None:
        gpu.current()
        gpu.synchronized += 1

    def mem_alloc(size: int) -> Allocation:
        return Allocation(gpu, size)

    def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        gpu.current()
        gpu.pinned.append(np.full(shape, 85, np.uint8).astype(dtype))
        return gpu.pinned[-1]

    def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream | None = None) -> None:
        gpu.current()
        _check_copy(src, stream)
        target = gpu.at(dest, src.nbytes)
        stream.enqueue(lambda: np.copyto(target, src.reshape(-1).view(np.uint8)))

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream | None = None) -> None:
        gpu.current()
        _check_copy(dest, stream)
        source = gpu.at(src, dest.nbytes)
        stream.enqueue(lambda: np.copyto(dest.reshape(-1).view(np.uint8), source))

    def _check_copy(array: np.ndarray, stream: Stream | None) -> None:
        assert stream is not None, "on the default stream"
        assert array.flags.c_contiguous
        assert any(np.shares_memory(array, pinned) for pinned in gpu.pinned), "not pinned"

    return {
        "Error": Error,
        "init": init,
        "Device": Device,
        "device_attribute": SimpleNamespace(MULTIPROCESSOR_COUNT="multiprocessors"),
        "Context": SimpleNamespace(pop=lambda: gpu.stack.pop(), synchronize=synchronize),
        "Stream": lambda flags=0: Stream(gpu, flags),
        "Event": lambda flags=0: Event(gpu),
        "event_flags": SimpleNamespace(DISABLE_TIMING=2),
        "get_driver_version": lambda: 13000,
        **{f.__name__: f for f in (mem_alloc, pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async)},
    }


class Native:
    """The native module's CUDA half: the CPU's operations, enqueued on the stream whose handle is given."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.captures = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        operation = getattr(native.cpu, name)

        def launch(*arguments: Any) -> None:
            *given, stream = arguments
            self._gpu.current()
            self._gpu.streams[stream].enqueue(lambda: operation(*given, 1))

        return launch

    def device_count(self) -> int:
        return self._gpu.devices

    def device_of(self, address: int) -> int:
        return 0

    def wait_for(self, stream: int, other: int, address: int) -> None:
        self._gpu.waited.append((stream, other))

    def begin_capture(self, stream: int) -> None:
        self._gpu.streams[stream].recording = []
        self.captures += 1

    def abandon_capture(self, stream: int) -> None:
        self._gpu.streams[stream].recording = None

    def Graph(self, stream: int) -> SimpleNamespace:
        recorded, self._gpu.streams[stream].recording = self._gpu.streams[stream].recording, None
        if self._gpu.capture_fails:
            raise RuntimeError(self._gpu.capture_fails)

        def launch(on: int) -> None:
            self._gpu.streams[on].enqueue(lambda: [work() for work in recorded])

        return SimpleNamespace(launch=launch)
