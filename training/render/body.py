"""The body's surface: rings around the bones, joined to one mesh of lofts (trunk, limbs, head, hair, clothes that hang).

Every ring has COLUMNS points; column 8 of 0..16 is the front, the last repeats the first (the back), so that textures
close. Radii are shares of the stature, those of the head and what it wears shares of the head's height.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from oaks.training.render.anatomy import JOINT, THIGH, Proportions, foot_direction, frames, joints, unit

COLUMNS = 17


class Part(IntEnum):
    """What a pixel of a person belongs to."""

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
    "head": (0, 288, 192, 96),
    "hair": (192, 288, 64, 96),
    "left_foot": (128, 128, 32, 48),
    "right_foot": (160, 128, 32, 48),
    "skirt": (128, 176, 128, 64),
    "hat": (128, 240, 64, 48),
    "bag": (192, 240, 64, 48),
    "skin": (192, 128, 64, 48),
}
"""Where each surface lies in a person's atlas: x, y, width, height."""
ATLAS = (256, 384)
"""The atlas's width and height in pixels."""

PELVIS_FRAME, CHEST_FRAME, HEAD_FRAME, LEFT_FOOT_FRAME, RIGHT_FOOT_FRAME = range(5)
DOWN, HEAD_DOWN = 10, 11
# Directions of rings beside the ten of the limbs (upper arm, forearm, hand, thigh, shin; left and right).

_ANGLE = 2 * np.pi * (np.arange(COLUMNS) / (COLUMNS - 1) - 0.5)


@dataclass(frozen=True)
class Wear:
    """What changes the body's outline. Lengths: shares of the limb that is covered.

    hair: "none", "short", "medium", "long", "tail" or "bun"; hat: "none", "cap", "brim" or "beanie"; skirt: None, or its
    length as a share of the leg; sleeve (of the arm to the fingertips) and leg (of the leg to the ankle) from 0 to 1;
    loose: how far cloth stands off, as a share of the limb's radius; bag: a backpack.
    """

    hair: str = "short"
    hat: str = "none"
    skirt: float | None = None
    sleeve: float = 0.25
    leg: float = 1.0
    loose: float = 0.1
    bag: bool = False

    def hairline(self, u: np.ndarray) -> np.ndarray:
        """Where the hair begins, as a share of the head's height, at shares u of its circumference (0.5: the front)."""
        close = self.hair in ("short", "tail", "bun")
        temple, fringe = (0.5, 0.78) if close else (0.15, 0.74)
        nape = 0.2 if close else 0.0
        line = [fringe, fringe - 0.02, 0.62, temple, nape + 0.08, nape]
        return np.interp(np.abs(2 * np.asarray(u) - 1), [0.0, 0.22, 0.36, 0.5, 0.62, 1.0], line)


@dataclass(frozen=True)
class Mesh:
    """A posed surface: vertices (V, 3) metres, normals (V, 3) and the face's keypoints (5, 3) with normals (5, 3)."""

    vertices: np.ndarray
    normals: np.ndarray
    face: np.ndarray
    face_normals: np.ndarray
    joints: np.ndarray


class Body:
    """The surface of one person, dressed; `mesh(pose)` bends it.

    Attributes:
        triangles: (T, 3) int, vertices anticlockwise from outside in a right-handed frame.
        parts: (T,) int: the Part of each triangle.
        texture: (V, 2) float32: atlas coordinates in pixels.
    """

    def __init__(self, proportions: Proportions, wear: Wear) -> None:
        self.proportions = proportions
        self.wear = wear
        self._rings: list[tuple[float, ...]] = []
        self._swell: list[np.ndarray] = []
        self._surfaces: list[tuple[int, int, str]] = []
        self._trunk()
        for side in ("left", "right"):
            self._arm(side)
            self._leg(side)
        self._head()
        self._headwear()
        self._skirt_rows = (0, 0)
        if wear.skirt is not None:
            self._skirt(wear.skirt)
        if wear.bag:
            self._bag()
        self._build()

    # ---- surfaces: rows of (joint a, joint b, share, direction a, direction b, weight of b, frame a, frame b, weight of b,
    #      side, front, back, forward, sideways, exponent, v, part)

    def _add(self, patch: str, rows: list[tuple[float, ...]], swell: np.ndarray | None = None) -> None:
        start = len(self._rings)
        self._rings.extend(rows)
        self._swell.extend(np.ones((len(rows), COLUMNS)) if swell is None else swell)
        self._surfaces.append((start, len(self._rings), patch))

    def _trunk(self) -> None:
        body = self.proportions
        woman, child, build = body.female * (1 - body.child), body.child, body.build
        s = body.stature
        girth = s * build**0.8
        waist = 1 - 0.13 * woman + 0.05 * child + 0.25 * max(build - 1, 0)
        hips = 1 + 0.05 * woman
        bust = 0.012 * woman * build
        belly = 0.03 * max(build - 1, 0) + 0.006 * child
        top = (body.shoulder / s) / build**0.8
        table = (
            # share, side, front, back, exponent
            (-0.24, 0.012, 0.010, 0.012, 1.0),
            (-0.21, 0.058, 0.036, 0.044, 0.9),
            (-0.13, 0.094 * hips, 0.057, 0.068, 0.85),
            (-0.02, 0.099 * hips, 0.060 + belly * 0.5, 0.068 + 0.004 * woman, 0.85),
            (0.12, 0.092 * (hips + waist) / 2, 0.060 + belly, 0.056, 0.85),
            (0.28, 0.083 * waist, 0.058 + belly, 0.048, 0.85),
            (0.44, 0.086 * (0.4 + 0.6 * waist), 0.060 + belly * 0.6 + bust * 0.4, 0.052, 0.85),
            (0.58, 0.093, 0.064 + bust, 0.057, 0.85),
            (0.70, 0.098, 0.064 + bust * 0.9, 0.060, 0.85),
            (0.80, 0.100, 0.058 + bust * 0.2, 0.060, 0.85),
            (0.88, max(top * 0.93, 0.07), 0.050, 0.055, 0.9),
            (0.945, max(top * 0.78, 0.06), 0.042, 0.048, 0.9),
            (0.985, top * 0.52, 0.035, 0.042, 1.0),
            (1.03, 0.036, 0.028, 0.036, 1.0),
        )
        rows, swell = [], np.ones((len(table), COLUMNS))
        for index, (share, side, front, back, power) in enumerate(table):
            weight = float(np.clip((share - 0.05) / 0.5, 0, 1))
            part = Part.PELVIS if share < 0.13 else Part.CHEST
            cloth = 1 + 0.25 * self.wear.loose * (share < 0.9)
            rows.append(
                (JOINT["pelvis"], JOINT["neck"], share, DOWN, DOWN, 0, PELVIS_FRAME, CHEST_FRAME, weight,
                 girth * side * cloth, girth * front * cloth, girth * back * cloth, 0, 0, power, (1.03 - share) / 1.27, part)
            )  # fmt: skip
            if woman and 0.5 < share < 0.75:
                swell[index] += 0.16 * woman * np.exp(-(((np.abs(_ANGLE) - 0.55) / 0.3) ** 2))
        self._add("trunk", rows, swell)
        neck = 0.0315 + 0.004 * (1 - body.female) - 0.004 * child
        rows = [
            (JOINT["neck_low"], JOINT["head"], share, DOWN, HEAD_DOWN, share, CHEST_FRAME, HEAD_FRAME, share,
             girth * neck * width, girth * neck * width, girth * neck * width, girth * forward, 0, 1.0, 0.9 - 0.8 * share, Part.NECK)
            for share, width, forward in ((0.1, 1.25, 0), (0.45, 1.02, 0), (0.8, 0.97, 0.002), (1.15, 1.0, 0.0))
        ]  # fmt: skip
        self._add("skin", rows)

    def _arm(self, side: str) -> None:
        body, right = self.proportions, side == "right"
        girth = body.stature * body.build**0.7 * (1 - 0.09 * body.female)
        names = [f"{side}_{name}" for name in ("shoulder", "elbow", "wrist", "fingers")]
        lengths = np.array([body.upper_arm, body.forearm, body.hand])
        starts = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
        parts = [Part.LEFT_UPPER_ARM + right, Part.LEFT_FOREARM + right, Part.LEFT_HAND + right]
        table = (
            # bone, share, towards the next bone's direction, side, front
            (0, -0.10, 0, 0.008, 0.010), (0, -0.08, 0, 0.021, 0.024), (0, -0.02, 0, 0.029, 0.032), (0, 0.07, 0, 0.032, 0.035), (0, 0.22, 0, 0.030, 0.033),
            (0, 0.5, 0, 0.026, 0.029), (0, 0.8, 0.1, 0.023, 0.024), (1, 0.0, 0.5, 0.0225, 0.023),
            (1, 0.15, 0.9, 0.0245, 0.024), (1, 0.35, 1, 0.025, 0.024), (1, 0.7, 1, 0.0195, 0.019), (1, 0.95, 1, 0.0155, 0.0165),
            (2, 0.18, 1, 0.0125, 0.021), (2, 0.42, 1, 0.0115, 0.025), (2, 0.75, 1, 0.010, 0.022), (2, 0.97, 1, 0.006, 0.014),
            (2, 1.0, 1, 0.001, 0.002),
        )  # fmt: skip
        rows = []
        for bone, share, turn, radius_side, radius_front in table:
            v = float(starts[bone] + share * (starts[bone + 1] - starts[bone]))
            before = max(bone - 1, 0)
            cloth = 1 + 1.4 * self.wear.loose * (0 <= v <= self.wear.sleeve)
            rows.append(
                (JOINT[names[bone]], JOINT[names[bone + 1]], share,
                 2 * (before if bone else 0) + right, 2 * (bone if bone else 1) + right, turn, CHEST_FRAME, CHEST_FRAME, 0,
                 girth * radius_side * cloth, girth * radius_front * cloth, girth * radius_front * cloth, 0, 0, 1.0,
                 max(v, 0.0), parts[bone] if not (bone == 1 and share == 0) else parts[1])
            )  # fmt: skip
        self._add(f"{side}_arm", rows)

    def _leg(self, side: str) -> None:
        body, right = self.proportions, side == "right"
        girth = body.stature * body.build**0.75
        thigh, shin = Part.LEFT_THIGH + right, Part.LEFT_SHIN + right
        full = 1 + 0.06 * body.female
        table = (
            # bone, share, towards the shin's direction, side, front, back, forward
            (0, -0.12, 0, 0.012, 0.015, 0.02, 0), (0, -0.04, 0, 0.036, 0.042, 0.052, 0), (0, 0.08, 0, 0.044 * full, 0.049, 0.056, 0),
            (0, 0.25, 0, 0.047 * full, 0.049, 0.05, 0),
            (0, 0.5, 0, 0.042 * full, 0.045, 0.043, 0), (0, 0.8, 0.1, 0.034, 0.036, 0.034, 0), (1, 0.0, 0.5, 0.031, 0.034, 0.030, 0),
            (1, 0.15, 0.9, 0.0295, 0.029, 0.033, 0), (1, 0.33, 1, 0.032, 0.026, 0.040, 0), (1, 0.6, 1, 0.026, 0.022, 0.031, 0),
            (1, 0.9, 1, 0.0195, 0.021, 0.022, 0), (1, 1.0, 1, 0.021, 0.022, 0.025, 0), (1, 1.08, 1, 0.018, 0.02, 0.02, 0),
        )  # fmt: skip
        rows = []
        for bone, share, turn, radius, front, back, forward in table:
            v = (bone + share) / 2
            cloth = 1 + self.wear.loose * (1.0 + 1.4 * v) * (0 <= v <= self.wear.leg) * (
                self.wear.skirt is None
            )
            rows.append(
                (JOINT[f"{side}_{('hip', 'knee')[bone]}"], JOINT[f"{side}_{('knee', 'ankle')[bone]}"], share,
                 6 + right, 8 + right, turn, PELVIS_FRAME, PELVIS_FRAME, 0,
                 girth * radius * cloth, girth * front * cloth, girth * back * cloth, girth * forward, 0, 1.0,
                 float(np.clip(v, 0, 1)), thigh if bone == 0 else shin)
            )  # fmt: skip
        self._add(f"{side}_leg", rows)
        frame = RIGHT_FOOT_FRAME if right else LEFT_FOOT_FRAME
        rows = [
            (JOINT[f"{side}_heel"], JOINT[f"{side}_toes"], share, 12 + right, 12 + right, 0, frame, frame, 0,
             girth * width, girth * upper, girth * lower, 0, 0, 0.8, max(share, 0.0), Part.LEFT_FOOT + right)
            for share, width, upper, lower in (
                (-0.06, 0.003, 0.004, 0.003), (-0.03, 0.018, 0.022, 0.015), (0.15, 0.021, 0.036, 0.017), (0.35, 0.021, 0.033, 0.016),
                (0.55, 0.024, 0.02, 0.015), (0.75, 0.0275, 0.013, 0.014), (0.93, 0.022, 0.008, 0.012), (1.0, 0.004, 0.002, 0.004),
            )
        ]  # fmt: skip
        self._add(f"{side}_foot", rows)

    def _head_row(
        self, share: float, side: float, front: float, back: float, part: int,
        v: float | None = None, forward: float = 0.0, sideways: float = 0.0,
    ) -> tuple[float, ...]:  # fmt: skip
        height = self.proportions.head
        return (
            JOINT["head"], JOINT["head_top"], share, HEAD_DOWN, HEAD_DOWN, 0, HEAD_FRAME, HEAD_FRAME, 0,
            height * side, height * front, height * back, height * forward, height * sideways, 1.0,
            1 - share if v is None else v, part,
        )  # fmt: skip

    def _head(self) -> None:
        slim = (
            1 - 0.05 * self.proportions.female * (1 - self.proportions.child) + 0.05 * self.proportions.child
        )
        self._skull = [
            # share of the height, side, front, back
            (-0.04, 0.03 * slim, 0.30, -0.20), (0.0, 0.12 * slim, 0.36, -0.02), (0.07, 0.21 * slim, 0.385, 0.10),
            (0.17, 0.265 * slim, 0.385, 0.26), (0.27, 0.29 * slim, 0.395, 0.33), (0.38, 0.31, 0.395, 0.38), (0.48, 0.325, 0.375, 0.42),
            (0.58, 0.335, 0.40, 0.445), (0.70, 0.33, 0.395, 0.45), (0.80, 0.305, 0.36, 0.425), (0.89, 0.25, 0.29, 0.36),
            (0.95, 0.17, 0.20, 0.26), (0.99, 0.08, 0.10, 0.13), (1.0, 0.005, 0.005, 0.005),
        ]  # fmt: skip
        self._skull.reverse()
        self._add("head", [self._head_row(*row, Part.HEAD) for row in self._skull])
        self._add("skin", [
            self._head_row(share, side, front, 0.01, Part.NOSE, v=0.5, forward=0.375)
            for share, side, front in ((0.55, 0.012, 0.01), (0.50, 0.025, 0.04), (0.42, 0.035, 0.085), (0.365, 0.055, 0.125),
                                       (0.33, 0.05, 0.09), (0.315, 0.01, 0.01))
        ])  # fmt: skip
        for sign, part in ((1, Part.LEFT_EAR), (-1, Part.RIGHT_EAR)):
            self._add("skin", [
                self._head_row(share, side, 0.05 + (share - 0.45) * 0.1, back, part, v=0.5, forward=-0.02 - (share - 0.45) * 0.1,
                               sideways=sign * (0.335 + (share - 0.45) * 0.1))
                for share, side, back in ((0.60, 0.005, 0.01), (0.58, 0.028, 0.05), (0.5, 0.036, 0.075), (0.4, 0.03, 0.05),
                                          (0.33, 0.02, 0.02), (0.31, 0.003, 0.005))
            ])  # fmt: skip

    def _cap(self, line: np.ndarray, out: float, part: int, patch: str) -> None:
        """A shell over the skull that comes out where the height is above `line` (one per column) and hides below."""
        dense = []
        for upper, lower in zip(self._skull[:-1], self._skull[1:], strict=True):
            dense += [upper, tuple((np.array(upper) + np.array(lower)) / 2)]
        rows, swell = [], []
        for share, side, front, back in dense:
            if share < line.min() - 0.12:
                break
            rows.append(
                self._head_row(0.5 + (share - 0.5) * (1 + out * 0.8), side, front, max(back, 0.05), part)
            )
            swell.append(np.where(share >= line, 1 + out, 0.93))
        self._add(patch, rows, np.array(swell))

    def _headwear(self) -> None:
        hair, hat = self.wear.hair, self.wear.hat
        if hair != "none":
            line = self.wear.hairline(np.arange(COLUMNS) / (COLUMNS - 1))
            self._cap(line, 0.10 if hair != "short" else 0.07, Part.HAIR, "hair")
        if hair == "long":
            self._add("hair", [
                self._head_row(share, side, front, back, Part.HAIR, forward=-0.08)
                for share, side, front, back in ((0.6, 0.34, 0.02, 0.38), (0.3, 0.37, 0.05, 0.42), (0.0, 0.37, 0.02, 0.40),
                                                 (-0.3, 0.36, -0.08, 0.36), (-0.55, 0.30, -0.12, 0.33), (-0.62, 0.05, -0.2, 0.25))
            ])  # fmt: skip
        if hair == "tail":
            self._add("hair", [
                self._head_row(share, width, width, width, Part.HAIR, forward=-forward)
                for share, width, forward in ((0.82, 0.02, 0.42), (0.80, 0.08, 0.52), (0.6, 0.09, 0.60), (0.3, 0.09, 0.60),
                                              (0.0, 0.07, 0.56), (-0.2, 0.02, 0.52))
            ])  # fmt: skip
        if hair == "bun":
            self._add("hair", [
                self._head_row(share, width, width, width, Part.HAIR, forward=-0.4)
                for share, width in ((1.06, 0.01), (1.03, 0.1), (0.93, 0.15), (0.83, 0.1), (0.8, 0.01))
            ])  # fmt: skip
        if hat == "none":
            return
        rim = 0.66
        self._cap(np.full(COLUMNS, rim - 0.03 * (hat == "beanie")), 0.16, Part.HAT, "hat")
        if hat in ("cap", "brim"):
            wide = 0.62 if hat == "brim" else 0.37
            front = 0.72 if hat == "cap" else 0.68
            back = 0.47 if hat == "cap" else 0.70
            self._add("hat", [
                self._head_row(rim + 0.05, 0.30, 0.36, 0.40, Part.HAT, v=0.7), self._head_row(rim + 0.03, wide, front, back, Part.HAT, v=0.95),
                self._head_row(rim, wide * 0.98, front * 0.98, back * 0.98, Part.HAT, v=1.0), self._head_row(rim + 0.01, 0.30, 0.36, 0.40, Part.HAT, v=0.9),
            ])  # fmt: skip

    def _skirt(self, length: float) -> None:
        count = 8
        start = len(self._rings)
        rows = []
        for index in range(count):
            rows.append(
                (
                    0,
                    0,
                    0,
                    DOWN,
                    DOWN,
                    0,
                    PELVIS_FRAME,
                    PELVIS_FRAME,
                    0,
                    1,
                    1,
                    1,
                    0,
                    0,
                    1.0,
                    index / (count - 1),
                    Part.SKIRT,
                )
            )
        swell = 1 + np.linspace(0, 0.1, count)[:, None] * np.cos(6 * _ANGLE)[None]
        self._add("skirt", rows, swell)
        self._skirt_rows = (start, start + count)
        self._skirt_length = length

    def _bag(self) -> None:
        s = self.proportions.stature
        rows = [
            (JOINT["pelvis"], JOINT["neck"], share, DOWN, DOWN, 0, CHEST_FRAME, CHEST_FRAME, 0,
             s * side, s * depth, s * depth, -s * 0.095, 0, 0.5, (0.97 - share) / 0.75, Part.BAG)
            for share, side, depth in ((0.97, 0.01, 0.01), (0.95, 0.055, 0.03), (0.85, 0.075, 0.042), (0.5, 0.08, 0.05),
                                       (0.28, 0.075, 0.045), (0.24, 0.01, 0.01))
        ]  # fmt: skip
        self._add("bag", rows)

    # ---- topology and posing

    def _build(self) -> None:
        table = np.array(self._rings, dtype=np.float64)
        self._joint_a, self._joint_b = table[:, 0].astype(int), table[:, 1].astype(int)
        self._share = table[:, 2:3]
        self._way_a, self._way_b, self._way = table[:, 3].astype(int), table[:, 4].astype(int), table[:, 5:6]
        self._frame_a, self._frame_b, self._frame = (
            table[:, 6].astype(int),
            table[:, 7].astype(int),
            table[:, 8],
        )
        self._offset = table[:, 12:14]
        swell = np.array(self._swell)
        front, side = np.cos(_ANGLE)[None], np.sin(_ANGLE)[None]
        power = table[:, 14:15]
        front = np.sign(front) * np.abs(front) ** power
        side = np.sign(side) * np.abs(side) ** power
        self._across = (table[:, 9:10] * side * swell).astype(np.float64)
        # Where the back lies in front of the axis (the chin), the ring is an ellipse between front and back.
        ahead, behind = table[:, 10:11], table[:, 11:12]
        extent = np.where(front >= 0, ahead, behind)
        self._ahead = swell * np.where(
            behind < 0, (ahead - behind) / 2 + front * (ahead + behind) / 2, front * extent
        )
        u = np.arange(COLUMNS) / (COLUMNS - 1)
        texture = np.zeros((len(table), COLUMNS, 2))
        triangles, parts = [], []
        column = np.arange(COLUMNS - 1)
        for start, stop, patch in self._surfaces:
            x, y, width, height = PATCHES[patch]
            texture[start:stop, :, 0] = x + 1 + u * (width - 3)
            texture[start:stop, :, 1] = y + 1 + np.clip(table[start:stop, 15:16], 0, 1) * (height - 3)
            for ring in range(start, stop - 1):
                a, c = ring * COLUMNS + column, (ring + 1) * COLUMNS + column
                triangles += [np.stack([a, c, c + 1], 1), np.stack([a, c + 1, a + 1], 1)]
                parts.append(np.full(2 * (COLUMNS - 1), int(table[ring, 16])))
        self.triangles = np.concatenate(triangles)
        self.parts = np.concatenate(parts)
        self.texture = texture.reshape(-1, 2).astype(np.float32)
        following = np.arange(len(table)) + 1
        before = np.arange(len(table)) - 1
        for start, stop, _ in self._surfaces:
            before[start], following[stop - 1] = start, stop - 1
        self._before, self._following = before, following

    def mesh(self, pose: np.ndarray) -> Mesh:
        """The surface in a pose, (13, 3) directions as in anatomy; the pelvis at the origin."""
        body = self.proportions
        at = joints(pose, body)
        pelvis, chest, head = frames(pose)
        feet = []
        for other, side in enumerate(("left", "right")):
            toe = foot_direction(pose, other)
            shin = pose[9 + other]
            up = unit(-(shin - (shin @ toe) * toe))
            feet.append((np.stack([np.cross(-toe, up), -toe, up]), toe))
            del side
        frame_set = np.stack([pelvis, chest, head, feet[0][0], feet[1][0]])
        hand = [unit(at[JOINT[f"{side}_fingers"]] - at[JOINT[f"{side}_wrist"]]) for side in ("left", "right")]
        ways = np.stack([
            pose[3], pose[4], pose[5], pose[6], hand[0], hand[1], pose[7], pose[8], pose[9], pose[10],
            -pose[0], -head[1], feet[0][1], feet[1][1],
        ])  # fmt: skip
        centre = at[self._joint_a] + self._share * (at[self._joint_b] - at[self._joint_a])
        way = unit(ways[self._way_a] * (1 - self._way) + ways[self._way_b] * self._way)
        basis = (
            frame_set[self._frame_a] * (1 - self._frame)[:, None, None]
            + frame_set[self._frame_b] * self._frame[:, None, None]
        )
        centre = centre + self._offset[:, :1] * basis[:, 2] + self._offset[:, 1:] * basis[:, 0]
        down = -basis[:, 1]
        total = way + down
        scale = 1 / np.maximum(1 + (way * down).sum(1, keepdims=True), 0.05)
        across, ahead = (
            basis[:, axis] - (total * basis[:, axis]).sum(1, keepdims=True) * scale * total for axis in (0, 2)
        )
        vertices = (
            centre[:, None]
            + self._across[..., None] * across[:, None]
            + self._ahead[..., None] * ahead[:, None]
        )
        if self._skirt_rows[1]:
            start, stop = self._skirt_rows
            vertices[start:stop] = self._skirt_points(at, pelvis, pose)
        along = vertices[self._following] - vertices[self._before]
        around = np.empty_like(vertices)
        around[:, 1:-1] = vertices[:, 2:] - vertices[:, :-2]
        around[:, 0] = around[:, -1] = vertices[:, 1] - vertices[:, -2]
        normals = unit(np.cross(along, around))
        face, face_normals = self._face(vertices, normals)
        return Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), face, face_normals, at)

    def _skirt_points(self, at: np.ndarray, pelvis: np.ndarray, pose: np.ndarray) -> np.ndarray:
        body = self.proportions
        start, stop = self._skirt_rows
        share = np.linspace(-0.12, self._skirt_length * 2, stop - start)
        legs = []
        for side in ("left", "right"):
            hip, knee, ankle = (at[JOINT[f"{side}_{name}"]] for name in ("hip", "knee", "ankle"))
            upper, lower = np.clip(share, -0.2, 1)[:, None], np.clip(share - 1, 0, 1)[:, None]
            legs.append(hip + upper * (knee - hip) + lower * (ankle - knee))
        centre, gap = (legs[0] + legs[1]) / 2, legs[0] - legs[1]
        way = unit(pose[THIGH] + pose[THIGH + 1] + 1e-3 * -pelvis[1])
        side = unit(gap + 0.3 * pelvis[0] * body.stature * 0.1)
        side = unit(side - (side @ way)[:, None] * way)
        front = np.cross(np.broadcast_to(-way, side.shape), -side)
        front = np.where((front @ (pelvis[2] + 0.5 * pelvis[1]))[:, None] < 0, -front, front)
        girth = body.stature * body.build**0.75
        wide = np.sqrt((gap * gap).sum(1)) / 2 + girth * np.interp(
            share, [-0.1, 0.1, 2], [0.045, 0.056, 0.062]
        )
        deep = girth * np.interp(share, [-0.1, 0.1, 2], [0.066, 0.075, 0.085])
        swell = np.array(self._swell[start:stop])
        across = (np.sin(_ANGLE)[None] * swell * wide[:, None])[..., None] * side[:, None]
        return (
            centre[:, None]
            + across
            + (np.cos(_ANGLE)[None] * swell * deep[:, None])[..., None] * front[:, None]
        )

    def _face(self, vertices: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nose, left eye, right eye, left ear, right ear: points on the surface, and which way each looks."""
        surfaces = {}
        for start, _, _ in self._surfaces:
            surfaces.setdefault(int(self._rings[start][16]), start)
        head = surfaces[Part.HEAD]
        heights = np.array([row[0] for row in self._skull])
        upper = int(np.flatnonzero(heights >= EYE_HEIGHT)[-1])
        blend = (heights[upper] - EYE_HEIGHT) / (heights[upper] - heights[upper + 1])
        points, ways = [], []
        tip = surfaces[Part.NOSE] + 3
        points.append(vertices[tip, 8])
        ways.append(normals[tip, 8])
        for sign in (1, -1):
            column = 8 + sign * EYE_TURN * (COLUMNS - 1)
            low = int(np.floor(column))
            part = column - low
            weights = np.array(
                [[(1 - blend) * (1 - part), (1 - blend) * part], [blend * (1 - part), blend * part]]
            )
            block = (slice(head + upper, head + upper + 2), slice(low, low + 2))
            points.append((vertices[block] * weights[..., None]).sum((0, 1)))
            ways.append(unit((normals[block] * weights[..., None]).sum((0, 1))))
        for part, column in ((Part.LEFT_EAR, 12), (Part.RIGHT_EAR, 4)):
            points.append(vertices[surfaces[part] + 2, column])
            ways.append(normals[surfaces[part] + 2, column])
        return np.array(points), np.array(ways)


EYE_HEIGHT, EYE_TURN = 0.49, 0.067
"""The eyes on the head: share of its height above the chin, and share of its circumference from the front."""
