"""Frames per second from a picture of five people to their scored poses: ours, and two other networks in a loop.

    python benchmarks/picture_to_poses.py small tiny --detector nanodet.onnx --pose thunder/pose.fp32.onnx [--save]

Ours: an Engine finds the people, then estimates the five poses with flip and scores them. The other way: NanoDet-Plus
finds people, and MoveNet Thunder (the pose network of the bundle that `oaks import --preset movenet` writes) takes the
five crops in one batch, in fp32 without flip, in ONNX Runtime with OpenCV and NumPy around them. Both estimate poses in the
same five boxes, whatever was found, so that they do the same work. The detectors are also timed alone, ours also in the
runtime and precision of the other. Jobs take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cv2
import measure
import numpy as np
import typer
from detector import nanodet
from rich.console import Console
from rich.table import Table

from oaks import Engine
from oaks.box_files import read_boxes
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.images import read_image
from oaks.predict import DEMO

PEOPLE = 5
WAYS = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
"""CPU backends and precisions, of which the fastest is used."""


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the package's picture with the most people, and `count` boxes: theirs, repeated, moved by a few pixels."""
    annotated = read_boxes(DEMO / "people.json")
    name = max(annotated.image_ids, key=lambda name: len(annotated.of(annotated.image_ids[name])[0]))
    boxes, _ = annotated.of(annotated.image_ids[name])
    aside = np.tile(np.random.default_rng(0).uniform(-4, 4, (count, 2)), 2)
    return read_image(DEMO / name), (boxes[np.arange(count) % len(boxes)] + aside).astype(np.float32)


def thunder(path: Path, threads: int | None) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function for the points (N, K, 2) of people in boxes: cv2.warpAffine for each, one batch, NumPy's argmax."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name, side = session.get_inputs()[0].name, session.get_inputs()[0].shape[-1]

    def estimate(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        crops = np.empty((len(boxes), 3, side, side), np.float32)
        matrices = np.empty((len(boxes), 2, 3), np.float32)
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            scale = max(x2 - x1, y2 - y1) * 1.25 / side
            shift = ((x1 + x2) / 2 - side / 2 * scale, (y1 + y2) / 2 - side / 2 * scale)
            matrices[i] = [[scale, 0, shift[0]], [0, scale, shift[1]]]
            cut = cv2.warpAffine(
                frame, matrices[i], (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            crops[i] = (cv2.cvtColor(cut, cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1).transpose(
                2, 0, 1
            )
        maps = session.run(None, {name: crops})[0]
        width = maps.shape[3]
        first = maps.reshape(*maps.shape[:2], -1).argmax(axis=2)
        cells = np.stack([first % width, first // width], axis=2).astype(np.float32)
        points = (cells + 0.5) * (side / width) - 0.5
        return points * matrices[:, None, (0, 1), (0, 1)] + matrices[:, None, :, 2]

    return estimate


def fastest(bundle: str, threads: int | None, frame: np.ndarray, boxes: np.ndarray) -> tuple[str, Engine]:
    """Return the Engine of the fastest CPU backend and precision, and its title."""
    engines: dict[str, Engine] = {}
    for backend, precision in WAYS:
        name = f"{bundle}, {backend} {precision}"
        try:
            engines[name] = Engine(bundle, backend, precision=precision, threads=threads, max_batch=PEOPLE)
        except (BackendUnavailable, ValueError) as error:
            Console(stderr=True).print(f"not run: {name}: {error}", markup=False, soft_wrap=True)
    jobs = {
        name: lambda engine=engine: (engine.detect(frame), engine.infer(frame, boxes=boxes))
        for name, engine in engines.items()
    }
    timings = measure.interleaved(jobs, turns=5, calls=2)
    best = min(timings, key=lambda name: timings[name].median)
    for name in engines.keys() - {best}:
        engines[name].close()
    return best, engines[best]


def main(
    bundles: Annotated[list[str], typer.Argument(help="Bundles with a detector.")],
    detector: Annotated[Path, typer.Option(help="ONNX file of NanoDet-Plus-m at 416.")],
    pose: Annotated[Path, typer.Option(help="ONNX file of MoveNet Thunder's heatmaps.")],
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    turns: Annotated[int, typer.Option(min=3, help="Turns of each.")] = 15,
    save: Annotated[bool, typer.Option(help="Write benchmarks/results/picture_to_poses.json.")] = False,
) -> None:
    """Measure from pictures to poses."""
    frame, boxes = people(PEOPLE)
    find, estimate = nanodet(detector, threads=threads), thunder(pose, threads)
    other = "NanoDet-Plus, MoveNet Thunder"
    jobs: dict[str, Callable[[], object]] = {other: lambda: (find(frame), estimate(frame, boxes))}
    alone = {"detector alone: NanoDet-Plus, onnxruntime fp32": lambda: find(frame)}
    for bundle in bundles:
        title, engine = fastest(bundle, threads, frame, boxes)
        if not engine.has_detector:
            raise ArgumentError(f"bundles must have a detector, got {bundle}")
        jobs[title] = lambda engine=engine: (engine.detect(frame), engine.infer(frame, boxes=boxes))
        alone[f"detector alone: {title}"] = lambda engine=engine: engine.detect(frame)
    same_runtime = Engine(bundles[0], "onnxruntime", precision="fp32", threads=threads)
    alone[f"detector alone: {bundles[0]}, onnxruntime fp32"] = lambda: same_runtime.detect(frame)
    timings = measure.interleaved({**jobs, **alone}, turns=turns, calls=2)
    rows = [
        {
            "name": title,
            "frames_per_second": 1 / timing.median,
            "spread": timing.spread,
            "ratio": timings[next(iter(alone)) if title in alone else other].median / timing.median,
        }
        for title, timing in timings.items()
    ]
    table = Table(
        "", "frames/s", "+-", "ratio", title=f"{PEOPLE} people, ours with flip, {measure.processor()}"
    )
    for row in rows:
        rate, spread, ratio = row["frames_per_second"], row["spread"], row["ratio"]
        table.add_row(str(row["name"]), f"{rate:.2f}", f"{spread:.0%}", f"{ratio:.2f}")
    Console(width=120).print(table)
    if save:
        path = Path(__file__).parent / "results" / "picture_to_poses.json"
        measure.save(path, {"processor": measure.processor(), "people": PEOPLE, "threads": threads}, rows)


if __name__ == "__main__":
    typer.run(main)
