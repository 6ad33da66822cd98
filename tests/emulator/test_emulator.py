"""The emulator detects planted errors and reports where they are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ops.cases import maps, rng

from oaks import ops

from .device_ops import marked
from .emulated import EmulatedOps, OnDevice


def put(value, dtype=None):
    return OnDevice(np.array(value, dtype, order="C"))


THREADS = 64


def start(native, error, argument=0, threads=THREADS):
    """Return the planted kernel's output and the reports, which include the error that stopped it."""
    source, result = np.arange(threads, dtype=np.float32), marked((threads,), np.float32)
    stopped = ""
    try:
        native.planted(error, source.ctypes.data, result.ctypes.data, threads, argument)
    except RuntimeError as error:
        stopped = str(error)
    reports = native.take_reports()
    assert not stopped or stopped in reports
    return result, reports


@pytest.fixture(params=["ascending", "descending", "shuffled"])
def order(request, emulated_native):
    """The order in which threads and blocks run."""
    settings = emulated_native.settings()
    settings.order, settings.seed = getattr(emulated_native.Order, request.param), 3
    return request.param


def check_correct_kernels(native):
    """Kernels without errors give their results, and nothing is reported."""
    reversed_lanes = np.arange(THREADS)[::-1]
    sums = np.repeat([np.arange(32).sum(), np.arange(32, 64).sum()], 32)
    for error, expected in (("nothing", reversed_lanes), ("fold", sums)):
        result, reports = start(native, error)
        assert reports == []
        np.testing.assert_array_equal(result, expected)


def test_correct_kernels_are_not_reported(emulated_native, order):
    check_correct_kernels(emulated_native)


@pytest.mark.parametrize(
    ("error", "argument", "words"),
    [
        ("no barrier", 0, "shared memory values.* (has not been written|without a barrier)"),
        ("same element", 0, r"conflict: shared memory values\[0\] is written without a barrier"),
        ("unwritten", 0, r"thread 5: read of shared memory values\[5\], which has not been written"),
        ("shared index", 64, r"read of shared memory values\[64\], which has 64 elements"),
        ("shared index", -1, r"read of shared memory values\[-1\], which has 64 elements"),
        ("dynamic index", 64, r"write of shared memory values\[64\], which has 64 elements"),
        ("half at barrier", 0, "some threads have ended, others wait at the barrier in line"),
        ("two barriers", 0, "threads meet at different barriers: lines"),
        ("barrier or shuffle", 0, "deadlock, the block's threads diverged: .*__shfl_xor_sync.*__syncthreads"),
        ("half in shuffle", 0, "deadlock, the block's threads diverged: .*have ended.*__shfl_xor_sync"),
        ("narrow mask", 16, "lane 0 reads from lane 16, which takes no part in __shfl_xor_sync"),
        ("left out of mask", 0, r"thread \d+: __shfl_sync .*mask that leaves out the caller"),
        ("shuffle or ballot", 0, "meet in different operations: .*__shfl_sync.*__ballot_sync"),
    ],
)
def test_a_planted_error_is_reported(emulated_native, order, error, argument, words):
    _, reports = start(emulated_native, error, argument)
    assert reports
    text = "\n".join(reports)
    assert re.search(words, text), text
    assert all(report.startswith("planted, block 0") for report in reports)


def test_indices_in_bounds_and_full_masks_are_not_reported(emulated_native, order):
    for error, argument in (("shared index", 63), ("narrow mask", 1)):
        _, reports = start(emulated_native, error, argument)
        assert reports == []


def test_kernels_run_after_an_error(emulated_native):
    for error in ("half at barrier", "shared index"):
        _, reports = start(emulated_native, error, 99)
        assert reports
        check_correct_kernels(emulated_native)


def test_an_unknown_planted_error_is_refused(emulated_native):
    with pytest.raises(ValueError, match="no planted error"):
        emulated_native.planted("another", 0, 0, THREADS, 0)


# ---- barriers of the operations


def decode_case(in_place):
    """Maps so large that a block has several warps."""
    heatmaps, mirrored = maps("noise", (2, 2, 32, 40), 1), maps("noise", (2, 2, 32, 40), 2)
    points, heat = marked((2, 2, 2), np.float32), marked((2, 2), np.float32)
    averaged = heatmaps if in_place else marked(heatmaps.shape, np.float32)

    def run():
        target = OnDevice(averaged)
        given = target if in_place else put(heatmaps)
        ops.decode(
            given, put(mirrored), flip_pairs=(), average=True, out=(OnDevice(points), OnDevice(heat), target)
        )

    return run, (points, heat, averaged)


def crop_case():
    frame = rng(1).integers(0, 256, (30, 30, 3), np.uint8)
    pixels, transforms = marked((1, 3, 24, 20), np.float32), marked((1, 2, 3), np.float32)

    def run():
        ops.crop(put(frame), put([[3, 3, 25, 28]], np.float32), size=(20, 24), mean=[0] * 3, std=[1] * 3,
                 out=(OnDevice(pixels), OnDevice(transforms)))  # fmt: skip

    return run, (pixels, transforms)


def oks_nms_case():
    """More poses than a block has threads; many are close to others, within the same 32 candidates and before them."""
    draw = rng(2)
    points = draw.uniform(0, 130, (300, 1, 2)).astype(np.float32)
    scores, areas = draw.uniform(size=300).astype(np.float32), np.full(300, 2500, np.float32)
    kept = marked((300,), np.int64)

    def run():
        ops.oks_nms(
            put(points), put(scores), areas=put(areas), sigmas=[0.05], threshold=0.5, out=OnDevice(kept)
        )

    return run, (kept,)


CASES = {
    "decode": lambda: decode_case(in_place=False),
    "decode in place, maps beyond shared memory": lambda: decode_case(in_place=True),
    "crop": crop_case,
    "oks_nms": oks_nms_case,
}


def outcome(native, name, order, skipped):
    """Return the bytes that a case wrote, and the reports."""
    settings = native.settings()
    settings.order, settings.seed, settings.skipped_barrier = order, 1, skipped
    settings.shared_limit = 2048 if "beyond" in name else 48 * 1024
    run, outputs = CASES[name]()
    try:
        run()
    except RuntimeError as error:
        if "emulat" not in str(error) and "block" not in str(error):
            raise
    finally:
        settings.skipped_barrier = -1
    return [output.tobytes() for output in outputs], native.take_reports()


def check_missing_barrier(native, name, barrier):
    """A skipped barrier is reported, or changes the result in one of the thread orders."""
    orders = [native.Order.ascending, native.Order.descending, native.Order.shuffled]
    expected = {order: outcome(native, name, order, -1) for order in orders}
    detected = []
    for order in orders:
        assert expected[order] == (expected[orders[0]][0], [])
        result, reports = outcome(native, name, order, barrier)
        detected.append(bool(reports) or result != expected[order][0])
    assert any(detected)


@pytest.mark.parametrize(
    ("name", "barrier"),
    [
        ("decode", 0),
        ("decode in place, maps beyond shared memory", 1),
        ("crop", 0),
        ("oks_nms", 0),
        ("oks_nms", 1),
    ],
)
def test_a_missing_barrier_of_an_operation_is_detected(emulated: EmulatedOps, name, barrier):
    check_missing_barrier(emulated.native, name, barrier)
