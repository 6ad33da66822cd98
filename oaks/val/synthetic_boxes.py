"""Detector-like person boxes made from the ground truth, where no detector's boxes for the people exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks.coco import person_category
from oaks.files import write_json


@dataclass(frozen=True)
class DetectorLike:
    """How the made-up detector errs.

    Attributes:
        jitter: standard deviation of a box's centre, and of the logarithm of its sides, relative to its size.
        misses: chance to miss a large, unoccluded person; up to eight times that for small or heavily
            occluded ones.
        duplicates: chance to find a person a second time, with a looser box.
        background: mean number of boxes per image where nobody is.
    """

    jitter: float = 0.05
    misses: float = 0.02
    duplicates: float = 0.08
    background: float = 0.7


def detector_like(
    content: dict[str, Any], *, seed: int = 0, detector: DetectorLike | None = None
) -> list[dict[str, Any]]:
    """COCO box results (image_id, category_id, bbox, score) that a person detector might give.

    Everybody is looked for, with or without keypoints; crowds are not. The score of a box grows with its
    overlap with the person, falls with occlusion and small size, and is low for boxes on the background. The
    boxes of an image depend on the seed, the image's id and its people alone.

    Args:
        content: COCO keypoint annotations with the images' width and height.
        seed: of all chance.
        detector: how it errs; None takes the defaults.
    """
    detector = detector or DetectorLike()
    category = person_category(content)
    people: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd", 0) and annotation.get("category_id", category) == category:
            people.setdefault(annotation["image_id"], []).append(annotation)
    rows = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        rng = np.random.default_rng([seed, image["id"]])
        size = np.array([image["width"], image["height"]], dtype=float)
        for box, score in _image_boxes(rng, size, people.get(image["id"], []), detector):
            rows.append(
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": np.round(box, 2).tolist(),
                    "score": round(float(score), 4),
                }
            )
    return rows


def write_detector_like(
    annotations: str | Path, out: str | Path, *, seed: int = 0, detector: DetectorLike | None = None
) -> Path:
    """Write the detector-like boxes of a COCO annotation file as COCO box results; return their path."""
    content = json.loads(Path(annotations).read_text(encoding="utf-8"))
    write_json(out, detector_like(content, seed=seed, detector=detector))
    return Path(out)


def _image_boxes(
    rng: np.random.Generator, size: np.ndarray, people: list[dict[str, Any]], detector: DetectorLike
) -> list[tuple[np.ndarray, float]]:
    found = []
    for person in people:
        truth = np.array(person["bbox"], dtype=float)
        if truth[2] < 1 or truth[3] < 1:
            continue
        difficulty = _difficulty(person, size)
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


def _difficulty(person: dict[str, Any], size: np.ndarray) -> float:
    """0 for a large person with all keypoints, 1 for a tiny or hidden one."""
    flags = person.get("keypoints", [0, 0, 0])[2::3]
    hidden = 1 - sum(flag > 0 for flag in flags) / len(flags)
    height = person["bbox"][3] / size[1]
    return float(np.clip(0.6 * hidden + 0.8 * np.exp(-height / 0.12), 0, 1))


def _seen(
    rng: np.random.Generator, size: np.ndarray, truth: np.ndarray, jitter: float, difficulty: float
) -> tuple[np.ndarray, float]:
    """A box for a person, and its score."""
    center = truth[:2] + truth[2:] / 2 + rng.normal(0, jitter, 2) * truth[2:]
    extent = truth[2:] * np.exp(rng.normal(0, jitter, 2))
    low = np.clip(center - extent / 2, 0, size - 1)
    high = np.clip(center + extent / 2, low + 1, size)
    box = np.concatenate([low, high - low])
    confidence = np.clip(0.98 * _overlap(box, truth) ** 0.5 - 0.35 * difficulty, 0.08, 0.98)
    return box, rng.beta(18 * confidence, 18 * (1 - confidence))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x, y, width, height."""
    shared = np.clip(np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / (a[2:].prod() + b[2:].prod() - shared))
