"""Comparison of rankings: the paired bootstrap over images, and the paired t-test over trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from oaks.errors import ArgumentError
from oaks.val.ground_truth import LARGE, LARGEST, MEDIUM, OCCLUSION_CLASSES
from oaks.val.interval import Interval, resample_images
from oaks.val.matching import ALL_SIZES, Matches, match, resampled_curves
from oaks.val.occlusion import AT_75, evaluate_occlusion
from oaks.val.scores import ScoredDetections


@dataclass(frozen=True)
class Contender:
    """One ranking of the poses of a results file.

    Attributes:
        name: its name in tables.
        measured: the poses with their ground truth. All contenders share the ground truth; the poses may differ.
        ranks: (N,) the scores that rank them.
    """

    name: str
    measured: ScoredDetections
    ranks: np.ndarray


def resampled(matches: Matches, draws: np.ndarray, at: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and recall of every resample, (B, len(at)) each, NaN if there is nobody to find.

    Args:
        matches: the matched detections.
        draws: (B,I) how often each image is drawn.
        at: indices of the OKS thresholds to evaluate.
    """
    precision, recall = np.empty((2, len(draws), len(at)))
    step = max(1, 2_000_000 // max(1, len(matches.score)))  # bounds the memory
    for start in range(0, len(draws), step):
        part = slice(start, start + step)
        for column, t in enumerate(at):
            curves, recall[part, column] = resampled_curves(matches, draws[part], t)
            precision[part, column] = curves.mean(axis=1)
    return precision, recall


@dataclass(frozen=True)
class Comparison:
    """One figure of several contenders.

    Attributes:
        figure: its name.
        values: an Interval for each contender.
        differences: for each contender after the first, the Interval of its difference from the first, computed
            resample by resample.
    """

    figure: str
    values: tuple[Interval, ...]
    differences: tuple[Interval, ...]


def compare_rankings(
    contenders: Sequence[Contender], *, resamples: int = 1000, seed: int = 0
) -> list[Comparison]:
    """Paired bootstrap over images: every contender is measured on the same resamples.

    Figures: COCO's AP, AP50, AP75, APM, APL and AR, then AP and AP75 of each occlusion level, with all detections kept
    and with only those whose own person is on the level.

    Raises:
        ArgumentError: there is no contender, or `resamples` or `seed` does not fit.
    """
    if not contenders:
        raise ArgumentError("contenders must be at least one, got none")
    draws = resample_images(len(contenders[0].measured.truth.image_ids), resamples, seed)
    tables = [_figures(contender, draws) for contender in contenders]
    return [
        Comparison(
            figure,
            tuple(Interval.of(table[figure]) for table in tables),
            tuple(Interval.of(table[figure] - tables[0][figure]) for table in tables[1:]),
        )
        for figure in tables[0]
    ]


def _figures(contender: Contender, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Return the (B,) values of every figure."""
    measured, ranks = contender.measured, contender.ranks
    truth, detections = measured.truth, measured.detections
    every = range(10)

    def of_size(low: float, high: float) -> Matches:
        return match(truth, measured.found, detections.image, ranks, detections.areas, sizes=(low, high))

    precision, recall = resampled(of_size(*ALL_SIZES), draws, every)
    figures = {"AP": precision.mean(axis=1), "AP50": precision[:, 0], "AP75": precision[:, AT_75]}
    figures["APM"] = resampled(of_size(MEDIUM, LARGE), draws, every)[0].mean(axis=1)
    figures["APL"] = resampled(of_size(LARGE, LARGEST), draws, every)[0].mean(axis=1)
    figures["AR"] = recall.mean(axis=1)
    for own_only in (False, True):
        for index, occlusion in enumerate(OCCLUSION_CLASSES):
            matches = evaluate_occlusion(measured, ranks, index, own_only=own_only).matches
            precision = resampled(matches, draws, every)[0]
            form = "own" if own_only else "all"
            figures[f"AP {occlusion.key} ({form})"] = precision.mean(axis=1)
            figures[f"AP75 {occlusion.key} ({form})"] = precision[:, AT_75]
    return figures


@dataclass(frozen=True)
class PairedTest:
    """Comparison of a figure of n trainings under two settings, as in table 4.

    Attributes:
        means: mean under each setting.
        deviations: sample standard deviations; 0 for a single training.
        p: two-sided p-value of the paired t-test that the means are equal; NaN with fewer than two pairs, or if all
            pairs have the same difference.
        significant: whether p is below .05.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    p: float
    significant: bool


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Compare n figures with n others, paired by training.

    Raises:
        ArgumentError: the two differ in length, or are empty.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(a) != len(b) or len(a) == 0:
        raise ArgumentError(
            f"first and second must hold one figure per training each, got {len(a)} and {len(b)}"
        )
    differs = len(a) > 1 and np.ptp(b - a) > 0
    p = float(stats.ttest_rel(a, b).pvalue) if differs else float("nan")
    deviations = (float(a.std(ddof=1)), float(b.std(ddof=1))) if len(a) > 1 else (0.0, 0.0)
    return PairedTest((float(a.mean()), float(b.mean())), deviations, p, bool(p < 0.05))
