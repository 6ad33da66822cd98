"""Section: several results files side by side, and several trainings against several others (table 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oaks.names import number_of
from oaks.val.bootstrap import Comparison, paired_t_test
from oaks.val.report.document import Cell, Column, Section, Table
from oaks.val.report.ranking import EIGHT, eight_figures
from oaks.val.scores import TITLES, ScoredDetections


def files_section(names: Sequence[str], comparisons: Sequence[Comparison], score: str) -> Section:
    """Return the section with the figures of several contenders, and their gains over the first."""
    columns = [Column("Figure", "text"), *(Column(name) for name in names)]
    columns += [Column(f"{name} − {names[0]}", "points") for name in names[1:]]
    rows: tuple[tuple[Cell, ...], ...] = tuple((c.figure, *c.values, *c.differences) for c in comparisons)
    table = Table(
        "side-by-side",
        f"{' and '.join(names)}, ranked by {score}",
        tuple(columns),
        rows,
        "Per cent with 95 % intervals, and differences in points with theirs: a paired bootstrap over "
        "images, every file measured on the same resamples. A difference whose interval excludes 0 is "
        "not explained by the choice of images. “(all)”: all detections kept; “(own)”: only those whose own person is in "
        "the class.",
    )
    return Section(
        "comparison",
        "Comparison",
        "Several results files on the same images and people.",
        (table,),
    )


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
            Column("Figure", "text"),
            Column(names[0]),
            Column("± deviation"),
            Column(names[1]),
            Column("± deviation"),
            Column("Difference", "points"),
            Column("p", "number"),
            Column("Significant at .05", "text"),
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
    names = ", ".join(one.detections.name for one in second)
    text = f"{names} on {Path(second[0].truth.path).name}."
    return Section("trainings", "Several trainings", text, (table,))
