"""Average precision and recall of COCO's own evaluation, pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal

import numpy as np

from oaks.errors import ArgumentError
from oaks.val.ground_truth import GroundTruth

FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""COCO's ten keypoint figures, in its order."""

CocoBackend = Literal["pycocotools", "faster-coco-eval"]


def coco_metrics(
    truth: GroundTruth,
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    *,
    among: np.ndarray | None = None,
    by: CocoBackend = "pycocotools",
) -> dict[str, float]:
    """Return COCO's ten figures for one ranking of N detections, each from 0 to 1; NaN if there is nobody to find.

    Args:
        truth: the people, and the skeleton with its sigmas.
        image: (N,) index of each detection's image, ascending.
        keypoints: (N,K,2) original pixels.
        scores: (N,) the scores that rank the detections.
        among: (G,) bool, people to find; the others are ignored. Default: all.
        by: "pycocotools", or "faster-coco-eval", which computes the same figures faster.

    Raises:
        ArgumentError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ArgumentError(
            f"scores must be finite, got {scores[~np.isfinite(scores)][0]} among {len(scores)}"
        )
    if by == "pycocotools":
        from pycocotools import coco, cocoeval

        dataset, evaluator = coco.COCO, cocoeval.COCOeval
    else:
        import faster_coco_eval

        dataset, evaluator = faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster

    # Both print their progress on standard output, which belongs to the caller.
    with contextlib.redirect_stdout(io.StringIO()):
        annotations: Any = dataset()
        annotations.dataset = _annotations(truth, among)
        annotations.createIndex()
        if len(scores):
            results: Any = annotations.loadRes(_rows(truth, image, keypoints, scores))
        else:  # loadRes does not accept an empty list
            results = dataset()
            results.dataset = {**annotations.dataset, "annotations": []}
            results.createIndex()
        evaluation: Any = evaluator(annotations, results, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(truth.skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.where(evaluation.stats == -1, np.nan, evaluation.stats)  # -1: nobody to find
    return dict(zip(FIGURES, stats.tolist(), strict=True))


def _annotations(truth: GroundTruth, among: np.ndarray | None) -> dict[str, Any]:
    """Return the people as a COCO dictionary.

    COCO's evaluation ignores people with num_keypoints 0, whatever their flags. People outside `among` are left out
    this way, without changing what they match.
    """
    points = np.concatenate([truth.keypoints, truth.flags[..., None]], axis=2).reshape(len(truth.ids), -1)
    labeled = truth.labeled if among is None else np.where(among, truth.labeled, 0)
    people = [
        {
            "id": g + 1,  # pycocotools reads a match with annotation 0 as no match
            "image_id": int(truth.image_ids[truth.image[g]]),
            "category_id": truth.category_id,
            "keypoints": points[g].tolist(),
            "num_keypoints": int(labeled[g]),
            "bbox": truth.boxes[g].tolist(),
            "area": float(truth.areas[g]),
            "iscrowd": int(truth.crowd[g]),
        }
        for g in range(len(truth.ids))
    ]
    return {
        "images": [{"id": int(i)} for i in truth.image_ids],
        "annotations": people,
        "categories": [{"id": truth.category_id, "name": "person"}],
    }


def _rows(
    truth: GroundTruth, image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray
) -> list[dict[str, Any]]:
    points = np.concatenate([keypoints, np.ones((*keypoints.shape[:2], 1))], axis=2).reshape(len(scores), -1)
    return [
        {
            "image_id": int(truth.image_ids[image[n]]),
            "category_id": truth.category_id,
            "keypoints": points[n].tolist(),
            "score": float(scores[n]),
        }
        for n in range(len(scores))
    ]
