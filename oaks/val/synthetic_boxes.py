"""Detector-like person boxes made from the ground truth, for data sets without boxes of a detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks.arguments import check_seed, is_number
from oaks.boxes import iou, to_xyxy
from oaks.coco import Annotations, read_annotations
from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.images import ImageFolder, read_size
from oaks.skeleton import COCO17, Skeleton
from oaks.skipping import skip


@dataclass(frozen=True)
class DetectorLike:
    """Errors of the simulated detector.

    Attributes:
        jitter: standard deviation of a box's center relative to its size, and of the logarithm of its sides.
        misses: probability of missing a large, unoccluded person; up to eight times that for small or heavily
            occluded people.
        duplicates: probability of a second, less exact box of a person.
        background: mean number of false boxes per image.
    """

    jitter: float = 0.05
    misses: float = 0.02
    duplicates: float = 0.08
    background: float = 0.7

    def __post_init__(self) -> None:
        for name, most in (("jitter", 1), ("misses", 1), ("duplicates", 1), ("background", 1000)):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= most:
                raise ArgumentError(f"{name} must be from 0 to {most}, got {value!r}")


def detector_like(
    people: Annotations,
    *,
    seed: int = 0,
    detector: DetectorLike | None = None,
    images: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Return COCO box results (image_id, category_id, bbox, score) like those of a person detector.

    All people are detected, with or without keypoints, except crowds. The score of a box grows with its overlap with
    the person, falls with occlusion and small size, and is low for boxes on the background. The boxes of an image
    depend only on the seed, the image's id and its people.

    Args:
        people: annotations that have been read with a skeleton.
        seed: random seed.
        detector: errors of the detector; None: the defaults.
        images: folder of the image files, for images whose size the annotations do not state.

    Raises:
        ArgumentError: an image has no stated size, and `images` is None.
    """
    detector = detector or DetectorLike()
    check_seed(seed)
    hidden = np.ones(len(people.ids))
    if people.keypoints is not None:
        hidden = 1 - (people.keypoints[..., 2] > 0).mean(axis=1)
    members: dict[int, list[int]] = {}
    for n in np.flatnonzero(~people.crowd).tolist():
        members.setdefault(int(people.image[n]), []).append(n)
    rows = []
    for image in np.argsort(people.image_ids, kind="stable").tolist():
        image_id = int(people.image_ids[image])
        rng = np.random.default_rng([seed, image_id])
        size = _size(people, image, images)
        if size is None:
            continue
        own = [(people.boxes[n], float(hidden[n])) for n in members.get(image, [])]
        for box, score in _image_boxes(rng, size, own, detector):
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": people.category_id,
                    "bbox": np.round(box, 2).tolist(),
                    "score": round(float(score), 4),
                }
            )
    return rows


def write_detector_like(
    annotations: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    detector: DetectorLike | None = None,
    images: str | Path | None = None,
    skeleton: Skeleton = COCO17,
    category: str | int | None = None,
) -> Path:
    """Write `detector_like` boxes of an annotation file as a COCO results file; its arguments are the same.

    Raises:
        FileNotFoundError, ArgumentError: as `detector_like` and oaks.coco.read_annotations.
    """
    people = read_annotations(annotations, skeleton=skeleton, category=category)
    write_json(out, detector_like(people, seed=seed, detector=detector, images=images))
    return Path(out)


def _size(people: Annotations, image: int, folder: str | Path | None) -> np.ndarray | None:
    """Return width and height (2,) of an image; None if only its file states them and it is skipped."""
    if people.sizes[image].all():
        return people.sizes[image].astype(float)
    if folder is None:
        raise ArgumentError(
            f"{people.path}: image {people.image_ids[image]} must have a width and a height, got "
            f"{people.sizes[image].tolist()}; name the folder of the images to take them from there"
        )
    path = ImageFolder(folder).find(people.file_names[image])
    try:
        if path is None:
            raise FileNotFoundError(f"image not found: {Path(folder) / people.file_names[image]}")
        return np.array(read_size(path), float)
    except (OSError, ValueError) as error:
        skip(people.file_names[image], str(error).removeprefix(f"{path}: "))
        return None


def _image_boxes(
    rng: np.random.Generator, size: np.ndarray, people: list[tuple[np.ndarray, float]], detector: DetectorLike
) -> list[tuple[np.ndarray, float]]:
    found = []
    for truth, hidden in people:
        if truth[2] < 1 or truth[3] < 1:
            continue
        difficulty = _difficulty(truth, hidden, size)
        if rng.random() < detector.misses * (1 + 7 * difficulty):
            continue
        found.append(_seen(rng, size, truth, detector.jitter * (1 + difficulty), difficulty))
        if rng.random() < detector.duplicates:
            box, score = _seen(rng, size, truth, 3 * detector.jitter, difficulty)
            found.append((box, score * rng.uniform(0.2, 0.7)))
    for _ in range(rng.poisson(detector.background)):
        height = size[1] * rng.uniform(0.08, 0.7)
        extent = np.minimum([height * rng.uniform(0.25, 0.9), height], size)
        box = np.concatenate([rng.uniform(0, 1, 2) * (size - extent), extent])
        found.append((box, rng.beta(1.2, 7.0)))
    return found


def _difficulty(box: np.ndarray, hidden: float, size: np.ndarray) -> float:
    """Return the difficulty of a person: 0 if large with all keypoints, 1 if tiny or hidden."""
    return float(np.clip(0.6 * hidden + 0.8 * np.exp(-(box[3] / size[1]) / 0.12), 0, 1))


def _seen(
    rng: np.random.Generator, size: np.ndarray, truth: np.ndarray, jitter: float, difficulty: float
) -> tuple[np.ndarray, float]:
    """Return a box of a person, and its score."""
    center = truth[:2] + truth[2:] / 2 + rng.normal(0, jitter, 2) * truth[2:]
    extent = truth[2:] * np.exp(rng.normal(0, jitter, 2))
    low = np.clip(center - extent / 2, 0, size - 1)
    high = np.clip(center + extent / 2, low + 1, size)
    box = np.concatenate([low, high - low])
    overlap = float(iou(to_xyxy(box[None]), to_xyxy(truth[None]))[0, 0])
    confidence = np.clip(0.98 * overlap**0.5 - 0.35 * difficulty, 0.08, 0.98)
    return box, rng.beta(18 * confidence, 18 * (1 - confidence))
