"""The tests of the operations on the PTX that nvcc compiles, run by the emulator's PTX interpreter.

For the lowest and the highest architecture of the build. The machine code that ptxas makes of PTX is not tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from . import build
from .emulated import EmulatedOps
from .same_cases import *  # noqa: F403
from .same_cases import operations_taken_from
from .test_operations import *  # noqa: F403

# The two slowest tests; other tests execute the same instructions.
del test_decode_random_maps_match_the_reference, test_map_features_random_maps_match_the_reference  # noqa: F821


@pytest.fixture(autouse=True, scope="module", params=build.ARCHITECTURES)
def _on_ptx(emulated: EmulatedOps, request: pytest.FixtureRequest) -> Iterator[None]:
    if build.nvcc() is None:
        pytest.skip("needs nvcc, which compiles the kernels to PTX")
    emulated.native.load_ptx(build.ptx(request.param))
    with operations_taken_from(emulated):
        yield
    emulated.native.load_ptx([])


def test_the_lowest_and_the_highest_architecture_of_the_build_are_tested():
    text = (build.ROOT / "cmake" / "cuda_architectures.cmake").read_text()
    listed = re.search(r"foreach\(architecture ([\d ]+)\)", text)
    assert listed
    numbers = [int(number) for number in listed[1].split()]
    assert (min(numbers), max(numbers)) == build.ARCHITECTURES
