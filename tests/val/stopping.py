"""An Engine whose run is interrupted, as by Ctrl-C."""

from __future__ import annotations

from typing import Any

import pytest

from oaks import Engine


def interrupt_after(monkeypatch: pytest.MonkeyPatch, engine: Engine, count: int) -> list[Any]:
    """Make `engine.infer` raise KeyboardInterrupt after `count` calls; return a list that gets the frames of each call."""
    infer, calls = engine.infer, list[Any]()

    def interrupted(frames: Any, **arguments: Any) -> Any:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(frames)
        return infer(frames, **arguments)

    monkeypatch.setattr(engine, "infer", interrupted)
    return calls
