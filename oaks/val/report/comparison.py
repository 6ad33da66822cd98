"""Sections: comparison of results files, and of trainings under two settings (table 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oaks.names import number_of
from oaks.val.bootstrap import Comparison, paired_t_test
from oaks.val.report.document import Cell, Section, Table, columns
from oaks.val.report.ranking import EIGHT, eight_figures
from oaks.val.scores import TITLES, ScoredDetections


def files_section(names: Sequence[str], comparisons: Sequence[Comparison], score: str) -> Section:
    """Return the section with the figures of several contenders, and their gains over the first."""
    differences = [f"{name} − {names[0]}" for name in names[1:]]
    rows: tuple[tuple[Cell, ...], ...] = tuple((c.figure, *c.values, *c.differences) for c in comparisons)
    table = Table(
        "side-by-side",
        f"{' and '.join(names)}, ranked by {score}",
        columns(text=["Figure"], percent=names, points=differences),
        rows,
        "Per cent with 95 % intervals, and differences in points with theirs: a paired bootstrap over "
        "images, every file measured on the same resamples. A difference whose interval excludes 0 is "
        "not explained by the choice of images. “(all)”: all detections kept; “(own)”: only those whose own person is in "
        "the class.",
    )
    text = "Several results files on the same images and people."
    return Section("comparison", "Comparison", text, (table,))


Figures = Mapping[str, float]
"""Each of EIGHT, of one training."""


def trainings_table(first: Sequence[Figures], second: Sequence[Figures], names: tuple[str, str]) -> Table:
    """Table of means and deviations of figures under two settings, with the paired t-test (table 4).

    Args:
        first, second: the figures of every training.
        names: of the two settings.

    Raises:
        ArgumentError: the settings have different numbers of trainings.
    """
    rows = []
    for figure in EIGHT:
        test = paired_t_test(*([row[figure] for row in setting] for setting in (first, second)))
        (mean, other), (deviation, other_deviation) = test.means, test.deviations
        significant = "yes" if test.significant else "no"
        rows.append((figure, mean, deviation, other, other_deviation, other - mean, test.p, significant))
    return Table(
        "trainings",
        f"{names[0]} against {names[1]} over {number_of(len(first), 'training')} (table 4)",
        (
            *columns(text=["Figure"], percent=[names[0], "± deviation", names[1], "± deviation"]),
            *columns(points=["Difference"], number=["p"], text=["Significant at .05"]),
        ),
        tuple(rows),
        "Sample standard deviations; two-sided paired t-test over trainings.",
    )


def trainings_section(
    first: Sequence[ScoredDetections], second: Sequence[ScoredDetections], first_score: str, second_score: str
) -> Section:
    """Return the table of several trainings as a section.

    Args:
        first, second: results of the trainings under two settings, or the same results twice.
        first_score, second_score: the scores that rank them.

    Raises:
        ArgumentError: the settings have different numbers of trainings, or results do not allow a score.
    """
    figures = (
        [eight_figures(one, first_score) for one in first],
        [eight_figures(one, second_score) for one in second],
    )
    titles = (TITLES[first_score], TITLES[second_score])
    table = trainings_table(*figures, titles if titles[0] != titles[1] else ("First", "Second"))
    names = ", ".join(one.name for one in second)
    text = f"{names} on {Path(second[0].truth.path).name}."
    return Section("trainings", "Several trainings", text, (table,))
