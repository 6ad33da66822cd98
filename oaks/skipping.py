"""Items that a long run skips: named in the log, and counted by the command line, which then exits with 1."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import ContextVar, Token
from pathlib import Path

from oaks.addresses import redacted

log = logging.getLogger("oaks")
_collectors: ContextVar[tuple[SkippedItems, ...]] = ContextVar("collectors", default=())
_NAMED = 3
"""Items of many that a line of the log names."""


def skip(name: str | Path, why: object) -> str:
    """Log that an item is skipped, count it, and return the reason.

    Args:
        name: the item, as messages call it; passwords in an address become ***.
        why: the reason, or the error that was raised.
    """
    reason = redacted((str(why) or type(why).__name__).removeprefix(f"{name}: "))
    item = redacted(str(name))
    if _collect(item, reason):
        log.warning("skipped %s: %s", item, reason)
    return reason


def skip_together(names: Sequence[str | Path], called: str, why: str) -> None:
    """Skip items for one reason: count each, and log them in one line.

    Args:
        names: the items.
        called: the items as the log calls them, without their number; passwords in an address become ***.
        why: the reason.
    """
    items = [redacted(str(name)) for name in names]
    if new := [item for item in items if _collect(item, why)]:
        named = ", ".join(new[:_NAMED]) + (", ..." if len(new) > _NAMED else "")
        log.warning("skipped %d %s: %s: %s", len(new), redacted(called), why, named)


def _collect(item: str, reason: str) -> bool:
    """Add an item to the collectors; return whether it is to be logged."""
    collectors = _collectors.get()
    new = not collectors
    for collector in collectors:
        new |= collector._add(item, reason)
    return new


class SkippedItems:
    """Context that collects what is skipped in it, whatever the logging is set to; each item is logged once.

    Contexts within each other each collect. Threads have collectors of their own, unless they are started in a copy of
    the context (contextvars.copy_context), as those of oaks.video.threads are.

    Attributes:
        items: item -> reason.
    """

    def __init__(self) -> None:
        self.items: dict[str, str] = {}

    def _add(self, item: str, reason: str) -> bool:
        """Collect an item; return whether it is new."""
        new = item not in self.items
        self.items.setdefault(item, reason)
        return new

    def __enter__(self) -> SkippedItems:
        self._token: Token[tuple[SkippedItems, ...]] = _collectors.set((*_collectors.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        _collectors.reset(self._token)


__all__ = ["SkippedItems", "skip", "skip_together"]
