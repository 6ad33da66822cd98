"""A dressed person as a mesh that bends with the pose."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from oaks.training.render.body import head, shape
from oaks.training.render.body.anatomy import (
    BONES,
    JOINT,
    THIGH,
    Proportions,
    cross,
    foot_direction,
    frames,
    joints,
    unit,
)
from oaks.training.render.body.outfit import Outfit
from oaks.training.render.body.parts import ANGLE, COLUMNS, PATCHES, WAYS, Loft, Part

_LIMB_WAYS = [BONES.index(way) if way in BONES else -1 for way in WAYS]


@dataclass(frozen=True)
class Mesh:
    """A posed surface; meters, the pelvis at the origin.

    Attributes:
        vertices, normals: (3, V) float32.
        face, face_normals: (5, 3): nose, left eye, right eye, left ear, right ear on the surface.
        joints: (24, 3): anatomy.JOINTS.
    """

    vertices: np.ndarray
    normals: np.ndarray
    face: np.ndarray
    face_normals: np.ndarray
    joints: np.ndarray


class Body:
    """The surface of one person, dressed; `mesh(pose)` bends it.

    Attributes:
        number: of the body in its generator.
        triangles: (T, 3) int, vertices anticlockwise from outside in a right-handed frame.
        parts: (T,) int: the Part of each triangle.
        texture: (V, 2) float32: atlas coordinates in pixels.
        coarse_triangles, coarse_parts: the same surface with every second ring and column, for small drawings.
    """

    def __init__(self, proportions: Proportions, outfit: Outfit, number: int = 0) -> None:
        self.number = number
        self.proportions = proportions
        self.outfit = outfit
        lofts = shape.lofts(proportions, outfit) + head.lofts(proportions, outfit)
        self._read(lofts)
        self._join(lofts)
        self._eyes()

    def _read(self, lofts: list[Loft]) -> None:
        table = np.array([ring.row() for loft in lofts for ring in loft.rings], np.float64)
        ones = [np.ones((len(loft.rings), COLUMNS)) if loft.swell is None else loft.swell for loft in lofts]
        self._swell = np.concatenate(ones)
        whole = table[:, (0, 1, 3, 4, 6, 7)].astype(int)
        self._start, self._end, self._way, self._next_way, self._frame, self._next_frame = whole.T
        self._share, self._turn, self._mix = table[:, 2:3], table[:, 5:6], table[:, 8, None, None]
        self._forward, self._sideways = table[:, 12:13], table[:, 13:14]
        front, side, power = np.cos(ANGLE)[None], np.sin(ANGLE)[None], table[:, 14:15]
        front, side = np.sign(front) * np.abs(front) ** power, np.sign(side) * np.abs(side) ** power
        ahead, behind = table[:, 10:11], table[:, 11:12]
        reach = np.where(front >= 0, front * ahead, front * behind)
        reach = np.where(behind < 0, (ahead - behind) / 2 + front * (ahead + behind) / 2, reach)
        self._across = (table[:, 9:10] * side * self._swell).astype(np.float32)
        self._ahead = (reach * self._swell).astype(np.float32)
        self._v = table[:, 15]

    def _join(self, lofts: list[Loft]) -> None:
        count = len(self._share)
        texture = np.zeros((count, COLUMNS, 2), np.float32)
        self._before, self._following = np.arange(count) - 1, np.arange(count) + 1
        self._first: dict[int, int] = {}
        u = np.arange(COLUMNS) / (COLUMNS - 1)
        spans = []
        start = 0
        for loft in lofts:
            stop = start + len(loft.rings)
            spans.append((start, [ring.part for ring in loft.rings], loft.step))
            self._before[start], self._following[stop - 1] = start, stop - 1
            self._first.setdefault(loft.rings[0].part, start)
            x, y, width, height = PATCHES[loft.patch]
            texture[start:stop, :, 0] = x + 1 + u * (width - 3)
            texture[start:stop, :, 1] = y + 1 + np.clip(self._v[start:stop, None], 0, 1) * (height - 3)
            start = stop
        self.texture = texture.reshape(-1, 2)
        self.triangles, self.parts = _triangles(spans)
        coarse = [(start, ring_parts, 2) for start, ring_parts, _ in spans]
        self.coarse_triangles, self.coarse_parts = _triangles(coarse, 2)

    def _eyes(self) -> None:
        """Find the four vertices around each eye, and their weights."""
        heights = np.array([row[0] for row in head.skull_table(self.proportions)])
        upper = int(np.flatnonzero(heights >= head.EYE_HEIGHT)[-1])
        down = (heights[upper] - head.EYE_HEIGHT) / (heights[upper] - heights[upper + 1])
        self._eye_vertices, self._eye_weights = [], []
        for sign in (1, -1):
            column = 8 + sign * head.EYE_TURN * (COLUMNS - 1)
            left = int(np.floor(column))
            corner = (self._first[Part.HEAD] + upper) * COLUMNS + left
            right = column - left
            self._eye_vertices.append(corner + np.array([0, 1, COLUMNS, COLUMNS + 1]))
            self._eye_weights.append(np.outer([1 - down, down], [1 - right, right]).ravel())

    def mesh(self, pose: np.ndarray) -> Mesh:
        """Return the surface in a pose, directions (13, 3) as in anatomy."""
        at = joints(pose, self.proportions)
        center, across, ahead = self._rings(pose, at)
        vertices = center.T[:, :, None].astype(np.float32)
        vertices = vertices + across.T[:, :, None].astype(np.float32) * self._across
        vertices += ahead.T[:, :, None].astype(np.float32) * self._ahead
        if self.outfit.skirt is not None:
            first = self._first[Part.SKIRT]
            vertices[:, first : first + shape.SKIRT_RINGS] = self._skirt(pose, at)
        along = vertices[:, self._following] - vertices[:, self._before]
        around = np.empty_like(vertices)
        around[:, :, 1:-1] = vertices[:, :, 2:] - vertices[:, :, :-2]
        around[:, :, 0] = around[:, :, -1] = vertices[:, :, 1] - vertices[:, :, -2]
        normals = np.stack([along[i - 2] * around[i - 1] - along[i - 1] * around[i - 2] for i in range(3)])
        normals /= np.maximum(np.sqrt((normals * normals).sum(0)), 1e-12)
        vertices, normals = vertices.reshape(3, -1), normals.reshape(3, -1)
        face, face_normals = (self._face(values) for values in (vertices, normals))
        return Mesh(vertices, normals, face, unit(face_normals), at)

    def _rings(self, pose: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the centers (R, 3) of the rings and their two axes."""
        pelvis, chest, head_frame = frames(pose)
        feet, toes = [], []
        for other in (0, 1):
            toe = foot_direction(pose, other, pelvis)
            shin = pose[BONES.index("left_shin") + other]
            up = unit((shin @ toe) * toe - shin)
            feet.append(np.stack([cross(-toe, up), -toe, up]))
            toes.append(toe)
        hands = [
            unit(at[JOINT[f"{side}_fingers"]] - at[JOINT[f"{side}_wrist"]]) for side in ("left", "right")
        ]
        given = {"left_hand": hands[0], "right_hand": hands[1], "down": -pose[0], "head_down": -head_frame[1],
                 "left_toes": toes[0], "right_toes": toes[1]}  # fmt: skip
        ways = np.stack(
            [given[way] if bone < 0 else pose[bone] for way, bone in zip(WAYS, _LIMB_WAYS, strict=True)]
        )
        sides = np.stack([pelvis, chest, head_frame, *feet])
        way = unit(ways[self._way] * (1 - self._turn) + ways[self._next_way] * self._turn)
        basis = sides[self._frame] * (1 - self._mix) + sides[self._next_frame] * self._mix
        start = at[self._start]
        center = start + self._share * (at[self._end] - start)
        center += self._forward * basis[:, 2] + self._sideways * basis[:, 0]
        # The smallest rotation from the frame's downward axis to the ring's direction also rotates the other axes.
        down = -basis[:, 1]
        total = way + down
        total_scaled = total / np.maximum(1 + (way * down).sum(1, keepdims=True), 0.05)
        across, ahead = (
            basis[:, axis] - (total * basis[:, axis]).sum(1, keepdims=True) * total_scaled for axis in (0, 2)
        )
        return center, across, ahead

    def _skirt(self, pose: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return the cloth around both legs from the waist down, (3, rings, COLUMNS)."""
        body = self.proportions
        pelvis = frames(pose)[0]
        assert self.outfit.skirt is not None
        share = np.linspace(-0.12, self.outfit.skirt * 2, shape.SKIRT_RINGS)
        upper, lower = np.clip(share, -0.2, 1)[:, None], np.clip(share - 1, 0, 1)[:, None]
        legs = []
        for side in ("left", "right"):
            hip, knee, ankle = (at[JOINT[f"{side}_{name}"]] for name in ("hip", "knee", "ankle"))
            legs.append(hip + upper * (knee - hip) + lower * (ankle - knee))
        gap = legs[0] - legs[1]
        way = unit(pose[THIGH] + pose[THIGH + 1] - 1e-3 * pelvis[1])
        across = unit(gap + 0.03 * body.stature * pelvis[0])
        across = unit(across - (across @ way)[:, None] * way)
        front = np.cross(across, -way)
        girth = body.stature * body.build**0.75
        wide = np.sqrt((gap * gap).sum(1)) / 2 + girth * np.interp(
            share, [-0.1, 0.1, 2], [0.045, 0.056, 0.062]
        )
        deep = girth * np.interp(share, [-0.1, 0.1, 2], [0.066, 0.075, 0.085])
        first = self._first[Part.SKIRT]
        swell = self._swell[first : first + shape.SKIRT_RINGS]
        points = ((legs[0] + legs[1]) / 2).T[:, :, None]
        points = points + (across * wide[:, None]).T[:, :, None] * (np.sin(ANGLE) * swell)
        return points + (front * deep[:, None]).T[:, :, None] * (np.cos(ANGLE) * swell)

    def _face(self, values: np.ndarray) -> np.ndarray:
        """Return the values (3, V) at nose, eyes and ears, (5, 3)."""
        tip = (self._first[Part.NOSE] + 3) * COLUMNS + 8
        # An ear's keypoint is the middle of its outer half: columns from front over the side to the back.
        ears = [
            values[:, ring * COLUMNS + first : ring * COLUMNS + first + 9].mean(1)
            for ring, first in ((self._first[Part.LEFT_EAR] + 2, 8), (self._first[Part.RIGHT_EAR] + 2, 0))
        ]
        eyes = [
            values[:, corners] @ weights
            for corners, weights in zip(self._eye_vertices, self._eye_weights, strict=True)
        ]
        return np.array([values[:, tip], *eyes, *ears], np.float64)


def _triangles(spans: list[tuple[int, list[int], int]], skip: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (T, 3) and parts (T,) of lofts, each given by its first ring, its rings' parts and its
    columns' step; only every skip-th ring is used."""
    triangles, parts = [], []
    for start, ring_parts, step in spans:
        column = np.arange(0, COLUMNS - 1, step)
        rings = sorted({*range(0, len(ring_parts), skip), len(ring_parts) - 1})
        for upper, lower in itertools.pairwise(rings):
            a, c = (start + upper) * COLUMNS + column, (start + lower) * COLUMNS + column
            triangles += [np.stack([a, c, c + step], 1), np.stack([a, c + step, a + step], 1)]
            parts.append(np.full(2 * len(column), ring_parts[upper]))
    return np.concatenate(triangles), np.concatenate(parts)
