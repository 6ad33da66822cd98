"""Section: predicted visibility against the annotators (table 2, figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np

from oaks.skeleton import COCO17
from oaks.val.report import figures, paper
from oaks.val.report.document import Column, Figure, Item, Section, Table
from oaks.val.scores import ScoredDetections
from oaks.val.visibility import VisibilityMetrics, visibility_metrics

COLUMNS = (
    Column("Keypoint", "text"),
    Column("Cases", "count"),
    Column("Annotated"),
    Column("Accuracy"),
    Column("Precision"),
    Column("Recall"),
    Column("AUC"),
    Column("Recall, hidden (v=1)"),
    Column("Recall, seen (v=2)"),
    Column("Specificity (v=0)"),
)


def visibility_table(measured: ScoredDetections, beside_paper: bool) -> Table:
    """Table 2, with figures that accuracy alone does not show."""
    visibility, flags = _of_people(measured)
    skeleton = measured.truth.skeleton
    theirs = beside_paper and skeleton == COCO17
    rows = []
    for k, keypoint in enumerate(skeleton.keypoints):
        row = _row(keypoint.replace("_", " "), visibility_metrics(visibility[:, k], flags[:, k]))
        rows.append((*row, paper.VISIBILITY_ACCURACY[k]) if theirs else row)
    total = _row("all", visibility_metrics(visibility, flags))
    rows.append((*total, float(np.mean(paper.VISIBILITY_ACCURACY))) if theirs else total)
    return Table(
        f"visibility-{measured.detections.name}",
        f"{measured.detections.name}: predicted visibility, per keypoint",
        (*COLUMNS, Column("Accuracy, paper")) if theirs else COLUMNS,
        tuple(rows),
        "Visible means labeled by the annotator (v = 1 or 2), predicted visible means above .5. "
        "“Annotated” is the accuracy of always saying visible. AUC does not depend on the threshold.",
        (len(rows) - 1,),
    )


def _row(name: str, figures: VisibilityMetrics) -> tuple[str | int | float, ...]:
    return (name, *astuple(figures))


def _of_people(measured: ScoredDetections) -> tuple[np.ndarray, np.ndarray]:
    """Return visibilities and flags (n,K) of the poses with a person."""
    has = measured.detections.own >= 0
    assert measured.detections.visibility is not None
    return measured.detections.visibility[has], measured.flags[has]


def flag_figure(measured: ScoredDetections) -> Figure:
    """Figure 4, and the same for predicted visibility: values of visible, hidden and unlabeled keypoints."""
    flags = measured.flags
    values = {"Heat": measured.detections.heat, "Predicted visibility": measured.detections.visibility}
    panels = {
        title: {name: value[flags == flag] for flag, name in ((2, "seen"), (1, "hidden"), (0, "not labeled"))}
        for title, value in values.items()
        if value is not None
    }
    return Figure(
        f"flags-{measured.detections.name}",
        f"{measured.detections.name}: values of seen, hidden and unlabeled keypoints (figure 4)",
        figures.by_flag(panels),
        "A hidden keypoint has a low heat value, which lowers the mean over all keypoints even if the pose is right.",
    )


def section(sources: Mapping[str, ScoredDetections], beside_paper: bool) -> Section | None:
    """Return the section with all results files that have visibilities or heat; None if none has."""
    items: list[Item] = []
    for measured in sources.values():
        if measured.detections.heat is not None or measured.detections.visibility is not None:
            items.append(flag_figure(measured))
        if measured.detections.visibility is not None:
            items.append(visibility_table(measured, beside_paper))
    if not items:
        return None
    return Section(
        "visibility",
        "Predicted visibility",
        "The predicted probability that an annotator would have placed a keypoint, compared with the labels.",
        tuple(items),
    )
