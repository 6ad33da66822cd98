"""The answer of a report: should poses be ranked by OAKS or by the conventional score?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from oaks.val.bootstrap import Comparison
from oaks.val.calibration import measure_calibration
from oaks.val.ground_truth import OCCLUSION_CLASSES
from oaks.val.interval import Interval
from oaks.val.report.document import Answer, Cell, Table, columns, format_cell
from oaks.val.scores import ScoredDetections

Verdict = Literal["yes", "no", "open"]

HEADLINES: Mapping[Verdict, str] = {
    "yes": "Yes: OAKS ranks these poses better than the conventional score.",
    "no": "No: the conventional score ranks these poses better than OAKS.",
    "open": "Undecided: these people cannot tell which score ranks the poses better.",
}
WORDS: Mapping[Verdict, str] = {"yes": "better", "no": "worse", "open": "undecided"}
ROWS = (
    ("AP", "Everybody"),
    *((f"AP75 {c.key} (all)", c.title) for c in OCCLUSION_CLASSES),
)
"""Figures of compare_rankings and the names of their rows."""


def verdict_of(difference: Interval) -> Verdict:
    """Decide whether OAKS is better; an interval that contains 0 leaves it open."""
    if difference.low > 0:
        return "yes"
    return "no" if difference.high < 0 else "open"


def answer(sources: Mapping[str, ScoredDetections], gains: Mapping[str, Sequence[Comparison]]) -> Answer:
    """Return the first screen of an evaluation.

    Args:
        sources: the results files by name.
        gains: for each file that has both scores, its figures with the conventional score and with OAKS.
    """
    if not gains:
        return Answer(
            "open",
            "There is no OAKS score to compare with.",
            ("The results hold no visibility and similarity. `oaks fit` fits a scorer to them.",),
        )
    figures = {name: {c.figure: c for c in comparisons} for name, comparisons in gains.items()}
    verdicts: dict[str, Verdict] = {
        name: verdict_of(own["AP"].differences[0]) for name, own in figures.items()
    }
    text = [_by_how_much(name, own["AP"], several=len(figures) > 1) for name, own in figures.items()]
    first = next(iter(figures))
    if verdicts[first] == "yes":
        text += _exceptions(figures[first])
    if "open" in verdicts.values():
        text.append("More annotated people narrow the interval.")
    text.append(_as_a_number(sources[first]))
    if len(set(verdicts.values())) == 1:
        verdict = verdicts[first]
        headline = HEADLINES[verdict]
    else:
        verdict = "open"
        parts = (f"{WORDS[own]} with {name}" for name, own in verdicts.items())
        headline = f"It depends: OAKS is {', '.join(parts)}."
    return Answer(verdict, headline, tuple(text), _table(figures))


def _by_how_much(name: str, ap: Comparison, *, several: bool) -> str:
    conventional, oaks = (format_cell(value.value, "percent") for value in ap.values)
    gain = ap.differences[0]
    value, low, high = (format_cell(part, "points") for part in (gain.value, gain.low, gain.high))
    with_boxes = f"With {name}, " if several else ""
    return (
        f"{with_boxes}AP {oaks} by OAKS, {conventional} by the conventional score, for the same poses: {value} points "
        f"(95 % interval {low} to {high})."
    )


def _exceptions(figures: Mapping[str, Comparison]) -> list[str]:
    """Return a sentence on the classes for which OAKS is worse, if there are any."""
    lost = [
        f"{title.lower()} ({format_cell(figures[figure].differences[0].value, 'points')})"
        for figure, title in ROWS
        if verdict_of(figures[figure].differences[0]) == "no"
    ]
    return [f"OAKS ranks worse for: {', '.join(lost)}."] if lost else []


def _as_a_number(measured: ScoredDetections) -> str:
    """Return a sentence on each score as an estimate of OKS."""
    oaks, conventional = (
        measure_calibration(measured.scores[key].values, measured.own_oks).ece
        for key in ("oaks", "conventional")
    )
    return (
        f"As an estimate of OKS (for thresholds), OAKS is off by {oaks:.3f} on average, the conventional score by "
        f"{conventional:.3f}."
    )


def _table(figures: Mapping[str, Mapping[str, Comparison]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for figure, title in ROWS:
        cells: list[Cell] = [title]
        for own in figures.values():
            if len(figures) == 1:
                cells += [value.value for value in own[figure].values]
            cells.append(own[figure].differences[0])
        rows.append(tuple(cells))
    if len(figures) == 1:
        shown = columns(text=["People"], percent=["Conventional", "OAKS"], points=["Difference"])
    else:
        shown = columns(text=["People"], points=[f"OAKS gain, {name}" for name in figures])
    classes = ", ".join(f"{c.fewest}–{c.most}" for c in OCCLUSION_CLASSES)
    note = (
        f"Everybody: AP. Levels, by labeled keypoints ({classes}): AP75, where failures on people of "
        "other levels count as false positives. Per cent; differences in points with 95 % intervals. A difference whose "
        "interval excludes 0 is not explained by the choice of images."
    )
    return Table("answer", "Which score ranks better", shown, tuple(rows), note)
