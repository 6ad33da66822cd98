"""Synthetic people and detections: seeded, with every kind of mistake that a pose network makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from oaks.skeleton import COCO17, Skeleton

STANDING = np.array(
    [(50, 10), (53, 7), (47, 7), (57, 9), (43, 9), (65, 28), (35, 28), (70, 48), (30, 48), (72, 66), (28, 66),
     (60, 66), (40, 66), (61, 92), (39, 92), (62, 118), (38, 118)], dtype=float,
)  # fmt: skip
"""A pose in a box of 100 x 125, nose to ankles in COCO's order."""


def annotations(
    seed: int, images: int = 12, skeleton: Skeleton = COCO17, reduced: bool = False
) -> dict[str, Any]:
    """A COCO dictionary: people of all sizes and occlusion levels, a few crowds, and boxes without keypoints."""
    rng = np.random.default_rng(seed)
    pictures, people = [], []
    for image_id in range(1, images + 1):
        picture = {"id": image_id * 7, "width": 512, "height": 384, "file_name": f"{image_id * 7:012}.jpg"}
        if reduced:
            picture |= {"orig_width": 640, "orig_height": 480}
        pictures.append(picture)
        for _ in range(rng.integers(1, 6)):
            people.append(_person(rng, image_id * 7, len(people) + 1, skeleton.count))
    return {
        "images": pictures,
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}],
    }


def write_images(content: dict[str, Any], folder: Path) -> Path:
    """Write a picture of noise for every image, in a new folder unless it exists, and return the folder."""
    folder.mkdir(exist_ok=True)
    for image in content["images"]:
        noise = np.random.default_rng(image["id"]).integers(0, 255, (384, 512, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / image["file_name"]), noise)
    return folder


def _person(rng: np.random.Generator, image_id: int, annotation_id: int, count: int) -> dict[str, Any]:
    size = rng.choice([0.15, 0.5, 0.9, 2.0])
    corner = rng.uniform(0, 200, 2)
    pose = STANDING[np.arange(count) % 17] * size + corner
    pose = np.round(pose + rng.normal(0, 2 * size, (count, 2)), 1)
    kind = rng.random()
    labeled = np.zeros(count, bool)
    if kind > 0.1:
        labeled[rng.permutation(count)[: rng.integers(1, count + 1)]] = True
    flags = np.where(labeled, rng.choice([1, 2], count, p=[0.3, 0.7]), 0)
    points = np.concatenate([pose * labeled[:, None], flags[:, None]], axis=1)
    box = [*np.round(corner, 2).tolist(), round(100 * size, 2), round(125 * size, 2)]
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "keypoints": points.ravel().tolist(),
        "num_keypoints": int(labeled.sum()),
        "bbox": box,
        "area": round(0.53 * box[2] * box[3], 2),
        "iscrowd": int(kind < 0.03),
    }


def detections(
    content: dict[str, Any],
    seed: int,
    *,
    boxes: str = "ground truth",
    noise: float = 0.05,
    skeleton: Skeleton = COCO17,
) -> list[dict[str, Any]]:
    """Rows of a results file as a network would give them.

    Hidden keypoints are less exact and have low heat; unlabeled ones lie anywhere near, with hardly any. Similarity is
    the true one with noise. With detected boxes some people are missed, some are found twice, and some boxes are false.
    """
    rng = np.random.default_rng(seed)
    sigmas = np.array(skeleton.sigmas)
    rows = []
    for person in content["annotations"]:
        if person["num_keypoints"] == 0:
            continue
        repeats = 1 if boxes == "ground truth" else int(rng.choice([0, 1, 2], p=[0.1, 0.8, 0.1]))
        for _ in range(repeats):
            rows.append(_detection(rng, person, sigmas, noise))
            if boxes == "ground truth":
                rows[-1]["annotation_id"] = person["id"]
            else:
                rows[-1]["box_score"] = round(rng.uniform(0.3, 1.0), 3)
        if boxes == "detected" and rng.random() < 0.1:
            rows.append(_detection(rng, person, sigmas, 3.0))
            rows[-1]["box_score"] = round(rng.uniform(0.05, 0.4), 3)
    for row in rows:
        oaks = np.average(row["similarity"], weights=row["visibility"])
        row["score"] = float(oaks * row.get("box_score", 1.0))
    return rows


def _detection(rng: np.random.Generator, person: dict, sigmas: np.ndarray, noise: float) -> dict[str, Any]:
    count = len(sigmas)
    truth = np.array(person["keypoints"]).reshape(count, 3)
    x, y, w, h = person["bbox"]
    flags = truth[:, 2]
    worse = np.where(flags == 2, 1.0, np.where(flags == 1, 3.0, 20.0)) * rng.lognormal(0, 0.8)
    center = np.where(flags[:, None] > 0, truth[:, :2], [x + w / 2, y + h / 2])
    points = np.round(
        center + rng.normal(0, 1, (count, 2)) * (noise * worse * np.sqrt(w * h) / 4)[:, None], 2
    )
    if rng.random() < 0.1 and count == 17:
        points = points[COCO17.mirror]
    distance = ((points - truth[:, :2]) ** 2).sum(axis=1)
    true = np.exp(-distance / (2 * person["area"] * (2 * sigmas) ** 2)) * (flags > 0)
    heat = np.clip(np.choose(flags.astype(int), [0.15, 0.45, 0.8]) + rng.normal(0, 0.15, count), 0.01, 1.1)
    visibility = np.clip(
        np.choose(flags.astype(int), [0.15, 0.8, 0.93]) + rng.normal(0, 0.15, count), 0.01, 0.99
    )
    similarity = np.clip(0.15 + 0.7 * true + rng.normal(0, 0.12, count), 0.01, 0.99)
    return {
        "image_id": person["image_id"],
        "category_id": 1,
        "keypoints": np.column_stack([points, similarity * visibility]).round(4).ravel().tolist(),
        "box": person["bbox"],
        "heat": heat.round(4).tolist(),
        "visibility": visibility.round(4).tolist(),
        "similarity": similarity.round(4).tolist(),
    }
