"""Skeletons: the names of a person's keypoints, their mirror pairs, and how precisely they can be placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks.arguments import is_integer, is_number
from oaks.errors import ArgumentError
from oaks.structured import read_json

SMALLEST_SIGMA = 1e-4
"""Far below any keypoint's. With sigmas of 1e-30, keypoint similarity would overflow and be 0 everywhere."""
LARGEST_SIGMA = 10.0


@dataclass(frozen=True)
class Skeleton:
    """The K keypoints of a pose.

    Attributes:
        name: what the skeleton is called, for instance "coco17".
        keypoints: K distinct names, in the order of the heatmaps.
        sigmas: K standard deviations of annotation relative to the root of a person's area, each 1e-4 to 10;
            keypoint similarity uses k = 2 sigma (COCO; equation 2 of the paper).
        pairs: (left, right) indices that exchange when the image is mirrored.
        limbs: (from, to) indices of the lines that are drawn.

    Raises:
        ArgumentError: names that repeat, a length or an index that does not fit, a sigma out of range.
    """

    name: str
    keypoints: tuple[str, ...]
    sigmas: tuple[float, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    limbs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        def refused(requirement: str, got: Any) -> ArgumentError:
            return ArgumentError(f"skeleton {str(self.name)[:64]!r}: {requirement}, got {str(got)[:128]}")

        if not isinstance(self.name, str):
            raise refused("name must be text", self.name)
        for field in ("keypoints", "sigmas", "pairs", "limbs"):
            if not isinstance(getattr(self, field), tuple | list):
                raise refused(f"{field} must be a tuple", getattr(self, field))
        count = len(self.keypoints)
        if not all(isinstance(name, str) for name in self.keypoints):
            raise refused("keypoints must be texts", self.keypoints)
        if count == 0 or len(set(self.keypoints)) != count:
            raise refused("keypoints must be distinct names", self.keypoints)
        bounded = (is_number(s) and SMALLEST_SIGMA <= s <= LARGEST_SIGMA for s in self.sigmas)
        if len(self.sigmas) != count or not all(bounded):
            raise refused(
                f"sigmas must be {count} numbers from {SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g}", self.sigmas
            )
        for field in ("pairs", "limbs"):
            for pair in getattr(self, field):
                two = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_integer, pair))
                if not two or pair[0] == pair[1] or not all(0 <= i < count for i in pair):
                    raise refused(f"{field} must hold two different indices from 0 to {count - 1} each", pair)
        paired = [i for pair in self.pairs for i in pair]
        if len(set(paired)) != len(paired):
            raise refused("pairs must hold each keypoint once at most, not in two pairs", self.pairs)

    @property
    def count(self) -> int:
        """The number of keypoints, K."""
        return len(self.keypoints)

    @property
    def mirror(self) -> np.ndarray:
        """(K,) int: the keypoint that each keypoint becomes in a mirrored image."""
        order = np.arange(self.count)
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return order

    def side(self, keypoint: int) -> str:
        """ "left", "right" or "middle": the side of the person that a keypoint is on."""
        for left, right in self.pairs:
            if keypoint == left:
                return "left"
            if keypoint == right:
                return "right"
        return "middle"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, as from_dict takes them."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "sigmas": list(self.sigmas),
            "pairs": [list(pair) for pair in self.pairs],
            "limbs": [list(limb) for limb in self.limbs],
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Skeleton:
        """Make a skeleton from plain data.

        Raises:
            ArgumentError: a field is missing, unknown, or its content does not fit.
        """
        if not isinstance(content, Mapping):
            raise ArgumentError(f"skeleton must be an object, got {str(content)[:64]}")
        known = {"name", "keypoints", "sigmas", "pairs", "limbs"}
        required = {"name", "keypoints", "sigmas"}
        if unknown := set(content) - known:
            raise ArgumentError(f"skeleton: unknown fields {sorted(unknown)}; known are {sorted(known)}")
        if missing := required - set(content):
            raise ArgumentError(f"skeleton: fields {sorted(missing)} are missing")
        plain = dict(content)
        for field in known & set(content):
            if isinstance(content[field], list):
                plain[field] = tuple(tuple(v) if isinstance(v, list) else v for v in content[field])
        return cls(**plain)

    @classmethod
    def from_json(cls, path: str | Path) -> Skeleton:
        """Read a skeleton from a JSON file of the form that to_dict gives.

        Raises:
            ArgumentError: the file's content is not a skeleton; the message names the file.
        """
        content = read_json(path)
        try:
            return cls.from_dict(content)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"{path}: {error}") from error


COCO17 = Skeleton(
    name="coco17",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
    pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    limbs=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
)  # fmt: skip
"""COCO's 17 keypoints, with the sigmas of its evaluation."""
