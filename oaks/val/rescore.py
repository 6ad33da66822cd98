"""OAKS scores for the poses of another estimator (table 9)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from oaks.boxes import to_xyxy
from oaks.coco import estimated_areas
from oaks.coco_fields import are_numbers, box_fields, category_ids, indices_by
from oaks.coco_results import make_header, read_results, write_results
from oaks.errors import ArgumentError
from oaks.inference import Engine
from oaks.names import number_of
from oaks.results_features import boxes_around, check_rows, place_of, poses_of, second_poses
from oaks.scorer import Scorer
from oaks.val.detect import ReadableImages
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.resumable import Rows, run_over_images
from oaks.val.scores import box_score_power

log = logging.getLogger("oaks")

UNLIKE = 0.25
"""Distance between distributions of keypoint scores (Scorer.unlike) above which they count as another estimator's."""


def rescore(
    engine: Engine,
    truth: GroundTruth,
    results: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    box_source: str | None = None,
) -> Path:
    """Add predicted visibility and similarity to another estimator's results; its poses and scores stay.

    The Engine runs on the same boxes. Its visibilities apply to the other estimator's poses as they are. Its
    predicted similarities apply to its own keypoints, and are therefore multiplied by the similarity of the two
    positions (equation 2, with oaks.coco.AREA_OF_BOX times the box's area).

    The same call resumes a stopped run. An image that is missing, damaged or too large is skipped, with its poses; any
    other failure ends the run.

    Args:
        engine: an Engine with visibility and a KS network.
        truth: the data set; only its images are used, and its boxes for rows that name an annotation_id.
        results: COCO keypoint results; rows may hold `box` (x, y, width, height) or `annotation_id`.
        images: folder of the image files that the annotations name.
        out: the results file to write.
        box_source: "ground truth" or "detected", if the results' header does not state it.

    Raises:
        FileNotFoundError: every image is missing.
        ArgumentError: the results do not fit the data set; the bundle gives no OAKS score; or `out` was made
            with other settings.
    """
    if not engine.gives_oaks:
        raise ArgumentError(
            f"engine must have visibility and a KS network to score by, got bundle {engine.bundle.name!r}"
        )
    rows, stated = read_results(results)
    found = Detections.load(results, truth, box_source=box_source)
    order = [rows[i] for i in found.rows]
    boxes = _boxes(truth, found, order)
    header = make_header(
        engine.describe(),
        box_source=_box_source(stated, found, truth),
        poses_by=Path(results).name,
        poses_header=stated or {},
    )
    members = indices_by(found.image)
    run = ReadableImages(truth, images, members)

    def estimate(batch: list[int]) -> Iterator[tuple[int, Rows]]:
        read, poses = run.infer(engine, {i: boxes[members[i]] for i in batch})
        if not read:
            return
        chosen = np.concatenate([members[i] for i in read])
        placed = found.keypoints[chosen] / truth.scales[found.image[chosen], None]
        area = estimated_areas(boxes[chosen, 2:] - boxes[chosen, :2])
        variances = (2 * np.array(truth.skeleton.sigmas)) ** 2
        squared = ((placed - poses.keypoints) ** 2).sum(axis=2)
        similarity = poses.similarity * np.exp(-squared / variances / area[:, None] / 2)
        scored = [
            order[n] | {"visibility": v, "similarity": s}
            for n, v, s in zip(
                chosen, poses.visibility.round(7).tolist(), similarity.round(7).tolist(), strict=True
            )
        ]
        for index, image in enumerate(read):
            yield image, [scored[k] for k in np.flatnonzero(poses.frame_index == index)]

    return run_over_images({i: len(own) for i, own in members.items()}, estimate, out, header, run.skipped)


def _box_source(stated: dict[str, Any] | None, found: Detections, truth: GroundTruth) -> str:
    """Return the box source that the results' header states, else `box_source` in the header's words."""
    known = {"ground truth": f"annotated: {Path(truth.path).name}", "detected": "detected: not stated"}
    return (stated or {}).get("box_source", known[found.box_source])


def _boxes(truth: GroundTruth, found: Detections, rows: Rows) -> np.ndarray:
    """Return boxes (N,4) x1, y1, x2, y2 in the image file's pixels: the row's, its person's, or around the keypoints."""
    scale = truth.scales[found.image]
    boxes = boxes_around(found.keypoints / scale[:, None])
    position = {int(annotation_id): g for g, annotation_id in enumerate(truth.ids)}
    stated = box_fields(rows, lambda n: f"{found.path}: row {found.rows[n]}")
    for n, row in enumerate(rows):
        if row.get("box") is not None:
            boxes[n] = to_xyxy(stated[n])
        elif row.get("annotation_id") in position:
            boxes[n] = truth.file_boxes(np.array([position[row["annotation_id"]]]))
    return boxes


def rescore_results(
    scorer: Scorer,
    results: str | Path,
    out: str | Path,
    *,
    estimator: str | None = None,
    decoder: str | None = None,
    second: str | Path | None = None,
    category: int | None = None,
) -> Path:
    """Give the poses of a results file the scores of a scorer; keypoints stay unchanged.

    Rows gain `similarity`, `visibility` and, as `score`, the OAKS score times a power of `box_score` if they have one:
    the box_score_power that the results' header states, else 1. The new header states it.

    Args:
        scorer: scorer fitted to the estimator's results (oaks.fit).
        results: COCO keypoint results; rows must hold `box` or `bbox` if the scorer was fitted with boxes, else not.
        out: the results file to write, with a header beside it.
        estimator, decoder: the estimator and decoder of the results; None: as their header states, if it does.
        second: results of the second estimator for the same boxes, row by row, if the scorer was fitted with one.
        category: category id of people; rows of other categories are copied unchanged, those without one are people's.
            None: every row is a person's.

    Raises:
        FileNotFoundError: a file does not exist.
        ArgumentError: the results are wrong, or of another estimator, decoder or skeleton than the scorer; nothing is
            written then.
    """
    every, stated = read_results(results)
    chosen = list(range(len(every)))
    if category is not None:
        categories = category_ids(every, lambda n: f"{results}: row {n}: category_id", category)
        chosen = np.flatnonzero(categories == category).tolist()
    rows, stated = [every[n] for n in chosen], stated or {}
    scorer.require(
        estimator=estimator or stated.get("estimator") or stated.get("bundle"),
        decoder=decoder or stated.get("decoder"),
    )
    if not rows:
        of_category = "" if category is None else f" of category {category}"
        raise ArgumentError(
            f"{results}: results must hold at least one pose{of_category}, got {number_of(len(every), 'row')}"
        )
    points, boxes = _poses_of(rows, scorer, results)
    opinion = None
    if second is not None:
        opinion = second_poses(
            read_results(second)[0], chosen, [row["image_id"] for row in rows],
            expected=len(every), count=scorer.card.skeleton.count, label=second,
        )  # fmt: skip
    try:
        scored = scorer(points[..., :2], points[..., 2], boxes, second=opinion)
    except ArgumentError as error:
        raise ArgumentError(f"{results}: {error}") from error
    if (distance := scorer.unlike(points[..., 2])) > UNLIKE:
        log.warning(
            "%s: keypoint scores are unlike those that the scorer was fitted to (distance %.2f); a scorer fitted to "
            "another estimator ranks worse than none",
            results, distance,
        )  # fmt: skip
    box_scores = _box_scores(rows, results)
    power = box_score_power(results, stated, box_scores)
    written = list(every)
    for n, (place, row) in enumerate(zip(chosen, rows, strict=True)):
        kept = {("box" if key == "bbox" else key): value for key, value in row.items()}
        written[place] = kept | {
            "heat": points[n, :, 2].tolist(),
            "similarity": scored.similarity[n].astype(float).round(7).tolist(),
            "visibility": scored.visibility[n].astype(float).round(7).tolist(),
            "score": float(scored.oaks_scores[n]) * float(box_scores[n]) ** power,
        }
    by = {"estimator": scorer.card.estimator, "sha256": scorer.sha256}
    header = {**stated, "box_score_power": power, "scorer": by}
    write_results(out, written, header)
    return Path(out)


def _box_scores(rows: Rows, label: str | Path) -> np.ndarray:
    """Return the box scores (N,) of rows; 1 for rows without one."""
    found: list[Any] = [1.0 if row.get("box_score") is None else row["box_score"] for row in rows]
    for number, score in enumerate(found):
        if not are_numbers(score) or np.ndim(score) or score < 0:
            place = place_of(rows[number], number, label)
            raise ArgumentError(
                f"{place}: box_score must be a finite number from 0 on, got {str(score)[:64]}"
            )
    return np.array(found, float)


def _poses_of(rows: Rows, scorer: Scorer, label: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return keypoints with scores (N, K, 3), and boxes (N, 4) if the scorer needs them."""
    check_rows(rows, label)
    found = poses_of(rows, scorer.card.skeleton.count, label)
    if not scorer.card.boxes:
        return found, None
    boxes = [row.get("box", row.get("bbox")) for row in rows]
    if None in boxes:
        place = place_of(rows[boxes.index(None)], boxes.index(None), label)
        raise ArgumentError(
            f"{place}: box must be x, y, width, height, got None; the scorer was fitted with boxes"
        )
    return found, to_xyxy(np.array(boxes, float))
