"""Section: several results files side by side, and several trainings against several others (table 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oaks.val.compare import Comparison, paired_t_test
from oaks.val.report.model import Column, Range, Section, Table


def files_section(names: Sequence[str], comparisons: Sequence[Comparison], score: str) -> Section:
    """Every figure of several contenders, and what each wins over the first."""
    columns = [Column("Figure", "text"), *(Column(name) for name in names)]
    columns += [Column(f"{name} − {names[0]}", "points") for name in names[1:]]
    rows = tuple(
        (
            c.figure,
            *(Range(v.value, v.low, v.high) for v in c.values),
            *(Range(v.value, v.low, v.high) for v in c.differences),
        )
        for c in comparisons
    )
    table = Table(
        "comparison",
        f"{' and '.join(names)}, ranked by {score}",
        tuple(columns),
        rows,
        "Per cent with 95 % intervals, and differences in points with theirs: a paired bootstrap over "
        "images, every file measured on the same resamples. A difference whose interval leaves out 0 is "
        "not the images' doing. “(all)”: all detections kept; “(own)”: only those whose own person is in "
        "the class.",
    )
    return Section(
        "comparison",
        "Side by side",
        "The same images and people, several rankings or several networks.",
        (table,),
    )


def trainings_table(
    key: str, title: str, first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]],
    names: tuple[str, str],
) -> Table:  # fmt: skip
    """Means and deviations of the same figures under two settings, with the paired t-test (table 4).

    Args:
        key, title: of the table.
        first, second: for every figure, one value per training.
        names: what the two settings are called.
    """
    rows = []
    for figure in first:
        test = paired_t_test(first[figure], second[figure])
        rows.append(
            (
                figure,
                test.means[0],
                test.deviations[0],
                test.means[1],
                test.deviations[1],
                test.means[1] - test.means[0],
                test.p,
                "yes" if test.significant else "no",
            )
        )
    count = len(next(iter(first.values())))
    return Table(
        key,
        title,
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
        f"{count} trainings; sample standard deviations; two-sided paired t-test over trainings.",
    )
