"""Features of an estimator's results, from which a scorer predicts keypoint similarity and visibility (oaks.scorer).

The features of one pose are oaks.ops.pose_features without those of the picture, whose size is not in the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oaks import ops
from oaks.boxes import FARTHEST
from oaks.coco_fields import are_numbers, box_fields
from oaks.errors import ArgumentError
from oaks.skeleton import Skeleton

BOX_OF_KEYPOINTS = 1.2
"""Sides of the box of a person that has none, as a multiple of the extent of the keypoints."""
SMALLEST_BOX = 8.0
"""Shortest side in pixels of a box around keypoints, before it is enlarged."""


def feature_names(keypoints: int, *, second_opinion: bool = False) -> tuple[str, ...]:
    """Return the features of results with K keypoints, in order."""
    names = [name for name in ops.feature_names(keypoints, maps=False) if not name.startswith("frame_")]
    return (*names, *(ops.SECOND_FEATURES if second_opinion else ()))


def map_feature_names(keypoints: int, *, second_opinion: bool = False) -> tuple[str, ...]:
    """Return the features of poses and heatmaps averaged over the flip, in order."""
    names = ops.feature_names(keypoints, maps=True, mirrored=True)
    return (*names, *(ops.SECOND_FEATURES if second_opinion else ()))


def results_features(
    skeleton: Skeleton,
    keypoints: np.ndarray,
    scores: np.ndarray,
    boxes: np.ndarray,
    second: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Compute the features of N poses, (N, K, F) float32, named by `feature_names`.

    Args:
        skeleton: the K keypoints.
        keypoints: (N, K, 2) pixels.
        scores: (N, K) scores of the keypoints.
        boxes: (N, 4) x1, y1, x2, y2 in pixels.
        second: keypoints (N, K, 2) and scores (N, K) of another estimator for the same people.

    Raises:
        ArgumentError: a number is not finite, or a box has no area.
    """
    every = ops.feature_names(skeleton.count, maps=False)
    kept = [i for i, name in enumerate(every) if not name.startswith("frame_")]
    found = ops.pose_features(
        np.asarray(keypoints, np.float32),
        np.asarray(scores, np.float32),
        boxes=np.asarray(boxes, np.float32),
        frame_sizes=np.ones((len(keypoints), 2), np.float32),
        flip_pairs=skeleton.pairs,
    )[..., kept]
    found = np.ascontiguousarray(found)
    return found if second is None else with_opinion(skeleton, found, keypoints, boxes, second)


def check_rows(rows: Sequence[Mapping[str, Any]], label: str | Path) -> None:
    """Refuse malformed boxes, and coordinates and scores that are too large for float32 arithmetic.

    Args:
        rows: COCO keypoint results; they may hold `box` or `bbox`.
        label: the file in messages.

    Raises:
        ArgumentError: the message names the row.
    """

    boxes = box_fields(
        [{"box": row.get("box", row.get("bbox"))} for row in rows], lambda n: place_of(rows[n], n, label)
    )
    for number, row in enumerate(rows):
        for name, values in (("box", boxes[number]), ("keypoints", row.get("keypoints"))):
            if are_numbers(values) and np.abs(np.asarray(values)).max(initial=0) > FARTHEST:
                raise ArgumentError(
                    f"{place_of(row, number, label)}: {name} must be within {FARTHEST:g}, got {str(values)[:64]}"
                )


def place_of(row: Mapping[str, Any], number: int, label: str | Path) -> str:
    """Return what messages call a row of results."""
    return f"{label}: row {number} (image {str(row.get('image_id'))[:64]})"


def poses_of(rows: Sequence[Mapping[str, Any]], count: int, label: str | Path) -> np.ndarray:
    """Return keypoints with scores (N, K, 3) of COCO keypoint results, for K = `count`.

    Raises:
        ArgumentError: a row has other keypoints; the message names the row.
    """
    points = []
    for number, row in enumerate(rows):
        flat: Any = row.get("keypoints")
        if not are_numbers(flat) or np.shape(flat) != (3 * count,):
            raise ArgumentError(
                f"{place_of(row, number, label)}: keypoints must be {3 * count} finite numbers, got {np.size(flat)}"
            )
        points.append(flat)
    return np.array(points, float).reshape(-1, count, 3)


def second_poses(
    rows: Sequence[Mapping[str, Any]],
    chosen: Sequence[int],
    image_ids: Sequence[int],
    *,
    expected: int,
    count: int,
    label: str | Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints (N, K, 2) and scores (N, K) of a second estimator for the boxes of the first, row by row.

    Args:
        rows: COCO keypoint results of the second estimator.
        chosen: numbers of the N rows to return.
        image_ids: their images in the results of the first.
        expected: number of rows of the first.
        count: K, the number of keypoints.
        label: the file in messages.

    Raises:
        ArgumentError: the number of rows, an image or a row's keypoints are not as in the results of the first.
    """
    if len(rows) != expected:
        raise ArgumentError(
            f"{label}: second must have a row for each of the {expected} of results, got {len(rows)}"
        )
    own = [rows[n] for n in chosen]
    for row, image_id in zip(own, image_ids, strict=True):
        if row["image_id"] != image_id:
            raise ArgumentError(
                f"{label}: second must have the images of results row by row, got image {row['image_id']}"
            )
    points = poses_of(own, count, label)
    return points[..., :2], points[..., 2]


def check_scores(heat: np.ndarray, label: str | Path) -> None:
    """Refuse keypoint scores (N, K) that say nothing about single keypoints; a single score or none is not refused.

    Raises:
        ArgumentError: all are equal, or each pose has one score for all its keypoints.
    """
    if heat.size > 1 and np.ptp(heat) == 0:
        raise ArgumentError(
            f"{label}: keypoints must have scores that differ, got {heat[0, 0]:g} for every keypoint; give each "
            "keypoint the estimator's own score of it, in COCO results as its third number"
        )
    if heat.shape[1] > 1 and len(heat) > 1 and np.ptp(heat, axis=1).max() == 0:
        raise ArgumentError(
            f"{label}: keypoints must have a score each, got one score for all keypoints of each pose"
        )


def with_opinion(
    skeleton: Skeleton,
    features: np.ndarray | None,
    keypoints: np.ndarray,
    boxes: np.ndarray,
    second: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Append the features of a second estimator's keypoints and scores of the same people: oaks.ops.opinion_features."""
    return ops.opinion_features(
        features,
        np.asarray(keypoints, np.float32),
        np.asarray(second[0], np.float32),
        np.asarray(second[1], np.float32),
        boxes=np.asarray(boxes, np.float32),
        sigmas=skeleton.sigmas,
        flip_pairs=skeleton.pairs,
    )


def boxes_around(keypoints: np.ndarray) -> np.ndarray:
    """Return boxes (N, 4) x1, y1, x2, y2 that stand in for unknown ones: around keypoints (N, K, 2), enlarged by a fifth."""
    low, high = keypoints.min(axis=1), keypoints.max(axis=1)
    center = (low + high) / 2 + 0.5
    half = np.maximum(high - low, SMALLEST_BOX) / 2 * BOX_OF_KEYPOINTS
    return np.concatenate([center - half, center + half], axis=1)


__all__ = ["boxes_around", "feature_names", "map_feature_names", "results_features", "with_opinion"]
