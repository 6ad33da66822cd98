"""Boosted trees as plain arrays: how a scorer is stored and evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_NODES = 2_000_000
"""Most splits or leaves that a forest may have; a file that states more is refused."""


@dataclass(frozen=True, eq=False)
class Forest:
    """T binary trees over F features; a prediction is the sigmoid of the sum of one leaf of each tree.

    A split sends a row to `left` if its feature is at most the threshold, else to `right`. A child of 0 or more
    is a split's index, a negative one, -1 - leaf, a leaf's. Children of a split have larger indices than itself.

    Attributes:
        features: F, how many features a row has.
        roots: (T,) int32, where each tree begins, coded like a child.
        feature: (S,) int32, the feature that each split looks at.
        threshold: (S,) float32.
        left, right: (S,) int32.
        leaves: (L,) float32, in logits.
    """

    features: int
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaves: np.ndarray

    def __post_init__(self) -> None:
        splits, leaves = len(self.feature), len(self.leaves)
        if not (len(self.threshold) == len(self.left) == len(self.right) == splits):
            raise ValueError("forest: feature, threshold, left and right must have one length")
        if max(splits, leaves) > MOST_NODES:
            raise ValueError(f"forest must have at most {MOST_NODES} splits, got {splits}")
        if splits and not (self.feature.min() >= 0 and self.feature.max() < self.features):
            raise ValueError(
                f"forest: feature must be from 0 to {self.features - 1}, got {self.feature.max()}"
            )
        numbers = np.arange(splits)
        for name, child, above in (
            ("roots", self.roots, -1),
            ("left", self.left, numbers),
            ("right", self.right, numbers),
        ):
            inner = child >= 0
            fits = np.where(inner, (child > above) & (child < splits), -1 - child < leaves)
            if not fits.all():
                raise ValueError(f"forest: {name} must name later splits or leaves, got {child[~fits][0]}")
        if not (np.isfinite(self.threshold).all() and np.isfinite(self.leaves).all()):
            raise ValueError("forest: thresholds and leaves must be finite")

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities (...,) float32 of rows (..., F) float32.

        Raises:
            ValueError: the rows have another number of features.
        """
        if rows.shape[-1] != self.features:
            raise ValueError(f"rows must have {self.features} features, got {rows.shape[-1]}")
        flat = np.ascontiguousarray(rows, np.float32).reshape(-1, self.features)
        total = np.zeros(len(flat))
        every = np.arange(len(flat))
        for root in self.roots:
            node = np.full(len(flat), root)
            while (inner := np.flatnonzero(node >= 0)).size:
                at = node[inner]
                goes_left = flat[every[inner], self.feature[at]] <= self.threshold[at]
                node[inner] = np.where(goes_left, self.left[at], self.right[at])
            total += self.leaves[-1 - node]
        return (0.5 * np.tanh(0.5 * total) + 0.5).astype(np.float32).reshape(rows.shape[:-1])

    def to_dict(self) -> dict[str, Any]:
        """What from_dict takes: plain lists and numbers, exact to the last bit."""
        return {
            "roots": self.roots.tolist(),
            "feature": self.feature.tolist(),
            "threshold": [_shortest(value) for value in self.threshold],
            "left": self.left.tolist(),
            "right": self.right.tolist(),
            "leaves": [_shortest(value) for value in self.leaves],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], features: int) -> Forest:
        """A forest from plain data.

        Raises:
            ValueError: a field is missing, or its content is no forest.
        """
        kinds = {"roots": np.int32, "feature": np.int32, "threshold": np.float32, "left": np.int32,
                 "right": np.int32, "leaves": np.float32}  # fmt: skip
        arrays = {}
        for name, kind in kinds.items():
            values = content.get(name) if isinstance(content, Mapping) else None
            plain = int if kind is np.int32 else (int, float)
            if not isinstance(values, list) or not all(
                isinstance(v, plain) and abs(v) < 2**31 for v in values
            ):
                raise ValueError(f"forest: {name} must be a list of numbers")
            arrays[name] = np.array(values, kind)
        return cls(features=features, **arrays)


def _shortest(value: np.float32) -> float:
    """The number with the fewest digits that is this float32 once it is read again."""
    return float(str(value))


__all__ = ["Forest"]
