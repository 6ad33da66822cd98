"""What benchmarks share: timing in turns, so that other load on the machine affects all jobs alike; results and logs."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from oaks.files import write_json


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


def wall_clock(job: Callable[[], object]) -> float:
    """Return the seconds that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def interleaved(
    jobs: Mapping[str, Callable[[], object]],
    *,
    turns: int = 11,
    warm: int = 1,
    calls: int = 1,
    clock: Callable[[Callable[[], object]], float] = wall_clock,
) -> dict[str, Timing]:
    """Time jobs turn by turn: every job once, then every job again.

    Args:
        jobs: what to time, by name.
        turns: timed turns of each job.
        warm: turns before those, which do not count.
        calls: calls of a job in its turn. From two on, one untimed call precedes them: a thread pool
            that the previous job left spinning takes cores for some ten milliseconds.
        clock: returns the seconds of a job.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(warm + turns):
        for name, job in jobs.items():
            if calls > 1:
                job()
            took = clock(lambda job=job: [job() for _ in range(calls)]) / calls
            if turn >= warm:
                seconds[name].append(took)
    timings = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        timings[name] = Timing(median, low, high)
    return timings


def operations_table(
    title: str,
    caption: str,
    rows: Sequence[dict[str, Any]],
    columns: Mapping[str, Callable[[dict[str, Any]], str]],
) -> Table:
    """Return rows as a table in which the operation and its batch are printed once.

    Args:
        title, caption: above and below the table.
        rows: one dict per row.
        columns: heading -> cell of a row. "operation" and "how" are words, all others numbers.
    """
    table = Table(title=title, caption=caption)
    for heading in columns:
        table.add_column(heading, justify="left" if heading in ("operation", "how") else "right")
    before = None
    for row in rows:
        cells = {heading: cell(row) for heading, cell in columns.items()}
        group = {heading: cells[heading] for heading in ("operation", "batch") if heading in cells}
        table.add_row(*(cells | dict.fromkeys(group, "") if group == before else cells).values())
        before = group
    return table


def processor() -> str:
    """Return the processor's name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def without_folder(argument: str) -> str:
    """Return an argument as results show it: of an absolute path, whose folders are this machine's, only the last part."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def save(path: Path, machine: dict[str, object], rows: list[dict[str, object]]) -> None:
    """Write results with what they depend on: machine, date and command."""
    content = {
        "command": " ".join(["python", *map(without_folder, sys.argv)]),
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "rows": rows,
    }
    write_json(path, content, indent=1)


def commit() -> str:
    """Return the commit that is checked out, marked if there are changes."""
    head, status = (
        subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
    )
    return head[:12] + ("-changed" if status else "")


def add_to_log(log: Path, **figures: Any) -> None:
    """Append a line to a JSON Lines file of runs: date, commit and figures."""
    stamp = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"), "commit": commit(),
    }  # fmt: skip
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**stamp, **figures}) + "\n")
