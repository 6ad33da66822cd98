"""How a pass's results lie in one run of bytes, so that they come down from a device in one copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from oaks.executors import Array, Memory

_ALIGNED = 256


@dataclass(frozen=True)
class Results:
    """What a pass leaves for the host, before calibration.

    Attributes:
        points: (N, K, 2) float32 image pixels.
        heat: (N, K) float32.
        visibility: (N, K) or, with the mirrored crops' last, (2N, K) logits; or None.
        similarity: (N, K) logits; or None.
    """

    points: Any
    heat: Any
    visibility: Any
    similarity: Any


class Layout:
    """Where the results of a batch lie in one run of bytes, so that they come down in one copy."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: dict[str, tuple[int, tuple[int, ...], np.dtype]] = {}

    def add(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._parts[name] = (self.size, shape, np.dtype(dtype))
        self.size = aligned(self.size + math.prod(shape) * np.dtype(dtype).itemsize)

    def views(self, memory: Memory, buffer: Array) -> Results:
        """The typed arrays in a buffer of `size` bytes."""
        parts = {name: memory.view(buffer, *part) for name, part in self._parts.items()}
        return Results(parts["points"], parts["heat"], parts.get("visibility"), parts.get("similarity"))


def aligned(size: int) -> int:
    """The next multiple of what devices want arrays to start at."""
    return -(-size // _ALIGNED) * _ALIGNED


__all__ = ["Layout", "Results", "aligned"]
