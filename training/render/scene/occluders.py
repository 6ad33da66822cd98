"""Objects in front of people, as polygons with a shade each, from which masks of any scale are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

KINDS = ("box", "table", "post", "bars", "foliage", "blob", "chair", "panel")


@dataclass(frozen=True)
class Occluder:
    """An object: polygons in the picture's pixels, a shade of each (1: the texture's own), and the seed of its look."""

    kind: str
    polygons: tuple[np.ndarray, ...]
    shades: tuple[float, ...]
    look: int

    def bounds(self, size: tuple[int, int], scale: float) -> tuple[slice, slice]:
        """Return the rows and columns of a mask that it may cover; arguments as for `mask`."""
        points = np.concatenate(self.polygons)
        low, high = points.min(0) * scale - 2, points.max(0) * scale + 3
        low, high = np.clip(low, 0, size).astype(int), np.clip(high, 0, size).astype(int)
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def mask(
        self, size: tuple[int, int], scale: float, origin: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """Draw a mask (height, width) uint8: the covering polygon's number plus one (at most 255), 0 elsewhere.

        Args:
            size: (width, height) of the mask.
            scale: its pixels per pixel of the picture.
            origin: the mask's first pixel (x, y) in the whole picture's mask.
        """
        mask = np.zeros((size[1], size[0]), np.uint8)
        offset = 0.5 * scale - 0.5 - np.array(origin)
        points = np.rint((np.concatenate(self.polygons) * scale + offset) * 8).astype(np.int32)
        start = 0
        for index, polygon in enumerate(self.polygons):
            stop = start + len(polygon)
            cv2.fillPoly(mask, [points[start:stop]], min(index + 1, 255), cv2.LINE_8, 3)
            start = stop
        return mask

    def covers(self, points: np.ndarray) -> np.ndarray:
        """Return which points (N, 2) of the picture lie behind the occluder, (N,) bool, exact to a few pixels."""
        if len(points) == 0:
            return np.zeros(0, bool)
        low = points.min(0)
        scale = 72.0 / max(float(np.ptp(points, axis=0).max()), 1.0)
        place = np.rint((points - low) * scale).astype(int) + 2
        mask = self.mask((77, 77), scale, ((low[0] + 0.5) * scale - 2.5, (low[1] + 0.5) * scale - 2.5))
        return mask[place[:, 1], place[:, 0]] > 0

    def paint(self, canvas: np.ndarray, mask: np.ndarray, texture: np.ndarray) -> None:
        """Draw the shaded texture where the mask is not 0; canvas and texture (H, W, 3) uint8, mask (H, W)."""
        shades = np.ones(256, np.float32)
        shades[1 : len(self.shades) + 1] = self.shades[:255]
        shade = np.take(shades, mask)
        # One side of an object is darker than the other.
        shade *= np.linspace(1.08, 0.86, mask.shape[1], dtype=np.float32)[None]
        cv2.copyTo(cv2.multiply(texture, cv2.merge([shade] * 3), dtype=cv2.CV_8U), mask, canvas)


def cover(
    rng: np.random.Generator,
    low: np.ndarray,
    high: np.ndarray,
    size: tuple[int, int],
    kinds: Sequence[str] = KINDS,
) -> Occluder:
    """Draw an occluder of one of `kinds` over the rectangle from `low` to `high`, (2,) each, in the picture's pixels.

    Objects on the ground reach down to the frame's edge or some way below the rectangle.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    width = high[0] - low[0]
    if kind == "post" and width > 0.3 * size[0]:
        kind = "box"
    if kind == "table" and high[1] < 0.3 * size[1]:
        kind = "foliage"
    polygons, shades = _SHAPES[kind](rng, low.astype(float), high.astype(float), size)
    return Occluder(kind, tuple(polygons), tuple(shades), int(rng.integers(1 << 31)))


_Shape = tuple[list[np.ndarray], list[float]]


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def _ground(rng: np.random.Generator, high: np.ndarray, size: tuple[int, int]) -> float:
    return size[1] + 5.0 if rng.random() < 0.5 else float(high[1] + rng.uniform(0, 0.3) * size[1])


def _box(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> _Shape:
    tilt = rng.normal(0, 0.06) if rng.random() < 0.5 else 0.0
    wide, tall = high - low
    top = rng.uniform(0.05, 0.25) * min(wide, tall)
    skew = rng.uniform(-0.15, 0.15) * wide
    bottom = high[1] if rng.random() < 0.5 else _ground(rng, high, size)
    face = _rectangle(low[0], low[1], high[0], bottom)
    lid = np.array(
        [[low[0], low[1]], [high[0], low[1]], [high[0] + skew, low[1] - top], [low[0] + skew, low[1] - top]]
    )
    middle = (low + high) / 2
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return [(face - middle) @ turn + middle, (lid - middle) @ turn + middle], [0.9, 1.25]


def _table(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> _Shape:
    wide = high[0] - low[0]
    left, right = low[0] - rng.uniform(0.1, 0.8) * wide, high[0] + rng.uniform(0.1, 0.8) * wide
    back = rng.uniform(0.05, 0.2) * wide
    thick = rng.uniform(0.03, 0.1) * wide + 2
    bottom = _ground(rng, high, size)
    polygons = [
        np.array(
            [[left, low[1]], [right, low[1]], [right - back, low[1] - back], [left + back, low[1] - back]]
        ),
        _rectangle(left, low[1], right, low[1] + thick),
    ]
    shades = [1.2, 0.8]
    if rng.random() < 0.65:
        polygons.append(_rectangle(left + 2, low[1] + thick, right - 2, bottom))
        shades.append(0.65)
    else:
        for x in (left + 3, right - 3 - thick):
            polygons.append(_rectangle(x, low[1] + thick, x + thick, bottom))
            shades.append(0.6)
        polygons.append(_rectangle(low[0], low[1] + thick, high[0], high[1]))
        shades.append(0.5)
    for _ in range(int(rng.integers(0, 4))):
        x, w = rng.uniform(left, right), rng.uniform(0.03, 0.12) * wide + 2
        h = w * rng.uniform(0.8, 2.5)
        polygons.append(_rectangle(x, low[1] - h, x + w, low[1]))
        shades.append(float(rng.uniform(0.4, 1.6)))
    return polygons, shades


def _post(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> _Shape:
    lean = rng.normal(0, 4)
    post = np.array(
        [[low[0] + lean, -5], [high[0] + lean, -5], [high[0], size[1] + 5], [low[0], size[1] + 5]], float
    )
    light = post.copy()
    light[[1, 2], 0] = light[[0, 3], 0] + 0.3 * (high[0] - low[0])
    return [post, light], [0.75, 1.15]


def _bars(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, _size: tuple[int, int]) -> _Shape:
    wide, tall = high - low
    upright = rng.random() < 0.5
    span, across = (wide, tall) if upright else (tall, wide)
    thick = max(span * rng.uniform(0.12, 0.3), 4.0)
    gap = thick * rng.uniform(0.15, 0.6)
    polygons: list[np.ndarray] = []
    shades: list[float] = []
    position = 0.0
    extra = rng.uniform(0.0, 0.5) * across
    while position < span and len(polygons) < 24:
        a, b = position, position + thick
        if upright:
            polygons.append(_rectangle(low[0] + a, low[1] - extra, low[0] + b, high[1] + extra))
        else:
            polygons.append(_rectangle(low[0] - extra, low[1] + a, high[0] + extra, low[1] + b))
        shades.append(float(rng.uniform(0.7, 1.1)))
        position += thick + gap
    return polygons, shades


def _foliage(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> _Shape:
    wide, tall = high - low
    leaf = max(0.16 * np.sqrt(wide * tall), 4.0)
    count = int(np.clip(3.2 * wide * tall / leaf**2, 30, 110))
    centers = low + rng.random((count, 2)) * (high - low) + rng.normal(0, 0.35, (count, 2)) * leaf
    turns = rng.uniform(0, np.pi, count)
    lengths, widths = leaf * rng.uniform(0.6, 1.5, count), leaf * rng.uniform(0.2, 0.55, count)
    angle = np.linspace(0, 2 * np.pi, 7)[:-1]
    shape = np.stack([np.cos(angle), np.sin(angle)], 1)[None] * np.stack([lengths, widths], 1)[:, None]
    cosine, sine = np.cos(turns)[:, None], np.sin(turns)[:, None]
    leaves = np.stack(
        [shape[..., 0] * cosine - shape[..., 1] * sine, shape[..., 0] * sine + shape[..., 1] * cosine], 2
    )
    stem = np.array(
        [
            [low[0] + 0.48 * wide, low[1]],
            [low[0] + 0.52 * wide, low[1]],
            [high[0] - 0.45 * wide, size[1] + 5],
            [low[0] + 0.42 * wide, size[1] + 5],
        ]
    )
    return [stem, *(leaves + centers[:, None])], [0.45, *rng.uniform(0.5, 1.35, count)]


def _blob(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, _size: tuple[int, int]) -> _Shape:
    angle = np.linspace(0, 2 * np.pi, 41)[:-1]
    waves = [rng.normal(0, 0.12 / k) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 6)]
    radius: Any = 1.12 + sum(waves)
    middle, half = (low + high) / 2, (high - low) / 2 * 1.15
    outline = middle + np.stack([np.cos(angle), np.sin(angle)], 1) * half * radius[:, None]
    inner = middle - 0.1 * half + (outline - middle) * 0.55
    return [outline, inner], [0.85, 1.05]


def _chair(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> _Shape:
    wide, tall = high - low
    arm = rng.uniform(0.1, 0.25) * wide
    bottom = _ground(rng, high, size)
    round_ = np.linspace(0, np.pi, 9)
    crest = rng.uniform(0.05, 0.18) * tall
    top = np.stack([(low[0] + high[0]) / 2 - np.cos(round_) * wide / 2, low[1] - np.sin(round_) * crest], 1)
    back = np.concatenate([top, [[high[0], bottom], [low[0], bottom]]])
    polygons, shades = [back], [0.95]
    level = low[1] + tall * rng.uniform(0.3, 0.6)
    for x in (low[0] - arm, high[0]):
        polygons.append(_rectangle(x, level, x + arm, bottom))
        shades.append(0.75)
    polygons.append(_rectangle(low[0], level + 0.1 * tall, high[0], level + 0.3 * tall))
    shades.append(1.15)
    return polygons, shades


def _panel(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> _Shape:
    """Return a wall, a door, a car's side or a curtain: everything from one side of the rectangle on."""
    side = int(rng.integers(3))
    far = float(max(size))
    if side == 0:
        edge = _rectangle(-far, low[1], 2 * far, 2 * far)
        strip = _rectangle(-far, low[1], 2 * far, low[1] + 6)
    elif high[0] + low[0] < size[0]:
        edge = _rectangle(-far, -far, high[0], 2 * far)
        strip = _rectangle(high[0] - 6, -far, high[0], 2 * far)
    else:
        edge = _rectangle(low[0], -far, 2 * far, 2 * far)
        strip = _rectangle(low[0], -far, low[0] + 6, 2 * far)
    lean = rng.normal(0, 0.03)
    turn = np.array([[1, lean], [-lean, 1]])
    middle = (low + high) / 2
    return [(edge - middle) @ turn + middle, (strip - middle) @ turn + middle], [0.9, 1.2]


_SHAPES = {
    "box": _box, "table": _table, "post": _post, "bars": _bars, "foliage": _foliage, "blob": _blob,
    "chair": _chair, "panel": _panel,
}  # fmt: skip
