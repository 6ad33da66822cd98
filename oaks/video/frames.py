"""A frame of a video with its time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream.

    Attributes:
        image: (H, W, 3) uint8 BGR, upright.
        index: its number in its source, from 0; dropped and damaged frames leave gaps.
        pts: when it is shown, in units of time_base after the source's first frame.
        time_base: seconds per unit.
        stream: index of its source, where there are several.
        name: its file's path, if each frame is a file, else "".
        duration: stated duration in units of time_base; 0 if none is stated.
    """

    image: np.ndarray
    index: int
    pts: int
    time_base: Fraction
    stream: int = 0
    name: str = ""
    duration: int = 0

    @property
    def time(self) -> float:
        """Seconds after the source's first frame."""
        return float(self.pts * self.time_base)


__all__ = ["Frame"]
