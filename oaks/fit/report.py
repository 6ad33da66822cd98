"""The result of a fit: the scorer, and tables of the conventional and the fitted score on held-out people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks.scorer import Card, Scorer
from oaks.val.bootstrap import Comparison, Contender, compare_rankings
from oaks.val.calibration import measure_calibration
from oaks.val.detections import Detections
from oaks.val.ground_truth import OCCLUSION_CLASSES, GroundTruth
from oaks.val.report.document import Cell, Column, Table
from oaks.val.scores import TITLES, ScoredDetections

SHOWN = ("AP", "AP50", "AP75", "AR")


@dataclass(frozen=True)
class KSNetScorer:
    """A KS network that gives visibility too, fitted to a frozen network's heatmaps.

    Attributes:
        card: what it was fitted to.
        onnx: the network as an ONNX file stored in fp16.
        architecture: its description for oaks.training.networks.build.
        calibration: scale and bias of the logits of "similarity" and "visibility", as in bundle.json.
    """

    card: Card
    onnx: bytes
    architecture: Mapping[str, Any]
    calibration: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer and its accuracy on people of images that it was not fitted to.

    Attributes:
        scorer: fitted to all people: trees (oaks.Scorer), or a KS network.
        measured: the poses of the fit with similarity and visibility predicted out of fold.
        comparisons: conventional and OAKS score with bootstrap intervals.
        warnings: possible problems with the people or the results.
        path: the scorer's file, or None if it has not been written.
    """

    scorer: Scorer | KSNetScorer
    measured: ScoredDetections
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]
    path: Path | None = None

    @property
    def tables(self) -> list[Table]:
        """Average precision, by occlusion level, and calibration."""
        return [
            ranking_table(self.measured, self.comparisons),
            class_table(self.comparisons),
            calibration_table(self.measured),
        ]

    def print(self) -> None:
        """Print the tables to the terminal."""
        from oaks.val.report.writer import print_tables

        print_tables(self.tables)


def measured_with(
    truth: GroundTruth, detections: Detections, similarity: np.ndarray, visibility: np.ndarray
) -> ScoredDetections:
    """Return the poses paired with the ground truth, with predicted similarity and visibility (N, K)."""
    told = replace(detections, similarity=similarity.astype(float), visibility=visibility.astype(float))
    return ScoredDetections.of(truth, told)


def contenders(measured: ScoredDetections) -> list[Contender]:
    """Return the contenders: conventional, OAKS and, with ground-truth boxes, the oracle."""
    keys = [key for key in ("conventional", "oaks", "oracle") if key in measured.scores]
    return [Contender(key, measured, measured.scores[key].ranks) for key in keys]


def compared(measured: ScoredDetections, *, resamples: int, seed: int) -> tuple[Comparison, ...]:
    """Paired bootstrap over images of `contenders`."""
    return tuple(compare_rankings(contenders(measured), resamples=resamples, seed=seed))


def summary(measured: ScoredDetections, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return the figures for a card or a log."""
    names = [contender.name for contender in contenders(measured)]
    value = {c.figure: dict(zip(names, (v.value for v in c.values), strict=True)) for c in comparisons}
    known = measured.detections.own >= 0
    kept: dict[str, Any] = {"people": int(known.sum()), "boxes": measured.detections.box_source}
    for name in names:
        kept[name] = {figure: _rounded(value[figure][name]) for figure in SHOWN}
    kept["AP gain"] = _rounded(value["AP"]["oaks"] - value["AP"]["conventional"])
    if "oracle" in names:
        gap = value["AP"]["oracle"] - value["AP"]["conventional"]
        kept["gap closed"] = (
            _rounded((value["AP"]["oaks"] - value["AP"]["conventional"]) / gap) if gap > 0 else None
        )
    for key in ("conventional", "oaks"):
        found = measure_calibration(measured.scores[key].values[known], measured.own_oks[known])
        kept[key] |= {"Pearson": _rounded(found.pearson), "ECE": _rounded(found.ece)}
    for form in ("all", "own"):
        kept[f"AP75 gain ({form})"] = {
            c.key: _rounded(
                value[f"AP75 {c.key} ({form})"]["oaks"] - value[f"AP75 {c.key} ({form})"]["conventional"]
            )
            for c in OCCLUSION_CLASSES
        }
    return kept


def ranking_table(measured: ScoredDetections, comparisons: Sequence[Comparison]) -> Table:
    """Table of AP, AP50, AP75 and AR of every score, and the gain of OAKS."""
    found = {comparison.figure: comparison for comparison in comparisons}
    rows: list[tuple[Cell, ...]] = [
        (TITLES[contender.name], *(found[figure].values[n] for figure in SHOWN))
        for n, contender in enumerate(contenders(measured))
    ]
    return Table(
        "ranking",
        "Held-out people: the same poses ranked by each score",
        (Column("Score", "text"), *(Column(figure) for figure in SHOWN)),
        tuple(rows),
        "Per cent with 95 % intervals, bootstrap over images.",
        (1,),
    )


def class_table(comparisons: Sequence[Comparison]) -> Table:
    """Table of AP and its gain, overall, and AP75 by occlusion level."""
    figures = ["AP", "AP75"]
    figures += [f"AP75 {c.key} ({form})" for form in ("all", "own") for c in OCCLUSION_CLASSES]
    found = {comparison.figure: comparison for comparison in comparisons}
    rows = [
        (
            figure,
            found[figure].values[0].value,
            found[figure].values[1].value,
            found[figure].differences[0],
        )
        for figure in figures
    ]
    return Table(
        "gains",
        "OAKS against the conventional score",
        (Column("Figure", "text"), Column("Conventional"), Column("OAKS"), Column("Gain", "points")),
        tuple(rows),
        "Gains in points with 95 % intervals, paired bootstrap over images. (all): all detections compete; (own): only "
        "those whose own person is on the level.",
    )


def calibration_table(measured: ScoredDetections) -> Table:
    """Table of correlation with true OKS and calibration error of both scores."""
    known = measured.detections.own >= 0
    rows: list[tuple[Cell, ...]] = []
    for key in ("conventional", "oaks"):
        found = measure_calibration(measured.scores[key].values[known], measured.own_oks[known])
        rows.append((TITLES[key], found.pearson, found.spearman, found.ece, found.brier))
    columns = (
        Column("Score", "text"),
        *(Column(n, "number") for n in ("Pearson", "Spearman", "ECE", "Brier")),
    )
    return Table("calibration", "Score and true OKS", columns, tuple(rows))


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


__all__ = ["Fitted", "compared", "contenders", "measured_with", "summary"]
