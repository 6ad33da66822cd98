"""The memory of large results is reused, but never while it is still referenced."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from oaks import ops
from oaks.ops import _memory

FLOAT = np.dtype(np.float32)
SHAPE = (8, 17, 96, 96)  # 5 MB


@pytest.fixture(autouse=True)
def _nothing_is_free():
    _memory._free.clear()
    yield
    _memory._free.clear()


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_of_a_released_result_is_reused():
    first = _memory.empty(SHAPE, FLOAT)
    assert (first.shape, first.dtype, first.flags.c_contiguous, first.flags.writeable) == (
        SHAPE,
        FLOAT,
        True,
        True,
    )
    place = address(first)
    first[:] = 7.0
    del first
    assert address(_memory.empty(SHAPE, FLOAT)) == place


@pytest.mark.parametrize(
    "view", [lambda a: a[1], lambda a: a.reshape(-1)[5:], lambda a: a.view(np.uint8)[0], lambda a: a.T]
)
def test_a_view_of_a_result_keeps_its_memory(view):
    first = _memory.empty(SHAPE, FLOAT)
    first[:] = 7.0
    kept = view(view(first) if view(first).ndim > 3 else first)
    expected = kept.copy()
    del first
    others = [_memory.empty(SHAPE, FLOAT) for _ in range(3)]
    for other in others:
        assert not np.shares_memory(other, kept)
        other[:] = -1.0
    np.testing.assert_array_equal(kept, expected)


def test_memory_is_not_reused_for_another_size():
    place = address(_memory.empty(SHAPE, FLOAT))
    other = _memory.empty((*SHAPE[:3], 97), FLOAT)
    assert other.size == np.prod(SHAPE) // 96 * 97
    assert address(_memory.empty(SHAPE, FLOAT)) == place, "the block of the right size is still free"


def test_only_two_blocks_of_medium_size_are_kept():
    results = [_memory.empty(SHAPE, FLOAT) for _ in range(5)]
    results.clear()
    assert len(_memory._free) == 2
    small = _memory.empty((4, 4), FLOAT)
    huge = _memory.empty((_memory.LARGEST // 4 + 1,), FLOAT)
    del small, huge
    assert [block.nbytes for block in _memory._free] == [np.prod(SHAPE) * 4] * 2


def test_threads_never_get_the_same_memory():
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            own = _memory.empty(SHAPE, FLOAT)
            own.reshape(-1)[:: 1 << 16] = number
            if not (own.reshape(-1)[:: 1 << 16] == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_of_one_call_are_not_overwritten_by_the_next():
    random = np.random.default_rng(0)
    maps, mirrored = random.random((2, 12, 17, 96, 72), np.float32)
    first = ops.decode(maps, mirrored, flip_pairs=(), average=True).heatmaps
    place, expected = address(first), first.copy()
    second = ops.decode(mirrored, maps * 2, flip_pairs=(), average=True).heatmaps
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, expected)
    del first
    third = ops.decode(maps, mirrored, flip_pairs=(), average=True).heatmaps
    assert address(third) == place
    np.testing.assert_array_equal(third, expected)
