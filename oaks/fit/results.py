"""Fits a scorer to an estimator's results alone: keypoints, their scores, and boxes if there are any."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from oaks.coco_results import read_results
from oaks.errors import ArgumentError
from oaks.fit.boosting import CHOSEN, Settings
from oaks.fit.card import fit_card
from oaks.fit.paths import Paths, listed
from oaks.fit.people import People, load_people, own_id
from oaks.fit.report import Fitted
from oaks.fit.seen import compare_with_reference
from oaks.results_features import boxes_around, feature_names, results_features, second_poses
from oaks.scorer import Card, Scorer
from oaks.skeleton import COCO17, Skeleton
from oaks.val.interval import check_resamples

log = logging.getLogger("oaks")


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
            (people.images if len(listed(results)) == 1 else own_id(people.images)).tolist(),
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
    warnings = [] if reference is None else check_reference(people, *reference, category)
    fitted = fit_card(people, described, card, settings=settings, resamples=resamples, warnings=warnings)
    assert isinstance(fitted.scorer, Scorer)
    return fitted if out is None else replace(fitted, path=fitted.scorer.save(out))


def named(header: dict[str, Any], path: str | Path) -> str:
    """Return an estimator's name: from the results' header, else their file name."""
    return str(header.get("estimator") or header.get("bundle") or Path(path).stem)


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
