"""Features of poses from which a scorer predicts keypoint similarity and visibility (oaks.scorer)."""

from __future__ import annotations

import numpy as np

from oaks.coco import AREA_OF_BOX
from oaks.skeleton import Skeleton

BOX_OF_KEYPOINTS = 1.2
"""Sides of a person's box, where none is known, as a multiple of those around the keypoints."""
SMALLEST_BOX = 8.0
"""Shortest side in pixels of a box around keypoints, before it is enlarged."""

_OF_PERSON = ("heat_min", "heat_q25", "heat_median", "heat_q75", "heat_max", "heat_mean", "log_size", "aspect")
_OF_KEYPOINT = (
    "type", "heat", "heat_minus_mean", "heat_rank", "x", "y", "box_x", "box_y", "to_outer", "to_inner",
    "to_top", "to_bottom", "counterpart_distance",
)  # fmt: skip
_OF_SECOND = ("second_x", "second_y", "second_distance", "second_heat", "second_heat_minus_mean")


class PoseFeatures:
    """Features of every keypoint of a pose, from keypoints, their scores and the person's box.

    Left keypoints are described in the mirrored pose, so that one model serves a keypoint and its counterpart.
    Lengths are in units of the person's scale, the square root of the box area.

    Args:
        skeleton: the K keypoints.
        second_opinion: whether another estimator's pose of the same person is described too.

    Attributes:
        names: of the F features.
    """

    def __init__(self, skeleton: Skeleton, *, second_opinion: bool = False) -> None:
        count, mirror = skeleton.count, skeleton.mirror
        self._count = count
        left = np.array([skeleton.side(k) == "left" for k in range(count)])
        self._sign = np.where(left, -1, 1).astype(np.float32)
        self._mirror = mirror
        self._order = np.where(left[:, None], mirror, np.arange(count))
        self._type = np.minimum(mirror, np.arange(count)).astype(np.float32)
        self._reach = 2 * np.sqrt(AREA_OF_BOX) * np.array(skeleton.sigmas, np.float32)
        self._second = second_opinion
        self.names: tuple[str, ...] = (
            *_OF_KEYPOINT,
            *_OF_PERSON,
            *(f"heat_of_{k}" for k in range(count)),
            *(f"x_to_{k}" for k in range(count)),
            *(f"y_to_{k}" for k in range(count)),
            *(_OF_SECOND if second_opinion else ()),
        )

    def __call__(
        self,
        keypoints: np.ndarray,
        scores: np.ndarray,
        boxes: np.ndarray,
        second: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Compute the features of N poses.

        Args:
            keypoints: (N, K, 2) pixels, finite.
            scores: (N, K) scores of the keypoints, finite.
            boxes: (N, 4) x1, y1, x2, y2 in pixels, finite.
            second: keypoints (N, K, 2) and scores (N, K) of the second opinion.

        Returns:
            (N, K, F) float32.
        """
        count, people = self._count, len(keypoints)
        heat = np.asarray(scores, np.float32)
        corners = np.asarray(boxes, np.float64)
        sides = np.maximum(corners[:, 2:] - corners[:, :2], 1.0)
        scale = np.sqrt(sides.prod(axis=1))
        centre = (corners[:, :2] + corners[:, 2:]) / 2 - 0.5
        half = (sides / scale[:, None] / 2).astype(np.float32)[:, None]
        placed = ((keypoints - centre[:, None]) / scale[:, None, None]).astype(np.float32)
        x, y = placed[..., 0] * self._sign, placed[..., 1]

        ordered = np.sort(heat, axis=1)
        at = np.array([0, count // 4, count // 2, (3 * count) // 4, count - 1])
        mean = heat.mean(axis=1, keepdims=True)
        found = np.empty((people, count, len(self.names)), np.float32)
        of_keypoint = (
            self._type, heat, heat - mean, (heat[:, :, None] > heat[:, None, :]).sum(axis=2), x, y,
            x / half[..., 0], y / half[..., 1], half[..., 0] - x, half[..., 0] + x, half[..., 1] + y, half[..., 1] - y,
            np.hypot(*np.moveaxis(placed - placed[:, self._mirror], 2, 0)),
        )  # fmt: skip
        for n, values in enumerate(of_keypoint):
            found[..., n] = values
        n = len(of_keypoint)
        found[..., n : n + 5] = ordered[:, None, at]
        found[..., n + 5] = mean
        found[..., n + 6] = np.log(scale)[:, None]
        found[..., n + 7] = (sides[:, 0] / sides[:, 1])[:, None]
        n += len(_OF_PERSON)
        found[..., n : n + count] = heat[:, self._order]
        found[..., n + count : n + 2 * count] = (
            placed[:, self._order, 0] - placed[..., 0, None]
        ) * self._sign[:, None]
        found[..., n + 2 * count : n + 3 * count] = placed[:, self._order, 1] - y[..., None]
        if self._second:
            assert second is not None
            n += 3 * count
            offset = (second[0] - keypoints) / (scale[:, None] * self._reach)[..., None]
            other = np.asarray(second[1], np.float32)
            found[..., n] = np.clip(offset[..., 0], -99, 99) * self._sign
            found[..., n + 1] = np.clip(offset[..., 1], -99, 99)
            found[..., n + 2] = np.minimum(np.hypot(offset[..., 0], offset[..., 1]), 99)
            found[..., n + 3] = other
            found[..., n + 4] = other - other.mean(axis=1, keepdims=True)
        return found


def boxes_around(keypoints: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) x1, y1, x2, y2 that stand in for unknown ones: around keypoints (N, K, 2), enlarged by a fifth."""
    low, high = keypoints.min(axis=1), keypoints.max(axis=1)
    centre = (low + high) / 2 + 0.5
    half = np.maximum(high - low, SMALLEST_BOX) / 2 * BOX_OF_KEYPOINTS
    return np.concatenate([centre - half, centre + half], axis=1)


__all__ = ["PoseFeatures", "boxes_around"]
