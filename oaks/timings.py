"""Time that an Engine spends in each stage."""

from __future__ import annotations

import time

from oaks.names import number_of


class _Stage:
    """Add a block's seconds to a dictionary. A class, because a generator takes three times as long."""

    __slots__ = ("_name", "_seconds", "_start")

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        elapsed = time.perf_counter() - self._start
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + elapsed


class Timings:
    """Seconds per stage, added up over the calls since the Engine was made or `reset` was called.

    Attributes:
        seconds: stage -> wall-clock seconds. On a CPU the stages are read (frames to arrays), crop, pose,
            decode, ks and score. On a device, work is only enqueued, so that one stage, device, holds the wait between
            crop and score. An Engine whose `staged` is set waits after every stage instead.
        total: seconds in `infer`.
        calls: completed calls of `infer`.
        persons: number of poses.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set everything to zero."""
        self.seconds: dict[str, float] = {}
        self.total = 0.0
        self.calls = 0
        self.persons = 0

    def stage(self, name: str) -> _Stage:
        """Add the time of a `with` block to a stage."""
        return _Stage(self.seconds, name)

    def finish(self, reading: float, working: float, persons: int) -> None:
        """Count a call: seconds spent reading its pictures, and in everything after that."""
        self.seconds["read"] = self.seconds.get("read", 0.0) + reading
        self.total += reading + working
        self.calls += 1
        self.persons += persons

    @property
    def milliseconds(self) -> dict[str, float]:
        """Stage -> milliseconds per call; "rest" is the time outside all stages."""
        per_call = 1000 / max(self.calls, 1)
        stages = {name: value * per_call for name, value in self.seconds.items()}
        stages["rest"] = self.total * per_call - sum(stages.values())
        return stages

    @property
    def networks_share(self) -> float:
        """Share of the time spent in the networks, 0 to 1; NaN before the first call."""
        if not self.total:
            return float("nan")
        return (self.seconds.get("pose", 0.0) + self.seconds.get("ks", 0.0)) / self.total

    def __repr__(self) -> str:
        stages = ", ".join(f"{name} {value:.2f}" for name, value in self.milliseconds.items())
        calls, people = number_of(self.calls, "call"), number_of(self.persons, "person", "people")
        return f"Timings({calls}, {people}; ms per call: {stages})"


__all__ = ["Timings"]
