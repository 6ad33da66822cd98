"""Recalibrates a scorer: keeps its trees and fits two numbers for each forest.

It serves where people are too few for new trees, and for trees that were also fitted to people that the network was
trained on, whose keypoints it places better than those of others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from oaks import ops
from oaks.fit.boosting import Examples
from oaks.fit.people import People
from oaks.ops import Forest

_STEPS, _ENOUGH = 50, 1e-9
_FARTHEST = 30.0
"""Logits are clamped to this magnitude; those of trees are far below it."""


def recalibrated(
    forests: tuple[Forest, Forest], examples: Examples, rows: np.ndarray | None = None
) -> tuple[Forest, Forest]:
    """Return forests of similarity and visibility whose logits are scale * logit + bias of the given forests.

    Args:
        forests: forests of similarity and of visibility on the examples' features.
        examples: the people.
        rows: (N,) bool, known people to fit to; None: all.
    """
    found = []
    for forest, (target, counted) in zip(forests, targets_of(examples, rows), strict=True):
        logits = logits_of(ops.forest(examples.features, forest)[counted])
        found.append(scaled(forest, *fit_scale_and_bias(logits, target[counted])))
    return found[0], found[1]


def recalibrated_out_of_fold(
    forests: tuple[Forest, Forest],
    predicted: tuple[np.ndarray, np.ndarray],
    examples: Examples,
    folds: np.ndarray,
) -> tuple[tuple[Forest, Forest], tuple[np.ndarray, np.ndarray]]:
    """Recalibrate forests by predictions out of fold, and these predictions too.

    The forests take the scale and bias that fit all predictions; the predictions of a fold take those that fit the
    other folds.

    Args:
        forests: forests of similarity and of visibility, fitted to all people.
        predicted: similarity and visibility (N, K) each, as predicted out of fold for the people in `examples`.
        examples: the N people to fit to.
        folds: (N,) fold of each person.

    Returns:
        The forests, and the predictions (N, K) float32.
    """
    found, values = [], []
    for forest, prediction, (target, counted) in zip(forests, predicted, targets_of(examples), strict=True):
        logits = logits_of(prediction)
        found.append(scaled(forest, *fit_scale_and_bias(logits[counted], target[counted])))
        value = np.zeros_like(prediction)
        for fold in np.unique(folds):
            own, others = folds == fold, counted & (folds != fold)[:, None]
            scale, bias = fit_scale_and_bias(logits[others], target[others])
            value[own] = calibrated(logits[own], scale, bias)
        values.append(value)
    return (found[0], found[1]), (values[0], values[1])


def targets_of(
    examples: Examples | People, rows: np.ndarray | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the truth (N, K) and the keypoints that count (N, K), of similarity and of visibility."""
    chosen = examples.known if rows is None else examples.known & rows
    every = np.repeat(chosen[:, None], examples.labeled.shape[1], axis=1)
    return (examples.similarity, examples.labeled & every), (examples.labeled.astype(float), every)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Return logits of probabilities, bounded where these round to 0 or 1."""
    with np.errstate(divide="ignore"):
        p = np.asarray(probabilities, float)
        return (np.log(p) - np.log1p(-p)).clip(-_FARTHEST, _FARTHEST)


def calibrated(logits: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """Return the probabilities of scale * logit + bias."""
    return 1 / (1 + np.exp(-(scale * logits + bias)))


def fit_scale_and_bias(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Return scale and bias of logits (n,) with the least cross entropy to targets (n,) in [0, 1] (Platt, 1999).

    The result is finite, and near (1, 0) if the targets do not determine it, because the loss contains one more keypoint
    that favors no change. Solved by Newton's method; the loss is convex.
    """
    numbers = np.array([1.0, 0.0])

    def loss(at: np.ndarray) -> float:
        z = at[0] * logits + at[1]
        entropy = (np.logaddexp(0, z) - targets * z).sum()
        return float(entropy + ((at - [1, 0]) ** 2).sum())

    inputs = np.stack([logits, np.ones_like(logits)])
    for _ in range(_STEPS):
        p = calibrated(logits, *numbers)
        gradient = inputs @ (p - targets) + 2 * (numbers - [1, 0])
        curvature = (inputs * (p * (1 - p))) @ inputs.T + 2 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        before = loss(numbers)
        while loss(numbers - step) > before and np.abs(step).max() > _ENOUGH:
            step = step / 2
        numbers = numbers - step
        if np.abs(step).max() <= _ENOUGH:
            break
    return float(numbers[0]), float(numbers[1])


def scaled(forest: Forest, scale: float, bias: float) -> Forest:
    """Return a forest with logits scale * logit + bias: leaves are multiplied, and a tree of one leaf is added."""
    return replace(
        forest,
        leaves=np.append(forest.leaves.astype(float) * scale, bias).astype(np.float32),
        roots=np.append(forest.roots, -1 - len(forest.leaves)).astype(np.int32),
    )


__all__ = [
    "calibrated",
    "fit_scale_and_bias",
    "logits_of",
    "recalibrated",
    "recalibrated_out_of_fold",
    "scaled",
    "targets_of",
]
