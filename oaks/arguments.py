"""Checks of single arguments. One that does not fit raises ArgumentError, which names it."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import ArgumentError


def as_path(name: str, value: Any) -> Path:
    """A path from a text or a path object.

    Raises:
        ArgumentError: it is something else, or text that no file can be named, as one with a NUL.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(text := os.fspath(value), str):
        raise ArgumentError(f"{name} must be a path, got {value!r}")
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        possible = False
    if not possible:
        raise ArgumentError(f"{name} must be a path without NUL and lone surrogates, got {text[:128]!a}")
    return Path(text)


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Refuse what is none of some texts, or None where that is among them."""
    if not isinstance(value, str | None) or value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_flags(**flags: Any) -> None:
    """Refuse what is neither True nor False: of other things Python takes most for True."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise ArgumentError(f"{name} must be True or False, got {value!r}")


def is_number(value: Any, *, finite: bool = True) -> bool:
    """Whether it is a real number, not NaN, and finite unless said otherwise; truth values and arrays are none."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value) if finite else not math.isnan(value)
    except OverflowError:  # an integer beyond all floats
        return False


def is_integer(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy; truth values are none."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def check_seed(value: Any) -> None:
    """Refuse what every generator of random numbers cannot take as a seed."""
    if not is_integer(value) or not 0 <= value < 2**31:
        raise ArgumentError(f"seed must be an integer from 0 to {2**31 - 1}, got {value!r}")


def check_iterable(name: str, value: Any) -> Iterator[Any]:
    """Refuse what has no elements to go through; return the iterator, since asking again may open a camera again."""
    try:
        return iter(value)
    except TypeError:  # an array without dimensions has __iter__ too
        raise ArgumentError(f"{name} must be a sequence, got {value!r}") from None


__all__ = [
    "as_path",
    "check_choice",
    "check_flags",
    "check_iterable",
    "check_seed",
    "is_integer",
    "is_number",
]
