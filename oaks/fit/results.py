"""Fits a scorer to an estimator's results alone: keypoints, their scores, and boxes if there are any."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks.coco import read_results
from oaks.errors import ArgumentError
from oaks.fit import boosting
from oaks.fit.boosting import CHOSEN, Examples, Fit, Settings
from oaks.fit.paths import Paths, listed
from oaks.fit.people import People, load_people, own_id
from oaks.fit.recalibration import recalibrated, recalibrated_out_of_fold
from oaks.fit.report import Fitted, compared, measured_with, summary
from oaks.fit.seen import compare_with_reference
from oaks.names import number_of
from oaks.ops import Forest
from oaks.progress import progress
from oaks.results_features import boxes_around, feature_names, results_features, second_poses
from oaks.scorer import Card, Scorer
from oaks.skeleton import COCO17, Skeleton
from oaks.val.ground_truth import OCCLUSION_CLASSES
from oaks.val.interval import check_resamples

log = logging.getLogger("oaks")

QUANTILES = 101
FEW = 100
"""Fewer people of an occlusion class, or labels of a keypoint, cause a warning."""


def fit_results(
    results: Paths,
    annotations: Paths,
    *,
    out: str | Path | None = None,
    estimator: str | None = None,
    decoder: str | None = None,
    skeleton: Skeleton = COCO17,
    box_source: str | None = None,
    second: Paths | None = None,
    second_opinion: str = "second estimator",
    reference: tuple[Paths, Paths] | None = None,
    category: str | int | None = None,
    settings: Settings = CHOSEN,
    resamples: int = 1000,
) -> Fitted:
    """Fit a scorer to an estimator's COCO keypoint results on annotated people.

    Args:
        results: COCO keypoint results of the estimator, one file or several. The third number of a keypoint is
            its score. Rows may also hold `box` or `bbox`, `box_score` and `annotation_id`.
        annotations: COCO keypoint annotations, one file for each results file.
        out: folder of the scorer; None writes nothing.
        estimator: name of the estimator; None: as in the results' header, or their file name.
        decoder: description of its decoder; None: as in the header.
        skeleton: the keypoints of results and annotations.
        box_source: "ground truth" or "detected", if the header does not state it. Without both, results whose rows all
            name an annotation_id have ground-truth boxes.
        second: results of another estimator for the same boxes, row by row; its poses become features.
        second_opinion: name of that estimator.
        reference: results and annotations of people that were certainly not in the estimator's training set. A warning
            tells if it does better on the people to fit to, among people of equal size and occlusion.
        category: name or id of the category of people; None: as oaks.coco.choose_category.
        settings: settings of the trees.
        resamples: number of bootstrap resamples.

    Raises:
        FileNotFoundError: a file does not exist.
        ArgumentError: results and annotations do not fit, keypoint scores are missing or all equal, or there are too
            few people. Nothing is written then.
        BackendUnavailable: LightGBM is not installed.
    """
    check_resamples(resamples, settings.seed)
    if out is not None and Path(out).suffix != ".json" and Path(out).exists() and not Path(out).is_dir():
        raise ArgumentError(f"out must be a folder, got the file {out}")
    people = load_people(
        listed(results), listed(annotations), skeleton=skeleton, box_source=box_source, category=category
    )
    opinion = None
    if second is not None:
        opinion = second_poses(
            [row for path in listed(second) for row in read_results(path)[0]],
            people.detections.rows.tolist(),
            own_id(people.images).tolist(),
            expected=people.rows_read,
            count=skeleton.count,
            label=" + ".join(map(str, listed(second))),
        )
    corners = boxes_around(people.points) if people.boxes is None else people.boxes
    card = Card(
        kind="results",
        estimator=estimator or named(people.header, listed(results)[0]),
        decoder=decoder or str(people.header.get("decoder", "not stated")),
        skeleton=skeleton,
        boxes=people.boxes is not None,
        second_opinion=None if second is None else second_opinion,
        features=feature_names(skeleton.count, second_opinion=second is not None),
    )
    described = results_features(skeleton, people.points, people.heat, corners, opinion)
    seen = [] if reference is None else check_reference(people, *reference, category)
    fitted = fit_card(people, described, card, settings, resamples, warnings=seen)
    assert isinstance(fitted.scorer, Scorer)
    return fitted if out is None else replace(fitted, path=fitted.scorer.save(out))


def named(header: dict[str, Any], path: str | Path) -> str:
    """Return an estimator's name: from the results' header, else their file name."""
    return str(header.get("estimator") or header.get("bundle") or Path(path).stem)


def fit_card(
    people: People,
    features: np.ndarray,
    card: Card,
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
        told = {}
        for name, fit in ways.items():
            similarity, visibility = (np.zeros(examples.labeled.shape, np.float32) for _ in range(2))
            for rows, ks, seen in boosting.out_of_fold(examples, settings, fit):
                similarity[rows], visibility[rows] = ks, seen
                advance()
            told[name] = similarity, visibility
        way = min(ways, key=lambda name: cross_entropy(examples, *told[name]))
        forests = ways[way](None)
        advance()
        ks, seen = (values[: len(people.heat)] for values in told[way])
        if trained is not None:
            folds = boosting.folds_of(examples.images, settings.folds, settings.seed)[: len(people.heat)]
            own = examples_of([(people, features)])
            forests, (ks, seen) = recalibrated_out_of_fold(forests, (ks, seen), own, folds)
        measured = measured_with(people.truth, people.detections, ks, seen)
        comparisons = compared(measured, resamples=resamples, seed=settings.seed)
        advance()
    told_on_card: dict[str, Any] = {"trees": len(forests[0].roots), "seed": settings.seed}
    if start is not None:
        told_on_card["fit"] = way
    if more:
        told_on_card["further crops of each person"] = len(more)
    if trained is not None:
        told_on_card["people that the network was trained on"] = int(trained[0].known.sum())
    card = filled(card, people, summary(measured, comparisons), told_on_card)
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
    """Return warnings of occlusion classes with few people and of keypoints with few labels."""
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


def check_reference(
    people: People, results: Paths, annotations: Paths, category: str | int | None = None
) -> list[str]:
    """Return a warning if the estimator does better on these people than on people it was not trained on."""
    other = load_people(
        listed(results), listed(annotations), skeleton=people.truth.skeleton, category=category
    )
    found = compare_with_reference(people, other)
    log.info(
        "OKS on these people minus OKS on the reference: %.3f [%.3f, %.3f]",
        found.value,
        found.low,
        found.high,
    )
    if not found.low > 0:
        return []
    return [
        f"the estimator was probably trained on these people: among people of equal size and occlusion its OKS is "
        f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] higher than on the reference; fit to people it has not seen"
    ]


__all__ = ["fit_results"]
