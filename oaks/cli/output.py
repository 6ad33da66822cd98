"""Output of a verb: items and results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oaks.addresses import redacted
from oaks.names import printable, shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from oaks.val.report.document import Item

_WIDTH = 200
"""Width of a table that is not printed to a terminal: a long line is better than a truncated figure."""


@dataclass
class Output:
    """Prints the output of a verb.

    Attributes:
        json: print one JSON object per item, and nothing else, on standard output.
        quiet: print errors and warnings only.
        verbose: also print details, log messages and tracebacks.
        kept: what is kept when the verb is interrupted, as a sentence without its full stop.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    kept: str = "nothing was written"

    def item(self, record: Mapping[str, Any], line: str | None = None) -> None:
        """Print one item: the record as a line of JSON, or the line for people, if there is one.

        Passwords in addresses are ***.
        """
        if self.json:
            text = json.dumps(record, ensure_ascii=False, default=_plain)
            if ":/" in text or ":\\" in text:  # the second: a path made of an address, on Windows
                text = json.dumps(_redacted(json.loads(text)), ensure_ascii=False)
            print("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text), flush=True)
        elif line is not None:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line for people on standard output."""
        if not (self.quiet or self.json):
            print(lines(line), flush=True)

    def detail(self, line: str) -> None:
        """Print a line on standard error if details were asked for."""
        if self.verbose:
            print(lines(line), file=sys.stderr)

    def warn(self, line: str) -> None:
        """Print a line on standard error, quiet or not."""
        print(lines(line), file=sys.stderr)

    def error(self, text: object, cause: BaseException | None = None) -> None:
        """Print an error in one line on standard error, after the traceback of its cause if details were asked for."""
        if self.verbose and cause is not None:
            print(lines("".join(traceback.format_exception(cause)).rstrip()), file=sys.stderr)
        line = f"oaks: {shown(text)}"
        print(f"\x1b[31m{line}\x1b[0m" if sys.stderr.isatty() else line, file=sys.stderr)

    def console(self) -> Console:
        """Return the console for progress bars: standard error, unless quiet."""
        from oaks.progress import plain_console

        return plain_console(quiet=self.quiet)

    def table(self, table: RenderableType) -> None:
        """Print a table for people on standard output."""
        if self.quiet or self.json:
            return
        from oaks.progress import plain_console

        console = plain_console(stderr=False)
        console = console if console.is_terminal else plain_console(stderr=False, width=_WIDTH)
        console.print(table)

    def tables(self, items: Iterable[Item]) -> None:
        """Print the tables among a report's items; as JSON, one object per row."""
        from oaks.val.report.document import Table, to_plain
        from oaks.val.report.writer import print_tables

        if not self.json:
            if not self.quiet:
                print_tables(items)
            return
        for item in items:
            if isinstance(item, Table):
                names = [column.title for column in item.columns]
                for row in to_plain(item.rows):
                    self.item({"table": item.key, **dict(zip(names, row, strict=True))})

    def progress(self, label: str, total: int | None) -> AbstractContextManager[Callable[..., None]]:
        """Show a progress bar (oaks.progress.progress), unless quiet."""
        from oaks.progress import progress

        return progress(label, total, shown=not self.quiet)


def lines(text: str) -> str:
    """Return printable lines without the passwords of addresses."""
    return "\n".join(printable(redacted(line)) for line in text.split("\n"))


class LogLines(logging.Formatter):
    """Formats log messages with `lines`."""

    def format(self, record: logging.LogRecord) -> str:
        return lines(super().format(record))


def _redacted(value: Any) -> Any:
    """Return parsed JSON without the passwords of addresses."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted(key): _redacted(entry) for key, entry in value.items()}
    return [_redacted(entry) for entry in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Convert paths and NumPy's numbers and arrays for `json`."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


__all__ = ["LogLines", "Output", "lines"]
