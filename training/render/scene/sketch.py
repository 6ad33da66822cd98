"""A small drawing of one person, from which the labels at any place in the picture are cheap to find."""

from __future__ import annotations

import cv2
import numpy as np

from oaks.training.render.body.figure import Figure
from oaks.training.render.scene.labels import OCCLUDER, Subject, visibility
from oaks.training.render.scene.occluders import Occluder

_HEIGHT = 96


class Sketch:
    """A small drawing of one person, with what labels need.

    Attributes:
        whole: (17,) bool: the keypoints that have labels if nothing is cut off or covered.
    """

    def __init__(self, figure: Figure, scale: float) -> None:
        self.figure = figure
        low, high = figure.bounds
        self.zoom = min(0.5, _HEIGHT / ((high - low).max() * scale))
        self.scale = scale * self.zoom
        size = np.ceil((high - low) * self.scale).astype(int) + 5
        self.size = (int(size[0]), int(size[1]))
        self.shift = 2 - low * self.scale
        self.codes, self.distances = figure.sketch(self.size, self.scale, self.shift)
        self.subject: Subject = figure.subject(0, self.scale, self.shift)
        self.whole = visibility(self.subject, self.codes, self.distances) > 0

    def origin(self, shift: np.ndarray) -> np.ndarray:
        """Return the place of the sketch's first pixel in the picture at its zoom, with the pelvis at `shift`."""
        return (shift + 0.5) * self.zoom - 0.5 - self.shift

    def labels(
        self, shift: np.ndarray, size: tuple[int, int], front: np.ndarray, occluders: list[Occluder]
    ) -> np.ndarray:
        """Return the flags (17,) with the pelvis at `shift`, behind `front` (a half-size mask) and occluders."""
        origin = self.origin(shift)
        low, high = (-0.5 - origin).tolist(), (np.array(size) * self.zoom - 0.5 - origin).tolist()
        frame = (low[0], low[1], high[0], high[1])
        codes = self.codes.copy()
        height, width = codes.shape
        left, top = (int(np.clip(np.ceil(v), 0, n)) for v, n in zip(frame[:2], (width, height), strict=True))
        right, bottom = (
            int(np.clip(np.floor(v) + 1, 0, n)) for v, n in zip(frame[2:], (width, height), strict=True)
        )
        codes[:top], codes[bottom:], codes[:, :left], codes[:, right:] = 0, 0, 0, 0
        ratio = 2 * self.zoom
        step = 0.5 * ratio - 0.5 - origin
        matrix = np.array([[ratio, 0, step[0]], [0, ratio, step[1]]])
        codes[cv2.warpAffine(front, matrix, self.size, flags=cv2.INTER_NEAREST) > 0] = OCCLUDER
        for occluder in occluders:
            codes[occluder.mask(self.size, self.zoom, (float(origin[0]), float(origin[1]))) > 0] = OCCLUDER
        return visibility(self.subject, codes, self.distances, frame)

    def stamp(self, front: np.ndarray, shift: np.ndarray) -> None:
        """Add the person to a half-size mask of the picture."""
        origin = self.origin(shift)
        ratio = 0.5 / self.zoom
        step = (origin + 0.5) * ratio - 0.5
        matrix = np.array([[ratio, 0, step[0]], [0, ratio, step[1]]])
        mask = cv2.warpAffine(
            (self.codes > 0).astype(np.uint8), matrix, front.shape[::-1], flags=cv2.INTER_NEAREST
        )
        np.maximum(front, mask, out=front)
