"""Forests (oaks.ops.Forest) as JSON files, exact to the last bit and the same bytes each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.ops import Forest
from oaks.structured import parse_json

_WHOLE = ("roots", "feature", "left", "right")
_REAL = ("threshold", "leaves")


def to_dict(forest: Forest) -> dict[str, Any]:
    """Return a forest as plain lists and numbers."""
    return {
        "features": forest.features,
        **{name: getattr(forest, name).tolist() for name in _WHOLE},
        # The shortest decimal that reads back as this float32.
        **{name: [float(str(value)) for value in getattr(forest, name)] for name in _REAL},
    }


def from_dict(content: Any) -> Forest:
    """Return a forest from plain data, after checking all of it.

    Raises:
        ArgumentError: a field is missing, or its content is not a forest.
    """
    if not isinstance(content, Mapping):
        raise ArgumentError(f"forest must be an object, got {type(content).__name__}")
    arrays = {}
    for name in (*_WHOLE, *_REAL):
        kinds, values = (int,) if name in _WHOLE else (int, float), content.get(name)
        if not isinstance(values, list) or not all(type(v) in kinds and abs(v) < 2**31 for v in values):
            raise ArgumentError(f"forest: {name} must be a list of numbers, got {str(values)[:64]}")
        arrays[name] = np.array(values, np.int32 if name in _WHOLE else np.float32)
    features = content.get("features")
    return Forest(features=features if type(features) is int else 0, **arrays)


def write(path: str | Path, forest: Forest) -> None:
    """Write a forest atomically."""
    write_json(path, to_dict(forest))


def read(content: bytes, label: str) -> Forest:
    """Return a forest from a file's content.

    Raises:
        ArgumentError: it is not a forest; the message begins with `label`.
    """
    stated = parse_json(content, label)
    try:
        return from_dict(stated)
    except ValueError as error:
        raise ArgumentError(f"{label}: {error}") from error


__all__ = ["from_dict", "read", "to_dict", "write"]
