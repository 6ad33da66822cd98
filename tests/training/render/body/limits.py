"""Which bones of a pose are outside the limits of joints."""

from __future__ import annotations

import numpy as np

from oaks.training.render.body.anatomy import BONES, limit, unit


def violations(pose: np.ndarray, slack: float = 1e-3) -> list[str]:
    """Return the names of the bones that are outside the limits by more than `slack` radians (or its cosine)."""
    moved = np.abs(limit(pose) - unit(pose)).max(1)
    return [name for name, distance in zip(BONES, moved, strict=True) if distance > slack]
