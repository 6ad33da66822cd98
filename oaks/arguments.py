"""Checks of single arguments; each raises ArgumentError, which names the argument, if it fails."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.names import number_of


def as_path(name: str, value: Any) -> Path:
    """Return a path from a text or a path object; text that cannot be a path, such as text with a NUL, is refused."""
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
    """Refuse anything but one of some texts, which may include None."""
    if not isinstance(value, str | None) or value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_flags(**flags: Any) -> None:
    """Refuse anything but True and False, since Python counts most other values as True."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise ArgumentError(f"{name} must be True or False, got {value!r}")


def is_number(value: Any, *, finite: bool = True) -> bool:
    """Return whether a value is a real number, not NaN, and if `finite` not infinite; booleans and arrays are not."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value) if finite else not math.isnan(value)
    except OverflowError:  # an integer beyond all floats
        return False


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer of Python or NumPy; booleans are not."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuse anything but an integer of at least `least`."""
    if not is_integer(value) or value < least:
        raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_share(name: str, value: Any) -> None:
    """Refuse anything but a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ArgumentError(f"{name} must be a number from 0 to 1, got {value!r}")


def check_threshold(name: str, value: Any) -> None:
    """Refuse anything but a number above 0 and at most 1."""
    if not is_number(value) or not 0 < value <= 1:
        raise ArgumentError(f"{name} must be above 0 and at most 1, got {value!r}")


def check_seed(value: Any) -> None:
    """Refuse seeds that some random number generator does not accept."""
    if not is_integer(value) or not 0 <= value < 2**31:
        raise ArgumentError(f"seed must be an integer from 0 to {2**31 - 1}, got {value!r}")


def check_iterable(name: str, value: Any) -> Iterator[Any]:
    """Refuse what cannot be iterated; return the iterator, since a second one may open a camera again."""
    try:
        return iter(value)
    except TypeError:  # an array without dimensions has __iter__ too
        raise ArgumentError(f"{name} must be a sequence, got {value!r}") from None


def parse_settings(
    option: str, texts: Sequence[str], kinds: Mapping[str, type | tuple[type, int]]
) -> dict[str, Any]:
    """Return settings from texts NAME=VALUE, such as "size=640,480".

    Args:
        option: what messages call the texts.
        texts: the texts.
        kinds: name -> str, bool, or int or float and how many of them, separated by commas.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in kinds:
            raise ArgumentError(
                f"{option} must be NAME=VALUE with NAME one of {', '.join(kinds)}, got {text!r}"
            )
        kind = kinds[name]
        if isinstance(kind, tuple):
            found[name] = _numbers(f"{option} {name}", value, *kind)
        elif kind is bool and value not in ("true", "false"):
            raise ArgumentError(f"{option} {name} must be true or false, got {value!r}")
        else:
            found[name] = value == "true" if kind is bool else value
    return found


def _numbers(name: str, text: str, kind: type, count: int) -> Any:
    """Return the numbers of a text, a single one bare."""
    numbers: tuple[Any, ...]
    try:
        numbers = tuple(map(kind, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(is_number, numbers)) or (kind is int and min(numbers) < 1):
        expected = number_of(count, "integer of at least 1", "integers of at least 1")
        if kind is float:
            expected = number_of(count, "finite number")
        commas = " separated by commas" if count > 1 else ""
        raise ArgumentError(f"{name} must be {expected}{commas}, got {text!r}")
    return numbers if count > 1 else numbers[0]


class SetOnce:
    """Base of classes whose annotated public attributes are read-only after construction.

    Networks and buffers depend on them. Attributes that the class annotates with a default may be set at any time.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        owner = next(kind for kind in type(self).__mro__ if SetOnce in kind.__bases__)
        # Methods are no settings. A subclass may have further attributes.
        setting = name in owner.__annotations__ or type(self) is owner
        fixed = setting and not name.startswith("_") and not hasattr(owner, name)
        if fixed and (name in self.__dict__ or name not in owner.__annotations__):
            kind = owner.__name__
            if name not in owner.__annotations__ and name not in dir(self):
                raise AttributeError(f"{kind} has no setting {name!r}")
            raise AttributeError(f"{kind}.{name} must not be set after construction; make another {kind}")
        super().__setattr__(name, value)


__all__ = [
    "SetOnce",
    "as_path",
    "check_choice",
    "check_count",
    "check_flags",
    "check_iterable",
    "check_seed",
    "check_share",
    "check_threshold",
    "is_integer",
    "is_number",
    "parse_settings",
]
