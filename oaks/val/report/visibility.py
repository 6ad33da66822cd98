"""Section: predicted visibility against the annotators (table 2, figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np

from oaks.skeleton import COCO17
from oaks.val.report import figures, paper
from oaks.val.report.document import Figure, Item, Section, Table, columns
from oaks.val.scores import ScoredDetections
from oaks.val.visibility import visibility_metrics

SHARES = (
    "Annotated", "Accuracy", "Precision", "Recall", "AUC", "Recall, hidden (v=1)", "Recall, seen (v=2)",
    "Specificity (v=0)",
)  # fmt: skip
"""Titles of the fields of VisibilityMetrics after the count."""


def visibility_table(measured: ScoredDetections, beside_paper: bool) -> Table:
    """Table 2, with figures that accuracy alone does not show."""
    assert measured.detections.visibility is not None
    has, skeleton = measured.detections.own >= 0, measured.truth.skeleton
    visibility, flags = measured.detections.visibility[has], measured.flags[has]
    found = {
        keypoint.replace("_", " "): visibility_metrics(visibility[:, k], flags[:, k])
        for k, keypoint in enumerate(skeleton.keypoints)
    } | {"all": visibility_metrics(visibility, flags)}
    rows = [(name, *astuple(metrics)) for name, metrics in found.items()]
    shares: list[str] = [*SHARES]
    if beside_paper and skeleton == COCO17:
        theirs = (*paper.VISIBILITY_ACCURACY, float(np.mean(paper.VISIBILITY_ACCURACY)))
        rows = [(*row, accuracy) for row, accuracy in zip(rows, theirs, strict=True)]
        shares.append("Accuracy, paper")
    return Table(
        f"visibility-{measured.name}",
        f"{measured.name}: predicted visibility, per keypoint",
        columns(text=["Keypoint"], count=["Cases"], percent=shares),
        tuple(rows),
        "Visible means labeled by the annotator (v = 1 or 2), predicted visible means above .5. "
        "“Annotated” is the accuracy of always saying visible. AUC does not depend on the threshold.",
        (len(rows) - 1,),
    )


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
        f"flags-{measured.name}",
        f"{measured.name}: values of seen, hidden and unlabeled keypoints (figure 4)",
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
