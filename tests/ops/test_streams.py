"""Which stream an operation runs on, and in which order the others come; on a stand-in for the CUDA half."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from oaks import ops
from oaks.ops import native

from .arguments import OnDevice


@pytest.fixture
def calls(monkeypatch):
    """What the CUDA half is asked to do: (name, stream) and (waits, stream, for)."""
    kept = []
    stand_in = SimpleNamespace(
        device_count=lambda: 1,
        score=lambda *arguments: kept.append(("score", arguments[-1])),
        wait_for=lambda address, stream, other: kept.append(("waits", stream, other)),
    )
    monkeypatch.setattr(native, "cuda", stand_in)
    return kept


def score(*streams, **keywords):
    """ops.score of arrays that name these streams: similarity, visibility, box scores and out."""
    arrays = [np.ones((3, 4), np.float32), np.ones((3, 4), np.float32), *np.ones((2, 3), np.float32)]
    placed = [
        OnDevice(array, **({} if stream is None else {"stream": stream}))
        for array, stream in zip(arrays, streams, strict=True)
    ]
    ops.score(*placed[:3], out=placed[3], **keywords)


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ((None, None, None, None), [("score", 0)]),
        ((None, 7, 7, None), [("score", 7)]),
        ((1, None, 1, 0), [("score", 0)]),
        ((2, 2, 2, 2), [("score", 2)]),
        ((7, 8, 7, None), [("waits", 7, 8), ("score", 7), ("waits", 8, 7)]),
        (
            (7, 8, None, 9),
            [("waits", 7, 8), ("waits", 7, 9), ("score", 7), ("waits", 8, 7), ("waits", 9, 7)],
        ),
    ],
)
def test_every_stream_that_an_array_names_is_waited_for_and_waits(calls, streams, expected):
    score(*streams)
    assert calls == expected


def test_a_stream_that_is_asked_for_waits_for_none(calls):
    """Who names it has taken care of the order; a recording could not wait for others."""
    score(7, 8, 9, None, stream=5)
    assert calls == [("score", 5)]


def test_tensors_belong_to_torchs_current_stream(calls, monkeypatch):
    """Their interface names no stream."""

    class Tensor(OnDevice):
        device = "cuda:1"

    asked = []
    current = SimpleNamespace(cuda_stream=42)
    cuda = SimpleNamespace(current_stream=lambda device: asked.append(device) or current)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor, cuda=cuda))
    tensor = Tensor(np.ones((3, 4), np.float32), version=2)
    ops.score(tensor, OnDevice(np.ones((3, 4), np.float32)), out=OnDevice(np.ones(3, np.float32), stream=7))
    assert calls == [("waits", 42, 7), ("score", 42), ("waits", 7, 42)]
    assert asked == ["cuda:1"]
