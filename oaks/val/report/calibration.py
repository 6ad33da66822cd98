"""Section: keypoint similarity and calibration (figures 5 and 6, reliability diagrams, thresholds)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from oaks.skeleton import COCO17
from oaks.val.calibration import (
    RIGHT,
    CalibrationMetrics,
    measure_calibration,
    pearson,
    spearman,
    threshold_for,
)
from oaks.val.ground_truth import LARGE, MEDIUM, OCCLUSION_CLASSES
from oaks.val.report import figures, paper
from oaks.val.report.document import Cell, Figure, Item, Section, Table, columns
from oaks.val.report.occlusion import SHORT, shown_scores
from oaks.val.scores import TITLES, ScoredDetections

SHOWN_KEYPOINTS = ("left_eye", "left_wrist", "left_knee")
"""The keypoints of figure 5."""
MEASURES = ("Pearson", "Spearman", "ECE", "Brier")
PRECISION_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def groups(measured: ScoredDetections) -> Iterator[tuple[str, np.ndarray]]:
    """Return (title, (N,) bool) for all poses, and by occlusion level and size of the poses' own people."""
    own, has = measured.detections.own, measured.detections.own >= 0
    yield "Everybody", np.ones(len(own), dtype=bool)
    for i, occlusion in enumerate(OCCLUSION_CLASSES):
        yield occlusion.title, measured.occlusion == i
    areas = np.where(has, measured.truth.areas[own], 0.0)
    yield "Small (below 32²)", has & (areas < MEDIUM)
    yield "Medium (32² to 96²)", has & (areas >= MEDIUM) & (areas < LARGE)
    yield "Large (from 96²)", has & (areas >= LARGE)


Groups = Mapping[str, Mapping[str, CalibrationMetrics]]
"""Calibration of the main scores, by title of a group and key of a score."""


def measure_groups(measured: ScoredDetections) -> Groups:
    """Measure the main scores in every group."""
    scores = {key: measured.scores[key].values for key in shown_scores(measured)}
    return {
        title: {
            key: measure_calibration(values[members], measured.own_oks[members])
            for key, values in scores.items()
        }
        for title, members in groups(measured)
    }


def correlation_table(measured: ScoredDetections) -> Table:
    """Table of Pearson, Spearman, ECE and Brier of every score, over all poses."""
    found = {key: measure_calibration(s.values, measured.own_oks) for key, s in measured.scores.items()}
    return Table(
        f"correlation-{measured.name}",
        f"{measured.name}: every score against the true OKS",
        columns(text=["Score"], count=["Poses"], number=MEASURES),
        tuple((TITLES[key], m.count, m.pearson, m.spearman, m.ece, m.brier) for key, m in found.items()),
        "Before box scores are multiplied in. ECE: 15 bins of equal count, mean score against mean true "
        "OKS. Brier: the event is an OKS of at least .5. Lower is better for both.",
        tuple(i for i, key in enumerate(found) if key == measured.best.key),
    )


def group_table(name: str, measures: Groups) -> Table:
    """The same table for the main scores, by occlusion level and size of the person."""
    return Table(
        f"calibration-{name}",
        f"{name}: calibration per occlusion level and size of person",
        columns(text=["People", "Score"], count=["Poses"], number=["Mean score", "Mean OKS", *MEASURES]),
        tuple(
            (title, SHORT[key], m.count, m.mean_score, m.mean_oks, m.pearson, m.spearman, m.ece, m.brier)
            for title, scores in measures.items()
            for key, m in scores.items()
        ),
        "Sizes by the person's area in pixels of the original image.",
    )


def reliability_figures(name: str, measures: Groups) -> list[Figure]:
    """Reliability diagrams: all people and the classes from the most to the least occluded; the sizes."""
    panels = list(measures.items())
    split = 1 + len(OCCLUSION_CLASSES)
    return [
        Figure(
            f"reliability-{key}-{name}",
            f"{name}: mean OKS against the score, by {what}",
            figures.reliability(dict(chosen), SHORT),
            "Mean true OKS of the poses in each bin of equal count, against their mean score. A calibrated score "
            "lies on the dashed line.",
        )
        for key, what, chosen in (
            ("class", "occlusion", panels[:split]),
            ("size", "size of person", panels[split:]),
        )
    ]


def threshold_table(measured: ScoredDetections) -> Table:
    """Table of the minimum score that reaches a precision."""
    rows = []
    right = measured.own_oks >= RIGHT
    for key in shown_scores(measured):
        for precision in PRECISION_LEVELS:
            found = threshold_for(measured.scores[key].ranks, right, precision)
            rows.append((SHORT[key], precision, found.score, found.kept, found.recall))
    return Table(
        f"thresholds-{measured.name}",
        f"{measured.name}: thresholds and their precision",
        (
            *columns(text=["Score"], percent=["Target precision"], number=["Threshold"]),
            *columns(percent=["Poses kept", "Right poses kept"]),
        ),
        tuple(rows),
        "A pose is right if its OKS with its own person is at least .5. The threshold is the lowest that reaches the "
        "precision; scores of poses in detected boxes include the box score. A dash: no threshold reaches it.",
    )


def similarity_items(measured: ScoredDetections, beside_paper: bool) -> list[Item]:
    """Figure 5 and its table: heat and predicted KS against the true KS, per keypoint."""
    detections, skeleton = measured.detections, measured.truth.skeleton
    predictions = {"Heat": detections.heat, "Predicted KS": detections.similarity}
    present = {name: values for name, values in predictions.items() if values is not None}
    labeled = measured.flags > 0
    items: list[Item] = []
    shown = [skeleton.keypoints.index(k) for k in SHOWN_KEYPOINTS if k in skeleton.keypoints] or list(
        range(min(3, skeleton.count))
    )
    for name, values in present.items():
        panels = {}
        for k in shown:
            true, value = measured.own_ks[labeled[:, k], k], values[labeled[:, k], k]
            panels[skeleton.keypoints[k].replace("_", " ")] = (true, value, pearson(true, value))
        label = name[0].lower() + name[1:]
        items.append(
            Figure(
                f"{'heat' if name == 'Heat' else 'ks'}-against-ks-{detections.name}",
                f"{detections.name}: {label} against the true keypoint similarity"
                + (" (figure 5)" if name == "Heat" else ""),
                figures.against_similarity(panels, label),
                "Labeled keypoints; a stronger color is more, on a logarithmic scale.",
            )
        )
    theirs = beside_paper and skeleton == COCO17
    rows: list[tuple[Cell, ...]] = []
    for k, keypoint in enumerate(skeleton.keypoints):
        members = labeled[:, k]
        true = measured.own_ks[members, k]
        row: list[Cell] = [
            keypoint.replace("_", " "),
            int(members.sum()),
            float(true.mean()) if len(true) else None,
        ]
        for values in present.values():
            row += [pearson(values[members, k], true), spearman(values[members, k], true)]
        if detections.similarity is not None:
            row += [measure_calibration(detections.similarity[members, k], true).ece]
        rows.append((*row, paper.HEAT_AGAINST_KS.get(keypoint)) if theirs else tuple(row))
    titles = ["Mean true KS"] + [f"{name}: {r}" for name in present for r in ("Pearson", "Spearman")]
    titles += ["Predicted KS: ECE"] if detections.similarity is not None else []
    titles += ["Heat: Pearson, paper"] if theirs else []
    items.append(
        Table(
            f"similarity-{detections.name}",
            f"{detections.name}: correlation with the true keypoint similarity",
            columns(text=["Keypoint"], count=["Cases"], number=titles),
            tuple(rows),
            "Labeled keypoints of poses that are matched with a person.",
        )
    )
    return items


def histogram_figure(measured: ScoredDetections) -> Figure | None:
    """Figure 6: OKS-bar (heat with true visibility), predicted OKS and OKS."""
    shown = {
        "heat_true_visibility": ("OKS from heat", figures.COLORS["conventional"]),
        "oaks_true_visibility": ("OKS from predicted KS", figures.COLORS["oaks"]),
        "oracle": ("True OKS", figures.COLORS["oracle"]),
    }
    panels = {
        title: measured.scores[key].values for key, (title, _) in shown.items() if key in measured.scores
    }
    if len(panels) < 2 or not measured.detections.count:
        return None
    return Figure(
        f"histograms-{measured.name}",
        f"{measured.name}: OKS from heat, from predicted KS, and true OKS (figure 6)",
        figures.score_histograms(panels, dict(shown.values())),
        "All three use the true visibility.",
    )


def section(sources: Mapping[str, ScoredDetections], beside_paper: bool) -> Section:
    """Return the section with the figures and tables of all results files, by name."""
    items: list[Item] = []
    for measured in sources.values():
        measures = measure_groups(measured)
        items += [*reliability_figures(measured.name, measures), correlation_table(measured)]
        items += [group_table(measured.name, measures), threshold_table(measured)]
        if (histogram := histogram_figure(measured)) is not None:
            items.append(histogram)
        if measured.detections.heat is not None or measured.detections.similarity is not None:
            items += similarity_items(measured, beside_paper)
    return Section(
        "calibration",
        "Is the score calibrated?",
        "A score can rank well and still be a bad estimate of OKS, which makes thresholds hard to choose. With "
        "ground-truth boxes, a pose's own person is the one whose box was cropped. With detected boxes, it is the "
        "labeled person with the largest OKS, if that is at least .1; a pose without such a person has OKS 0.",
        tuple(items),
    )
