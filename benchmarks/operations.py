"""Speed of the CPU operations beside common alternatives and the machine's own limits. One run, one table.

    pip install '.[fit]'
    python benchmarks/operations.py [--quick] [--only decode] [--save]

Maps and frames are not in the caches: every call takes the next of several sets that together exceed them. Every
competitor's result is compared with ours before anything is timed.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

# Before NumPy and torch start their own threads.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import baselines
import cv2
import measure
import numpy as np
import torch
from baselines import KEYPOINTS, ORDER, PAIRS, heatmaps
from rich.console import Console

from oaks import ops
from oaks.files import write_text

MEAN, STD = np.array([123.7, 116.3, 103.5], np.float32), np.array([58.4, 57.1, 57.4], np.float32)
COLD_BYTES = 200 << 20
OPERATIONS = ("decode", "map_features", "crop", "forest", "box_nms")


def cycle_of(make: Callable[[int], Any], bytes_each: int) -> Iterator[Any]:
    """Return an endless iterator over enough sets to exceed the caches."""
    return itertools.cycle([make(seed) for seed in range(max(2, COLD_BYTES // bytes_each))])


class Bench:
    """Times jobs and collects the rows of the table."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.rows: list[dict[str, Any]] = []

    def run(self, what: str, batch: int, bytes_moved: int, jobs: dict[str, Callable[[], object]]) -> None:
        """Time jobs in turns. The first is ours; ratios are the others' time over ours."""
        timings = measure.interleaved(jobs, turns=self.turns)
        ours = next(iter(timings.values()))
        for name, timing in timings.items():
            row = {
                "what": what,
                "how": name,
                "batch": batch,
                "microseconds_per_person": timing.median / batch * 1e6,
                "spread": timing.spread,
                "gigabytes_per_second": bytes_moved / timing.median / 1e9,
                "times_ours": timing.median / ours.median,
            }
            self.rows.append(row)


def with_threads(count: int, job: Callable[[], object]) -> Callable[[], object]:
    """Return the job with that many threads for our operations."""

    def run() -> object:
        ops.set_threads(count)
        return job()

    return run


def read_jobs(sets: Iterator[Any]) -> dict[str, Callable[[], object]]:
    """Return jobs that read both maps of a set with one and two threads, by NumPy's fastest reductions."""
    pool = ThreadPoolExecutor(2)

    def dot(array: np.ndarray) -> object:
        flat = array.reshape(-1)
        return np.dot(flat, flat)

    def read(reduce: Callable[[np.ndarray], object], threads: int) -> Callable[[], object]:
        def one() -> object:
            return [reduce(array) for array in next(sets)]

        return one if threads == 1 else lambda: list(pool.map(reduce, next(sets)))

    return {
        f"memory read, {threads} thread{'s' * (threads > 1)}, {name}": read(reduce, threads)
        for threads in (1, 2)
        for name, reduce in (("max", np.max), ("dot", dot))
    }


def check_decode(height: int, width: int) -> None:
    """Compare the results of every competitor with ours."""
    maps, mirrored = heatmaps(2, height, width, 0)
    arguments = {"flip_pairs": PAIRS}
    close = {"atol": 1e-4, "rtol": 0}
    ours = ops.decode(maps, mirrored, refine="second_peak", **arguments).points
    np.testing.assert_allclose(ours, baselines.decode_second_peak_numpy(maps, mirrored, ORDER), **close)
    ours = ops.decode(maps, mirrored, refine="gradient", **arguments).points
    np.testing.assert_allclose(ours, baselines.decode_gradient_numpy(maps, mirrored, ORDER), **close)
    tensors = torch.from_numpy(maps), torch.from_numpy(mirrored), torch.from_numpy(ORDER)
    np.testing.assert_allclose(ours, baselines.decode_gradient_torch(*tensors).numpy(), **close)
    # Both blur and take differences, but with other kernels.
    ours = ops.decode(maps, mirrored, refine="dark", **arguments).points
    np.testing.assert_allclose(ours, baselines.decode_dark_numpy(maps, mirrored, ORDER), atol=0.3, rtol=0)


def bench_decode(bench: Bench, batch: int, height: int, width: int) -> None:
    """Time second_peak without the average, and with it in place, elsewhere and allocated; gradient; dark."""
    one_map = batch * KEYPOINTS * height * width * 4
    sets = cycle_of(lambda seed: heatmaps(batch, height, width, seed), 2 * one_map)
    points = np.empty((batch, KEYPOINTS, 2), np.float32), np.empty((batch, KEYPOINTS), np.float32)
    averages = cycle_of(lambda seed: np.full((batch, KEYPOINTS, height, width), seed, np.float32), one_map)

    def ours(refine: str, threads: int, average: str = "none") -> Callable[[], object]:
        def job() -> object:
            maps, mirrored = next(sets)
            out = {"none": None, "in place": maps, "elsewhere": None}[average]
            if average == "elsewhere":
                out = next(averages)
            return ops.decode(maps, mirrored, flip_pairs=PAIRS, refine=refine, out=(*points, out))

        return with_threads(threads, job)

    def allocated(average: bool) -> object:
        return ops.decode(*next(sets), flip_pairs=PAIRS, average=average)

    size = f"{width}x{height}"
    jobs = {}
    for threads in (1, 2):
        label = f"oaks, {threads} thread{'s' * (threads > 1)}"
        jobs[label] = ours("second_peak", threads)
        jobs[f"{label}, average in place"] = ours("second_peak", threads, "in place")
        jobs[f"{label}, average elsewhere"] = ours("second_peak", threads, "elsewhere")
        jobs[f"{label}, results allocated"] = with_threads(threads, partial(allocated, False))
        jobs[f"{label}, results and average allocated"] = with_threads(threads, partial(allocated, True))
    jobs["NumPy per person"] = lambda: baselines.decode_second_peak_numpy(*next(sets), ORDER)
    jobs |= read_jobs(sets)
    bench.run(f"decode second_peak {size}", batch, 2 * one_map, jobs)

    order = torch.from_numpy(ORDER)

    def in_torch() -> object:
        maps, mirrored = next(sets)
        return baselines.decode_gradient_torch(torch.from_numpy(maps), torch.from_numpy(mirrored), order)

    jobs = {
        "oaks, 1 thread": ours("gradient", 1),
        "oaks, 2 threads": ours("gradient", 2),
        "NumPy per person": lambda: baselines.decode_gradient_numpy(*next(sets), ORDER),
        "torch operations": in_torch,
    }
    bench.run(f"decode gradient {size}", batch, 2 * one_map, jobs)
    jobs = {
        "oaks, 1 thread": ours("dark", 1),
        "oaks, 2 threads": ours("dark", 2),
        "OpenCV blur and NumPy": lambda: baselines.decode_dark_numpy(*next(sets), ORDER),
    }
    bench.run(f"decode dark {size}", batch, 2 * one_map, jobs)


def bench_crop(bench: Bench, batch: int, size: tuple[int, int]) -> None:
    """Time crops of boxes 90 to 600 pixels high in 1280 x 720 frames."""
    width, height = size
    frame_bytes = 1280 * 720 * 3

    def frame_and_boxes(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        frame = random.integers(0, 256, (720, 1280, 3), np.uint8)
        return frame, baselines.boxes(random, batch, (1280, 720), (90, 600))

    sets = cycle_of(frame_and_boxes, frame_bytes)
    pixels = np.zeros((batch, 3, height, width), np.float32)
    transforms = np.zeros((batch, 2, 3), np.float32)

    def ours() -> object:
        frame, boxes = next(sets)
        return ops.crop(frame, boxes, size=size, mean=MEAN, std=STD, out=(pixels, transforms))

    def opencv() -> object:
        frame, _ = next(sets)
        return baselines.crop_opencv(frame, transforms, size, MEAN, STD)

    frame, boxes = next(sets)
    found = ops.crop(frame, boxes, size=size, mean=MEAN, std=STD)
    expected = baselines.crop_opencv(frame, found.transforms, size, MEAN, STD)
    # OpenCV rounds positions to a 32nd of a pixel and values to whole levels: on noise, several levels.
    assert np.abs((found.pixels - expected) * STD.reshape(3, 1, 1)).mean() < 2.0

    def written() -> object:
        pixels.fill(1.0)
        return None

    jobs = {
        "oaks, 1 thread": with_threads(1, ours),
        "oaks, 2 threads": with_threads(2, ours),
        "cv2.warpAffine and NumPy": opencv,
        "memory write, the crops alone": written,
    }
    bench.run(f"crop {width}x{height} from 1280x720", batch, pixels.nbytes, jobs)


def places(count: int) -> dict[str, Any]:
    """Return the places of people, as arguments of map_features."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 400, (count, 2))
    return {
        "points": random.uniform(0, 600, (count, KEYPOINTS, 2)).astype(np.float32),
        "boxes": np.concatenate([corners, corners + 200], axis=1).astype(np.float32),
        "frame_sizes": np.full((count, 2), 640, np.float32),
        "flip_pairs": PAIRS,
    }


def bench_map_features(bench: Bench, batch: int, height: int, width: int) -> None:
    """Time all features, decode on the same maps, and a few of the features in NumPy."""
    one_map = batch * KEYPOINTS * height * width * 4
    sets = cycle_of(lambda seed: heatmaps(batch, height, width, seed), 2 * one_map)
    arguments = places(batch)
    names = ops.feature_names(KEYPOINTS, mirrored=True)
    features = np.empty((batch, KEYPOINTS, len(names)), np.float32)

    maps, mirrored = next(sets)
    ours = ops.map_features(maps, mirrored, **arguments)
    for name, expected in baselines.map_figures_numpy(maps, mirrored, ORDER).items():
        np.testing.assert_allclose(ours[..., names.index(name)], expected, rtol=1e-3, err_msg=name)

    def all_features() -> object:
        return ops.map_features(*next(sets), out=features, **arguments)

    jobs = {
        "oaks, 1 thread": with_threads(1, all_features),
        "oaks, 2 threads": with_threads(2, all_features),
        "oaks.ops.decode, 1 thread": with_threads(1, lambda: ops.decode(*next(sets), flip_pairs=PAIRS)),
        "NumPy, heat, mass, spread, entropy and peaks alone": lambda: baselines.map_figures_numpy(
            *next(sets), ORDER
        ),
    }
    bench.run(f"map_features {width}x{height}", batch, 2 * one_map, jobs)


def bench_forest(bench: Bench, batch: int) -> None:
    """Time 250 trees of 24 leaves, as in a scorer, beside LightGBM, which fitted them."""
    import lightgbm

    from oaks.fit.boosting import to_forest

    random = np.random.default_rng(0)
    width = len(ops.feature_names(KEYPOINTS, mirrored=True))
    rows = random.normal(size=(8000, width)).astype(np.float32)
    targets = 1 / (1 + np.exp(-rows[:, 0] * rows[:, 1] - np.sin(3 * rows[:, 2])))
    parameters = {
        "objective": "cross_entropy",
        "num_leaves": 24,
        "learning_rate": 0.06,
        "num_threads": 1,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, targets), 250)
    model = to_forest(booster.dump_model(), width)
    people = random.normal(size=(batch, KEYPOINTS, width)).astype(np.float32)
    flat = people.reshape(-1, width)
    np.testing.assert_allclose(ops.forest(people, model).ravel(), booster.predict(flat), rtol=0, atol=1e-6)
    jobs = {
        "oaks, 1 thread": with_threads(1, lambda: ops.forest(people, model)),
        "oaks, 2 threads": with_threads(2, lambda: ops.forest(people, model)),
        "LightGBM, 1 thread": lambda: booster.predict(flat, num_threads=1),
    }
    bench.run("forest, 250 trees of 24 leaves", batch, people.nbytes, jobs)


def bench_box_nms(bench: Bench, boxes_per_frame: int) -> None:
    """Time NMS of a detector's boxes in one frame, beside OpenCV's. The batch is the number of boxes."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 600, (boxes_per_frame, 2))
    boxes = np.concatenate([corners, corners + random.uniform(20, 120, corners.shape)], axis=1).astype(
        np.float32
    )
    scores = random.uniform(0.1, 1, boxes_per_frame).astype(np.float32)

    def opencv() -> object:
        corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), 0.0, 0.5)

    np.testing.assert_array_equal(ops.box_nms(boxes, scores, threshold=0.5), opencv())
    jobs = {"oaks": lambda: ops.box_nms(boxes, scores, threshold=0.5), "cv2.dnn.NMSBoxes": opencv}
    bench.run("box_nms", boxes_per_frame, boxes.nbytes, jobs)


def table(bench: Bench) -> str:
    """Return the table as text, with ratios relative to the first row of each operation."""
    rows = measure.operations_table(
        "CPU operations",
        caption(),
        bench.rows,
        {
            "operation": lambda row: row["what"],
            "batch": lambda row: str(row["batch"]),
            "how": lambda row: row["how"],
            "µs per person": lambda row: f"{row['microseconds_per_person']:.1f}",
            "±": lambda row: f"{row['spread']:.0%}",
            "GB/s": lambda row: f"{row['gigabytes_per_second']:.1f}",
            "time, ours = 1": lambda row: f"{row['times_ours']:.2f}",
        },
    )
    console = Console(width=140)
    with console.capture() as printed:
        console.print(rows)
    return "\n".join(line.rstrip() for line in printed.get().splitlines()) + "\n"


def caption() -> str:
    """Return the machine and the versions that the figures belong to."""
    versions = f"NumPy {np.__version__}, OpenCV {cv2.__version__}, torch {torch.__version__}"
    return f"{measure.processor()}, {os.cpu_count()} cores, {ops.instruction_sets()[-1]}; {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batch 64 and 96x72 only, fewer turns")
    parser.add_argument("--only", choices=OPERATIONS, help="one operation; default: all")
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/operations.txt and .json"
    )
    options = parser.parse_args()
    if options.only and options.save:
        parser.error("pass exactly one of --only, --save: the saved table holds every operation")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

    bench = Bench(turns=7 if options.quick else 15)
    batches = (64,) if options.quick else (1, 16, 64)
    sizes = ((96, 72),) if options.quick else ((64, 48), (96, 72))
    chosen = [options.only] if options.only else OPERATIONS
    for (height, width), batch in itertools.product(sizes, batches):
        if "decode" in chosen:
            check_decode(height, width)
            bench_decode(bench, batch, height, width)
        if "map_features" in chosen:
            bench_map_features(bench, batch, height, width)
    for batch in batches:
        if "crop" in chosen:
            bench_crop(bench, batch, (288, 384))
        if "forest" in chosen:
            bench_forest(bench, batch)
    if "box_nms" in chosen:
        bench_box_nms(bench, 300)
    text = table(bench)
    print(text, end="")
    if options.save:
        results = Path(__file__).parent / "results"
        measure.save(results / "operations.json", {"caption": caption()}, bench.rows)
        write_text(results / "operations.txt", text)


if __name__ == "__main__":
    main()
