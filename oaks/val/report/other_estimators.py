"""Section: frozen estimators under their own score, under OAKS by each scorer, and under the oracle (table 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from oaks.errors import ArgumentError
from oaks.val.bootstrap import Comparison, Contender, compare_rankings
from oaks.val.calibration import measure_calibration
from oaks.val.ground_truth import OCCLUSION_CLASSES
from oaks.val.report import paper
from oaks.val.report.document import Cell, Section, Table, columns
from oaks.val.scores import TITLES, Score, ScoredDetections

SAME_POSES = 0.05
"""Largest difference in pixels between the keypoints of two files with the same poses."""
INTERVALS = "Per cent with 95 % intervals, bootstrap over images."
FORMS = {"all": "all detections kept", "own": "only detections whose own person is on the level"}


@dataclass(frozen=True)
class Ranking(Contender):
    """One score of an estimator's poses. The order is its own score, one score per scorer, the oracle."""

    score: Score

    @classmethod
    def by(cls, score: Score, measured: ScoredDetections, title: str = "") -> Ranking:
        """Return the ranking by a score of the results."""
        return cls(title or TITLES[score.key], measured, score.ranks, score)


def section(
    sources: Mapping[str, ScoredDetections], beside_paper: bool, *, resamples: int = 1000, seed: int = 0
) -> Section:
    """Return AP, its gain, and AP and AP at OKS .75 by occlusion level, of every estimator under every score.

    Files with the same poses belong to one estimator, which is named after the first file and has its score as its own
    score. Every file with visibility and similarity adds OAKS.

    Args:
        sources: name of a results file -> its poses paired with the ground truth.
        beside_paper: whether to add the paper's rows.
        resamples, seed: number of resamples and random seed of the bootstrap over images.

    Raises:
        ArgumentError: no file of an estimator has visibility and similarity.
    """
    found = {
        name: (rankings, compare_rankings(rankings, resamples=resamples, seed=seed))
        for name, rankings in estimators(sources).items()
    }
    tables = [overall_table(found)]
    for figure, title in (("AP75", "AP at OKS .75"), ("AP", "AP")):
        tables += [class_table(found, figure, title, form, beside_paper) for form in FORMS]
    return Section(
        "other-estimators",
        "Other estimators under OAKS",
        "Poses of other estimators, ranked by their own score and by OAKS. All rows of an estimator rank the same poses.",
        tuple(tables),
    )


def estimators(sources: Mapping[str, ScoredDetections]) -> dict[str, list[Ranking]]:
    """Return the rankings of every estimator; files with the same poses belong to one estimator.

    Raises:
        ArgumentError: no file of an estimator has visibility and similarity.
    """
    groups: dict[str, list[str]] = {}
    for name, measured in sources.items():
        owner = next((first for first in groups if same_poses(sources[first], measured)), name)
        groups.setdefault(owner, []).append(name)
    return {
        name: _rankings(name, {member: sources[member] for member in group}) for name, group in groups.items()
    }


def same_poses(one: ScoredDetections, other: ScoredDetections) -> bool:
    """Whether two files have the same poses in the same images, in the same order."""
    a, b = one.detections, other.detections
    return (
        a.keypoints.shape == b.keypoints.shape
        and np.array_equal(a.image, b.image)
        and float(np.abs(a.keypoints - b.keypoints).max(initial=0)) <= SAME_POSES
    )


def _rankings(name: str, files: Mapping[str, ScoredDetections]) -> list[Ranking]:
    first = files[name]
    scored = {file: measured for file, measured in files.items() if "oaks" in measured.scores}
    if not scored:
        raise ArgumentError(
            f"{first.detections.path}: no visibility or similarity; name a bundle to add them, or a file of the same "
            "poses that `oaks rescore` wrote"
        )
    own = first.scores.get("own", first.scores["conventional"])
    if name in scored and np.allclose(own.ranks, first.scores["oaks"].ranks, atol=1e-6):
        own = first.scores["conventional"]  # the file has been rescored, so its score is OAKS
    rows = [Ranking.by(own, first)]
    for file, measured in scored.items():
        title = "" if len(scored) == 1 else f"{TITLES['oaks']}, {file}"
        rows.append(Ranking.by(measured.scores["oaks"], measured, title))
    if "oracle" in first.scores:
        rows.append(Ranking.by(first.scores["oracle"], first))
    return rows


Found = Mapping[str, tuple[list[Ranking], list[Comparison]]]


def overall_table(found: Found) -> Table:
    """Table of AP and AP75, the gain over the own score, the share of the gap to the oracle, correlation, calibration."""
    rows: list[tuple[Cell, ...]] = []
    marked = []
    for name, (rankings, comparisons) in found.items():
        figures = {comparison.figure: comparison for comparison in comparisons}
        ap, with_oracle = figures["AP"], rankings[-1].score.key == "oracle"
        gap = ap.values[-1].value - ap.values[0].value if with_oracle else np.nan
        for n, ranking in enumerate(rankings):
            gain = ap.differences[n - 1] if n else None
            known = ranking.measured.detections.own >= 0
            told = measure_calibration(ranking.score.values[known], ranking.measured.own_oks[known])
            if ranking.score.key == "oaks":
                marked.append(len(rows))
            closed = None if gain is None or not gap > 0 else gain.value / gap
            values = (ap.values[n], figures["AP75"].values[n])
            rows.append((name, ranking.name, *values, gain, closed, told.pearson, told.ece))
    return Table(
        "other-estimators",
        "Other estimators: own score, OAKS and oracle",
        (
            *columns(text=["Estimator", "Score"], percent=["AP", "AP75"], points=["AP gain"]),
            *columns(percent=["Gap closed %"], number=["Pearson", "ECE"]),
        ),
        tuple(rows),
        f"{INTERVALS} Gains are over the own score.",
        tuple(marked),
    )


def class_table(found: Found, figure: str, title: str, form: str, beside_paper: bool) -> Table:
    """Table of one figure by occlusion level, in one form; table 9 is AP75 with all detections kept."""
    rows: list[tuple[Cell, ...]] = []
    marked = []
    for name, (rankings, comparisons) in found.items():
        figures = {comparison.figure: comparison for comparison in comparisons}
        for n, ranking in enumerate(rankings):
            if ranking.score.key == "oaks":
                marked.append(len(rows))
            values = (figures[f"{figure} {c.key} ({form})"].values[n] for c in OCCLUSION_CLASSES)
            rows.append((name, ranking.name, *values))
    table_nine = figure == "AP75" and form == "all"
    if beside_paper and table_nine:
        for name, stated in paper.OTHER_ESTIMATORS.items():
            estimator, score = name.split(", ")
            rows.append((f"paper, {estimator}", score, *stated))
    return Table(
        f"other-estimators-{figure.lower()}-{form}",
        f"{title} by occlusion level, {FORMS[form]}{' (table 9)' if table_nine else ''}",
        columns(text=["Estimator", "Score"], percent=[c.title for c in OCCLUSION_CLASSES]),
        tuple(rows),
        INTERVALS,
        tuple(marked),
    )


__all__ = ["estimators", "section"]
