"""Does a score say what it means: its correlation with OKS, its calibration, and the threshold for a
precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.errors import ArgumentError

BINS = 15
RIGHT = 0.5
"""OKS from which a pose counts as right, for the Brier score and for precision."""


@dataclass(frozen=True)
class CalibrationMetrics:
    """How one score relates to the true OKS of N poses. Figures without enough cases are NaN.

    Attributes:
        count: N.
        pearson, spearman: correlation of score and OKS.
        ece: expected calibration error: over BINS bins of equal count, the mean distance between the mean
            score and the mean OKS of a bin.
        brier: mean squared distance between the score and 1 (OKS at least .5) or 0.
        bin_scores, bin_oks, bin_counts: the reliability diagram, (up to BINS,) each.
    """

    count: int
    pearson: float
    spearman: float
    ece: float
    brier: float
    bin_scores: np.ndarray
    bin_oks: np.ndarray
    bin_counts: np.ndarray


def measure_calibration(scores: np.ndarray, oks: np.ndarray) -> CalibrationMetrics:
    """Relates scores (N,), before box scores are multiplied in, to true OKS (N,)."""
    if len(scores) != len(oks):
        raise ArgumentError(f"scores and oks must have one length, got {len(scores)} and {len(oks)}")
    # Equal scores stay together in the order of the file, whatever their OKS.
    bins = [part for part in np.array_split(np.argsort(scores, kind="stable"), BINS) if len(part)]
    bin_scores = np.array([scores[part].mean() for part in bins])
    bin_oks = np.array([oks[part].mean() for part in bins])
    counts = np.array([len(part) for part in bins])
    has = len(scores) > 0
    return CalibrationMetrics(
        count=len(scores),
        pearson=pearson(scores, oks),
        spearman=spearman(scores, oks),
        ece=float(np.average(np.abs(bin_scores - bin_oks), weights=counts)) if has else float("nan"),
        brier=float(np.mean((scores - (oks >= RIGHT)) ** 2)) if has else float("nan"),
        bin_scores=bin_scores,
        bin_oks=bin_oks,
        bin_counts=counts,
    )


def _varied(a: np.ndarray, b: np.ndarray) -> bool:
    return len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; NaN for fewer than two cases or where one side does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if _varied(a, b) else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN as for `pearson`."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))


@dataclass(frozen=True)
class Threshold:
    """The lowest score at which the poses from there up reach a precision; NaN where none does.

    Attributes:
        precision: the precision that was asked for.
        score: keep poses with at least this score.
        kept: the share of all poses that is kept.
        recall: the share of the right poses that is kept.
    """

    precision: float
    score: float
    kept: float
    recall: float


def threshold_for(scores: np.ndarray, right: np.ndarray, precision: float) -> Threshold:
    """The threshold on scores (N,) from which at least `precision` of the poses are right (N,) bool.

    Among thresholds that reach it, the lowest, which keeps the most poses.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    correct = np.cumsum(right[order])
    # Poses of equal score are kept or dropped together.
    last = (
        np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
        if len(scores)
        else np.array([], int)
    )
    reached = last[correct[last] / (last + 1) >= precision]
    if not len(reached):
        return Threshold(precision, float("nan"), 0.0, 0.0)
    end = reached[-1]
    total = max(int(right.sum()), 1)
    return Threshold(
        precision, float(sorted_scores[end]), (end + 1) / len(scores), float(correct[end] / total)
    )
