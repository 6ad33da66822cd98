"""Memory for large results: the memory of released results is reused.

Fresh memory costs more than the operations that fill it, because the system clears every page at its first use.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

SMALLEST, LARGEST = 1 << 20, 64 << 20
"""Minimum and maximum bytes of a block that is kept; smaller ones are reused by the allocator itself."""

# A deque's operations are atomic: results may be released in any thread at any moment, also by the garbage collector.
_free: deque[np.ndarray] = deque(maxlen=2)


class _Block:
    """A result's memory, which becomes free when its array and all views of it are gone."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._bytes = _taken(math.prod(shape) * dtype.itemsize)
        place = (self._bytes.ctypes.data, False)
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": place,
        }  # fmt: skip

    def __del__(self, give_back: Callable[[np.ndarray], None] = _free.append) -> None:
        give_back(self._bytes)


def _taken(size: int) -> np.ndarray:
    """Return a free block of exactly this size, or fresh memory."""
    for _ in range(len(_free)):
        try:
            found = _free.popleft()
        except IndexError:  # another thread was faster
            break
        if found.nbytes == size:
            return found
        _free.append(found)
    return np.empty(size, np.uint8)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialized array for a result, like `np.empty`."""
    if not SMALLEST <= math.prod(shape) * dtype.itemsize <= LARGEST:
        return np.empty(shape, dtype)
    return np.asarray(_Block(shape, dtype))


__all__ = ["LARGEST", "SMALLEST", "empty"]
