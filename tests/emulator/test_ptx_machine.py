"""The PTX interpreter detects data races and refuses unknown instructions."""

from __future__ import annotations

import re

import pytest

from . import build
from .test_emulator import check_correct_kernels, check_missing_barrier, start


@pytest.fixture(params=build.ARCHITECTURES)
def compiled(request, emulated):
    """The emulated native module with the PTX of an architecture loaded."""
    if build.nvcc() is None:
        pytest.skip("needs nvcc, which compiles the kernels to PTX")
    emulated.native.load_ptx(build.ptx(request.param))
    yield emulated.native
    emulated.native.load_ptx([])


def test_correct_kernels_are_not_reported(compiled):
    check_correct_kernels(compiled)


@pytest.mark.parametrize(
    ("error", "argument", "words"),
    [
        ("no barrier", 0, "has not been written|without a barrier"),
        ("unwritten", 0, "which has not been written"),
        ("shared index", 64, "read of shared memory of the compiled block"),
        ("dynamic index", 64, "write of shared memory of the compiled block"),
        ("half at barrier", 0, "some threads have ended, others wait at the barrier"),
        ("barrier or shuffle", 0, "deadlock, the block's threads diverged"),
        ("half in shuffle", 0, "deadlock, the block's threads diverged"),
        ("narrow mask", 16, "takes no part in __shfl_xor_sync"),
        ("left out of mask", 0, "mask that leaves out the caller"),
    ],
)
def test_a_planted_error_is_reported(compiled, error, argument, words):
    _, reports = start(compiled, error, argument)
    assert re.search(words, "\n".join(reports)), reports


@pytest.mark.parametrize(("name", "barrier"), [("decode", 0), ("crop", 0), ("oks_nms", 0)])
def test_a_missing_barrier_of_an_operation_is_detected(compiled, name, barrier):
    check_missing_barrier(compiled, name, barrier)


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
def test_unknown_instructions_are_refused(compiled, written, instead):
    files = build.ptx(build.ARCHITECTURES[0])
    spoiled = [re.sub(written, instead, text, count=1) for text in files]
    assert spoiled != files
    with pytest.raises(ValueError, match="PTX: "):
        compiled.load_ptx(spoiled)
    check_correct_kernels(compiled)  # with the PTX that was loaded before
