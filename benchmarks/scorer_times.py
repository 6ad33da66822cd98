"""What scorers cost: python benchmarks/scorer_times.py [--scorer FILE] [--bundle small] [--backend NAME] [--people 8].

With --scorer, a scorer for results (oaks fit) scores 100,000 made-up poses: seconds, seconds of processor time, and the
file's size. `taskset -c 0` before the command keeps it on one core. Then a call of the Engine with the bundle's trees is set
beside one of the same bundle without them, turn by turn, on one picture with --people boxes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import interleaved, processor, save

import oaks
from oaks import bundle as bundles
from oaks.val.report.document import Column, Table
from oaks.val.report.writer import print_tables

POSES = 100_000


def results_scorer(path: Path, poses: int) -> dict[str, object]:
    """Time of scoring made-up poses, in boxes where the scorer takes them."""
    scorer, rng = oaks.Scorer(path), np.random.default_rng(0)
    count = scorer.card.skeleton.count
    corners = rng.uniform(0, 400, (poses, 1, 2))
    sides = rng.uniform(20, 300, (poses, 1, 2))
    points = corners + sides * rng.uniform(0, 1, (poses, count, 2))
    heat = rng.uniform(0, 1, (poses, count))
    boxes = np.concatenate([corners, corners + sides], axis=2)[:, 0] if scorer.card.boxes else None
    second = (points, heat) if scorer.card.second_opinion else None
    start, own = time.perf_counter(), time.process_time()
    scorer(points, heat, boxes, second=second)
    seconds, processed = time.perf_counter() - start, time.process_time() - own
    file = path / "scorer.json" if path.is_dir() else path
    return {
        "poses": poses,
        "seconds": seconds,
        "processor": processed,
        "megabytes": file.stat().st_size / 1e6,
    }


def without_scorer(bundle: oaks.Bundle, folder: Path) -> oaks.Bundle:
    """The same pose network in a bundle of its own, scored by its heat."""
    content = {
        key: value for key, value in bundle.description.items() if key in ("name", "license", "skeleton")
    }
    pose = bundle.description["networks"]["pose"]
    for file in pose["files"].values():
        (folder / file).write_bytes(bundle.read(file))
    return bundles.write(folder, {**content, "networks": {"pose": pose}})


def engines(args: argparse.Namespace) -> list[tuple[str, float, float, float]]:
    """Milliseconds of a call with and without the trees, their spread, and the ratio to the one without."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (480, 640, 3), np.uint8)
    corners = rng.uniform(0, 300, (args.people, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(60, 180, (args.people, 2))], axis=1)
    bundle = oaks.Bundle.load(args.bundle)
    with tempfile.TemporaryDirectory() as folder:
        plain = without_scorer(bundle, Path(folder))
        chosen = {"backend": args.backend, "threads": args.threads, "max_batch": args.people}
        with oaks.Engine(plain, **chosen) as without, oaks.Engine(bundle, **chosen) as with_trees:
            timings = interleaved(
                {
                    "without the scorer": lambda: without.infer(picture, boxes=boxes),
                    "with the scorer": lambda: with_trees.infer(picture, boxes=boxes),
                },
                turns=args.turns,
                calls=2,
            )
    first = next(iter(timings.values())).median
    return [(name, 1000 * t.median, 100 * t.spread, t.median / first) for name, t in timings.items()]


def main() -> None:
    """Time scorers and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorer", type=Path, help="File or folder of a scorer for results.")
    parser.add_argument("--poses", type=int, default=POSES, help="Poses that it scores.")
    parser.add_argument("--bundle", default="small", help="Bundle whose scorer is trees.")
    parser.add_argument("--backend", default="auto", help="Of the Engine.")
    parser.add_argument("--people", type=int, default=8, help="Boxes in the picture.")
    parser.add_argument("--threads", type=int, help="CPU threads of the networks. Default: all cores.")
    parser.add_argument("--turns", type=int, default=11, help="Turns of each Engine.")
    parser.add_argument("--save", action="store_true", help="Write benchmarks/results/scorer_times.json.")
    args = parser.parse_args()
    kept: list[dict[str, object]] = []
    if args.scorer is not None:
        found = results_scorer(args.scorer, args.poses)
        kept.append(found)
        print("scorer for results: {poses} poses in {seconds:.1f} s ({processor:.1f} s of processor time), "
              "file {megabytes:.2f} MB".format(**found))  # fmt: skip
    rows = engines(args)
    columns = (
        Column("Call of the Engine", "text"),
        *(Column(n, "number") for n in ("ms", "Spread %", "Ratio")),
    )
    print_tables([Table("scorer-times", f"{args.bundle}, {args.people} people", columns, tuple(rows))])
    kept += [{"call": name, "ms": ms, "ratio": ratio} for name, ms, _, ratio in rows]
    if args.save:
        machine = {"processor": processor(), "bundle": args.bundle, "backend": args.backend}
        save(Path(__file__).parent / "results" / "scorer_times.json", machine, kept)


if __name__ == "__main__":
    main()
