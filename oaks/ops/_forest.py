"""Gradient-boosted trees, evaluated natively."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT32,
    INT32,
    float_array,
    input_array,
    is_device_array,
    output_array,
    prepare_run,
)

MAX_FOREST_NODES = 1 << 20
"""Maximum splits, leaves or trees of a forest."""
MAX_FOREST_FEATURES = 1 << 16
"""Maximum features of a row."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Binary trees over rows of features; a prediction is the sigmoid of the sum of one leaf of each tree.

    A row goes to a split's `left` child if its feature is at most the threshold, else to `right`; NaN goes where
    nan_left says. A child of 0 or more is the index of a split, a negative one is -1 - the index of a leaf. Children
    come after their split, and every split and leaf belongs to one tree, so that no forest can loop. A tree has at
    most 32 leaves.

    The arrays are copied, checked once, and read-only from then on.

    Attributes:
        features: number of features of a row.
        roots: (T,) int32, where each tree begins, coded like a child.
        feature: (S,) int32, the feature that each split looks at.
        threshold: (S,) float32. A float64 threshold decides alike for float32 features once it is rounded down.
        left, right: (S,) int32.
        leaves: (L,) float32, in logits.
        nan_left: (S,) bool; all False by default.

    Raises:
        ArgumentError: the arrays do not describe such trees.
    """

    features: int
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaves: np.ndarray
    nan_left: np.ndarray | None = None
    arrays: ForestArrays = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.features, int) or not 1 <= self.features <= MAX_FOREST_FEATURES:
            raise ArgumentError(
                f"features must be an integer from 1 to {MAX_FOREST_FEATURES}, got {self.features!r}"
            )
        splits = self._keep("feature", np.int32, None)
        for name, dtype in (("threshold", np.float32), ("left", np.int32), ("right", np.int32)):
            self._keep(name, dtype, splits)
        if self.nan_left is None:
            object.__setattr__(self, "nan_left", np.zeros(splits, bool))
        self._keep("nan_left", np.bool_, splits)
        leaves = self._keep("leaves", np.float32, None)
        self._keep("roots", np.int32, None)
        for name in ("threshold", "leaves"):
            if not np.isfinite(getattr(self, name)).all():
                first = next(value for value in getattr(self, name).tolist() if not np.isfinite(value))
                raise ArgumentError(f"{name} must be finite, got {first}")
        outside = (self.feature < 0) | (self.feature >= self.features)
        if outside.any():
            raise ArgumentError(
                f"feature must be from 0 to {self.features - 1}, got {self.feature[outside][0]}"
            )
        self._check_trees(splits, leaves)
        object.__setattr__(self, "arrays", self._arranged())

    def _keep(self, name: str, dtype: Any, length: int | None) -> int:
        """Replace an attribute by a read-only copy of its exact numbers, and return its length."""
        given = np.asarray(getattr(self, name))
        if given.ndim != 1 or (length is not None and len(given) != length):
            expected = "(any)" if length is None else f"({length},)"
            raise ArgumentError(f"{name} must have shape {expected}, got {given.shape}")
        if len(given) > MAX_FOREST_NODES:
            raise ArgumentError(f"{name} must have at most {MAX_FOREST_NODES} entries, got {len(given)}")
        kinds = {"i": "iu", "f": "iuf", "b": "b"}[np.dtype(dtype).kind]
        if len(given) and given.dtype.kind not in kinds:
            raise ArgumentError(f"{name} must be {np.dtype(dtype)}, got {given.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):
            kept = given.astype(dtype)
        if kept.dtype.kind == "i" and not np.array_equal(kept, given):
            raise ArgumentError(
                f"{name} must hold integers that fit {np.dtype(dtype)}, got {given.dtype} with others"
            )
        kept.flags.writeable = False
        object.__setattr__(self, name, kept)
        return len(kept)

    def _check_trees(self, splits: int, leaves: int) -> None:
        if not len(self.roots):
            raise ArgumentError("roots must name at least one tree, got none")
        numbers = np.arange(splits)
        for name, earliest in (("roots", 0), ("left", numbers + 1), ("right", numbers + 1)):
            child = getattr(self, name)
            fits = np.where(child >= 0, (child >= earliest) & (child < splits), child >= -leaves)
            if not fits.all():
                raise ArgumentError(
                    f"{name} must name later splits or leaves of {splits} splits and {leaves} leaves, "
                    f"got {child[~fits][0]}"
                )
        named = np.concatenate([self.roots, self.left, self.right])
        for what, count, of_them in (
            ("split", splits, named[named >= 0]),
            ("leaf", leaves, -1 - named[named < 0]),
        ):
            times = np.bincount(of_them, minlength=count)
            if (times != 1).any():
                first = int((times != 1).argmax())
                raise ArgumentError(
                    f"every {what} must have one parent, got {times[first]} for {what} {first}"
                )

    def _arranged(self) -> ForestArrays:
        """Return the arrays that the native operation reads: a tree's splits together, its leaves numbered from the left."""
        left, right, splits = self.left.tolist(), self.right.tolist(), len(self.left)
        size = [1] * splits  # leaves below each split
        for split in reversed(range(splits)):
            size[split] = sum(size[child] if child >= 0 else 1 for child in (left[split], right[split]))
        tree, place = [0] * splits, [0] * splits  # place: the number of the first leaf below
        tree_of_leaf, place_of_leaf = [0] * len(self.leaves), [0] * len(self.leaves)
        stay = np.zeros(splits, np.uint32)

        def put(child: int, into: int, at: int) -> None:
            trees, places = (tree, place) if child >= 0 else (tree_of_leaf, place_of_leaf)
            index = child if child >= 0 else -1 - child
            trees[index], places[index] = into, at

        for number, root in enumerate(self.roots.tolist()):
            if root >= 0 and size[root] > native.max_tree_leaves:
                raise ArgumentError(
                    f"trees must have at most {native.max_tree_leaves} leaves, got {size[root]} in tree {number}"
                )
            put(root, number, 0)
        for split in range(splits):
            on_the_left = size[left[split]] if left[split] >= 0 else 1
            stay[split] = 0xFFFFFFFF & ~(((1 << on_the_left) - 1) << place[split])
            put(left[split], tree[split], place[split])
            put(right[split], tree[split], place[split] + on_the_left)

        assert self.nan_left is not None
        order, order_of_leaves = np.argsort(tree, kind="stable"), np.lexsort((place_of_leaf, tree_of_leaf))
        packed = np.stack(
            [
                self.feature,
                self.threshold.view(np.int32),
                stay.view(np.int32),
                self.nan_left.astype(np.int32),
            ],
            axis=1,
        )[order]
        first = np.arange(len(self.roots) + 1)
        starts = [np.searchsorted(np.sort(of), first) for of in (tree, tree_of_leaf)]
        arranged = (
            np.ascontiguousarray(packed),
            np.stack(starts, axis=1).astype(np.int32),
            self.leaves[order_of_leaves],
        )
        for array in arranged:
            array.flags.writeable = False
        return ForestArrays(self.features, *arranged)

    def to_device(self, upload: Callable[[np.ndarray], Any]) -> ForestArrays:
        """Copy the forest to a CUDA device.

        Args:
            upload: copies a NumPy array to a device array, such as cupy.asarray or pycuda.gpuarray.to_gpu.
        """
        host = self.arrays
        # Trees of one leaf have no splits, and some libraries no arrays of size 0.
        splits = host.splits if len(host.splits) else np.zeros((1, 4), np.int32)
        return ForestArrays(host.features, upload(splits), upload(host.trees), upload(host.leaves))


@dataclass(frozen=True, eq=False)
class ForestArrays:
    """A checked forest as the native operation reads it, in host memory or on a CUDA device.

    Attributes:
        features: number of features of a row.
        splits: (S, 4) int32 feature, bits of the threshold, bit mask of the leaves that are possible
            for rows that go right, whether NaN goes left; tree by tree.
        trees: (T + 1, 2) int32, indices of each tree's first split and first leaf.
        leaves: (L,) float32, tree by tree, from left to right.
    """

    features: int
    splits: Any
    trees: Any
    leaves: Any


def forest(features: Any, model: Forest | ForestArrays, *, out: Any = None, stream: int | None = None) -> Any:
    """Evaluate boosted trees for every keypoint of N people.

    Args:
        features: (N, K, F) float32.
        model: the trees, over F features; for features on a device, the result of Forest.to_device.
        out: (N, K) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N, K) float32, 0 to 1: the sigmoid of the sum, in float64, of the trees' leaves.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(features)
    if not isinstance(model, ForestArrays if on_device else Forest):
        expected = (
            "the result of ops.Forest.to_device, for features on a device" if on_device else "an ops.Forest"
        )
        raise ArgumentError(f"model must be {expected}, got {type(model).__name__}")
    arrays = model if isinstance(model, ForestArrays) else model.arrays
    rows = float_array("features", features, (None, None, arrays.features), on_device=on_device)
    splits = input_array("model", arrays.splits, (INT32,), (None, 4), on_device=on_device)
    trees = input_array("model", arrays.trees, (INT32,), (None, 2), on_device=on_device)
    leaves = input_array("model", arrays.leaves, (FLOAT32,), (None,), on_device=on_device)
    values = output_array("values", out, FLOAT32, rows.shape[:2], on_device=on_device)

    module, run = prepare_run([values], [rows, splits, trees, leaves], stream)
    module.forest(
        rows.address, splits.address, trees.address, leaves.address, values.address,
        rows.shape[0] * rows.shape[1], arrays.features, trees.shape[0] - 1, run,
    )  # fmt: skip
    return values.owner
