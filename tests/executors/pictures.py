"""Pictures of different sizes, and boxes in them."""

from __future__ import annotations

import numpy as np


def frames(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(count)
    return [random.integers(0, 256, (60 + 7 * i, 90 - 5 * i, 3), dtype=np.uint8) for i in range(count)]


def boxes(count: int, seed: int = 0) -> np.ndarray:
    corners = np.random.default_rng(seed).uniform(-10, 50, (count, 2))
    sizes = np.random.default_rng(seed + 1).uniform(10, 60, (count, 2))
    return np.concatenate([corners, corners + sizes], axis=1)
