"""Section: the occlusion benchmarks (table 8, figures 11 and 12)."""

from __future__ import annotations

from collections.abc import Mapping

from oaks.val.bootstrap import Comparison
from oaks.val.error_analysis import KINDS, STAGES, ErrorAnalysis, Landing, analyze
from oaks.val.ground_truth import OCCLUSION_CLASSES, GroundTruth
from oaks.val.occlusion import evaluate_occlusion
from oaks.val.report import figures, paper
from oaks.val.report.document import Cell, Figure, Item, Section, Table, columns
from oaks.val.scores import TITLES, ScoredDetections

SHORT = {"conventional": "Conventional", "oaks": "OAKS", "oracle": "Oracle", "own": "File's score"}


def shown_scores(measured: ScoredDetections, also: tuple[str, ...] = ()) -> list[str]:
    """Return the available scores to compare by class: conventional, OAKS and the file's own."""
    return [key for key in ("conventional", "oaks", "own", *also) if key in measured.scores]


def class_counts(truth: GroundTruth, beside_paper: bool) -> Table:
    """Table 8: number of people by occlusion level."""
    counts = truth.class_counts()
    total = sum(counts.values())
    rows: list[tuple[Cell, ...]] = [("People", *counts.values(), total)]
    if beside_paper:
        rows.append(("People, paper", *paper.CLASS_COUNTS.values(), sum(paper.CLASS_COUNTS.values())))
    return Table(
        "class-counts",
        "People per occlusion level",
        columns(text=[""], count=[*(f"{c.title} ({c.fewest}–{c.most})" for c in OCCLUSION_CLASSES), "All"]),
        tuple(rows),
        "By the number of labeled keypoints. Shares: "
        + ", ".join(f"{count / total:.1%}" for count in counts.values())
        + ".",
    )


def class_table(measured: ScoredDetections, *, own_only: bool) -> Table:
    """Table of AP at OKS .75 and over .5 to .95 of every score in every class; see evaluate_occlusion."""
    rows: list[tuple[Cell, ...]] = []
    for key, score in measured.scores.items():
        found = [
            evaluate_occlusion(measured, score.ranks, c, own_only=own_only)
            for c in range(len(OCCLUSION_CLASSES))
        ]
        rows.append((TITLES[key], *(b.ap75 for b in found), *(b.ap for b in found)))
    name = measured.name
    form = "only the level's own detections" if own_only else "all detections kept"
    note = (
        "A detection counts only if its own person is on the level."
        if own_only
        else "People of other levels are ignored, but a detection that fails on one of them matches nobody "
        "and counts as a false positive on every level. This is the form of the paper's figures."
    )
    return Table(
        f"classes-{'own' if own_only else 'all'}-{name}",
        f"{name}: average precision per occlusion level, {form}",
        columns(
            text=["Score"],
            percent=[f"{ap} {c.title.lower()}" for ap in ("AP75", "AP") for c in OCCLUSION_CLASSES],
        ),
        tuple(rows),
        note,
        tuple(i for i, key in enumerate(measured.scores) if key == measured.best.key),
    )


def gains(name: str, comparisons: list[Comparison]) -> list[Item]:
    """Gain of OAKS over the conventional score by class, with intervals: a drawing and a table."""
    by_figure = {c.figure: c for c in comparisons}
    panels: dict[str, list[tuple[str, float, float, float]]] = {}
    for form, title in (("all", "All detections kept"), ("own", "Only the level's own detections")):
        won = [(c.title, by_figure[f"AP75 {c.key} ({form})"].differences[0]) for c in OCCLUSION_CLASSES]
        panels[title] = [(label, 100 * d.value, 100 * d.low, 100 * d.high) for label, d in won]
    table = Table(
        f"intervals-{name}",
        f"{name}: OAKS minus Conventional, with 95 % intervals",
        columns(text=["Figure"], percent=["Conventional", "OAKS"], points=["Difference"]),
        tuple((c.figure, *c.values, *c.differences) for c in comparisons),
        "Paired bootstrap over images. “(all)”: all detections kept; “(own)”: only the level's own.",
    )
    figure = Figure(
        f"gains-{name}",
        f"{name}: gain of OAKS over Conventional",
        figures.intervals(panels, "points of AP at OKS .75"),
        "With 95 % intervals of a paired bootstrap over images.",
    )
    return [figure, table]


def gains_beside_paper(measured: ScoredDetections, comparisons: list[Comparison]) -> Table:
    """Gain of OAKS at OKS .75 in each class, here and in figures 11 and 12 of the paper."""
    by_figure = {c.figure: c.differences[0] for c in comparisons}
    here = [by_figure[f"AP75 {c.key} (all)"] for c in OCCLUSION_CLASSES]
    boxes = measured.detections.box_source
    return Table(
        f"paper-gains-{measured.name}",
        f"{measured.name}: AP75 gain of OAKS over the conventional score, beside the paper",
        columns(text=["Source"], points=[c.title for c in OCCLUSION_CLASSES]),
        (
            ("here", *here),
            (f"paper, {boxes} boxes", *(paper.CLASS_GAINS[boxes].get(c.key) for c in OCCLUSION_CLASSES)),
        ),
        "All detections kept. For the other two classes the paper reports no difference.",
    )


def class_curves(measured: ScoredDetections) -> Figure:
    """Drawing of precision and recall at OKS .75 of the main scores in each class."""
    keys = shown_scores(measured, ("oracle",))
    panels = [
        {key: evaluate_occlusion(measured, measured.scores[key].ranks, c).precision for key in keys}
        for c in range(len(OCCLUSION_CLASSES))
    ]
    titles = [c.title for c in OCCLUSION_CLASSES]
    return Figure(
        f"curves-{measured.name}",
        f"{measured.name}: precision and recall at OKS .75",
        figures.precision_recall_curves(titles, panels, SHORT),
        "All detections kept; the number is the average precision in per cent.",
    )


def analyzes(measured: ScoredDetections, key: str, landing: Landing) -> list[ErrorAnalysis]:
    """Return the error analysis of one score for each class."""
    detections = measured.detections
    return [
        analyze(
            measured.truth,
            detections.image,
            detections.keypoints,
            measured.scores[key].ranks,
            detections.areas,
            among=measured.truth.occlusion == c,
            landing=landing,
            found=measured.found,
        )
        for c in range(len(OCCLUSION_CLASSES))
    ]


def error_items(measured: ScoredDetections, landing: Landing) -> list[Item]:
    """Figures 11 or 12, their numbers, and the kinds of errors of the keypoints."""
    found = {key: analyzes(measured, key, landing) for key in shown_scores(measured)}
    name, which = measured.name, 11 if measured.detections.box_source == "ground truth" else 12
    titles = [c.title for c in OCCLUSION_CLASSES]
    lands = (
        "Corrected keypoints get similarity .85 (jitter) or .5 (miss)."
        if landing == "definition"
        else "Corrected keypoints get similarity .96 (jitter) or .84 (miss), as in the code released "
        "with the method."
    )
    stages = Table(
        f"stages-{name}",
        f"{name}: AP at OKS .75 with errors corrected one kind at a time",
        columns(text=["Score", "Class"], percent=STAGES.values()),
        tuple(
            (SHORT[key], c.title, *(analysis.ap[stage] for stage in STAGES))
            for key, line in found.items()
            for c, analysis in zip(OCCLUSION_CLASSES, line, strict=True)
        ),
        lands,
    )
    best = found[measured.best.key]
    kinds = Table(
        f"kinds-{name}",
        f"{name}: errors of labeled keypoints in matched poses",
        columns(text=["Class"], count=["Keypoints"], percent=map(str.capitalize, KINDS)),
        tuple(
            (
                c.title,
                total := sum(a.counts.values()),
                *(a.counts[k] / total if total else None for k in KINDS),
            )
            for c, a in zip(OCCLUSION_CLASSES, best, strict=True)
        ),
        "Per cent. Good: similarity of at least .85 to its own place; jitter: .5 to .85; inversion: "
        "nearer to the other side of the same person; swap: nearer to another person; miss: none of these.",
    )
    figure = Figure(
        f"errors-{name}",
        f"{name}: where precision is lost, at OKS .75 (figure {which})",
        figures.error_curves({SHORT[key]: line for key, line in found.items()}, titles),
        f"Each color shows the precision that one more correction adds. {lands}",
    )
    return [figure, stages, kinds]


def section(
    truth: GroundTruth,
    sources: Mapping[str, ScoredDetections],
    comparisons: Mapping[str, list[Comparison]],
    *,
    beside_paper: bool,
    landing: Landing,
) -> Section:
    """Return the section with the benchmarks of all results files, by name; `comparisons`: conventional against OAKS."""
    items: list[Item] = [class_counts(truth, beside_paper)]
    for name, measured in sources.items():
        items.append(class_curves(measured))
        if name in comparisons:
            items += gains(name, comparisons[name])
            if beside_paper:
                items.append(gains_beside_paper(measured, comparisons[name]))
        items += [class_table(measured, own_only=own_only) for own_only in (False, True)]
        items += error_items(measured, landing)
    return Section(
        "occlusion",
        "Results by occlusion level",
        "Average precision over all people hides the results on the few people who are mostly occluded. Here each "
        "occlusion level is measured by itself.",
        tuple(items),
    )
