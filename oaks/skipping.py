"""Items that a long run skips: named in the log, and counted by the command line, which then exits with 1."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("oaks")

ITEM, REASON = "skipped_item", "skipped_reason"
"""Attributes of the log record."""


def skip(name: str | Path, why: object) -> str:
    """Log that an item is skipped, and return the reason.

    Args:
        name: the item, as messages call it.
        why: the reason, or the error that was raised.
    """
    reason = (str(why) or type(why).__name__).removeprefix(f"{name}: ")
    log.warning("skipped %s: %s", name, reason, extra={ITEM: str(name), REASON: reason})
    return reason


class SkippedItems(logging.Filter):
    """A filter of the logger "oaks" that collects what is skipped, and lets each item through once.

    Attributes:
        items: item -> reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is not about an item that has been named before."""
        item = getattr(record, ITEM, None)
        if item is None:
            return True
        new = item not in self.items
        self.items.setdefault(item, getattr(record, REASON))
        return new

    def __enter__(self) -> SkippedItems:
        log.addFilter(self)
        return self

    def __exit__(self, *exception: object) -> None:
        log.removeFilter(self)


__all__ = ["SkippedItems", "skip"]
