"""Quality of a score as an estimate of OKS: correlation, calibration, and the threshold for a given precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.errors import ArgumentError

BINS = 15
RIGHT = 0.5
"""Minimum OKS of a correct pose, for the Brier score and for precision."""


@dataclass(frozen=True)
class CalibrationMetrics:
    """Relation of a score to the true OKS of N poses. Figures without enough cases are NaN.

    Attributes:
        count: N.
        mean_score, mean_oks: means of score and OKS.
        pearson, spearman: correlation of score and OKS.
        ece: expected calibration error: mean distance between the mean score and the mean OKS of a bin, over BINS
            bins of equal count.
        brier: mean squared distance between the score and 1 (OKS at least .5) or 0.
        bin_scores, bin_oks, bin_counts: the reliability diagram, (up to BINS,) each.
    """

    count: int
    mean_score: float
    mean_oks: float
    pearson: float
    spearman: float
    ece: float
    brier: float
    bin_scores: np.ndarray
    bin_oks: np.ndarray
    bin_counts: np.ndarray


def measure_calibration(scores: np.ndarray, oks: np.ndarray) -> CalibrationMetrics:
    """Relate scores (N,), without the factor of the box scores, to true OKS (N,)."""
    if len(scores) != len(oks):
        raise ArgumentError(f"scores and oks must have the same length, got {len(scores)} and {len(oks)}")
    # A stable sort: equal scores stay in the order of the file, whatever their OKS.
    bins = [part for part in np.array_split(np.argsort(scores, kind="stable"), BINS) if len(part)]
    bin_scores = np.array([scores[part].mean() for part in bins])
    bin_oks = np.array([oks[part].mean() for part in bins])
    counts = np.array([len(part) for part in bins])
    return CalibrationMetrics(
        count=len(scores),
        mean_score=mean(scores),
        mean_oks=mean(oks),
        pearson=pearson(scores, oks),
        spearman=spearman(scores, oks),
        ece=float(np.average(np.abs(bin_scores - bin_oks), weights=counts)) if bins else float("nan"),
        brier=mean((scores - (oks >= RIGHT)) ** 2),
        bin_scores=bin_scores,
        bin_oks=bin_oks,
        bin_counts=counts,
    )


def mean(values: np.ndarray) -> float:
    """Return the mean; NaN without values."""
    return float(values.mean()) if len(values) else float("nan")


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; NaN for fewer than two cases or if one side is constant."""
    varied = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    return float(np.corrcoef(a, b)[0, 1]) if varied else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN as for `pearson`."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))


@dataclass(frozen=True)
class Threshold:
    """The lowest score threshold that reaches a precision; NaN if none does.

    Attributes:
        score: minimum score of the poses to keep.
        kept: share of all poses that is kept.
        recall: share of the correct poses that is kept.
    """

    score: float
    kept: float
    recall: float


def threshold_for(scores: np.ndarray, right: np.ndarray, precision: float) -> Threshold:
    """Return the lowest threshold on scores (N,) above which at least `precision` of the poses are `right` (N,) bool.

    The lowest one keeps the most poses.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    correct = np.cumsum(right[order])
    # Poses of equal score are kept or dropped together.
    last = np.flatnonzero(np.append(np.diff(sorted_scores), True)[: len(scores)])
    reached = last[correct[last] / (last + 1) >= precision]
    if not len(reached):
        return Threshold(float("nan"), 0.0, 0.0)
    end = reached[-1]
    recall = correct[end] / max(int(right.sum()), 1)
    return Threshold(float(sorted_scores[end]), (end + 1) / len(scores), float(recall))
