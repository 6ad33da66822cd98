"""The summary sentence of a report, at its decision edges."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from oaks.val.bootstrap import Comparison
from oaks.val.interval import Interval
from oaks.val.report.answer import ROWS, answer, verdict_of


def compared(ap, **classes):
    """Comparisons with these differences (value, low, high); a class without one has 0 to 0."""
    differences = {"AP": ap, **{f"AP75 {key} (all)": value for key, value in classes.items()}}
    return [
        Comparison(
            figure,
            (Interval(0.5, 0.4, 0.6), Interval(0.5 + difference[0], 0.4, 0.6)),
            (Interval(*difference),),
        )
        for figure, _ in ROWS
        for difference in [differences.get(figure, (0.0, 0.0, 0.0))]
    ]


def measured():
    """Of four poses: OAKS is the true OKS, the conventional score is .5 below it."""
    own = np.array([0.5, 0.6, 0.7, 0.8])
    scores = {"oaks": SimpleNamespace(values=own), "conventional": SimpleNamespace(values=own - 0.5)}
    return SimpleNamespace(scores=scores, own_oks=own)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1e-9, 0.1, "yes"),
        (0.0, 0.1, "open"),
        (-0.1, 0.0, "open"),
        (-0.1, -1e-9, "no"),
        (np.nan, np.nan, "open"),
    ],
)
def test_an_interval_that_contains_zero_leaves_the_answer_open(low, high, expected):
    assert verdict_of(Interval(0.05, low, high)) == expected


def test_a_gain_is_reported_with_its_interval_and_exceptions():
    comparisons = compared((0.015, 0.012, 0.018), none=(-0.024, -0.035, -0.014), largely=(0.13, 0.11, 0.16))
    made = answer({"small": measured()}, {"small": comparisons})
    assert made.verdict == "yes"
    assert made.headline.startswith("Yes: OAKS")
    assert made.text == (
        "AP 51.5 by OAKS, 50.0 by the conventional score, for the same poses: +1.5 points (95 % interval +1.2 to +1.8).",
        "OAKS ranks worse for: no occlusion (−2.4).",
        "As an estimate of OKS (for thresholds), OAKS is off by 0.000 on average, the conventional score by 0.500.",
    )
    assert [column.title for column in made.table.columns] == ["People", "Conventional", "OAKS", "Difference"]
    assert [row[0] for row in made.table.rows] == [title for _, title in ROWS]
    assert made.table.rows[0][1:] == (0.5, 0.515, Interval(0.015, 0.012, 0.018))


def test_a_loss_and_an_undecided_comparison_are_reported():
    lost = answer({"a": measured()}, {"a": compared((-0.01, -0.02, -0.005))})
    assert (lost.verdict, lost.headline[:3]) == ("no", "No:")
    drawn = answer({"a": measured()}, {"a": compared((0.01, -0.02, 0.03))})
    assert (drawn.verdict, drawn.headline[:9]) == ("open", "Undecided")
    assert "More annotated people narrow the interval." in drawn.text
    assert not any("More" in line for line in lost.text)


def test_files_that_disagree_are_named():
    gains = {
        "ground-truth boxes": compared((0.01, 0.005, 0.02)),
        "detected boxes": compared((0.0, -0.1, 0.1)),
    }
    made = answer(dict.fromkeys(gains, measured()), gains)
    assert made.verdict == "open"
    assert (
        made.headline == "It depends: OAKS is better with ground-truth boxes, undecided with detected boxes."
    )
    assert [line[:24] for line in made.text[:2]] == ["With ground-truth boxes,", "With detected boxes, AP "]
    assert len(made.table.columns) == 3
    same = {"a": compared((0.01, 0.005, 0.02)), "b": compared((0.02, 0.01, 0.03))}
    assert answer(dict.fromkeys(same, measured()), same).headline.startswith("Yes")


def test_results_without_an_oaks_score_suggest_oaks_fit():
    made = answer({"a": measured()}, {})
    assert made.verdict == "open"
    assert made.table is None
    assert "oaks fit" in made.text[0]
