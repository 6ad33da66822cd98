"""Gradient-boosted trees (LightGBM), fitted reproducibly and turned into plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oaks import ops
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.forks import inherited
from oaks.ops import Forest


@dataclass(frozen=True)
class Settings:
    """Settings of the trees. The defaults were chosen by cross-validation over images of training people.

    Attributes:
        trees: number of trees per model.
        random_thresholds: whether similarity trees draw each threshold at random and choose the best feature (extremely
            randomized trees; Geurts et al., Machine Learning 63, 2006). Visibility trees always try every threshold:
            random thresholds predicted held-out similarity better and held-out visibility worse.
        leaves: maximum number of leaves of a tree, at most 32.
        rate: learning rate.
        feature_fraction: share of the features that a tree may use.
        least: minimum number of keypoints in a leaf; it is lowered for few people.
        folds: number of parts into which the images are divided for out-of-fold predictions.
        seed: random seed of the trees and of the folds.
        threads: CPU threads; the fitted trees do not depend on it.
    """

    trees: int = 300
    random_thresholds: bool = True
    leaves: int = 24
    rate: float = 0.06
    feature_fraction: float = 0.4
    least: int = 40
    folds: int = 5
    seed: int = 0
    threads: int = 1


CHOSEN = Settings()


@dataclass(frozen=True)
class Examples:
    """Training examples: N people with K keypoints.

    Attributes:
        features: (N, K, F) float32.
        similarity: (N, K) true keypoint similarity; only labeled keypoints count.
        labeled: (N, K) bool.
        images: (N,) image of each person, for folds.
        known: (N,) bool, poses of annotated people, to fit to; the others are only predicted.
    """

    features: np.ndarray
    similarity: np.ndarray
    labeled: np.ndarray
    images: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


def fit_forests(
    examples: Examples, settings: Settings, rows: np.ndarray | None = None
) -> tuple[Forest, Forest]:
    """Fit keypoint similarity (labeled keypoints only) and visibility (all keypoints), both with cross entropy.

    Args:
        examples: the people.
        settings: settings of the trees.
        rows: (N,) bool, known people to fit to; None: all.

    Raises:
        BackendUnavailable: LightGBM is not installed.
    """
    chosen = examples.known if rows is None else examples.known & rows
    labeled = examples.labeled & chosen[:, None]
    similarity = _fit(
        examples.features[labeled], examples.similarity[labeled], settings, settings.random_thresholds
    )
    every = examples.features[chosen].reshape(-1, examples.features.shape[2])
    visibility = _fit(every, examples.labeled[chosen].ravel().astype(np.float32), settings, False)
    return similarity, visibility


Fit = Callable[[np.ndarray | None], tuple[Forest, Forest]]
"""Function that fits forests of similarity and visibility to the people in `rows`, (N,) bool; None: all."""


def out_of_fold(
    examples: Examples, settings: Settings, fit: Fit | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Predict every person with forests fitted to people in other images.

    Args:
        examples: the people.
        settings: settings of the folds and the trees.
        fit: function that fits forests; None: fit_forests.

    Yields, fold by fold: rows (n,), predicted similarity (n, K) and visibility (n, K).
    """
    fold = folds_of(examples.images, settings.folds, settings.seed)
    for number in range(settings.folds):
        rows, others = np.flatnonzero(fold == number), fold != number
        similarity, visibility = fit(others) if fit else fit_forests(examples, settings, others)
        features = examples.features[rows]
        yield rows, ops.forest(features, similarity), ops.forest(features, visibility)


def folds_of(images: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold (N,) of each person; all people of an image are in one fold.

    Raises:
        ArgumentError: there are fewer images than folds.
    """
    names, image = np.unique(images, return_inverse=True)
    if len(names) < folds:
        raise ArgumentError(f"images must be at least {folds}, one for each fold, got {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % folds)[image]


def _fit(rows: np.ndarray, targets: np.ndarray, settings: Settings, random_thresholds: bool) -> Forest:
    lightgbm = _lightgbm()
    parameters = {
        "objective": "cross_entropy",
        "num_leaves": settings.leaves,
        "learning_rate": settings.rate,
        "feature_fraction": settings.feature_fraction,
        "extra_trees": random_thresholds,
        # With 4,000 people, a leaf of 40 keypoints holds 1 in 1,700; with 100 people hardly any split would remain.
        "min_data_in_leaf": min(settings.least, max(5, len(rows) // 200)),
        "num_threads": settings.threads,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(rows, np.asarray(targets, np.float32), params={"verbosity": -1})
    booster = lightgbm.train(parameters, data, settings.trees)
    return to_forest(booster.dump_model(), rows.shape[1])


def _lightgbm() -> Any:
    if inherited("lightgbm"):
        raise BackendUnavailable(
            "LightGBM was loaded before this process was forked, so its threads do not run here; start processes with "
            "multiprocessing's method 'spawn'"
        )
    try:
        import lightgbm
    except ImportError as error:
        raise BackendUnavailable(
            f"fitting a scorer needs LightGBM: {error}; `pip install 'oaks[fit]'`"
        ) from error
    return lightgbm


def to_forest(model: Mapping[str, Any], features: int) -> Forest:
    """Convert a LightGBM model of numeric features, as `dump_model` returns it, to arrays.

    Thresholds are rounded down to float32, which gives the same decision for every float32 feature.

    Raises:
        ArgumentError: a split has another form than `feature <= threshold`.
    """
    roots: list[int] = []
    splits: list[tuple[int, float, list[int]]] = []
    leaves: list[float] = []

    def add(node: Mapping[str, Any]) -> int:
        if "leaf_value" in node:
            leaves.append(node["leaf_value"])
            return -len(leaves)
        if node["decision_type"] != "<=" or node["missing_type"] != "None":
            raise ArgumentError(
                f"model must split by <= without missing values, got {node['decision_type']!r}"
            )
        number, children = len(splits), [0, 0]
        splits.append((node["split_feature"], node["threshold"], children))
        children[0], children[1] = add(node["left_child"]), add(node["right_child"])
        return number

    for tree in model["tree_info"]:
        roots.append(add(tree["tree_structure"]))
    children = np.array([child for _, _, child in splits], np.int32).reshape(-1, 2)
    return Forest(
        features=features,
        roots=np.array(roots, np.int32),
        feature=np.array([feature for feature, _, _ in splits], np.int32),
        threshold=_rounded_down(np.array([threshold for _, threshold, _ in splits], float)),
        left=children[:, 0].copy(),
        right=children[:, 1].copy(),
        leaves=np.array(leaves, np.float32),
    )


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest).astype(np.float32)


__all__ = ["Examples", "Fit", "Settings", "fit_forests", "folds_of", "out_of_fold", "to_forest"]
