"""Memory for large results: that of a result that nobody holds any more is used again.

Fresh memory costs more than the operations that fill it: the system clears every page at its first use.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

SMALLEST, LARGEST = 1 << 20, 64 << 20
"""Bytes of a result that is kept: below, the allocator itself uses memory again."""

# Its operations are atomic, so that results may be dropped in any thread and at any moment, as the collector does.
_free: deque[np.ndarray] = deque(maxlen=2)


class _Block:
    """A result's memory, given back when its array and all views of it are gone."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._bytes = _taken(math.prod(shape) * dtype.itemsize)
        place = (self._bytes.ctypes.data, False)
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": place,
        }  # fmt: skip

    def __del__(self, give_back: Callable[[np.ndarray], None] = _free.append) -> None:
        give_back(self._bytes)


def _taken(size: int) -> np.ndarray:
    """Free memory of exactly that size, or fresh memory."""
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
    """`np.empty` for results."""
    if not SMALLEST <= math.prod(shape) * dtype.itemsize <= LARGEST:
        return np.empty(shape, dtype)
    return np.asarray(_Block(shape, dtype))


__all__ = ["LARGEST", "SMALLEST", "empty"]
