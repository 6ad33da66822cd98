"""Decides where people stand, what the frame cuts off and what stands before them, until labels fall in a wanted class.

The search works on a small drawing of each person, on which labels cost a fraction of a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from oaks.training.render.figure import Figure
from oaks.training.render.labels import CLASS_RANGES, OCCLUDER, Subject, visibility
from oaks.training.render.occluders import Occluder, cover

_SKETCH_HEIGHT = 96
_ATTEMPTS = 12
_BY_PATTERN = 3
# Attempts that follow the pattern, before what lies on one side is lost instead.


@dataclass
class Placed:
    """A person in the picture: `scale` pixels per metre, the pelvis at `shift`; occluders right before the person."""

    figure: Figure
    scale: float
    shift: np.ndarray
    occluders: list[Occluder] = field(default_factory=list)


class Sketch:
    """A person drawn small and alone, with what labels need.

    Attributes:
        whole: (17,) bool: the keypoints that have labels where nothing is cut off or covered.
    """

    def __init__(self, figure: Figure, scale: float) -> None:
        self.figure = figure
        low, high = figure.bounds
        self.zoom = min(0.5, _SKETCH_HEIGHT / ((high - low).max() * scale))
        self.scale = scale * self.zoom
        size = np.ceil((high - low) * self.scale).astype(int) + 5
        self.size = (int(size[0]), int(size[1]))
        self.shift = 2 - low * self.scale
        self.codes, self.distances = figure.sketch(self.size, self.scale, self.shift)
        self.subject: Subject = figure.subject(0, self.scale, self.shift)
        self.whole = visibility(self.subject, self.codes, self.distances) > 0

    def origin(self, shift: np.ndarray) -> np.ndarray:
        """Where the sketch's first pixel lies in a whole picture drawn at its zoom, the pelvis at `shift` there."""
        return (shift + 0.5) * self.zoom - 0.5 - self.shift

    def labels(
        self, shift: np.ndarray, size: tuple[int, int], front: np.ndarray | None, occluders: list[Occluder]
    ) -> np.ndarray:
        """(17,) flags with the pelvis at `shift` of a picture of `size`, behind `front` (a half-size mask) and occluders."""
        origin = self.origin(shift)
        frame = tuple(float(v) for v in (*(-0.5 - origin), *(np.array(size) * self.zoom - 0.5 - origin)))
        codes = self.codes.copy()
        height, width = codes.shape
        left, top = (int(np.clip(np.ceil(v), 0, n)) for v, n in zip(frame[:2], (width, height), strict=True))
        right, bottom = (
            int(np.clip(np.floor(v) + 1, 0, n)) for v, n in zip(frame[2:], (width, height), strict=True)
        )
        codes[:top], codes[bottom:], codes[:, :left], codes[:, right:] = 0, 0, 0, 0
        if front is not None:
            ratio = 2 * self.zoom
            matrix = np.array(
                [[ratio, 0, 0.5 * ratio - 0.5 - origin[0]], [0, ratio, 0.5 * ratio - 0.5 - origin[1]]]
            )
            codes[cv2.warpAffine(front, matrix, self.size, flags=cv2.INTER_NEAREST) > 0] = OCCLUDER
        for occluder in occluders:
            codes[occluder.mask(self.size, self.zoom, (float(origin[0]), float(origin[1]))) > 0] = OCCLUDER
        return visibility(self.subject, codes, self.distances, frame)

    def stamp(self, front: np.ndarray, shift: np.ndarray) -> None:
        """Adds the person to a half-size mask of the picture."""
        origin = self.origin(shift)
        ratio = 0.5 / self.zoom
        step = (origin + 0.5) * ratio - 0.5
        matrix = np.array([[ratio, 0, step[0]], [0, ratio, step[1]]])
        mask = cv2.warpAffine(
            (self.codes > 0).astype(np.uint8), matrix, front.shape[::-1], flags=cv2.INTER_NEAREST
        )
        np.maximum(front, mask, out=front)


def place(
    rng: np.random.Generator,
    sketch: Sketch,
    scale: float,
    level: int,
    pattern: np.ndarray,
    size: tuple[int, int],
    front: np.ndarray,
    with_occluders: bool,
) -> Placed:
    """Finds a place, a cut by the frame and occluders under which the person falls into an occlusion class.

    Args:
        sketch: the person.
        scale: pixels per metre.
        level: the class wanted, 0 almost occluded to 3 not occluded.
        pattern: (17,) bool: the keypoints that had labels on a real person of this class; a hint.
        size: the picture's (width, height).
        front: (height / 2, width / 2) uint8: what stands nearer already; the person and its occluders are added.
        with_occluders: False leaves only the frame and other people to hide anything.
    """
    figure, base = sketch.figure, sketch.whole
    low, high = CLASS_RANGES[level]
    best: tuple[float, Placed] | None = None
    for attempt in range(_ATTEMPTS):
        hidden = _to_hide(rng, figure, base, pattern, (low, high), attempt)
        shift, cut = _cut(rng, figure, scale, hidden, size, attempt)
        occluders = []
        left = hidden & ~cut
        if with_occluders and left.any():
            occluders = _cover(
                rng,
                figure.keypoints * scale + shift,
                left,
                base & ~hidden,
                scale * figure.body.proportions.stature,
                size,
            )
        elif with_occluders and level < 3 and rng.random() < 0.15:
            occluders = _stray(rng, figure.keypoints * scale + shift, size)
        labelled = int((sketch.labels(shift, size, front, occluders) > 0).sum())
        miss = max(low - labelled, labelled - high, 0)
        candidate = Placed(figure, scale, shift, occluders)
        if best is None or miss < best[0]:
            best = (miss, candidate)
        if miss == 0:
            break
    placed = best[1]
    sketch.stamp(front, placed.shift)
    for occluder in placed.occluders:
        np.maximum(front, (occluder.mask(front.shape[::-1], 0.5) > 0).astype(np.uint8), out=front)
    return placed


def _to_hide(
    rng: np.random.Generator,
    figure: Figure,
    base: np.ndarray,
    pattern: np.ndarray,
    wanted: tuple[int, int],
    attempt: int,
) -> np.ndarray:
    """(17,) bool: keypoints to lose so that the rest is as the pattern has it and their number as wanted."""
    hidden = base & ~pattern
    if attempt >= _BY_PATTERN:
        direction = np.array(
            [(0.0, 1.0), (0.0, 1.0), (1.0, 0.0), (-1.0, 0.0), (0.0, -1.0)][int(rng.integers(5))]
        )
        along = figure.keypoints @ direction
        order = np.argsort(-np.where(base, along, -np.inf))
        count = max(int(base.sum()) - int(rng.integers(wanted[0], wanted[1] + 1)), 0)
        hidden = np.zeros(17, bool)
        hidden[order[:count]] = True
        return hidden & base
    keep = int((base & ~hidden).sum())
    spare = np.flatnonzero(base & ~hidden)
    middle = figure.keypoints[hidden].mean(0) if hidden.any() else figure.keypoints[rng.integers(17)]
    if keep > wanted[1]:
        distance = ((figure.keypoints[spare] - middle) ** 2).sum(1)
        hidden[spare[np.argsort(distance)[: keep - wanted[1]]]] = True
    elif keep < wanted[0]:
        lost = np.flatnonzero(hidden)
        distance = ((figure.keypoints[lost] - middle) ** 2).sum(1)
        hidden[lost[np.argsort(-distance)[: wanted[0] - keep]]] = False
    return hidden


def _cut(
    rng: np.random.Generator,
    figure: Figure,
    scale: float,
    hidden: np.ndarray,
    size: tuple[int, int],
    attempt: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Where to put the pelvis so that the frame cuts off hidden keypoints and no other; (2,) and (17,) bool: those cut."""
    points = figure.keypoints * scale
    bounds = figure.bounds * scale
    best, choice = 0.0, None
    for axis, sign, taste in ((1, 1, 1.0), (0, 1, 0.7), (0, -1, 0.7), (1, -1, 0.45)) if hidden.any() else ():
        along = sign * points[:, axis]
        beyond = along[None] >= along[hidden][:, None]
        # A lost keypoint that should be seen costs more than a hidden one left for an occluder.
        gain = (beyond @ np.where(hidden, 1.0, -2.0)) * taste * rng.uniform(0.7, 1.3, len(beyond))
        top = int(gain.argmax())
        if gain[top] > best:
            best, choice = gain[top], (axis, sign, along[hidden][top], beyond[top])
    room = np.array(size) - (bounds[1] - bounds[0])
    shift = np.empty(2)
    for axis in (0, 1):
        slack = (
            rng.uniform(0.02, 0.98)
            if room[axis] >= 0
            else rng.uniform(0.2, 0.8)
            if axis == 0
            else rng.uniform(0.0, 0.5)
        )
        shift[axis] = -bounds[0, axis] + slack * room[axis]
    if choice is None or (attempt < _BY_PATTERN and rng.random() < 0.25):
        return shift, _outside(points + shift, size)
    axis, sign, threshold, beyond = choice
    inner = (sign * points[~beyond, axis]).max() if (~beyond).any() else threshold - 0.05 * scale
    inner = min(inner, threshold)
    edge = (
        inner + (threshold - inner) * rng.uniform(0.25, 0.85)
        if threshold > inner
        else threshold - 0.02 * scale
    )
    shift[axis] = size[axis] - edge if sign > 0 else edge
    return shift, _outside(points + shift, size)


def _outside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (points < -0.5).any(1) | (points[:, 0] > size[0] - 0.5) | (points[:, 1] > size[1] - 0.5)


def _cover(
    rng: np.random.Generator,
    points: np.ndarray,
    hidden: np.ndarray,
    kept: np.ndarray,
    stature: float,
    size: tuple[int, int],
) -> list[Occluder]:
    """One to three occluders over the hidden keypoints, each over neighbours that no kept keypoint parts."""
    occluders: list[Occluder] = []
    left = np.flatnonzero(hidden)
    margin = stature * rng.uniform(0.075, 0.12)
    while len(left) and len(occluders) < 3:
        start = int(rng.choice(left))
        order = left[np.argsort(((points[left] - points[start]) ** 2).sum(1))]
        group = [start]
        for candidate in order[1:]:
            trial = points[[*group, candidate]]
            low, high = trial.min(0) - 0.4 * margin, trial.max(0) + 0.4 * margin
            if kept.any() and ((points[kept] > low) & (points[kept] < high)).all(1).sum() > 0:
                continue
            group.append(int(candidate))
        low, high = points[group].min(0) - margin, points[group].max(0) + margin
        occluders.append(cover(rng, low, high, size))
        left = np.setdiff1d(left, group)
    return occluders


def _stray(rng: np.random.Generator, points: np.ndarray, size: tuple[int, int]) -> list[Occluder]:
    """Something small before the person that need not hide a keypoint."""
    middle = points.min(0) + rng.random(2) * (points.max(0) - points.min(0))
    half = rng.uniform(0.02, 0.07, 2) * (points.max(0) - points.min(0)).max()
    return [cover(rng, middle - half, middle + half, size)]
