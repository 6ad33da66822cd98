"""The CPU tests of the operations, run on emulated CUDA: the same cases, the same references.

Each call takes the next of ascending, descending and shuffled thread orders, and a call that the emulator reports
anything about fails.
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
