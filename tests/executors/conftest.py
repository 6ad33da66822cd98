"""Fixtures for the tests of executors."""

from __future__ import annotations

import bundles
import pycuda_stand_in
import pytest

from oaks import Bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Bundle:
    """The tests' bundle in fp32 and fp16."""
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", half=True)


@pytest.fixture
def gpu(monkeypatch) -> pycuda_stand_in.Gpu:
    return pycuda_stand_in.install(monkeypatch)
