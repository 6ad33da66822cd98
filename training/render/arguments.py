"""Checks of arguments that several generators take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oaks.arguments import check_count
from oaks.errors import ArgumentError


def check_whole_number(name: str, value: int, least: int = 0) -> int:
    """Return a whole number from `least` on, or raise ArgumentError."""
    check_count(name, value, least)
    return int(value)


def check_picture_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return a picture's (width, height), or raise ArgumentError."""
    if len(size) != 2 or any(side % 2 or not 32 <= side <= 4096 for side in size):
        raise ArgumentError(f"size must be an even width and height from 32 to 4096 pixels, got {size!r}")
    return int(size[0]), int(size[1])


def check_shares(name: str, values: Sequence[float], count: int | None = None) -> np.ndarray:
    """Scale values to a sum of 1; raise ArgumentError if that is impossible, or if they are not `count`."""
    result = np.asarray(values, np.float64)
    fits = result.ndim == 1 and len(result) == (count or len(result)) and (result >= 0).all()
    if not fits or not 0 < result.sum() < np.inf:
        kind = "numbers" if count is None else f"{count} numbers"
        raise ArgumentError(f"{name} must be {kind} of at least 0, not all of them 0, got {values!r}")
    return result / result.sum()
