"""The emulated CUDA operations, built once; they replace those of the native module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from oaks.ops import native

from . import build
from .emulated import EmulatedOps


@pytest.fixture(scope="session")
def emulated_native() -> ModuleType:
    """The emulated native module."""
    if sys.platform == "win32":
        pytest.skip("the emulator's coroutines need POSIX contexts")
    return build.load()


@pytest.fixture(scope="module")
def emulated(emulated_native: ModuleType) -> Iterator[EmulatedOps]:
    """The operations on emulated blocks, with default settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cuda", emulated_native.cuda)
        yield EmulatedOps(emulated_native)


@pytest.fixture(autouse=True)
def _settings_as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "emulated_native" in request.fixturenames:
        module = request.getfixturevalue("emulated_native")
        settings = module.settings()
        settings.order, settings.seed = module.Order.ascending, 0
        settings.shared_limit, settings.skipped_barrier = 48 * 1024, -1
        settings.multiprocessors = 132
        module.take_reports()
