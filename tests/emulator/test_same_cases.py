"""Tests of the operations (tests/ops), run on emulated CUDA.

Each call uses the next thread order (ascending, descending, shuffled) and fails if the emulator reports anything.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .emulated import EmulatedOps
from .same_cases import *  # noqa: F403
from .same_cases import operations_taken_from


@pytest.fixture(autouse=True, scope="module")
def _on_emulated_blocks(emulated: EmulatedOps) -> Iterator[None]:
    with operations_taken_from(emulated):
        yield
