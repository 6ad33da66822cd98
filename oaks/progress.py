"""Progress bars of long work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from oaks.names import shown as shown_name


def plain_console(*, stderr: bool = True, quiet: bool = False, width: int | None = None) -> Console:
    """Return a console that shows text unchanged: brackets and colons in names are not markup or emoji."""
    return Console(stderr=stderr, quiet=quiet, width=width, markup=False, emoji=False)


def say(console: Console, text: str) -> None:
    """Print text unchanged: without markup, highlighting and added line breaks."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def bars(*, shown: bool = True, console: Console | None = None) -> Progress:
    """Return progress bars with counts, elapsed and remaining time; they disappear at the end.

    Args:
        shown: False hides the bars, as does a console that is not a terminal.
        console: where they are drawn; None: standard error, so that standard output can be piped.
    """
    console = console or plain_console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
        redirect_stdout=sys.stdout.isatty(),  # otherwise lines meant for a file would go to the terminal
    )


@contextmanager
def progress(
    label: str,
    total: int | None,
    *,
    done: int = 0,
    shown: bool = True,
    console: Console | None = None,
) -> Iterator[Callable[..., None]]:
    """One progress bar.

    Args:
        label: what is counted.
        total: None if it is not known.
        done: how many items an earlier run has done.
        shown, console: as `bars` takes them.

    Yields:
        A function that advances the bar, by 1 or by its argument if that is a number.
    """
    with bars(shown=shown, console=console) as shown_bars:
        task = shown_bars.add_task(shown_name(label), total=total, completed=done)

        def advance(count: object = 1) -> None:
            shown_bars.advance(task, count if isinstance(count, int) else 1)

        yield advance


__all__ = ["bars", "plain_console", "progress", "say"]
