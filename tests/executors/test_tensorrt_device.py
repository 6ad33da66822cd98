"""GPU memory through PyCUDA, on a stand-in for it: contexts, ownership, order on the stream, graphs."""

from __future__ import annotations

import gc
import logging
import sys
import threading

import numpy as np
import pycuda_stand_in
import pytest

from oaks import BackendUnavailable
from oaks.executors.base import exclusive_capture
from oaks.executors.pycuda import DeviceMemory, device, unavailable


@pytest.fixture
def memory(gpu):
    made = DeviceMemory(0)
    yield made
    made.close()
    assert gpu.leaks == []
    assert gpu.stack == []
    assert gpu.memory == {}


def put(memory: DeviceMemory, content: np.ndarray):
    """The content in device memory, once the stream gets there."""
    staging = memory.staging(content.shape, content.dtype)
    staging[:] = content
    target = memory.empty(content.shape, content.dtype)
    with memory.active():
        memory.upload(staging, target)
    return target


def fetch(memory: DeviceMemory, array) -> np.ndarray:
    staging = memory.staging(array.shape, array.dtype)
    with memory.active():
        memory.download(array, staging)
        memory.synchronize()
    return staging.copy()


# ---- the device


def test_a_device_says_what_it_is(gpu):
    found = device(0)
    assert (found.name, found.compute_capability, found.multiprocessors) == ("Stand-In 9000", "90", 132)
    assert found.cuda_major == 13
    assert device(0) is found


def test_its_context_is_current_inside_only_and_nests(gpu):
    found = device(0)
    with found.active():
        outer = gpu.current()
        with found.active():
            assert gpu.current() is outer
            assert len(gpu.stack) == 2
        assert len(gpu.stack) == 1
    assert gpu.stack == []
    with pytest.raises(ZeroDivisionError), found.active():
        _ = 1 / 0
    assert gpu.stack == []


def test_missing_parts_are_reported(monkeypatch):
    pycuda_stand_in.install(monkeypatch, devices=1)
    assert unavailable(0) is None
    assert unavailable(3) == "there is no GPU 3; CUDA finds 1"
    with pytest.raises(BackendUnavailable, match="there is no GPU 3"):
        device(3)
    pycuda_stand_in.install(monkeypatch, devices=0)
    assert unavailable(0).startswith("CUDA does not start: cuInit failed")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert "pip install 'oaks[tensorrt]'" in unavailable(0)


# ---- arrays


def test_content_goes_up_and_comes_down(memory):
    content = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    array = put(memory, content)
    assert array.shape == (5, 3, 2)
    assert array.dtype == np.float32
    assert array.nbytes == content.nbytes
    assert len(array) == 5
    np.testing.assert_array_equal(fetch(memory, array), content)


def test_rows_and_views_are_parts_of_the_same_memory(memory):
    content = np.arange(1024, dtype=np.uint8)
    array = put(memory, content)
    np.testing.assert_array_equal(fetch(memory, array[512:]), content[512:])
    part = memory.view(array, 256, (2, 3), np.float16)
    np.testing.assert_array_equal(fetch(memory, part), content[256:268].view(np.float16).reshape(2, 3))
    np.testing.assert_array_equal(fetch(memory, part[1:2]), content[262:268].view(np.float16).reshape(1, 3))
    assert array[900:5000].shape == (124,)
    assert array[5:3].shape == (0,)


def test_parts_that_are_not_contiguous_or_reach_outside_are_refused(memory):
    array = memory.empty((16,), np.uint8)
    with pytest.raises(ValueError, match="a slice without a step"):
        array[::2]
    for start, shape in ((-1, (1,)), (0, (17,)), (12, (2, 4))):
        with pytest.raises(ValueError, match="start must leave room for .* bytes within 16, got "):
            memory.view(array, start, shape, np.uint8)


def test_arrays_show_themselves_as_other_libraries_expect(memory):
    array = memory.empty((4, 2), np.float16)
    assert array.__cuda_array_interface__ == {
        "version": 3,
        "shape": (4, 2),
        "typestr": "<f2",
        "data": (array.address, False),
        "strides": None,
        "stream": None,
    }
    assert array.address % 256 == 0


def test_empty_arrays_have_memory(memory):
    assert memory.empty((0, 3), np.float32).nbytes == 0


# ---- ownership


def sizes(gpu) -> list[int]:
    return sorted(block.size for block in gpu.memory.values())


def test_memory_is_freed_with_its_last_reference(memory, gpu):
    array = memory.empty((1000,), np.uint8)
    part = array[10:20]
    del array
    other = memory.empty((2000,), np.uint8)
    assert sizes(gpu) == [1000, 2000]  # the part still lies in the first
    del part
    gc.collect()
    another = memory.empty((3000,), np.uint8)
    assert sizes(gpu) == [2000, 3000]
    assert {other.nbytes, another.nbytes} == {2000, 3000}


def test_what_another_thread_drops_does_not_leak(memory, gpu):
    held = [memory.empty((1000,), np.uint8)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    kept = memory.empty((2000,), np.uint8)
    assert sizes(gpu) == [kept.nbytes]
    assert gpu.leaks == []


def test_closing_from_another_thread_frees_everything(gpu):
    memory = DeviceMemory(0)
    arrays = [memory.empty((100,), np.uint8) for _ in range(3)]
    thread = threading.Thread(target=memory.close)
    thread.start()
    thread.join()
    assert gpu.memory == {}
    assert gpu.leaks == []
    memory.close()
    del arrays
    gc.collect()


# ---- waiting for others


class Foreign:
    def __init__(self, **interface) -> None:
        self.__cuda_array_interface__ = {"data": (4096, False), **interface}


def test_arrays_that_need_no_waiting_are_not_waited_for(memory, gpu):
    memory.wait_for(Foreign(stream=None, version=3))
    assert (gpu.synchronized, gpu.default_recorded) == (0, 0)


def test_our_stream_waits_for_the_default_stream(memory, gpu):
    memory.wait_for(Foreign(stream=1, version=3))
    assert (gpu.synchronized, gpu.default_recorded) == (0, 1)
    assert len(gpu.streams[memory.stream].waited) == 1


@pytest.mark.parametrize("stream", [2, 4711])
def test_our_stream_waits_for_another_by_an_event(memory, gpu, stream):
    memory.wait_for(Foreign(stream=stream, version=3))
    assert gpu.waited == [(memory.stream, stream)]
    assert (gpu.synchronized, gpu.default_recorded) == (0, 0)


def test_everything_is_waited_for_where_the_stream_is_unknown(memory, gpu):
    memory.wait_for(Foreign(version=2))
    assert (gpu.synchronized, gpu.default_recorded) == (1, 0)


def test_waiting_for_the_device_waits_until_a_capture_in_another_thread_is_done(memory, gpu):
    other = threading.Thread(target=lambda: memory.wait_for(Foreign(version=2)))
    with exclusive_capture():
        other.start()
        other.join(0.2)
        assert gpu.synchronized == 0
    other.join(30)
    assert gpu.synchronized == 1


def test_nothing_is_collected_while_a_graph_is_captured(memory):
    enabled = []
    memory.record(lambda: enabled.append(gc.isenabled()))
    assert enabled == [True, False]
    assert gc.isenabled()


# ---- trouble


def test_out_of_memory_errors_say_what_to_do(memory, gpu):
    gpu.room = 1000
    with pytest.raises(MemoryError, match=r"cuda:0 has no room for 8 MB.*pass a smaller max_batch"):
        memory.empty((2_000_000,), np.float32)
    gpu.room = 1 << 40


def test_closing_after_an_error_that_lasts_tries_every_step_and_does_not_raise(gpu, caplog):
    memory = DeviceMemory(0)
    arrays = [memory.empty((4,), np.float32) for _ in range(2)]
    gpu.broken = True
    memory.close()
    assert (
        "4 steps of closing failed; the first: cuStreamSynchronize failed: an illegal memory access"
        in caplog.text
    )
    caplog.clear()
    memory.close()
    assert caplog.text == ""
    assert gpu.stack == []
    gpu.broken = False
    with device(0).active():
        del arrays, memory
        gc.collect()


# ---- graphs


def doubling(memory: DeviceMemory, gpu, array):
    """Work that doubles an array on the stream."""
    stream = gpu.streams[memory.stream]
    content = gpu.at(array.address, array.nbytes).view(array.dtype)
    runs = []

    def work() -> None:
        runs.append(1)
        stream.enqueue(lambda: np.multiply(content, 2, out=content))

    return work, runs


def test_work_is_recorded_and_replayed(memory, gpu):
    array = put(memory, np.float32([1, 2]))
    work, runs = doubling(memory, gpu, array)
    replay = memory.record(work)
    assert memory.graphs == "captured"
    assert len(runs) == 2  # once for real, once to be captured
    np.testing.assert_array_equal(fetch(memory, array), [2, 4])
    for _ in range(3):
        replay()
    np.testing.assert_array_equal(fetch(memory, array), [16, 32])
    assert len(runs) == 2


def broken_end(gpu, work):
    gpu.capture_fails = "cudaErrorStreamCaptureUnsupported"
    return work


def broken_work(gpu, work):
    calls = []

    def failing() -> None:
        calls.append(1)
        work()
        if len(calls) == 2:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    return failing


@pytest.mark.parametrize("broken", [broken_end, broken_work])
def test_after_a_failed_capture_work_runs_directly(memory, gpu, broken, caplog):
    array = put(memory, np.float32([1]))
    work, _ = doubling(memory, gpu, array)
    with caplog.at_level(logging.WARNING, logger="oaks"):
        first = memory.record(broken(gpu, work))
    assert memory.graphs == "failed: cudaErrorStreamCaptureUnsupported"
    np.testing.assert_array_equal(fetch(memory, array), [2])  # what was being captured has not run
    first()
    np.testing.assert_array_equal(fetch(memory, array), [4])
    captures = captures_begun()
    gpu.capture_fails = None
    memory.record(work)()
    np.testing.assert_array_equal(fetch(memory, array), [16])
    assert captures_begun() == captures  # not tried again
    assert len(caplog.records) == 1


def captures_begun() -> int:
    from oaks.ops import native

    return native.cuda.captures


def test_a_failure_of_the_work_itself_is_no_failed_capture(memory):
    def work() -> None:
        raise ValueError("the network is broken")

    with pytest.raises(ValueError, match="the network is broken"):
        memory.record(work)
    assert memory.graphs == "none"


def test_ctrl_c_during_a_capture_leaves_the_stream_usable(memory, gpu):
    array = put(memory, np.float32([1]))
    calls = []

    def work() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.record(work)
    np.testing.assert_array_equal(fetch(memory, array), [1])


def test_a_build_without_cuda_runs_without_graphs(monkeypatch):
    pycuda_stand_in.install(monkeypatch, cuda_half=False)
    memory = DeviceMemory(0)
    memory.record(lambda: None)()
    assert memory.graphs.startswith("failed: this build of oaks has no CUDA support")
    memory.close()
