"""Tests of the operations (tests/ops), run on a device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulator.device_ops import DeviceOps
from emulator.same_cases import *  # noqa: F403
from emulator.same_cases import operations_taken_from

pytestmark = pytest.mark.needs_cuda


@pytest.fixture(autouse=True, scope="module")
def _on_cuda(cuda_ops: DeviceOps) -> Iterator[None]:
    with operations_taken_from(cuda_ops):
        yield
