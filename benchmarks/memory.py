"""Memory over many inferences: what the process holds after the first hundred and after all of them.

    python benchmarks/memory.py [--count 100000] [--bundle NAME --count 2000] [--backend onnxruntime] [--save]

Without a bundle, a network of one convolution is used, so that a leak of a few bytes per call shows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import oaks

WARM = 100


def resident() -> int:
    """Bytes that the process holds in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_convolution(folder: Path) -> Path:
    """The tests' bundle of one convolution."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import bundles

    return bundles.write(folder / "tiny").path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/memory.json")
    options = parser.parse_args()
    if options.count < WARM:
        parser.error(f"--count must be at least {WARM}, after which memory is compared, got {options.count}")
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (height, 120, 3), dtype=np.uint8) for height in (90, 120, 200)]
    boxes = [[10, 5, 60, 80], [0, 0, 120, 90], [-20, 30, 40, 100]]
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or one_convolution(Path(folder))
        with oaks.Engine(bundle, options.backend) as engine:
            marks = {}
            for call in track(
                range(1, options.count + 1), description=f"{engine.bundle.name}, {engine.backend}"
            ):
                people = 1 + call % 3
                engine.infer(frames[call % 3], boxes=boxes[:people])
                if call == WARM or (call > WARM and call % max(options.count // 5, 1) == 0):
                    marks[call] = resident()
    table = Table(title=f"{engine.bundle.name} on {engine.backend}")
    for name in ("inferences", "MiB", f"MiB more than after {WARM}"):
        table.add_column(name, justify="right")
    for call, held in marks.items():
        table.add_row(f"{call:,}", f"{held / 2**20:.1f}", f"{(held - marks[WARM]) / 2**20:+.2f}")
    Console().print(table)
    if options.save:
        about = {"bundle": engine.bundle.name, "backend": engine.backend, "device": engine.device}
        rows = [
            {"inferences": call, "bytes": held, f"bytes_more_than_after_{WARM}": held - marks[WARM]}
            for call, held in marks.items()
        ]
        path = Path(__file__).parent / "results" / "memory.json"
        measure.save(path, {"processor": measure.processor(), "cores": os.cpu_count(), **about}, rows)


if __name__ == "__main__":
    main()
