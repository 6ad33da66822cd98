"""The parts of a report: tables, figures and pictures in sections, and a head that states what they depend on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np

from oaks.errors import ArgumentError
from oaks.val.interval import Interval

Kind = Literal["text", "count", "percent", "points", "number"]
"""Format of a column: text, integers, shares in per cent, differences of shares in signed points, numbers."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    kind: Kind = "percent"


def columns(**titles: Iterable[str]) -> tuple[Column, ...]:
    """Return columns with titles by kind, in order: columns(text=["Score"], count=["Poses"])."""
    return tuple(Column(title, cast("Kind", kind)) for kind, group in titles.items() for title in group)


Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """Rows of cells. Shares are stored from 0 to 1; NaN or None means "not defined".

    Attributes:
        key: name in files and links.
        title, note: what it shows, and how to read it.
        columns: one for each cell of a row.
        rows: the cells.
        accent: indices of highlighted rows.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    accent: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ArgumentError(
                    f"table {self.key!r}: a row must have {len(self.columns)} cells, got {row}"
                )


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG text."""

    key: str
    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A photograph with poses drawn on it, as JPEG bytes."""

    key: str
    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class Gallery:
    """Pictures of one kind of case."""

    key: str
    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


Item = Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    key: str
    title: str
    text: str
    items: tuple[Item, ...]

    def without_name(self, name: str) -> Section:
        """Return the section without the name of the results file in its titles, for a report on one file."""

        def shortened(title: str) -> str:
            for start in (f"{name}: ", f"{name}, "):
                if title.startswith(start):
                    return title[len(start) :][:1].upper() + title[len(start) + 1 :]
            return title

        items = tuple(replace(item, title=shortened(item.title)) for item in self.items)
        return replace(self, title=shortened(self.title), items=items)


@dataclass(frozen=True)
class Tile:
    """One headline number: its label, the formatted value, a line under it, and whether it is good."""

    label: str
    value: str
    detail: str = ""
    tone: Literal["good", "bad", "plain"] = "plain"


@dataclass(frozen=True)
class Answer:
    """The first screen: which score ranks the poses better, by how much and how reliably.

    Attributes:
        verdict: whether to use the OAKS score; "open" if the data are not sufficient or there is nothing to compare.
        headline: the verdict as a sentence.
        text: sentences that say by how much and how reliably.
        table: the difference for all people and for every occlusion level; None if there is nothing to compare.
    """

    verdict: Literal["yes", "no", "open"]
    headline: str
    text: tuple[str, ...] = ()
    table: Table | None = None


@dataclass
class Report:
    """A complete report.

    Attributes:
        title: what was measured.
        answer: the first screen; None in a report that compares no scores.
        head: what every figure depends on: groups of (label, value). It is shown last.
        tiles: the headline numbers.
        sections: the chapters, in order.
    """

    title: str
    answer: Answer | None = None
    head: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def put(self, section: Section) -> None:
        """Add a section, or replace the one with its key."""
        for i, present in enumerate(self.sections):
            if present.key == section.key:
                self.sections[i] = section
                return
        self.sections.append(section)


def format_cell(cell: Cell, kind: Kind) -> str:
    """Return a cell as text, the same in HTML and Markdown."""
    if isinstance(cell, Interval):
        value, low, high = (format_cell(part, kind) for part in (cell.value, cell.low, cell.high))
        return f"{value} [{low}, {high}]" if math.isfinite(cell.low) else value
    if isinstance(cell, str):
        return cell
    if cell is None or not math.isfinite(cell):
        return "–"
    if kind == "count":
        return f"{int(cell):,}".replace(",", " ")
    if kind == "percent":
        return f"{cell * 100:.1f}"
    if kind == "points":
        text = f"{cell * 100:+.1f}"
        return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
    return f"{cell:.3f}"


def sort_value(cell: Cell) -> float | str:
    """Return the value by which a table sorts a cell; undefined cells come last in both directions."""
    if isinstance(cell, Interval):
        cell = cell.value
    if isinstance(cell, str):
        return cell
    return cell if cell is not None and math.isfinite(cell) else ""


def to_plain(value: Any) -> Any:
    """Return a value for JSON: NaN and infinity as null, arrays as lists."""
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, Interval):
        return to_plain(vars(value))
    if isinstance(value, dict):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
