"""The PTX interpreter finds data races and refuses instructions it does not know."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest

from . import build
from .test_emulator import CASES, outcome

THREADS = 64


@pytest.fixture(params=build.ARCHITECTURES)
def compiled(request, emulated):
    """The emulated native module with the PTX of an architecture loaded."""
    if build.nvcc() is None:
        pytest.skip("needs nvcc, which compiles the kernels to PTX")
    emulated.native.load_ptx(build.ptx(request.param))
    yield emulated.native
    emulated.native.load_ptx([])


def start(native, error, argument=0):
    source, result = np.arange(THREADS, dtype=np.float32), np.zeros(THREADS, np.float32)
    with suppress(RuntimeError):  # what cannot go on, after it has been reported
        native.planted(error, source.ctypes.data, result.ctypes.data, THREADS, argument)
    return result, native.take_reports()


def test_sound_kernels_are_not_reported(compiled):
    result, reports = start(compiled, "nothing")
    assert reports == []
    np.testing.assert_array_equal(result, np.arange(THREADS)[::-1])
    result, reports = start(compiled, "fold")
    assert reports == []
    np.testing.assert_array_equal(result, np.repeat([np.arange(32).sum(), np.arange(32, 64).sum()], 32))


@pytest.mark.parametrize(
    ("error", "argument", "words"),
    [
        ("no barrier", 0, "nobody has written|without a barrier"),
        ("unwritten", 0, "which nobody has written"),
        ("shared index", 64, "read of shared memory of the compiled block"),
        ("dynamic index", 64, "write of shared memory of the compiled block"),
        ("half at barrier", 0, "some threads have ended, others wait at the barrier"),
        ("barrier or shuffle", 0, "stands still, its threads diverged"),
        ("half in shuffle", 0, "stands still, its threads diverged"),
        ("narrow mask", 16, "takes no part in __shfl_xor_sync"),
        ("left out of mask", 0, "mask that leaves out the caller"),
    ],
)
def test_a_planted_error_is_reported(compiled, error, argument, words):
    _, reports = start(compiled, error, argument)
    assert re.search(words, "\n".join(reports)), reports


@pytest.mark.parametrize(("name", "barrier"), [("decode", 0), ("crop", 0), ("oks_nms", 0)])
def test_a_missing_barrier_of_an_operation_is_noticed(compiled, name, barrier):
    order = compiled.Order
    noticed = []
    for turn in (order.ascending, order.descending, order.shuffled):
        sound = outcome(compiled, name, turn, -1)
        assert sound[1] == []
        result, reports = outcome(compiled, name, turn, barrier)
        noticed.append(bool(reports) or result != sound[0])
    assert any(noticed)
    assert name in CASES


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (r"add\.s64", "sad.s64"),
        (r"fma\.rn\.f32", "fma.rz.f32"),
        (r"ld\.global\.f32", "ld.global.volatile.f32"),
        (r"shfl\.sync\.bfly\.b32", "shfl.sync.down.b32"),
        (r"setp\.lt\.s32", "setp.lt.and.s32"),
    ],
)
def test_an_instruction_that_is_not_known_is_refused(compiled, written, instead):
    files = build.ptx(build.ARCHITECTURES[0])
    spoiled = [re.sub(written, instead, text, count=1) for text in files]
    assert spoiled != files
    with pytest.raises(ValueError, match="PTX: "):
        compiled.load_ptx(spoiled)
    assert start(compiled, "nothing")[1] == []  # what was loaded before still runs
