"""Reports as files: HTML, JSON and Markdown; reading them back to add sections."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from oaks import schema
from oaks.errors import ArgumentError
from oaks.files import held, replacing, write_json
from oaks.names import printable
from oaks.progress import plain_console
from oaks.structured import read_bytes, read_json
from oaks.val.interval import Interval
from oaks.val.report.document import (
    Answer,
    Column,
    Figure,
    Gallery,
    Item,
    Picture,
    Report,
    Section,
    Table,
    Tile,
    format_cell,
    sort_value,
    to_plain,
)
from oaks.val.report.drawing import check_drawing

FORMAT = 1
WIDTH = 150
"""Terminal columns that the widest table needs."""
_TEXT = {"type": "string"}
_FINITE = {"type": "number", "minimum": -1e300, "maximum": 1e300}
_NUMBER = {"anyOf": [_FINITE, {"type": "null"}]}
_INTERVAL = {
    "type": "object", "required": ["value", "low", "high"], "additionalProperties": False,
    "properties": {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER},
}  # fmt: skip
_CELL = {"anyOf": [_TEXT, _FINITE, {"type": "null"}, {"type": "boolean"}, _INTERVAL]}


def _object(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these fields, all required."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TITLED = {"key": _TEXT, "title": _TEXT, "note": _TEXT}
_TABLE = _object(
    type={"enum": ["table"]}, **_TITLED, rows=_list(_list(_CELL)), accent=_list({"type": "integer"}),
    columns=_list(_object(title=_TEXT, kind={"enum": ["text", "count", "percent", "points", "number"]})),
)  # fmt: skip
_ANSWER = _object(
    verdict={"enum": ["yes", "no", "open"]}, headline=_TEXT, text=_list(_TEXT), table={"anyOf": [{"type": "null"}, _TABLE]}
)  # fmt: skip
_SCHEMA = _object(
    format={"type": "integer", "minimum": 1},
    title=_TEXT,
    answer={"anyOf": [{"type": "null"}, _ANSWER]},
    head=_list(_object(title=_TEXT, entries={"type": "object", "additionalProperties": _CELL})),
    tiles=_list(_object(label=_TEXT, value=_TEXT, detail=_TEXT, tone={"enum": ["good", "bad", "plain"]})),
    sections=_list(_object(
        key=_TEXT, title=_TEXT, text=_TEXT,
        items=_list({"anyOf": [
            _TABLE,
            _object(type={"enum": ["figure"]}, **_TITLED, file=_TEXT),
            _object(type={"enum": ["gallery"]}, **_TITLED, pictures=_list(_object(key=_TEXT, caption=_TEXT, file=_TEXT))),
        ]}),
    )),
)  # fmt: skip
"""Schema of report.json."""

PAGE, DATA, TEXT = "report.html", "report.json", "report.md"


def save_report(report: Report, folder: str | Path) -> Path:
    """Write report.html (self-contained), report.json and report.md, and the drawings and pictures of the last two.

    Returns the path of the page. Several runs that write one folder take turns.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with held(folder, wait=True):
        return _save(report, Path(folder))


def _save(report: Report, folder: Path) -> Path:
    for part in ("figures", "pictures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for item in section.items:
            if isinstance(item, Figure):
                _write(folder / _svg(item), item.svg.encode("utf-8", "backslashreplace"))
            elif isinstance(item, Gallery):
                for picture in item.pictures:
                    _write(folder / _jpeg(picture), picture.jpeg)
    write_json(folder / DATA, _to_json(report), indent=1)
    _write(folder / TEXT, markdown(report).encode("utf-8", "backslashreplace"))
    _write(folder / PAGE, html(report).encode("utf-8", "backslashreplace"))
    return folder / PAGE


def load_report(folder: str | Path) -> Report:
    """Read a report written by `save_report`.

    Raises:
        FileNotFoundError: there is no report in the folder.
        ArgumentError: `save_report` did not write its report.json; the message names it.
    """
    folder = Path(folder)
    try:
        content = read_json(folder / DATA, top=dict)
        if type(content.get("format")) is int and content["format"] > FORMAT:
            raise ArgumentError(f"format {content['format']} is newer than {FORMAT}: upgrade oaks")
        schema.check(content, _SCHEMA)
        return Report(
            title=content["title"],
            answer=_answer(content["answer"], folder),
            head=[(group["title"], list(group["entries"].items())) for group in content["head"]],
            tiles=[Tile(**tile) for tile in content["tiles"]],
            sections=[
                Section(s["key"], s["title"], s["text"], tuple(_item(entry, folder) for entry in s["items"]))
                for s in content["sections"]
            ],
        )
    except ValueError as error:
        raise ArgumentError(f"{folder / DATA} is not a report: {error}") from error


def check_report(folder: str | Path | None) -> None:
    """Refuse a folder whose report cannot be read, before work whose results are added to it.

    Raises:
        ArgumentError: as `load_report`.
    """
    if folder is not None and (Path(folder) / DATA).is_file():
        load_report(folder)


def add_sections(folder: str | Path, sections: Iterable[Section]) -> Path:
    """Add sections to the report in a folder, created if there is none; a section with the same key is replaced.

    Returns the path of the page. Several runs that write one folder take turns.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, wait=True):
        report = load_report(folder) if (folder / DATA).is_file() else Report(title=folder.name)
        for section in sections:
            report.put(section)
        return _save(report, folder)


def print_tables(items: Iterable[Item]) -> None:
    """Print the tables among the items; a narrow terminal wraps the lines."""
    from rich import box
    from rich.table import Table as Shown

    console = plain_console(stderr=False)
    console.width = max(console.width, WIDTH)
    for item in items:
        if isinstance(item, Table):
            shown = Shown(
                title=printable(item.title), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
            )
            for column in item.columns:
                shown.add_column(
                    printable(column.title), justify="left" if column.kind == "text" else "right"
                )
            for row in item.rows:
                cells = (format_cell(cell, c.kind) for cell, c in zip(row, item.columns, strict=True))
                shown.add_row(*map(printable, cells))
            console.print(shown)


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def slug(key: str) -> str:
    """Return a key for file names and links."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


def _svg(figure: Figure) -> str:
    return f"figures/{slug(figure.key)}.svg"


def _jpeg(picture: Picture) -> str:
    return f"pictures/{slug(picture.key)}.jpg"


def _to_json(report: Report) -> dict[str, Any]:
    answer = report.answer
    return {
        "format": FORMAT,
        "title": report.title,
        "answer": answer and {**vars(answer), "table": answer.table and item_to_json(answer.table)},
        "head": [{"title": title, "entries": dict(entries)} for title, entries in report.head],
        "tiles": [vars(tile) for tile in report.tiles],
        "sections": [
            {**vars(section), "items": [item_to_json(item) for item in section.items]}
            for section in report.sections
        ],
    }


def _answer(entry: dict[str, Any] | None, folder: Path) -> Answer | None:
    if entry is None:
        return None
    table: Table | None = None
    if (content := entry["table"]) is not None:
        item = _item(content, folder)
        if not isinstance(item, Table):
            raise TypeError(f"the answer's table must be a table, got {content['type']}")
        table = item
    return Answer(entry["verdict"], entry["headline"], tuple(entry["text"]), table)


def item_to_json(item: Item) -> dict[str, Any]:
    """Return an item as report.json holds it; drawings and pictures by the names of their files."""
    if isinstance(item, Table):
        return {"type": "table", **to_plain(asdict(item))}
    titled = {"key": item.key, "title": item.title, "note": item.note}
    if isinstance(item, Figure):
        return {"type": "figure", **titled, "file": _svg(item)}
    pictures = [{"key": p.key, "caption": p.caption, "file": _jpeg(p)} for p in item.pictures]
    return {"type": "gallery", **titled, "pictures": pictures}


def _item(entry: dict[str, Any], folder: Path) -> Item:
    entry = dict(entry)
    kind = entry.pop("type")
    if kind == "table":
        return table_from_json(entry)
    if kind == "figure":
        file = entry.pop("file")
        figure = Figure(svg="", **entry)
        svg = read_bytes(folder / _own(file, _svg(figure)), "image_bytes").decode("utf-8")
        check_drawing(svg, str(file))
        return replace(figure, svg=svg)
    pictures = tuple(
        replace(made, jpeg=read_bytes(folder / _own(picture["file"], _jpeg(made)), "image_bytes"))
        for picture in entry.pop("pictures")
        for made in [Picture(picture["key"], picture["caption"], b"")]
    )
    return Gallery(pictures=pictures, **entry)


def table_from_json(entry: dict[str, Any]) -> Table:
    """Return the table that `item_to_json` wrote."""
    entry = {key: value for key, value in entry.items() if key != "type"}
    rows = tuple(
        tuple(_interval(cell) if isinstance(cell, dict) else cell for cell in row)
        for row in entry.pop("rows")
    )
    columns = tuple(Column(**column) for column in entry.pop("columns"))
    return Table(rows=rows, columns=columns, accent=tuple(entry.pop("accent")), **entry)


def _interval(content: dict[str, float | None]) -> Interval:
    return Interval(**{name: math.nan if value is None else value for name, value in content.items()})


def _own(file: str, expected: str) -> str:
    """Return the file of a figure or picture, whose name its key determines; no other file is read."""
    if file != expected:
        raise ArgumentError(f"file must be {expected!r}, got {file[:128]!a}")
    return file


def html(report: Report) -> str:
    """Return the self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("oaks.val", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = format_cell
    environment.filters["sort_value"] = sort_value
    environment.filters["slug"] = slug
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.tests["table"] = lambda item: isinstance(item, Table)
    environment.tests["figure"] = lambda item: isinstance(item, Figure)
    return environment.get_template("page.html").render(report=report)


def markdown(report: Report) -> str:
    """Return the report as Markdown, with links to its drawings and pictures."""
    lines = [f"# {report.title}", ""]
    if report.answer is not None:
        lines += [f"**{report.answer.headline}**", "", *(f"{line}\n" for line in report.answer.text)]
        if report.answer.table is not None:
            lines += [*markdown_item(report.answer.table), "", report.answer.table.note, ""]
    for tile in report.tiles:
        lines.append(f"- **{tile.label}: {tile.value}**{' — ' + tile.detail if tile.detail else ''}")
    lines.append("")
    for section in report.sections:
        lines += [f"## {section.title}", "", section.text, ""]
        for item in section.items:
            lines += [f"### {item.title}", "", *markdown_item(item), ""]
            lines += [item.note, ""] if item.note else []
    lines += ["## Data, settings and versions", ""]
    for title, entries in report.head:
        lines += [f"**{title}**", "", *(f"- {label}: {value}" for label, value in entries), ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown_item(item: Item) -> list[str]:
    """Lines of Markdown: a table, or links to drawings and pictures."""
    if isinstance(item, Figure):
        return [f"![{item.title}]({_svg(item)})"]
    if isinstance(item, Gallery):
        captions = [picture.caption.replace("\n", "; ") for picture in item.pictures]
        return [f"![{c}]({_jpeg(p)}) {c}\n" for c, p in zip(captions, item.pictures, strict=True)]
    lines = ["| " + " | ".join(column.title for column in item.columns) + " |"]
    lines.append("|" + "|".join("---" if column.kind == "text" else "---:" for column in item.columns) + "|")
    for row in item.rows:
        cells = (format_cell(cell, column.kind) for cell, column in zip(row, item.columns, strict=True))
        lines.append("| " + " | ".join(cells) + " |")
    return lines
