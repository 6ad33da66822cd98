"""Count warp instructions and bytes of the CUDA kernels on their PTX, without a GPU. One run, one table.

    python benchmarks/kernel_counts.py [--save | --check] [--kernel crop --kernel decode]

Needs nvcc and the test extra: the tests' emulator runs the PTX. An instruction counts for a warp as often as the lane
that executes it most often. Bytes are those that threads read from and write to global memory; their ratio is to the
minimum that the operation must move. --save writes benchmarks/results/kernel_counts.json; --check compares with that
file, as the tests do, and fails if a count has grown by more than 3 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from emulator import build
from emulator.emulated import EmulatedOps

from oaks import COCO17, ops
from oaks.files import write_json
from oaks.ops import native

RESULT = ROOT / "benchmarks" / "results" / "kernel_counts.json"
ARCHITECTURES = (75, 80, 120)
"""Compute capabilities times ten: the lowest, the first with reductions of a warp, and the highest."""
MOST_GROWTH = 1.03
SHARED_BYTES = 99 * 1024
"""Of a block, as compute capabilities 8.6, 8.9 and 12.0 allow."""
MULTIPROCESSORS = 2
"""For one person. crop divides its work by people per multiprocessor; this is the ratio of 66 people on 132."""
PAIRS, SIGMAS = COCO17.pairs, np.float32(COCO17.sigmas)
KEYPOINTS = len(SIGMAS)
_SHORT = {np.float16: "half", np.float32: "float"}


@dataclass(frozen=True)
class Counted:
    """Counts of one operation on one architecture.

    Attributes:
        case: the operation and its sizes.
        architecture: compute capability times ten.
        people: persons, or for NMS candidates, of the call.
        instructions: warp instructions per person.
        float64: those of them in double precision.
        bytes: read and written in global memory, per person.
        of_least: `bytes` relative to the minimum of the operation; None if that is unknown.
    """

    case: str
    architecture: int
    people: int
    instructions: int
    float64: int
    bytes: int
    of_least: float | None


@dataclass(frozen=True)
class Case:
    """A counted call: `start` runs the operation for `people`, each of whom needs at least `least` bytes."""

    name: str
    people: int
    start: Callable[[EmulatedOps], None]
    least: int | None


def decode_case(dtype: type, refine: str, where: str) -> Case:
    """Return the case of heatmaps of 72 x 96 and mirrored ones, with the average in place, elsewhere or not kept."""
    height, width = 96, 72
    maps = np.random.default_rng(0).random((1, KEYPOINTS, height, width), np.float32) * np.float32(0.05)
    maps[:, :, height // 3, width // 2], maps[:, :, height // 3, width // 2 + 1] = 1, 0.8
    own, mirrored = maps.astype(dtype), np.ascontiguousarray(maps[..., ::-1]).astype(dtype)

    def start(emulated: EmulatedOps) -> None:
        given, points = emulated.put(own), emulated.put(np.zeros((*own.shape[:2], 2), np.float32))
        target = {"in place": given, "elsewhere": emulated.put(np.zeros_like(own)), "not kept": None}[where]
        out = points, emulated.put(np.zeros(own.shape[:2], np.float32)), target
        emulated.call(ops.decode, given, emulated.put(mirrored), flip_pairs=PAIRS, refine=refine, out=out)

    # Both maps are read; the average is written if it is kept.
    least = own.nbytes * (2 if where == "not kept" else 3)
    return Case(f"decode {_SHORT[dtype]} {refine}, {where}", 1, start, least)


def crop_case(dtype: type, size: tuple[int, int]) -> Case:
    """Return the case of a crop and the mirrored crop of one person from a Full HD frame."""
    width, height = size
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (1080, 1920, 3), np.uint8)
    boxes = np.float32([[400.3, 60.2, 550.3, 360.2]])

    def start(emulated: EmulatedOps) -> None:
        pixels = emulated.put(np.zeros((2, 3, height, width), dtype))
        transforms = emulated.put(np.zeros((1, 2, 3), np.float32))
        emulated.call(ops.crop, emulated.put(frame), emulated.put(boxes), size=size, mean=(1, 1, 1), std=(1, 1, 1),
                      mirrored=True, dtype=np.dtype(dtype).name, out=(pixels, transforms))  # fmt: skip

    return Case(f"crop {_SHORT[dtype]} {width}x{height}", 1, start, None)


def nms_case(count: int) -> Case:
    """Return the case of poses of one frame, none of which suppresses another."""
    random = np.random.default_rng(0)
    points = (random.random((count, KEYPOINTS, 2)) * 4000).astype(np.float32)
    scores = random.random(count).astype(np.float32)

    def start(emulated: EmulatedOps) -> None:
        areas, kept = emulated.put(np.full(count, 9e3, np.float32)), emulated.put(np.zeros(count, np.int64))
        given = emulated.put(points), emulated.put(scores)
        emulated.call(ops.oks_nms, *given, sigmas=SIGMAS, areas=areas, out=kept)

    return Case(f"oks_nms of {count}", count, start, None)


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for dtype in (np.float16, np.float32):
        for where in ("in place", "elsewhere", "not kept"):
            yield decode_case(dtype, "second_peak", where)
        yield decode_case(dtype, "dark", "in place")
    for dtype in (np.float16, np.float32):
        for size in ((192, 256), (288, 384)):
            yield crop_case(dtype, size)
    yield nms_case(64)
    yield nms_case(256)


def count(module: ModuleType, case: Case, architecture: int) -> Counted:
    """Run a case on the PTX of an architecture."""
    module.take_counts()
    case.start(EmulatedOps(module))
    launches = module.take_counts()
    total = {name: sum(launch[name] for launch in launches) for name in ("instructions", "float64")}
    moved = sum(launch["bytes_read"] + launch["bytes_written"] for launch in launches)
    per_person = round(moved / case.people)
    of_least = None if case.least is None else round(per_person / case.least, 3)
    return Counted(
        case=case.name,
        architecture=architecture,
        people=case.people,
        instructions=round(total["instructions"] / case.people),
        float64=round(total["float64"] / case.people),
        bytes=per_person,
        of_least=of_least,
    )


def count_all(
    chosen: Callable[[Case], bool], architectures: tuple[int, ...] = ARCHITECTURES
) -> list[Counted]:
    """Count every chosen case on every architecture."""
    module = build.load()
    native.cuda = module.cuda
    settings = module.settings()
    settings.shared_limit, settings.multiprocessors = SHARED_BYTES, MULTIPROCESSORS
    module.set_counting(True)
    counted = []
    for architecture in architectures:
        module.load_ptx(build.ptx(architecture))
        counted += [count(module, case, architecture) for case in cases() if chosen(case)]
    return counted


def saved() -> tuple[str, list[Counted]]:
    """Return the version of nvcc and the counts in RESULT."""
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    return content["nvcc"], [Counted(**row) for row in content["counts"]]


def grown(before: list[Counted], now: list[Counted]) -> list[str]:
    """Describe the counts that have grown by more than MOST_GROWTH, or that are not among `before`."""
    known = {(row.case, row.architecture): row for row in before}
    found = []
    for row in now:
        old = known.get((row.case, row.architecture))
        where = f"{row.case} on {row.architecture / 10}"
        if old is None:
            found.append(f"{where}: not in {RESULT.name}; run benchmarks/kernel_counts.py --save")
            continue
        for name in ("instructions", "bytes", "float64"):
            had, has = getattr(old, name), getattr(row, name)
            if has > MOST_GROWTH * had:
                found.append(f"{where}: {name} grew from {had:,} to {has:,}")
    return found


def show(counted: list[Counted]) -> None:
    """Print the table: a row per case, a column of instructions per architecture."""
    architectures = sorted({row.architecture for row in counted})
    table = Table(
        title="Per person: decode 17 x 96 x 72 with the flip average; crop and the mirrored crop (NMS: per candidate)",
        caption=f"PTX of nvcc {build.nvcc_version()}; not measured on a GPU",
    )
    table.add_column("operation")
    for architecture in architectures:
        table.add_column(f"instructions, {architecture / 10}", justify="right")
    for heading in ("float64", "kB", "of the least"):
        table.add_column(heading, justify="right")
    for case in dict.fromkeys(row.case for row in counted):
        rows = {row.architecture: row for row in counted if row.case == case}
        last = rows[max(rows)]
        table.add_row(
            case,
            *(f"{rows[a].instructions:,}" for a in architectures),
            f"{last.float64:,}",
            f"{last.bytes / 1e3:,.1f}",
            "" if last.of_least is None else f"{last.of_least:.3f}",
        )
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--check", action="store_true", help="fail if counts have grown")
    parser.add_argument(
        "--kernel", action="append", help="count only operations whose name starts with this; repeatable"
    )
    parser.add_argument(
        "--architecture", action="append", type=int, help="compute capability times ten; repeatable"
    )
    options = parser.parse_args()
    if build.nvcc() is None:
        sys.exit("nvcc not found on the PATH; it compiles the kernels to PTX")
    prefixes = tuple(options.kernel or ("",))
    counted = count_all(
        lambda case: case.name.startswith(prefixes), tuple(options.architecture or ARCHITECTURES)
    )
    show(counted)
    if options.check:
        version, before = saved()
        if version != build.nvcc_version():
            sys.exit(f"counts of nvcc {version} cannot be compared with those of {build.nvcc_version()}")
        if found := grown(before, counted):
            sys.exit("\n".join(found))
    if options.save:
        if options.kernel or options.architecture:
            sys.exit("--save takes all operations and architectures; leave out --kernel and --architecture")
        write_json(
            RESULT, {"nvcc": build.nvcc_version(), "counts": [asdict(row) for row in counted]}, indent=1
        )


if __name__ == "__main__":
    main()
