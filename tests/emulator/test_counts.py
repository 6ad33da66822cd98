"""Instructions and bytes of the compiled kernels: within fixed limits, and at most 3 % above the saved counts."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from oaks.ops import native

from . import build


@pytest.fixture(scope="module")
def counts() -> ModuleType:
    """benchmarks/kernel_counts.py."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("kernel_counts")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def now(counts):
    """Counts of the current kernels, with the version of nvcc of the saved counts."""
    if build.nvcc() is None:
        pytest.skip("needs nvcc, which compiles the kernels to PTX")
    version, _ = counts.saved()
    if build.nvcc_version() != version:
        pytest.skip(f"the saved counts are of nvcc {version}, this is {build.nvcc_version()}")
    module = build.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cuda", module.cuda)
        try:
            return counts.count_all(lambda case: True)
        finally:
            module.load_ptx([])
            module.set_counting(False)
            settings = module.settings()
            settings.shared_limit, settings.multiprocessors = 48 * 1024, 132


def test_no_count_has_grown(counts, now):
    _, before = counts.saved()
    assert {(row.case, row.architecture) for row in now} == {(row.case, row.architecture) for row in before}
    assert counts.grown(before, now) == []


def test_crop_and_decode_stay_within_their_budgets(now):
    of = {(row.case, row.architecture): row for row in now}
    for architecture in (75, 80, 120):
        assert of["crop half 192x256", architecture].instructions <= 110_000
        assert of["decode half second_peak, in place", architecture].of_least <= 1.001
        # One warp computes the windows of all boxes in double precision.
        assert of["crop half 192x256", architecture].float64 <= 64
    for architecture in (80, 120):
        assert of["decode half second_peak, in place", architecture].instructions <= 85_000


def test_crop_needs_no_double_precision_and_decode_no_local_memory(now):
    kernels = 0
    for architecture in build.ARCHITECTURES:
        for text in build.ptx(architecture):
            bodies = text.split(".entry ")[1:]
            crops = [body for body in bodies if "crop_boxes" in body.split("(", 1)[0]]
            kernels += len(crops)
            assert all(".f64" not in body for body in crops)
            decoders = [body for body in bodies if "decode_maps" in body.split("(", 1)[0]]
            kernels += len(decoders)
            assert all(".local" not in body for body in decoders)
    assert kernels == 2 * 8


def test_growth_beyond_3_percent_is_reported(counts):
    row = counts.Counted("crop", 80, 1, 1000, 0, 500, None)
    assert counts.grown([row], [replace(row, instructions=1030, bytes=515)]) == []
    assert counts.grown([row], [replace(row, instructions=1031)]) == [
        "crop on 8.0: instructions grew from 1,000 to 1,031"
    ]
    assert "bytes grew" in counts.grown([row], [replace(row, bytes=516)])[0]
    assert "float64 grew" in counts.grown([row], [replace(row, float64=1)])[0]
    assert "not in kernel_counts.json" in counts.grown([], [row])[0]
