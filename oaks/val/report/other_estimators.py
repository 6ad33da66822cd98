"""Section: other estimators' poses under their own score and under OAKS (table 9)."""

from __future__ import annotations

from collections.abc import Mapping

from oaks.errors import ArgumentError
from oaks.val.ground_truth import OCCLUSION_CLASSES
from oaks.val.occlusion import evaluate_occlusion
from oaks.val.report import paper
from oaks.val.report.document import Cell, Column, Section, Table
from oaks.val.scores import TITLES, ScoredDetections


def section(sources: Mapping[str, ScoredDetections], beside_paper: bool) -> Section:
    """AP at OKS .75 per class of every file, by its own score and by OAKS.

    Raises:
        ArgumentError: a file has no visibility or similarity.
    """
    rows: list[tuple[Cell, ...]] = []
    for name, measured in sources.items():
        if "oaks" not in measured.scores:
            raise ArgumentError(
                f"{measured.detections.path}: no visibility or similarity; name a bundle to add them"
            )
        own = measured.scores["own"] if "own" in measured.scores else measured.scores["conventional"]
        for score in (own, measured.scores["oaks"]):
            found = [evaluate_occlusion(measured, score.ranks, c) for c in range(len(OCCLUSION_CLASSES))]
            rows.append((name, TITLES[score.key], *(b.ap75 for b in found)))
    if beside_paper:
        for name, values in paper.OTHER_ESTIMATORS.items():
            estimator, score = name.split(", ")
            rows.append((f"paper, {estimator}", score, *values))
    table = Table(
        "other-estimators",
        "AP at OKS .75 by occlusion class, own score and OAKS (table 9)",
        (
            Column("Estimator", "text"),
            Column("Score", "text"),
            *(Column(c.title) for c in OCCLUSION_CLASSES),
        ),
        tuple(rows),
        "All detections kept. The poses of an estimator's two rows are the same.",
        tuple(range(1, 2 * len(sources), 2)),
    )
    return Section(
        "other-estimators",
        "Other estimators under OAKS",
        "What a score is worth does not hang on who placed the keypoints.",
        (table,),
    )
