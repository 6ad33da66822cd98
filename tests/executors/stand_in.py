"""A simulated device: its memory is the host's, and its streams are queues that run when waited for.

Work that is enqueued sees memory as it is when its stream gets to it, as late as can be, so that a buffer overwritten
or freed too early, a copy that was not asked for, or a missing wait gives wrong numbers, as on a GPU. The native
operations are those of the CPU, or others, reached the way those of CUDA are.
"""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import numpy as np

from oaks import executors
from oaks.executors import base, onnxruntime
from oaks.ops import native

STREAM, AHEAD = 77, 78


class OnDevice:
    """An array of the device: opaque to NumPy, as a GPU's is."""

    __array_ufunc__ = None

    def __init__(self, content: np.ndarray) -> None:
        self.content = content

    @property
    def shape(self) -> tuple[int, ...]:
        return self.content.shape

    @property
    def __cuda_array_interface__(self) -> dict:
        return {
            "shape": self.content.shape,
            "typestr": self.content.dtype.str,
            "data": (self.content.ctypes.data, False),
            "strides": None,
            "version": 3,
            "stream": None,
        }

    def __getitem__(self, rows: slice) -> OnDevice:
        return OnDevice(self.content[rows])

    def __array__(self, *_arguments: object, **_options: object) -> np.ndarray:
        raise TypeError("a device array was read on the host")


class Stream:
    """What has been enqueued, until it is waited for; or, while recording, until it is replayed."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], None]] = deque()
        self.recording: list[Callable[[], None]] | None = None

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def run(self) -> None:
        assert self.recording is None, "waited for the stream while recording"
        while self.queue:
            self.queue.popleft()()

    def reach(self, point: Point) -> None:
        """Run what stands before a point, and no more."""
        while not point.passed:
            self.queue.popleft()()


class Point:
    """A place in a stream's queue."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.passed = stream, False

    def __call__(self) -> None:
        self.passed = True


class Mark:
    point: Point | None = None


class Lane:
    """One stream of the memory, which counts what is asked of both."""

    def __init__(self, memory: Memory, handle: int, stream: Stream) -> None:
        self.stream, self._memory, self._stream = handle, memory, stream

    def current(self):
        return nullcontext()

    def upload(self, source, target):
        self._memory._check_pinned(source)
        assert (source.shape, source.dtype) == (target.shape, target.content.dtype)
        self._memory.uploads += 1
        self._stream.enqueue(lambda: np.copyto(target.content, source))

    def download(self, source, target):
        self._memory._check_pinned(target)
        assert (target.shape, target.dtype) == (source.shape, source.content.dtype)
        self._memory.downloads += 1
        self._stream.enqueue(lambda: np.copyto(target, source.content))

    def wait_for(self, array):
        self._memory.waited_for.append(array)

    def set(self, mark):
        assert self._stream.recording is None
        mark.point = Point(self._stream)
        self._stream.enqueue(mark.point)

    def after(self, mark):
        assert self._stream.recording is None
        if (point := mark.point) is not None:
            self._stream.enqueue(lambda: point.stream.reach(point))

    def synchronize(self):
        self._stream.run()


class Memory(Lane):
    """The device's memory; counts what is asked of it."""

    device = "cuda:0"

    def __init__(self, stream: Stream, ahead: Stream, capture: bool) -> None:
        super().__init__(self, STREAM, stream)
        self.ahead = Lane(self, AHEAD, ahead)
        self.graphs = "none"
        self.uploads = self.downloads = self.recorded = self.replayed = self.active_depth = 0
        self.waited_for: list[object] = []
        self.closed = 0
        self.pinned: list[np.ndarray] = []
        self._capture = capture

    @contextmanager
    def active(self):
        self.active_depth += 1
        try:
            yield
        finally:
            self.active_depth -= 1

    def empty(self, shape, dtype):
        assert self.active_depth
        return OnDevice(np.full(shape, np.array(119).astype(dtype), dtype))

    def view(self, buffer, start, shape, dtype):
        return OnDevice(base.HostMemory().view(buffer.content, start, shape, dtype))

    def staging(self, shape, dtype):
        self.pinned.append(np.full(shape, 85, dtype))
        return self.pinned[-1]

    def drop_staging(self, staging):
        staging[:] = 119
        self.pinned = [pinned for pinned in self.pinned if pinned is not staging]

    def _check_pinned(self, array):
        assert any(np.shares_memory(array, pinned) for pinned in self.pinned), "not a staging array"

    def mark(self):
        return Mark()

    def reach(self, mark):
        if mark.point is not None:
            mark.point.stream.reach(mark.point)

    def record(self, work):
        work()
        self.synchronize()
        if not self._capture:
            self.graphs = "failed: this device cannot"
            return work
        self._stream.recording = []
        work()
        captured, self._stream.recording = self._stream.recording, None
        self.graphs = "captured"
        self.recorded += 1

        def replay():
            self.replayed += 1
            self._stream.enqueue(lambda: [step() for step in captured])

        return replay

    def close(self):
        self.closed += 1
        self.ahead.synchronize()
        self.synchronize()


class Executor:
    """ONNX Runtime behind the stream."""

    def __init__(self, network, stream, batches):
        self._inner = onnxruntime.open_executor(network, memory=base.HostMemory(), threads=1, batches=batches)
        self.inputs, self.outputs, self.details = (
            self._inner.inputs,
            self._inner.outputs,
            {"batches": batches},
        )
        self._stream = stream

    def bind(self, inputs, outputs):
        run = self._inner.bind(
            {name: array.content for name, array in inputs.items()},
            {name: array.content for name, array in outputs.items()},
        )
        return lambda: self._stream.enqueue(run)

    def close(self):
        self._inner.close()


class _Native:
    """The CUDA half's operations: enqueued on the stream that they are given; crop on the one ahead."""

    def __init__(self, streams: dict[int, Stream], operations, last) -> None:
        self._streams, self._operations, self._last = streams, operations, last
        self.devices: dict[int, int] = {}
        """Address -> the device of an array that is not on device 0."""

    def device_count(self) -> int:
        return 1

    def device_of(self, address: int) -> int:
        return self.devices.get(address, 0)

    def __getattr__(self, name: str):
        operation = getattr(self._operations, name)

        def launch(*arguments):
            *given, stream = arguments
            assert stream == (AHEAD if name == "crop" else STREAM), f"{name} was launched on stream {stream}"
            self._streams[stream].enqueue(lambda: operation(*given, self._last))

        return launch


def install(monkeypatch, *, capture: bool = True, operations=native.cpu, last: int = 1) -> list[Memory]:
    """Make backend "stand_in" known; gives the list in which its memories appear.

    Args:
        operations: the module of the native operations, and `last`, what they take for a stream: a number of
            threads on the CPU.
    """
    stream, ahead = Stream(), Stream()
    memories: list[Memory] = []

    def open_memory(device):
        memories.append(Memory(stream, ahead, capture))
        return memories[-1]

    module = types.ModuleType("oaks.executors.stand_in")
    module.default_device = lambda: "cuda"
    module.unavailable = lambda device: None
    module.open_memory = open_memory
    module.open_executor = lambda network, *, memory, threads, batches: Executor(network, stream, batches)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(executors, "BACKENDS", (*executors.BACKENDS, "stand_in"))
    monkeypatch.setattr(native, "cuda", _Native({STREAM: stream, AHEAD: ahead}, operations, last))
    return memories
