"""Elements of a body's surface: rings around bones, lofts of rings, parts, places in the atlas."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from oaks.training.render.body.anatomy import JOINT

COLUMNS = 17
"""Points of a ring: 8 is the front, 12 the left, 4 the right; 0 and 16 are both the back, so that textures close."""
ANGLE = 2 * np.pi * (np.arange(COLUMNS) / (COLUMNS - 1) - 0.5)
"""(COLUMNS,) radians from the front towards the left."""


class Part(IntEnum):
    """Part of a person that a pixel shows."""

    HEAD = 0
    HAIR = 1
    LEFT_EAR = 2
    RIGHT_EAR = 3
    NOSE = 4
    NECK = 5
    CHEST = 6
    PELVIS = 7
    LEFT_UPPER_ARM = 8
    RIGHT_UPPER_ARM = 9
    LEFT_FOREARM = 10
    RIGHT_FOREARM = 11
    LEFT_HAND = 12
    RIGHT_HAND = 13
    LEFT_THIGH = 14
    RIGHT_THIGH = 15
    LEFT_SHIN = 16
    RIGHT_SHIN = 17
    LEFT_FOOT = 18
    RIGHT_FOOT = 19
    SKIRT = 20
    HAT = 21
    BAG = 22


PATCHES = {
    "trunk": (0, 0, 128, 128),
    "left_arm": (128, 0, 64, 128),
    "right_arm": (192, 0, 64, 128),
    "left_leg": (0, 128, 64, 160),
    "right_leg": (64, 128, 64, 160),
    "left_foot": (128, 128, 32, 48),
    "right_foot": (160, 128, 32, 48),
    "skin": (192, 128, 64, 48),
    "skirt": (128, 176, 128, 64),
    "hat": (128, 240, 64, 48),
    "bag": (192, 240, 64, 48),
    "head": (0, 288, 192, 96),
    "hair": (192, 288, 64, 96),
}
"""Place of each surface in a person's atlas: x, y, width, height."""
ATLAS = (256, 384)
"""The atlas's width and height in pixels."""

FRAMES = ("pelvis", "chest", "head", "left_foot", "right_foot")
WAYS = (
    "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm", "left_hand", "right_hand",
    "left_thigh", "right_thigh", "left_shin", "right_shin", "down", "head_down", "left_toes", "right_toes",
)  # fmt: skip


@dataclass(frozen=True)
class Ring:
    """One ring of a loft. Lengths in meters.

    Attributes:
        start, end, share: the center divides the line between two joints at this share.
        side, front, back: radii across, ahead and behind; a negative `back` puts the whole ring ahead of
            the bone.
        part, v: Part of its pixels, and its place along its patch of the atlas, from 0 to 1.
        way, next_way, turn: direction that the ring is square to: `turn` from one of WAYS to the next.
        frame, next_frame, mix: which of FRAMES gives its sides, mixed likewise.
        forward, sideways: offset of the center along the frame's axes.
        power: of the outline's cosine and sine: 1 gives an ellipse, less a rounded box.
    """

    start: str
    end: str
    share: float
    side: float
    front: float
    back: float
    part: int
    v: float
    way: str
    frame: str
    next_way: str = ""
    turn: float = 0.0
    next_frame: str = ""
    mix: float = 0.0
    forward: float = 0.0
    sideways: float = 0.0
    power: float = 1.0

    def row(self) -> tuple[float, ...]:
        """Return the ring as numbers, as Body stores them."""
        return (
            JOINT[self.start], JOINT[self.end], self.share,
            WAYS.index(self.way), WAYS.index(self.next_way or self.way), self.turn,
            FRAMES.index(self.frame), FRAMES.index(self.next_frame or self.frame), self.mix,
            self.side, self.front, self.back, self.forward, self.sideways, self.power, self.v, self.part,
        )  # fmt: skip


@dataclass(frozen=True)
class Loft:
    """Rings joined to a surface that shows one patch.

    Attributes:
        swell: (rings, COLUMNS) scales the radii column by column.
        step: only every step-th column has edges; 2 for thin parts.
    """

    patch: str
    rings: list[Ring]
    swell: np.ndarray | None = None
    step: int = 1
