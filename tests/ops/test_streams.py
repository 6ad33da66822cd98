"""The stream that an operation runs on, and the streams that it waits for."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from oaks.ops import _arguments, array_stream, native
from oaks.ops._arguments import CheckedArray, common_stream


@pytest.fixture
def waited(monkeypatch):
    """Arguments of every wait: (stream, other, address)."""
    calls: list[tuple[int, int, int]] = []
    half = SimpleNamespace(device_count=lambda: 1, wait_for=lambda *given: calls.append(given))
    monkeypatch.setattr(native, "cuda", half)
    return calls


def array(address: int, stream: int | None) -> CheckedArray:
    return CheckedArray("a", None, address, (1,), np.dtype("float32"), True, True, stream)


@pytest.mark.parametrize(
    ("streams", "asked", "runs_on", "waits"),
    [
        ([None, None], None, 0, []),
        ([7, None, 7], None, 7, []),
        ([7, 8, None, 1], None, 7, [(7, 8, 101), (7, 1, 103)]),
        ([7, 8], 9, 9, [(9, 7, 100), (9, 8, 101)]),
        ([9, None], 9, 9, []),
        ([0, 5], None, 0, [(0, 5, 101)]),
    ],
)
def test_an_operation_waits_for_every_other_stream(waited, streams, asked, runs_on, waits):
    arrays = [None, *(array(100 + i, stream) for i, stream in enumerate(streams))]
    assert common_stream(arrays, asked) == runs_on
    assert waited == waits


def test_torch_tensors_use_torchs_current_stream(monkeypatch):
    class Tensor:
        is_cuda, device = True, "cuda:0"

        @property
        def __cuda_array_interface__(self) -> dict[str, int]:
            return {"version": 2}

    current = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=4711))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor, cuda=current))
    assert array_stream(Tensor()) == 4711
    assert array_stream(SimpleNamespace(__cuda_array_interface__={"stream": 3})) == 3
    monkeypatch.delitem(sys.modules, "torch")
    assert _arguments.array_stream(Tensor()) is None
