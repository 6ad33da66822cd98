"""Places people, and chooses cuts by the frame and occluders so that labels fall into the requested occlusion level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.training.render.body.figure import Figure
from oaks.training.render.scene.labels import CLASS_RANGES
from oaks.training.render.scene.occluders import Occluder, cover
from oaks.training.render.scene.sketch import Sketch

_ATTEMPTS = 16
_BY_PATTERN = 4
# Attempts that follow the pattern; later ones hide everything on one side instead.
_SIDES = np.array([(0.0, 1.0), (0.0, 1.0), (1.0, 0.0), (-1.0, 0.0), (0.0, -1.0)])


@dataclass(frozen=True)
class Placed:
    """A person in a picture.

    Attributes:
        scale, shift: pixels per meter, and the pelvis (2,) in pixels.
        occluders: objects right in front of the person.
        clothes: random seed of the clothes.
    """

    figure: Figure
    scale: float
    shift: np.ndarray
    occluders: tuple[Occluder, ...] = ()
    clothes: int = 0


class Stage:
    """A picture that is filled from the nearest person to the farthest.

    Args:
        size: the picture's (width, height).
        horizon: row of the horizon; people stand on the ground, below it by an amount that follows from their
            distance.
        camera_height: meters above the ground.
        with_occluders: False hides people only by the frame and by other people.

    Attributes:
        front: (height / 2, width / 2) uint8, not 0 where a person or an object is placed already.
    """

    def __init__(
        self, size: tuple[int, int], horizon: float, camera_height: float, with_occluders: bool
    ) -> None:
        self.size = size
        self.horizon = horizon
        self.camera_height = camera_height
        self.with_occluders = with_occluders
        self.front = np.zeros((size[1] // 2, size[0] // 2), np.uint8)

    def place(
        self, rng: np.random.Generator, sketch: Sketch, scale: float, level: int, pattern: np.ndarray
    ) -> Placed:
        """Find a place, a cut by the frame and occluders that put a person into an occlusion level.

        Args:
            sketch: the person.
            scale: pixels per meter.
            level: the occlusion level, 0 almost occluded to 3 not occluded.
            pattern: (17,) bool: the keypoints that had labels on a real person of this class, as a preference.
        """
        figure, base = sketch.figure, sketch.whole
        low, high = CLASS_RANGES[level]
        best: tuple[int, Placed] | None = None
        clothes = int(rng.integers(1 << 31))
        for attempt in range(_ATTEMPTS):
            by_pattern = attempt < _BY_PATTERN
            hidden = _to_hide(rng, figure, base, pattern, (low, high), by_pattern)
            shift = self._position(rng, figure, scale, hidden, by_pattern)
            points = figure.keypoints * scale + shift
            cut = _outside(points, self.size)
            expected = int((base & ~hidden & ~cut).sum())
            if not low <= expected <= high and attempt < _ATTEMPTS - 1:
                continue
            occluders = []
            if self.with_occluders and (hidden & ~cut).any():
                stature = scale * figure.body.proportions.stature
                occluders = self._cover(rng, points, hidden & ~cut, base & ~hidden & ~cut, stature)
            elif self.with_occluders and level < 3 and rng.random() < 0.15:
                occluders = self._stray(rng, points)
            labeled = int((sketch.labels(shift, self.size, self.front, occluders) > 0).sum())
            miss = max(low - labeled, labeled - high, 0)
            if best is None or miss < best[0]:
                best = (miss, Placed(figure, scale, shift, tuple(occluders), clothes))
            if miss == 0:
                break
        assert best is not None
        placed = best[1]
        sketch.stamp(self.front, placed.shift)
        for occluder in placed.occluders:
            self.front |= occluder.mask((self.front.shape[1], self.front.shape[0]), 0.5)
        return placed

    def _position(
        self, rng: np.random.Generator, figure: Figure, scale: float, hidden: np.ndarray, by_pattern: bool
    ) -> np.ndarray:
        """Return a place of the pelvis, (2,): on the ground, or so that the frame cuts off keypoints to hide."""
        points = figure.keypoints * scale
        low, high = figure.bounds * scale
        shift = self._ground(rng, low, high, scale)
        choice = _best_cut(rng, points, hidden) if hidden.any() else None
        fixed = None
        if choice is not None and not (by_pattern and rng.random() < 0.2):
            fixed, sign, threshold, beyond = choice
            inner = (sign * points[~beyond, fixed]).max() if (~beyond).any() else threshold - 0.1 * scale
            edge = min(inner, threshold) + max(threshold - inner, 0.0) * rng.uniform(0.25, 0.85)
            shift[fixed] = self.size[fixed] - edge if sign > 0 else edge
        if fixed != 0:
            shift[0] = self._column(rng, points + shift, shift[0], (low[0], high[0]), ~hidden)
        return shift

    def _ground(
        self, rng: np.random.Generator, low: np.ndarray, high: np.ndarray, scale: float
    ) -> np.ndarray:
        room = np.array(self.size) - (high - low)
        shift = np.array([0.0, self.horizon + self.camera_height * scale - high[1]])
        if room[1] < 0:
            shift[1] = np.clip(shift[1], 0.3 * room[1] - low[1], -low[1])
        elif rng.random() < 0.85:
            shift[1] = np.clip(shift[1], 0.03 * room[1] - low[1], 0.97 * room[1] - low[1])
        else:
            shift[1] = rng.uniform(0.03, 0.97) * room[1] - low[1]
        return shift

    def _column(
        self,
        rng: np.random.Generator,
        points: np.ndarray,
        before: float,
        extent: tuple[float, float],
        kept: np.ndarray,
    ) -> float:
        """Return, of a few columns, the one where the fewest keypoints to be seen are behind others."""
        room = self.size[0] - (extent[1] - extent[0])
        slack = rng.uniform(0.02, 0.98, 3) if room >= 0 else rng.uniform(0.2, 0.8, 3)
        places = slack * room - extent[0]
        x = (points[kept, 0] - before + places[:, None]) / 2
        y = np.broadcast_to(points[kept, 1] / 2, x.shape)
        height, width = self.front.shape
        rows, columns = np.clip(y, 0, height - 1).astype(int), np.clip(x, 0, width - 1).astype(int)
        return float(places[(self.front[rows, columns] > 0).sum(1).argmin()])

    def _cover(
        self,
        rng: np.random.Generator,
        points: np.ndarray,
        hidden: np.ndarray,
        kept: np.ndarray,
        stature: float,
    ) -> list[Occluder]:
        """Draw one to three occluders over hidden keypoints, each over neighbors without a kept keypoint between them."""
        occluders: list[Occluder] = []
        left = np.flatnonzero(hidden)
        margin = stature * rng.uniform(0.07, 0.11)
        others = points[kept]
        while len(left) and len(occluders) < 3:
            start = int(rng.choice(left))
            order = left[np.argsort(((points[left] - points[start]) ** 2).sum(1))]
            group = [start]
            for candidate in order[1:]:
                trial = points[[*group, candidate]]
                low, high = trial.min(0) - 0.4 * margin, trial.max(0) + 0.4 * margin
                if not ((others > low) & (others < high)).all(1).any():
                    group.append(int(candidate))
            low, high = points[group].min(0), points[group].max(0)
            gap = np.maximum(np.maximum(low - others, others - high).max(1), 0.0)
            reach = min(margin, 0.8 * float(gap.min())) if len(others) else margin
            low, high = low - reach, high + reach
            for _ in range(2):
                occluder = cover(rng, low, high, self.size)
                if not occluder.covers(others).any():
                    break
            occluders.append(occluder)
            left = np.setdiff1d(left, group)
        return occluders

    def _stray(self, rng: np.random.Generator, points: np.ndarray) -> list[Occluder]:
        """Draw a small object in front of the person, which need not hide a keypoint."""
        low, span = points.min(0), np.ptp(points, axis=0)
        middle = low + rng.random(2) * span
        half = rng.uniform(0.02, 0.07, 2) * span.max()
        return [cover(rng, middle - half, middle + half, self.size)]


def _to_hide(
    rng: np.random.Generator,
    figure: Figure,
    base: np.ndarray,
    pattern: np.ndarray,
    number: tuple[int, int],
    by_pattern: bool,
) -> np.ndarray:
    """Return (17,) bool: keypoints to hide so that the rest follows the pattern and has a count in the range `number`."""
    hidden = base & ~pattern
    if (base & pattern)[:5].any():
        hidden[:5] = (
            False  # the visible part of a face follows from where it looks; no object covers one eye only
        )
    if not by_pattern:
        along = figure.keypoints @ _SIDES[int(rng.integers(len(_SIDES)))]
        order = np.argsort(-np.where(base, along, -np.inf))
        count = max(int(base.sum()) - int(rng.integers(number[0], number[1] + 1)), 0)
        hidden = np.zeros(17, bool)
        hidden[order[:count]] = True
        return hidden & base
    keep = int((base & ~hidden).sum())
    middle = figure.keypoints[hidden].mean(0) if hidden.any() else figure.keypoints[rng.integers(17)]
    distance = ((figure.keypoints - middle) ** 2).sum(1)
    if keep > number[1]:
        spare = np.flatnonzero(base & ~hidden)
        hidden[spare[np.argsort(distance[spare])[: keep - number[1]]]] = True
    elif keep < number[0]:
        lost = np.flatnonzero(hidden)
        hidden[lost[np.argsort(-distance[lost])[: number[0] - keep]]] = False
    return hidden


def _best_cut(
    rng: np.random.Generator, points: np.ndarray, hidden: np.ndarray
) -> tuple[int, int, float, np.ndarray] | None:
    """Return the frame's edge that best cuts off the keypoints to hide: axis, sign, the first point that is cut off (along
    the axis, times the sign) and which are, (17,) bool; None if no cut helps."""
    best, choice = 0.0, None
    for axis, sign, taste in ((1, 1, 1.0), (0, 1, 0.7), (0, -1, 0.7), (1, -1, 0.45)):
        along = sign * points[:, axis]
        beyond = along[None] >= along[hidden][:, None]
        # A lost keypoint that should be seen costs more than a hidden one left for an occluder.
        gain = (beyond @ np.where(hidden, 1.0, -2.0)) * taste * rng.uniform(0.7, 1.3, len(beyond))
        top = int(gain.argmax())
        if gain[top] > best:
            best, choice = gain[top], (axis, sign, float(along[hidden][top]), beyond[top])
    return choice


def _outside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (points < -0.5).any(1) | (points[:, 0] > size[0] - 0.5) | (points[:, 1] > size[1] - 0.5)
