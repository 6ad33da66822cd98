"""Interleaved timing: jobs take turns, so that disturbances of the machine affect all of them alike."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median of the turns, and the quartiles around it."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        return (self.high - self.low) / (2 * self.median)


def interleaved(
    jobs: Mapping[str, Callable[[], object]], *, turns: int = 11, warm: int = 1, calls: int = 1
) -> dict[str, Timing]:
    """Times jobs turn by turn: every job once, then every job again.

    Args:
        jobs: what to time, by name.
        turns: how often it is each job's turn.
        warm: turns before those, which do not count.
        calls: how often a job runs in its turn. From two on, one more goes before them untimed: a thread pool
            that the job before left spinning takes cores from it for some ten milliseconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(warm + turns):
        for name, job in jobs.items():
            if calls > 1:
                job()
            start = time.perf_counter()
            for _ in range(calls):
                job()
            if turn >= warm:
                seconds[name].append((time.perf_counter() - start) / calls)
    timings = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        timings[name] = Timing(median, low, high)
    return timings


def processor() -> str:
    """The processor's name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def without_folder(argument: str) -> str:
    """An argument as results show it: of an absolute path, the last part alone, for the rest is of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def save(path: Path, machine: dict[str, object], rows: list[dict[str, object]]) -> None:
    """Writes results beside what they depend on: machine, date and command."""
    content = {
        "command": " ".join(["python", *map(without_folder, sys.argv)]),
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
