"""Section: average precision and recall of every score (tables 1, 3, 4, 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping

from oaks.val.coco_eval import FIGURES, CocoBackend, coco_metrics
from oaks.val.report import paper
from oaks.val.report.document import Cell, Item, Section, Table, columns
from oaks.val.scores import TITLES, ScoredDetections

IN_PAPER = {
    "conventional": "1, 4, 6, 7",
    "oaks": "6, 7",
    "oracle": "3, 4, 6",
    "true_ks_all_visible": "3",
    "true_ks_predicted_visibility": "3",
    "heat_true_visibility": "4",
    "oaks_true_visibility": "4",
}

BOXES = {"ground truth": "ground-truth boxes", "detected": "detected boxes"}

EIGHT = ("AP", "AP50", "AP75", "APM", "APL", "AR", "ARM", "ARL")
"""The figures of tables 1, 4 and 5."""
Ranking = Mapping[str, Mapping[str, float]]
"""COCO's ten figures of every score."""


def rank(measured: ScoredDetections, by: CocoBackend = "pycocotools") -> dict[str, dict[str, float]]:
    """Return COCO's ten figures of every score, by key."""
    detections = measured.detections
    return {
        key: coco_metrics(measured.truth, detections.image, detections.keypoints, score.ranks, by=by)
        for key, score in measured.scores.items()
    }


def eight_figures(measured: ScoredDetections, key: str) -> dict[str, float]:
    """Return the figures EIGHT of one score; NaN if there is nobody to find.

    Raises:
        ArgumentError: the results do not allow that score.
    """
    detections = measured.detections
    ranks = measured.ranked_by(key).ranks
    found = coco_metrics(measured.truth, detections.image, detections.keypoints, ranks)
    return {figure: found[figure] for figure in EIGHT}


def gap_closed(ranking: Ranking, key: str) -> float | None:
    """Return the share of the AP between the conventional and the oracle score that a score gains; None if there is none."""
    if "conventional" not in ranking or "oracle" not in ranking:
        return None
    low, high = ranking["conventional"]["AP"], ranking["oracle"]["AP"]
    return (ranking[key]["AP"] - low) / (high - low) if high > low else None


def _with_boxes(measured: ScoredDetections) -> str:
    """Return the results' name with the kind of their boxes, unless the name states it."""
    name, boxes = measured.name, BOXES[measured.detections.box_source]
    return name if boxes in name else f"{name}, {boxes}"


def ranking_table(measured: ScoredDetections, ranking: Ranking) -> Table:
    """Table of ten figures of every score, and how much of the gap to the oracle each closes."""
    truth_known = measured.detections.box_source == "ground truth"
    shown = columns(text=["Score"], percent=FIGURES)
    rows: list[tuple[Cell, ...]] = [(TITLES[key], *figures.values()) for key, figures in ranking.items()]
    if truth_known:
        shown += columns(percent=["Gap closed, %"], text=["Paper's table"])
        rows = [
            (*row, gap_closed(ranking, key), IN_PAPER.get(key, ""))
            for row, key in zip(rows, ranking, strict=True)
        ]
    return Table(
        f"ranking-{measured.name}",
        f"{_with_boxes(measured)}: average precision and recall",
        shown,
        tuple(rows),
        "Per cent, by COCO's own evaluation. "
        + (
            "“Gap closed” is the share of the AP between the conventional and the oracle score. True "
            "visibility and true KS are taken from the person whose box was cropped."
            if truth_known
            else "Every score is multiplied by the box score, those of predicted similarity by the power of it "
            "that the results state (box_score_power). Scores that need the ground truth are not defined here."
        ),
        tuple(i for i, key in enumerate(ranking) if key == measured.best.key),
    )


def against_paper(measured: ScoredDetections, ranking: Ranking) -> Table | None:
    """Table of this file's figures beside the paper's, for the tables that apply; None if none does."""
    published = (
        paper.GROUND_TRUTH_BOXES if measured.detections.box_source == "ground truth" else paper.DETECTED_BOXES
    )
    rows: list[tuple[Cell, ...]] = []
    for key, theirs in published.items():
        if key in ranking:
            rows += [
                (TITLES[key], "here", *ranking[key].values()),
                (TITLES[key], "paper", *(theirs.get(figure) for figure in FIGURES)),
            ]
    if not rows:
        return None
    return Table(
        f"paper-ranking-{measured.name}",
        f"{_with_boxes(measured)}, beside the paper",
        columns(text=["Score", "Source"], percent=FIGURES),
        tuple(rows),
        f"The paper's setting: {paper.SETTING}. A dash: the paper gives no figure.",
        tuple(range(0, len(rows), 2)),
    )


def networks_table(sources: Mapping[str, tuple[ScoredDetections, Ranking]]) -> Table:
    """Table 1: the poses of every file under the conventional score, and those of the paper's two networks."""
    rows: list[tuple[Cell, ...]] = [
        (name, measured.detections.box_source, *(ranking["conventional"][f] for f in EIGHT))
        for name, (measured, ranking) in sources.items()
        if "conventional" in ranking
    ]
    rows += [(f"paper, {network}", boxes, *figures) for (network, boxes), figures in paper.NETWORKS.items()]
    return Table(
        "networks",
        "Does predicting visibility cost precision? (table 1)",
        columns(text=["Network", "Boxes"], percent=EIGHT),
        tuple(rows),
        "Conventional score. HPE is the network without the occlusion subnet: evaluate the results of one "
        "beside those of the other.",
        tuple(range(len(rows) - len(paper.NETWORKS))),
    )


def section(sources: Mapping[str, tuple[ScoredDetections, Ranking]], beside_paper: bool) -> Section:
    """Return the section with the tables of all results files, by name."""
    items: list[Item] = []
    for measured, ranking in sources.values():
        items.append(ranking_table(measured, ranking))
        if beside_paper and (beside := against_paper(measured, ranking)) is not None:
            items.append(beside)
    if beside_paper:
        items.append(networks_table(sources))
    return Section(
        "ranking",
        "Average precision of each score",
        "Scores only rank poses; every row evaluates the same poses. The oracle ranks by the true OKS: no score can do "
        "better with these poses.",
        tuple(items),
    )
