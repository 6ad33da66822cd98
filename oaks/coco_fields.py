"""Fields of COCO files as checked arrays; errors name the place of a value that does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from oaks.arguments import is_integer
from oaks.errors import ArgumentError
from oaks.schema import shortened
from oaks.skipping import skip


def as_id(category: str | int | None) -> int | None:
    """Return an id, or a text that is one, as a number; None for None and for names.

    Raises:
        ArgumentError: it is neither an id nor a name.
    """
    if isinstance(category, str):
        return int(category) if category.isascii() and category.isdecimal() and len(category) < 19 else None
    if category is not None and not is_integer(category):
        raise ArgumentError(f"category must be a name or an id, got {category!r}")
    return None if category is None else int(category)


def folded(category: Mapping[str, Any]) -> str:
    return str(category.get("name")).strip().casefold()


def counted_categories(categories: np.ndarray) -> str:
    """Return the category ids with their counts, for messages."""
    numbers, counts = np.unique(categories, return_counts=True)
    return ", ".join(f"{n} of category {c}" for c, n in zip(numbers[:20], counts[:20], strict=True))


def category_ids(rows: Sequence[Mapping[str, Any]], label: Callable[[int], str], default: int) -> np.ndarray:
    """Return category ids (N,); rows without one get `default`."""
    return integers([row.get("category_id", default) for row in rows], label, least=0)


def integers(values: list[Any], label: Callable[[int], str], *, least: int) -> np.ndarray:
    """Return integers (N,) int64, of ints or of whole floats; `label` names the n-th for messages."""
    try:
        if set(map(type, values)) <= {int}:
            array = np.array(values, np.int64)
        else:
            floats = np.array(values if set(map(type, values)) <= {int, float} else [np.nan], np.float64)
            exact = bool((floats == np.floor(floats)).all()) and np.abs(floats).max() < 2**53
            array = floats.astype(np.int64) if exact else np.array([least - 1])
        if (array >= least).all():
            return array
    except (OverflowError, ValueError):
        pass
    for n, value in enumerate(values):
        if not is_whole(value) or value < least:
            raise ArgumentError(f"{label(n)} must be an integer of at least {least}, got {shortened(value)}")
    return np.array([int(value) for value in values], np.int64)


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer of 64 bits, or a float that is one; booleans are not."""
    if type(value) is float:
        return value.is_integer() and abs(value) < 2**53
    return type(value) is int and abs(value) < 2**63


def alone(value: Any) -> Any:
    """Return a number as a list of one; None stays None."""
    return value if value is None else [value]


def lists_of_numbers(values: list[Any], count: int, label: Callable[[int], str], form: str) -> np.ndarray:
    """Return lists or arrays of finite numbers as (N, count) float64; None becomes NaN."""
    filled = [[np.nan] * count if value is None else value for value in values]
    lists = [value for value in filled if type(value) is list]
    arrays = [value for value in filled if type(value) is np.ndarray and value.dtype.kind in "iuf"]
    plain = len(lists) + len(arrays) == len(filled) and all(np.shape(value) == (count,) for value in arrays)
    plain = plain and all(len(value) == count for value in lists)
    if plain and set(map(type, chain.from_iterable(lists))) <= {int, float}:
        try:
            array = np.array(filled, np.float64).reshape(len(values), count)
            missing = np.array([value is None for value in values], bool)
            if np.isfinite(array[~missing]).all():
                return array
        except OverflowError:
            pass
    for n, value in enumerate(values):
        if value is not None and not _is_list(value, count):
            got = value.tolist() if isinstance(value, np.ndarray) else value
            got = got[0] if count == 1 and isinstance(got, list) else got
            finite = form if count == 1 else f"{form}, finite numbers"
            raise ArgumentError(f"{label(n)} must be {finite}, got {_brief(got)}")
    return np.array(filled, np.float64).reshape(len(values), count)


def _is_list(value: Any, count: int) -> bool:
    """Return whether a value is a flat list of `count` finite numbers; texts and booleans are not."""
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != count:
        return False
    try:
        return all(isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    except OverflowError:  # an integer beyond all floats
        return False


def _brief(value: Any) -> str:
    return repr(value)[:80] if isinstance(value, list) and len(value) < 8 else shortened(value)


def box_fields(rows: Sequence[Mapping[str, Any]], label: Callable[[int], str]) -> np.ndarray:
    """Return each row's `box`, (N, 4) float64; NaN for a row without one."""
    boxes = lists_of_numbers(
        [row.get("box") for row in rows], 4, lambda n: f"{label(n)}: box", "[x, y, width, height]"
    )
    if (empty := (boxes[:, 2:] <= 0).any(axis=1)).any():
        n = int(empty.argmax())
        raise ArgumentError(f"{label(n)}: box must have a positive width and height, got {boxes[n].tolist()}")
    return boxes


def indices_by(values: np.ndarray) -> dict[int, np.ndarray]:
    """Return the indices (n,) of each of some values (N,), ascending; in linear time, unlike a search for each."""
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=False))


def are_numbers(values: Any) -> bool:
    """Return whether a value is a finite number or a flat list of them; null, text and nested lists are not."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths within it
        return False
    return array.ndim < 2 and array.dtype.kind in "iuf" and bool(np.isfinite(array).all())


def tell_skipped(path: str | Path, skipped: Mapping[str, Sequence[int]]) -> None:
    """Skip a file's annotations or rows, of which `skipped` has the ids by reason."""
    for reason, found in skipped.items():
        skip(f"{reason} in {path}", f"{len(found)}, with ids {first_of(found)}")


def first_of(names: Sequence[object]) -> str:
    """Return the first of many names or ids, for messages."""
    return ", ".join(map(str, names[:10])) + (", ..." if len(names) > 10 else "")


__all__ = [
    "alone",
    "are_numbers",
    "as_id",
    "box_fields",
    "category_ids",
    "counted_categories",
    "first_of",
    "folded",
    "indices_by",
    "integers",
    "is_whole",
    "lists_of_numbers",
    "tell_skipped",
]
