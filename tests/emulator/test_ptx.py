"""The operations' kernels as nvcc compiles them: the PTX runs the cases that the sources run, on the same machine.

For the lowest and the highest architecture that the build compiles for. What ptxas makes of the PTX is not tested.
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

# The two slowest, over many small maps; the other tests reach the same instructions.
del test_any_maps_decode_as_the_reference, test_any_finite_maps_have_the_references_features  # noqa: F821


@pytest.fixture(autouse=True, scope="module", params=build.ARCHITECTURES)
def _on_ptx(emulated: EmulatedOps, request: pytest.FixtureRequest) -> Iterator[None]:
    if build.nvcc() is None:
        pytest.skip("needs nvcc, which compiles the kernels to PTX")
    emulated.native.load_ptx(build.ptx(request.param))
    with operations_taken_from(emulated):
        yield
    emulated.native.load_ptx([])


def test_the_architectures_are_the_outermost_of_the_build():
    text = (build.ROOT / "cmake" / "cuda_architectures.cmake").read_text()
    listed = re.search(r"foreach\(architecture ([\d ]+)\)", text)
    assert listed
    numbers = [int(number) for number in listed[1].split()]
    assert (min(numbers), max(numbers)) == build.ARCHITECTURES
