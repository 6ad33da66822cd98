"""Write the tables of docs/paper.md from the results of `benchmarks/paper.py` and `benchmarks/frozen_estimators.py`.

    python benchmarks/paper_page.py

Between `<!-- table N -->` and `<!-- end -->` the page holds what this script writes; all other text is written by hand.
A table, or a row of one, whose numbers are missing says "not run" and names the command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from oaks.val.ground_truth import OCCLUSION_CLASSES
from oaks.val.report import paper
from oaks.val.report.document import Cell, Kind, Table, format_cell
from oaks.val.report.ranking import EIGHT
from oaks.val.report.writer import table_from_json
from oaks.val.scores import TITLES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "paper.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_RUN = "not run"
KS = "`python benchmarks/paper.py DATA --log LOG --only ks`"
BUNDLE = "`python benchmarks/paper.py DATA --log LOG --only bundle`"
SUBNET = "`python benchmarks/paper.py DATA --log LOG --only subnet --hpe BUNDLE --oa-hpe BUNDLE`"

FORMS = {"all": "all", "own": "the level's own"}
"""Which detections compete in an occlusion level, as frozen_estimators.py prints it, and as the page says it."""

Tables = dict[str, Table]
Rows = list[Sequence[str]]


def results() -> dict[str, Any]:
    """What the runs have left: by part, what it was made with and its tables."""
    path = RESULTS / "paper.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def load() -> Tables:
    """Every table that was run, by its key."""
    return {
        key: table_from_json(entry) for part in results().values() for key, entry in part["tables"].items()
    }


def markdown(titles: Sequence[str], rows: Rows, texts: int = 1) -> str:
    """A table whose first `texts` columns are words."""
    marks = ["---"] * texts + ["---:"] * (len(titles) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in (titles, marks, *rows)) + "\n"


def shown(cells: Sequence[Cell], kind: Kind = "percent") -> list[str]:
    """Cells as text."""
    return [format_cell(cell, kind) for cell in cells]


def columns_of(table: Table, titles: Sequence[str]) -> list[list[Cell]]:
    """Cells of the named columns."""
    at = [[column.title for column in table.columns].index(title) for title in titles]
    return [[row[n] for n in at] for row in table.rows]


def beside_paper(table: Table | None, keys: Sequence[str], columns: Sequence[str], command: str) -> str:
    """Rows of some scores, ours and the paper's."""
    if table is None:
        return missing(command)
    titles = [TITLES[key] for key in keys]
    rows = [row for row in columns_of(table, ["Score", "Source", *columns]) if row[0] in titles]
    rows.sort(key=lambda row: titles.index(str(row[0])))
    return markdown(["score", "", *columns], [[*map(str, row[:2]), *shown(row[2:])] for row in rows], 2)


def missing(command: str) -> str:
    """What stands in the place of a table that was not run."""
    return f"{NOT_RUN.capitalize()}: {command}.\n"


def table_1(tables: Tables) -> str:
    """HPE and OA-HPE under the conventional score: after the first training, as shipped, and in the paper."""
    if (table := tables.get("networks")) is None:
        return missing(BUNDLE)
    found = {
        ("OA-HPE", str(row[1]), "here, as shipped"): shown(row[2:])
        for row in table.rows
        if not str(row[0]).startswith("paper, ")
    }
    if "subnet" in tables:
        found |= {
            (str(row[0]), str(row[1]), "here, first training"): shown(row[2:])
            for row in tables["subnet"].rows
        }
    rows: Rows = []
    for (network, boxes), figures in paper.NETWORKS.items():
        for source in ("here, first training", "here, as shipped"):
            if network == "OA-HPE" or source == "here, first training":
                ours = found.get((network, boxes, source), [NOT_RUN] * len(EIGHT))
                rows.append((network, boxes, source, *ours))
        rows.append((network, boxes, "paper", *shown(figures)))
    return markdown(["network", "boxes", "", *EIGHT], rows, 3) + "\n" + subnet_differences(tables)


def subnet_differences(tables: Tables) -> str:
    """What the occlusion subnet adds to the average precision."""
    if (table := tables.get("subnet-differences")) is None:
        return missing(SUBNET)
    rows = [(str(row[0]), str(row[1]), *shown(row[2:], "points")) for row in table.rows]
    return markdown(
        ["boxes", "figure", "OA-HPE less HPE, first training", "95 % interval from", "to"], rows, 2
    )


def table_2(tables: Tables) -> str:
    """Accuracy of the predicted visibility."""
    if (table := tables.get("visibility-ground-truth-boxes")) is None:
        return missing(BUNDLE)
    columns = ["Keypoint", "Annotated", "Accuracy", "Accuracy, paper"]
    rows = columns_of(table, columns)
    return markdown(
        ["keypoint", "always visible", "here", "paper"], [[str(row[0]), *shown(row[1:])] for row in rows]
    )


def table_3(tables: Tables) -> str:
    """Scores by the true similarity."""
    keys = ("true_ks_all_visible", "true_ks_predicted_visibility", "oracle")
    return beside_paper(tables.get("paper-ranking-ground-truth-boxes"), keys, EIGHT, BUNDLE)


def table_4(tables: Tables) -> str:
    """Heat, KS-net and true similarity with the true visibility, and the paired t-test."""
    if not {"trainings", "ks-trainings-means"} <= set(tables):
        return missing(KS)
    figures = EIGHT[:6]
    of_trainings = {str(row[0]): row for row in tables["trainings"].rows}
    means = {(str(row[0]), str(row[1])): row[2:] for row in tables["ks-trainings-means"].rows}
    rows: Rows = []
    for key in ("heat_true_visibility", "oaks_true_visibility", "oracle"):
        ours, theirs = ([*shown(means[TITLES[key], source][: len(figures)])] for source in ("here", "paper"))
        if key == "oaks_true_visibility":
            deviations = [of_trainings[name][4] for name in figures]
            ours = [f"{value} ± {_points(d)}" for value, d in zip(ours, deviations, strict=True)]
            theirs = [f"{value} ± {d}" for value, d in zip(theirs, paper.KS_NET_DEVIATIONS, strict=True)]
        rows += [(TITLES[key], "here", *ours), (TITLES[key], "paper", *theirs)]
    p = [f"{_small(of_trainings[name][6])}" for name in figures]
    rows += [("p of KS-net against heat", "here", *p)]
    rows += [("p < .05?", "paper", "yes", "no", "yes", "yes", "yes", "no")]
    return markdown(["score", "", *figures], rows, 2)


def _points(deviation: Cell) -> str:
    assert isinstance(deviation, float | int)
    return f"{100 * deviation:.2f}"


def _small(p: Cell) -> str:
    if p is None:
        return "–"
    assert isinstance(p, float | int)
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def table_5(tables: Tables) -> str:
    """Backbones of KS-net."""
    table = tables.get("ks-backbones")
    found = {} if table is None else {row[0]: row[2:] for row in table.rows if row[1] == "here"}
    rows: Rows = []
    for title, figures in paper.KS_NET_BACKBONES.values():
        ours = shown(found[title]) if title in found else [NOT_RUN] * len(EIGHT)
        rows += [(title, "here", *ours), (title, "paper", *shown([figures[name] for name in EIGHT]))]
    if "conv2_figures" in found:
        rows += [("2 conv, and six numbers about each map", "here", *shown(found["conv2_figures"]))]
    complete = all(title in found for title, _ in paper.KS_NET_BACKBONES.values())
    note = "" if complete else f"\nWhat was not run: {KS}; the same command resumes.\n"
    return markdown(["backbone", "", *EIGHT], rows, 2) + note


def table_6(tables: Tables) -> str:
    """Scores with ground-truth boxes."""
    table = tables.get("paper-ranking-ground-truth-boxes")
    return beside_paper(table, ("conventional", "oaks", "oracle"), EIGHT, BUNDLE)


def table_7(tables: Tables) -> str:
    """Scores with detected boxes."""
    columns = ("AP", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
    return beside_paper(tables.get("paper-ranking-detected-boxes"), ("conventional", "oaks"), columns, BUNDLE)


def table_8(tables: Tables) -> str:
    """People by occlusion."""
    if (table := tables.get("class-counts")) is None:
        return missing(BUNDLE)
    titles = ["", *(f"{c.title.lower()} ({c.fewest}–{c.most})" for c in OCCLUSION_CLASSES), "all"]
    rows: Rows = [("here", *shown(table.rows[0][1:], "count")), ("paper", *shown(table.rows[1][1:], "count"))]
    return markdown(titles, rows)


def table_9(tables: Tables) -> str:  # noqa: ARG001 - its numbers lie in another file
    """AP75 of other estimators by occlusion, under their own score and OAKS, in both forms of the classes."""
    text = (RESULTS / "frozen_estimators.txt").read_text("utf-8")
    rows: Rows = []
    for name, block in re.findall(r"^(\S+): scorer from heatmaps$(.*?)(?=^\S|\Z)", text, re.M | re.S):
        for form, title in FORMS.items():
            found = [re.search(rf"AP75 {c.key} \({form}\) +(\S+) +(\S+) ", block) for c in OCCLUSION_CLASSES]
            for column, score in ((1, "own score"), (2, "OAKS")):
                rows.append((name, score, title, *(match[column] if match else "–" for match in found)))
    rows += [(f"paper, {name.partition(', ')[0]}", name.partition(", ")[2], "not stated", *shown(stated))
             for name, stated in paper.OTHER_ESTIMATORS.items()]  # fmt: skip
    titles = ["estimator", "ranked by", "detections", *(c.title.lower() for c in OCCLUSION_CLASSES)]
    return markdown(titles, rows, 3)


def correlations(tables: Tables) -> str:
    """Figure 5's numbers: Pearson's r of heat, and of predicted similarity, with the true similarity."""
    if (table := tables.get("similarity-ground-truth-boxes")) is None:
        return missing(BUNDLE)
    columns = ["Keypoint", "Heat: Pearson", "Heat: Pearson, paper", "Predicted KS: Pearson"]
    rows = [row for row in columns_of(table, columns) if row[2] is not None]
    return markdown(
        ["keypoint", "r of heat, here", "paper", "r of predicted KS, here"],
        [[str(row[0]), *shown(row[1:], "number")] for row in rows],
    )


def figure_12(tables: Tables) -> str:
    """The drawing with detected boxes, where it was run."""
    if "stages-detected-boxes" not in tables:
        return missing(BUNDLE)
    return (
        "![Precision and recall by occlusion with errors corrected one kind at a time, detected boxes]"
        "(figures/errors-detected.svg){ .chart }\n"
    )


def gains(tables: Tables, boxes: str) -> str:
    """AP75 that OAKS wins over the conventional score, by occlusion."""
    if (table := tables.get(f"paper-gains-{boxes}")) is None:
        return missing(BUNDLE)
    rows: Rows = [[str(row[0]), *shown(row[1:], "points")] for row in table.rows]
    return markdown(["", *(c.title.lower() for c in OCCLUSION_CLASSES)], rows)


def settings(tables: Tables) -> str:  # noqa: ARG001 - what they were made with lies beside the tables
    """What the numbers were made with."""
    content = results()
    rows: Rows = []
    for part, title in (
        ("bundle", "tables 1 to 3 and 6 to 8"),
        ("subnet", "table 1, first training"),
        ("ks", "tables 4 and 5"),
    ):
        about = content.get(part, {}).get("about", {})
        rows.append(
            (title, ", ".join(f"{name.replace('_', ' ')} {_words(about[name])}" for name in about) or NOT_RUN)
        )
    return markdown(["", "made with"], rows, 2)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return " ".join(map(_words, value))
    return str(value)[:12] if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


WRITERS: dict[str, Callable[[Tables], str]] = {
    "1": table_1, "2": table_2, "3": table_3, "4": table_4, "5": table_5, "6": table_6, "7": table_7, "8": table_8,
    "9": table_9, "gains": lambda tables: gains(tables, "ground-truth-boxes"),
    "gains_detected": lambda tables: gains(tables, "detected-boxes"), "settings": settings,
    "figure_5": correlations, "figure_12": figure_12,
}  # fmt: skip


def filled(page: str, tables: Tables) -> str:
    """The page with its tables."""
    return MARKED.sub(lambda match: f"{match[1]}\n{WRITERS[match[2]](tables)}\n{match[3]}", page)


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(filled(PAGE.read_text("utf-8"), load()), "utf-8")


if __name__ == "__main__":
    main()
