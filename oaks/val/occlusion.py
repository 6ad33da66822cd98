"""Average precision by occlusion level (tables 8 and 9, the first curves of figures 11 and 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.val.error_analysis import SIZES
from oaks.val.matching import THRESHOLDS, Matches, match, precision_recall
from oaks.val.scores import ScoredDetections

AT_75 = int(np.argmin(np.abs(THRESHOLDS - 0.75)))
"""Index of OKS .75 among the thresholds."""


@dataclass(frozen=True)
class OcclusionResult:
    """Results of one score on the people of one occlusion level; all others are ignored.

    Attributes:
        matches: the matched detections at COCO's ten thresholds.
        ap, ap75: AP over OKS .5 to .95, and at OKS .75; NaN if the class is empty.
        precision: (101,) at OKS .75.
    """

    matches: Matches
    ap: float
    ap75: float
    precision: np.ndarray


def evaluate_occlusion(
    measured: ScoredDetections, ranks: np.ndarray, occlusion: int, *, own_only: bool = False
) -> OcclusionResult:
    """Evaluate one score on one level of OCCLUSION_CLASSES, for people of at least 32² pixels.

    Args:
        measured: the people and the detections.
        ranks: (N,) the score.
        occlusion: index of the level.
        own_only: keep only detections whose own person is on the level. Otherwise all are kept, and a detection that
            misses a person of another level counts as false here, which lowers weak networks much.
    """
    truth, detections = measured.truth, measured.detections
    matches = match(
        truth,
        measured.found,
        detections.image,
        ranks,
        detections.areas,
        among=truth.occlusion == occlusion,
        sizes=SIZES,
        kept=measured.occlusion == occlusion if own_only else None,
    )
    precision, _ = precision_recall(matches)
    at = precision[AT_75]
    return OcclusionResult(matches, float(precision.mean()), float(at.mean()), at)
