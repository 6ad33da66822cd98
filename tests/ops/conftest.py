"""Run the operations on every instruction set that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oaks import ops


@pytest.fixture(scope="module", params=ops.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the instruction set in use during the test."""
    ops.use_instruction_set(request.param)
    yield request.param
    ops.use_instruction_set(ops.instruction_sets()[-1])


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads after the test."""
    before = ops.get_threads()
    yield
    ops.set_threads(before)
