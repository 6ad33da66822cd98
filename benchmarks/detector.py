"""Precision and recall of person detectors: python benchmarks/detector.py BUNDLE --annotations test.json --images DIR.

Prints the average precision of boxes on the images whose annotations are complete, and precision and recall at the
threshold; crowds are ignored. `--choose` prints precision and recall at a range of thresholds, for held-out training images
(`--fold 0 --folds 8` takes those that the recipe `person_detector` holds out). `--other FILE` adds another network.
`--poses` adds the average precision of the bundle's poses in ground-truth boxes and in those that its detector finds, at
its threshold and with all above .05; `--pose-boxes "found boxes"` takes these boxes alone. Every run with `--log` appends
a line to a JSON Lines file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from measure import add_to_log
from pycocotools import mask
from rich.console import Console
from rich.progress import track
from rich.table import Table

from oaks import Detector, Engine
from oaks.boxes import to_xywh, to_xyxy
from oaks.bundle import Bundle
from oaks.files import write_json
from oaks.ops import box_nms
from oaks.skipping import skip
from oaks.training.data.detection import DetectionImages, ImageBoxes, read_detection
from oaks.training.data.people import DamagedImage, fold_of
from oaks.training.detector import average_precision
from oaks.val.detect import detect
from oaks.val.detections import Detections
from oaks.val.find_people import find_people
from oaks.val.ground_truth import GroundTruth
from oaks.val.report.ranking import rank
from oaks.val.scores import ScoredDetections

Found = tuple[np.ndarray, np.ndarray]
BOXES = {"ground-truth boxes": None, "found boxes": None, "all found boxes": 0.05}
"""Boxes that poses are estimated in, and the detector's threshold; None: its own."""
THRESHOLDS = np.arange(0.1, 0.65, 0.05)


def nanodet(path: Path, side: int = 416, threads: int | None = None) -> Callable[[np.ndarray], Found]:
    """Return NanoDet-Plus as published: BGR input, classes and distances at strides 8 to 64, NMS at IoU .6."""
    import cv2
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its file holds weights that nothing uses
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    mean, std = np.float32([103.53, 116.28, 123.675]), np.float32([57.375, 57.12, 58.395])

    def find(image: np.ndarray) -> Found:
        ratio = side / max(image.shape[:2])
        height, width = (round(length * ratio) for length in image.shape[:2])
        canvas = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)
        canvas[:height, :width] = (cv2.resize(image, (width, height)) - mean) / std
        outputs = dict(
            zip(names, session.run(None, {"data": canvas.transpose(2, 0, 1)[None].copy()}), strict=True)
        )
        boxes, scores = [], []
        for stride in (8, 16, 32, 64):
            own = outputs[f"cls{stride}"][0, 0]
            logits = outputs[f"dis{stride}"][0].reshape(-1, 4, 8)
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            reach = (shares / shares.sum(-1, keepdims=True)) @ np.arange(8, dtype=np.float32) * stride
            ys, xs = np.mgrid[: own.shape[0], : own.shape[1]].reshape(2, -1) * stride
            sides = (xs - reach[:, 0], ys - reach[:, 1], xs + reach[:, 2], ys + reach[:, 3])
            boxes.append(np.stack(sides, axis=1))
            scores.append(own.ravel())
        listed, rated = np.concatenate(boxes), np.concatenate(scores)
        listed = np.clip(listed / ratio, 0, np.tile(image.shape[1::-1], 2)).astype(np.float32)
        kept = (rated > 0.05) & (listed[:, 2:] >= listed[:, :2]).all(axis=1)
        listed, rated = listed[kept], rated[kept].astype(np.float32)
        best = box_nms(listed, rated, threshold=0.6)[:100]
        return listed[best], rated[best]

    return find


def readable(images: DetectionImages) -> np.ndarray:
    """Return the indices of the images that can be decoded; the others are skipped."""
    rows = []
    for n in range(len(images)):
        try:
            images.sample(n)
        except DamagedImage as error:
            skip(images.files[n], error)
        else:
            rows.append(n)
    return np.array(rows, np.int64)


def matches(found: Found, people: ImageBoxes, threshold: float) -> tuple[np.ndarray, int, int]:
    """Return which people are found at IoU .5, how many boxes count, and how many are right.

    Each box is for one person, best first. A box for nobody that lies half inside a crowd does not count.
    """
    boxes, scores = found
    boxes = boxes[np.argsort(-scores, kind="stable")[: (scores >= threshold).sum()]]
    corners = np.concatenate([people.boxes, people.regions]).astype(float)
    crowd = [0] * len(people.boxes) + [1] * len(people.regions)
    overlaps = np.reshape(
        mask.iou(to_xywh(boxes.astype(float)), to_xywh(corners), crowd), (len(boxes), len(crowd))
    )
    taken, counted, right = np.zeros(len(people.boxes), bool), 0, 0
    for own, of_crowds in zip(*np.split(overlaps, [len(taken)], axis=1), strict=True):
        free = np.where(taken, 0, own)
        if free.max(initial=0) >= 0.5:
            taken[free.argmax()] = True
            right += 1
        elif of_crowds.max(initial=0) >= 0.5:
            continue
        counted += 1
    return taken, counted, right


def with_keypoints(annotations: Path, images: DetectionImages) -> list[np.ndarray]:
    """Return the boxes (N, 4) xyxy of the people with labeled keypoints in each image."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    rows: dict[int, list[list[float]]] = {int(number): [] for number in images.image_ids}
    for row in content["annotations"]:
        if row["image_id"] in rows and row.get("num_keypoints") and not row.get("iscrowd"):
            rows[row["image_id"]].append(row["bbox"])
    found = [np.array(rows[int(number)], np.float32).reshape(-1, 4) for number in images.image_ids]
    return [to_xyxy(boxes) for boxes in found]


def figures(
    found: list[Found], images: DetectionImages, labeled: list[np.ndarray], threshold: float
) -> dict[str, float]:
    """Return precision and recall at a threshold, of all people and of those with keypoints."""
    people = counted = right = known = known_found = all_found = 0
    for own, truth, boxes in zip(found, images.people, labeled, strict=True):
        taken, count, good = matches(own, truth, threshold)
        people, all_found = people + len(taken), all_found + taken.sum()
        counted, right = counted + count, right + good
        near = [int(np.abs(truth.boxes - box).sum(axis=1).argmin()) for box in boxes]
        known, known_found = known + len(near), known_found + int(taken[near].sum()) if near else known_found
    return {
        "threshold": round(float(threshold), 3),
        "recall": all_found / max(people, 1),
        "recall of people with keypoints": known_found / max(known, 1),
        "precision": right / max(counted, 1),
    }


def pose_figures(
    bundle: str, annotations: Path, images: DetectionImages, backend: str, titles: list[str]
) -> dict[str, float]:
    """Return the average precision of the bundle's poses on some images, per score and per title of BOXES."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    chosen = set(images.image_ids.tolist())
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in chosen]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "complete.json"
        write_json(part, content)
        truth = GroundTruth.load(part)
        for number, (title, threshold) in enumerate(BOXES.items()):
            if title not in titles:
                continue
            detector = None if threshold is None else Detector(bundle, backend=backend, threshold=threshold)
            with Engine(bundle, backend, detector=detector) as engine:
                boxes = None
                if number:
                    boxes = find_people(engine, truth, images.folder, Path(folder) / f"boxes-{number}.json")
                path = detect(
                    engine, truth, images.folder, Path(folder) / f"poses-{number}.json", boxes=boxes
                )
            measured = ScoredDetections.of(truth, Detections.load(path, truth))
            for score, row in rank(measured).items():
                if score in ("conventional", "oaks"):
                    figures[f"pose AP, {score}, {title}"] = row["AP"]
    return figures


def write_line(log: Path, figures: dict[str, Any], annotations: Path) -> None:
    """Append figures to the log."""
    rounded = {
        key: round(float(value), 4) if isinstance(value, float) else value for key, value in figures.items()
    }
    named = f"{annotations.parent.name}/{annotations.name}"
    add_to_log(log, what="person detector", annotations=named, **rounded)


def main(
    bundle: Annotated[str, typer.Argument(help="Bundle with a detector.")],
    annotations: Annotated[Path, typer.Option(help="COCO annotations with annotations_complete per image.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.")],
    precision: Annotated[str, typer.Option(help="Precision of the detector.")] = "fp32",
    backend: Annotated[str, typer.Option(help="Backend of the detector.")] = "onnxruntime",
    choose: Annotated[bool, typer.Option(help="Print thresholds from .1 to .6.")] = False,
    name: Annotated[str, typer.Option(help="Name of the source in the recipe, for --fold.")] = "images",
    fold: Annotated[int | None, typer.Option(help="Take this fold of the images alone.")] = None,
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 8,
    other: Annotated[Path | None, typer.Option(help="ONNX file of NanoDet-Plus, to set beside it.")] = None,
    other_threshold: Annotated[float, typer.Option(help="Threshold of the other network.")] = 0.3,
    poses: Annotated[
        bool, typer.Option(help="Measure the bundle's poses in its detector's boxes too.")
    ] = False,
    pose_boxes: Annotated[
        list[str], typer.Option(help=f"With --poses: boxes, of {', '.join(BOXES)}. Default: all. Repeatable.")
    ] = [],  # noqa: B006
    log: Annotated[Path | None, typer.Option(help="JSON Lines file that gets a line per detector.")] = None,
) -> None:
    """Measure person detectors."""
    read = read_detection(name, annotations, images)
    kept = np.array([people.complete for people in read.people])
    if fold is not None:
        kept &= fold_of(read.name, read.image_ids, folds) == fold
    read = read.subset(np.flatnonzero(kept))
    read = read.subset(readable(read))
    labeled = with_keypoints(annotations, read)
    own = Detector(bundle, precision=precision, backend=backend)
    shown = own.threshold
    loose = Detector(bundle, precision=precision, backend=backend, threshold=0.02)
    detectors: dict[str, tuple[Callable[[np.ndarray], Found], float]] = {
        own.description: (loose.detect, shown)
    }
    if other is not None:
        detectors[other.name] = (nanodet(other), other_threshold)
    table = Table("detector", "AP", "AP50", "threshold", "recall", "with keypoints", "precision")
    for title, (find, threshold) in detectors.items():
        found = [find(read.sample(n)[0]) for n in track(range(len(read)), console=Console(stderr=True))]
        overall = average_precision(found, read.people)
        for level in THRESHOLDS if choose else [threshold]:
            row = figures(found, read, labeled, level)
            cells = [overall["AP"], overall["AP50"], *row.values()]
            table.add_row(title, *(f"{value:.3f}" for value in cells))
            if log is not None:
                write_line(log, {"detector": title, "images": len(read), **overall, **row}, annotations)
    if poses:
        losses = pose_figures(bundle, annotations, read, backend, pose_boxes or list(BOXES))
        for name, value in losses.items():
            Console(width=160).print(f"{name}: {value:.3f}")
        if log is not None:
            about = {"detector": own.description, "poses": bundle, "images": len(read)}
            power = Bundle.load(bundle).box_score_power
            write_line(log, {**about, "box_score_power": power, **losses}, annotations)
    Console(width=160).print(f"{len(read)} images with complete annotations")
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
