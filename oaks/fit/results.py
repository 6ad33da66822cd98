"""A scorer from an estimator's results alone: keypoints, their scores, and boxes where there are some."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from oaks.fit import boosting
from oaks.fit.boosting import CHOSEN, Examples, Settings
from oaks.fit.people import People, load_people
from oaks.fit.report import Fitted, compared, measured_with, summary
from oaks.results_features import boxes_around, feature_names, results_features
from oaks.scorer import Card, Scorer
from oaks.skeleton import COCO17, Skeleton
from oaks.val.ground_truth import OCCLUSION_CLASSES

log = logging.getLogger("oaks")

QUANTILES = 101
FEW = 100
"""People of an occlusion class, or labels of a keypoint, below which a warning says that there are few."""

Paths = str | Path | Sequence[str | Path]


def fit_results(
    results: Paths,
    annotations: Paths,
    *,
    out: str | Path | None = None,
    estimator: str | None = None,
    decoder: str | None = None,
    skeleton: Skeleton = COCO17,
    box_source: str | None = None,
    settings: Settings = CHOSEN,
    resamples: int = 1000,
) -> Fitted:
    """Fit a scorer to an estimator's COCO keypoint results on annotated people.

    Args:
        results: COCO keypoint results of the estimator, one file or several. The third number of a keypoint is
            its score. Rows may also hold `box` or `bbox`, `box_score` and `annotation_id`.
        annotations: COCO keypoint annotations, one file for each results file.
        out: folder of the scorer; None writes nothing.
        estimator: name of the estimator; None takes it from the results' header, or their file name.
        decoder: how its outputs become keypoints, in its own words; None takes it from the header.
        skeleton: the keypoints of results and annotations.
        box_source: "ground truth" or "detected", where the header does not say. Without both, results whose rows
            all name an annotation_id have ground-truth boxes.
        settings: of the trees.
        resamples: of the bootstrap.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: results and annotations do not fit, keypoint scores are missing or all equal, or there are too
            few people. Nothing is written then.
        BackendUnavailable: LightGBM is not installed.
    """
    people = load_people(listed(results), listed(annotations), skeleton=skeleton, box_source=box_source)
    corners = boxes_around(people.points) if people.boxes is None else people.boxes
    card = Card(
        kind="results",
        estimator=estimator or named(people.header, listed(results)[0]),
        decoder=decoder or str(people.header.get("decoder", "not stated")),
        skeleton=skeleton,
        boxes=people.boxes is not None,
        second_opinion=None,
        features=feature_names(skeleton.count),
        fitted_on={},
        out_of_fold={},
        heat_quantiles=(),
    )
    described = results_features(skeleton, people.points, people.heat, corners)
    fitted = fit_card(people, described, card, settings, resamples)
    return fitted if out is None else replace(fitted, path=fitted.scorer.save(out))


def named(header: dict[str, Any], path: str | Path) -> str:
    """An estimator's name: what the results' header says, or else their file's name."""
    return str(header.get("estimator") or header.get("bundle") or Path(path).stem)


def fit_card(people: People, features: np.ndarray, card: Card, settings: Settings, resamples: int) -> Fitted:
    """Fit to features (N, K, F) of people, out of fold and then on all.

    Args:
        card: what is fitted; `fitted_on`, `out_of_fold` and `heat_quantiles` are filled in here.
    """
    warnings = check_people(people, features.shape[2])
    for warning in warnings:
        log.warning("%s", warning)
    examples = Examples(
        np.ascontiguousarray(features, np.float32),
        people.similarity,
        people.labeled,
        people.images,
        people.known,
    )
    similarity, visibility = np.zeros(people.heat.shape, np.float32), np.zeros(people.heat.shape, np.float32)
    with Progress(transient=True) as progress:
        steps = progress.add_task("Fitting", total=settings.folds + 2)
        for rows, ks, seen in boosting.out_of_fold(examples, settings):
            similarity[rows], visibility[rows] = ks, seen
            progress.advance(steps)
        forests = boosting.fit_forests(examples, settings)
        progress.advance(steps)
        measured = measured_with(people.truth, people.detections, similarity, visibility)
        comparisons = compared(measured, resamples=resamples, seed=settings.seed)
        progress.advance(steps)
    known = people.heat[people.known]
    card = replace(
        card,
        fitted_on={
            "annotations": [Path(path).name for path in people.truth.path.split(" + ")],
            "people": int(people.known.sum()),
            "images": len(np.unique(people.images[people.known])),
            "labeled keypoints": int(people.labeled.sum()),
            "trees": settings.trees,
            "seed": settings.seed,
        },
        out_of_fold=summary(measured, comparisons),
        heat_quantiles=tuple(np.quantile(known, np.linspace(0, 1, QUANTILES)).round(6).tolist()),
    )
    return Fitted(Scorer.of(card, *forests), measured, comparisons, tuple(warnings))


def check_people(people: People, features: int) -> list[str]:
    """Refuse people that nothing can be fitted to; warn of what they lack.

    Raises:
        ValueError: there are fewer people than features.
    """
    count = int(people.known.sum())
    if count < features:
        raise ValueError(
            f"results must hold at least {features} poses of annotated people, one for each feature, got {count}"
        )
    warnings = []
    nobody = len(people.known) - count
    if nobody:
        warnings.append(
            f"{nobody} of {len(people.known)} poses belong to no annotated person; they are not fitted to"
        )
    classes = people.truth.occlusion[people.detections.own[people.known]]
    for index, occlusion in enumerate(OCCLUSION_CLASSES):
        if (few := int((classes == index).sum())) < FEW:
            warnings.append(f"only {few} people of class '{occlusion.title}'; their scores will be uncertain")
    labels = people.labeled.sum(axis=0)
    for name, number in zip(people.truth.skeleton.keypoints, labels.tolist(), strict=True):
        if number < FEW:
            warnings.append(
                f"keypoint {name} is labeled {number} times only; its similarity will be uncertain"
            )
    flat = np.ptp(people.heat, axis=0) == 0
    for name in np.array(people.truth.skeleton.keypoints)[flat]:
        warnings.append(f"keypoint {name} has the same score in every pose; its score says nothing")
    return warnings


def listed(paths: Paths) -> list[str | Path]:
    """One path or several as a list."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


__all__ = ["fit_results"]
