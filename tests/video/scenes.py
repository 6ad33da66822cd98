"""Synthetic poses: a standing figure, moved around, with given scores."""

from __future__ import annotations

import numpy as np

from oaks import COCO17, Poses

STANDING = np.array([
    (0, -80), (3, -83), (-3, -83), (7, -82), (-7, -82), (18, -60), (-18, -60), (24, -35), (-24, -35),
    (26, -10), (-26, -10), (11, -8), (-11, -8), (12, 32), (-12, 32), (12, 70), (-12, 70),
], np.float64)  # fmt: skip
"""(17, 2) pixels around the body's middle: 52 wide and 153 high."""


def people(
    centers: np.ndarray | list,
    *,
    oaks: float | list = 0.9,
    conventional: float | list = 0.8,
    visibility: np.ndarray | float = 0.95,
    similarity: np.ndarray | float = 0.9,
    scale: float = 1.0,
    noise: np.ndarray | float = 0.0,
    track_ids: list | None = None,
    score_kind: str = "oaks",
) -> Poses:
    """Return poses of standing people at centers (N, 2)."""
    centers = np.asarray(centers, np.float64).reshape(-1, 2)
    count = len(centers)
    keypoints = centers[:, None] + scale * STANDING + noise
    low, high = keypoints.min(axis=1), keypoints.max(axis=1)
    full = np.ones((count, 17))
    return Poses(
        keypoints=keypoints,
        visibility=full * visibility,
        similarity=full * similarity,
        heat=full * np.reshape(conventional, (-1, 1)),
        oaks_scores=np.ones(count) * oaks,
        conventional_scores=np.ones(count) * conventional,
        scores=np.ones(count) * oaks,
        boxes=np.concatenate([low - 10, high + 10], axis=1).reshape(-1, 4),
        box_scores=np.ones(count),
        frame_index=np.zeros(count),
        track_ids=track_ids,
        skeleton=COCO17,
        score_kind=score_kind,
    )
