"""Fits trees to the features of an estimator's poses, and completes the scorer's card: for results and for heatmaps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.fit import boosting
from oaks.fit.boosting import Examples, Fit, Settings
from oaks.fit.people import People
from oaks.fit.recalibration import recalibrated, recalibrated_out_of_fold
from oaks.fit.report import Fitted, compared, measured_with, summary
from oaks.names import number_of
from oaks.ops import Forest
from oaks.progress import progress
from oaks.scorer import Card, Scorer
from oaks.val.ground_truth import OCCLUSION_CLASSES

log = logging.getLogger("oaks")

QUANTILES = 101
FEW = 100
"""Fewer people of an occlusion level, or labels of a keypoint, cause a warning."""


def fit_card(
    people: People,
    features: np.ndarray,
    card: Card,
    *,
    settings: Settings,
    resamples: int,
    warnings: Sequence[str] = (),
    start: tuple[Forest, Forest] | None = None,
    more: Sequence[tuple[People, np.ndarray]] = (),
    trained: tuple[People, np.ndarray] | None = None,
) -> Fitted:
    """Fit to features (N, K, F) of people, out of fold and then on all.

    Args:
        card: card of the scorer; `fitted_on`, `out_of_fold` and `heat_quantiles` are completed here.
        warnings: the caller's warnings, reported with those found here.
        start: trees of a scorer for the network from which this one was fine-tuned. They are kept and recalibrated if
            that predicts held-out people better than new trees, as with few people.
        more: further poses of the same people, and their features, which are fitted to as well; the figures are of
            `people` alone. All poses of an image are in one fold.
        trained: people that the network was trained on, and their features. New trees are fitted to them too, and
            recalibrated on the out-of-fold predictions of `people`, since the network errs less on `trained`. Not with
            `start`.
    """
    warnings = [*warnings, *check_people(people, features.shape[2], enough=start is not None)]
    for warning in warnings:
        log.warning("%s", warning)
    examples = examples_of([(people, features), *more, *([] if trained is None else [trained])])
    ways: dict[str, Fit] = {}
    if start is None or people.known.sum() >= features.shape[2]:
        ways["new trees"] = lambda rows: boosting.fit_forests(examples, settings, rows)
    if start is not None:
        ways["recalibrated trees"] = lambda rows: recalibrated(start, examples, rows)
    with progress("Fitting", len(ways) * settings.folds + 2) as advance:
        predictions = {}
        for name, fit in ways.items():
            similarity, visibility = (np.zeros(examples.labeled.shape, np.float32) for _ in range(2))
            for rows, ks, visible in boosting.out_of_fold(examples, settings, fit):
                similarity[rows], visibility[rows] = ks, visible
                advance()
            predictions[name] = similarity, visibility
        way = min(ways, key=lambda name: cross_entropy(examples, *predictions[name]))
        forests = ways[way](None)
        advance()
        similarity, visibility = predictions[way]
        predicted = similarity[: len(people.heat)], visibility[: len(people.heat)]
        if trained is not None:
            folds = boosting.folds_of(examples.images, settings.folds, settings.seed)[: len(people.heat)]
            own = examples_of([(people, features)])
            forests, predicted = recalibrated_out_of_fold(forests, predicted, own, folds)
        measured = measured_with(people.truth, people.detections, *predicted)
        comparisons = compared(measured, resamples=resamples, seed=settings.seed)
        advance()
    notes_on_card: dict[str, Any] = {"trees": len(forests[0].roots), "seed": settings.seed}
    if start is not None:
        notes_on_card["fit"] = way
    if more:
        notes_on_card["further crops of each person"] = len(more)
    if trained is not None:
        notes_on_card["people that the network was trained on"] = int(trained[0].known.sum())
    card = filled(card, people, summary(measured, comparisons), notes_on_card)
    return Fitted(Scorer.of(card, *forests), measured, comparisons, tuple(warnings))


def examples_of(parts: Sequence[tuple[People, np.ndarray]]) -> Examples:
    """Return poses of people and their features, one part after another."""
    return Examples(
        np.concatenate([features for _, features in parts]).astype(np.float32, copy=False),
        *(
            np.concatenate([getattr(people, name) for people, _ in parts])
            for name in ("similarity", "labeled", "images", "known")
        ),
    )


def filled(card: Card, people: People, out_of_fold: dict[str, Any], fit: dict[str, Any]) -> Card:
    """Return the card with the people of the fit, the out-of-fold figures, and the entries of `fit`."""
    known = people.heat[people.known]
    return replace(
        card,
        fitted_on={
            "annotations": [Path(path).name for path in people.truth.path.split(" + ")],
            "people": int(people.known.sum()),
            "images": len(np.unique(people.images[people.known])),
            "labeled keypoints": int(people.labeled.sum()),
            **fit,
        },
        out_of_fold=out_of_fold,
        heat_quantiles=tuple(np.quantile(known, np.linspace(0, 1, QUANTILES)).round(6).tolist()),
    )


def cross_entropy(examples: Examples, similarity: np.ndarray, visibility: np.ndarray) -> float:
    """Return the cross entropy of predictions (N, K): over labeled keypoints for similarity, over all for visibility."""
    labeled = examples.labeled & examples.known[:, None]
    parts = (
        (similarity[labeled], examples.similarity[labeled]),
        (visibility[examples.known], examples.labeled[examples.known]),
    )
    total = 0.0
    for predicted, target in parts:
        p = predicted.astype(float).clip(1e-7, 1 - 1e-7)
        total -= float((target * np.log(p) + (1 - target) * np.log1p(-p)).mean())
    return total


def check_people(people: People, features: int, *, enough: bool = False) -> list[str]:
    """Refuse too few people to fit to; warn of scarce classes and labels.

    Args:
        people: the people.
        features: number of features of the trees.
        enough: whether fewer people than features are allowed.

    Raises:
        ArgumentError: there are fewer people than features.
    """
    count = int(people.known.sum())
    if count < features and not enough:
        raise ArgumentError(
            f"results must hold at least {features} poses of annotated people, one for each feature, got {count}"
        )
    warnings = []
    nobody = len(people.known) - count
    if nobody:
        warnings.append(
            f"poses that belong to no annotated person, which are not fitted to: {nobody} of {len(people.known)}"
        )
    if count >= features:
        warnings += few_labels(people)
    flat = np.ptp(people.heat, axis=0) == 0
    for name in np.array(people.truth.skeleton.keypoints)[flat]:
        warnings.append(f"keypoint {name} has the same score in every pose; its score says nothing")
    return warnings


def few_labels(people: People) -> list[str]:
    """Return warnings of occlusion levels with few people and of keypoints with few labels."""
    classes = people.truth.occlusion[people.detections.own[people.known]]
    counts = np.bincount(classes, minlength=len(OCCLUSION_CLASSES)).tolist()
    warnings = [
        f"only {number_of(few, 'person', 'people')} of class {occlusion.title!r}; their scores will be uncertain"
        for occlusion, few in zip(OCCLUSION_CLASSES, counts, strict=True)
        if few < FEW
    ]
    labels = zip(people.truth.skeleton.keypoints, people.labeled.sum(axis=0).tolist(), strict=True)
    if rare := [f"{name} ({number})" for name, number in labels if number < FEW]:
        warnings.append(
            f"keypoints with fewer than {FEW} labels, whose similarity will be uncertain: {', '.join(rare)}"
        )
    return warnings


__all__ = ["check_people", "examples_of", "filled", "fit_card"]
