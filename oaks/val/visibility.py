"""Agreement of predicted visibility with the annotators (table 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from oaks.val.calibration import mean

VISIBLE = 0.5
"""Predicted visibility above which a keypoint counts as visible (section 4.1)."""


@dataclass(frozen=True)
class VisibilityMetrics:
    """Agreement over a set of keypoints; "visible" means annotated with v = 1 or 2. NaN if a figure has no cases.

    Attributes:
        count: number of keypoints.
        labeled: share of annotated keypoints, which is the accuracy of always predicting "visible".
        accuracy: share of correct predictions.
        precision: share of annotated keypoints among those predicted visible.
        recall: share of annotated keypoints that are predicted visible.
        auc: probability that an annotated keypoint gets a higher value than an unlabeled one; ties count half.
        recall_hidden, recall_seen: recall over v = 1 and over v = 2.
        specificity: share of unlabeled keypoints that are predicted invisible.
    """

    count: int
    labeled: float
    accuracy: float
    precision: float
    recall: float
    auc: float
    recall_hidden: float
    recall_seen: float
    specificity: float


def visibility_metrics(predicted: np.ndarray, flags: np.ndarray) -> VisibilityMetrics:
    """Compute the figures for predicted visibilities and COCO flags of the same shape, in any order."""
    predicted, flags = np.ravel(predicted), np.ravel(flags)
    truth, said = flags > 0, predicted > VISIBLE
    return VisibilityMetrics(
        count=len(flags),
        labeled=mean(truth),
        accuracy=mean(said == truth),
        precision=mean(truth[said]),
        recall=mean(said[truth]),
        auc=area_under_curve(predicted, truth),
        recall_hidden=mean(said[flags == 1]),
        recall_seen=mean(said[flags == 2]),
        specificity=mean(~said[~truth]),
    )


def area_under_curve(values: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, by ranks; NaN if one of the two classes is missing."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    above = rankdata(values)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
