"""Labels that an annotator would give a person, read from what the picture shows at and around each keypoint.

Codes of pixels: 0 is background, PERSON_CODES·p + part + 1 a part of person p, OCCLUDER any other object in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.training.render.body.parts import Part
from oaks.val.ground_truth import OCCLUSION_CLASSES

PERSON_CODES = 32
OCCLUDER = 0xFFFF

CLASS_RANGES = tuple((c.fewest, c.most) for c in OCCLUSION_CLASSES)
"""Fewest and most labeled keypoints of the occlusion levels: almost, largely, slightly, none."""
CLASS_EDGES = tuple(fewest for fewest, _ in CLASS_RANGES[1:])
"""Labeled keypoints at which the next class begins, for np.digitize."""


def _parts(*names: str) -> tuple[np.ndarray, ...]:
    return tuple(np.isin(np.arange(PERSON_CODES), [Part[name] for name in row.split()]) for row in names)


# Parts that show a keypoint if they are visible at its place.
_SHOWING = np.stack(_parts(
    "NOSE HEAD", "HEAD", "HEAD", "LEFT_EAR HEAD", "RIGHT_EAR HEAD",
    "LEFT_UPPER_ARM CHEST NECK BAG", "RIGHT_UPPER_ARM CHEST NECK BAG",
    "LEFT_UPPER_ARM LEFT_FOREARM", "RIGHT_UPPER_ARM RIGHT_FOREARM",
    "LEFT_FOREARM LEFT_HAND", "RIGHT_FOREARM RIGHT_HAND",
    "LEFT_THIGH PELVIS CHEST SKIRT", "RIGHT_THIGH PELVIS CHEST SKIRT",
    "LEFT_THIGH LEFT_SHIN", "RIGHT_THIGH RIGHT_SHIN",
    "LEFT_SHIN LEFT_FOOT", "RIGHT_SHIN RIGHT_FOOT",
))  # fmt: skip
# Parts that tell where a hidden keypoint is if they are visible close by.
_TELLING = _SHOWING | np.stack(_parts(
    "HAIR", "NOSE HAIR HAT", "NOSE HAIR HAT", "HAIR HAT", "HAIR HAT", "HAIR", "HAIR", "", "", "", "",
    "", "", "SKIRT", "SKIRT", "", "",
))  # fmt: skip
# How far behind the visible surface a seen joint may lie, as a share of the stature.
_DEPTH = np.array(
    [*[0.03] * 5, *[0.085] * 2, *[0.07] * 2, *[0.06] * 2, *[0.11] * 2, *[0.085] * 2, *[0.07] * 2]
)
# How far around a keypoint the parts that tell may lie, if others hide it and if the person's own body does.
_REACH = np.array([0.05] * 5 + [0.07] * 2 + [0.075] * 2 + [0.07] * 2 + [0.08] * 2 + [0.085] * 2 + [0.07] * 2)
_OWN_REACH = np.array([0.05] * 5 + [0.12] * 2 + [0.1] * 2 + [0.09] * 2 + [0.13] * 2 + [0.12] * 2 + [0.09] * 2)
# Cosine to the camera below which a face keypoint looks away, and is neither seen nor guessed.
_AWAY = np.array([-0.15, 0.0, 0.0, -0.12, -0.12])

# Of nine samples at and around a keypoint, how many must show it; few for faces, which lie on the outline in profile.
_ENOUGH = np.array([2, 2, 2, 3, 3] + [5] * 12)
_ROWS = np.arange(17)[:, None] * PERSON_CODES
_CIRCLE = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1)
_NEAR = np.concatenate([np.zeros((1, 2)), _CIRCLE])
_AROUND = np.concatenate([_CIRCLE * 0.33, _CIRCLE * 0.67, _CIRCLE])


@dataclass(frozen=True)
class Subject:
    """What the labels of one person depend on besides the picture.

    Attributes:
        number: p in the pixels' codes.
        points: (17, 2): the keypoints in the buffer's pixels.
        distance: (17,): from the camera, meters.
        facing: (5,): cosine between each face keypoint's surface and the direction to the camera.
        stature: meters; scale: pixels of the buffer per meter at the person.
    """

    number: int
    points: np.ndarray
    distance: np.ndarray
    facing: np.ndarray
    stature: float
    scale: float


def visibility(
    subject: Subject,
    codes: np.ndarray,
    distances: np.ndarray,
    frame: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Return COCO's flags (17,) int64: 2 seen, 1 hidden but guessable, 0 outside the frame or not guessable.

    A keypoint is seen if a fitting part of the person is visible there, at the right depth. A hidden one can be
    guessed if a part that leads to it is visible close by; ears, eyes and noses only where they face the camera.

    Args:
        subject: the person.
        codes: (H, W) uint16 codes of pixels.
        distances: (H, W) float32, from the camera; read only where codes are of this person.
        frame: the picture's edges (left, top, right, bottom) in the buffer's pixel indices; None: the
            buffer's own.
    """
    height, width = codes.shape
    points = subject.points
    left, top, right, bottom = frame or (-0.5, -0.5, width - 0.5, height - 0.5)
    x, y = points[:, 0], points[:, 1]
    inside = (x > left) & (y > top) & (x < right) & (y < bottom)
    size = subject.stature * subject.scale
    near = points[:, None] + _NEAR * max(0.008 * size, 1.0)
    parts, depth = _look(subject, near, codes, distances)
    behind = subject.distance[:, None] - depth
    allowed = (_DEPTH * subject.stature)[:, None]
    shows = _SHOWING.ravel()[_ROWS + parts] & (behind < allowed) & (behind > -1.5 * allowed)
    seen = inside & (shows[:, 0] | (shows.sum(1) >= _ENOUGH))
    own = parts[:, 0] < PERSON_CODES - 1
    away = np.zeros(17, bool)
    away[:5] = subject.facing < _AWAY
    seen &= ~away
    reach = np.where(own, _OWN_REACH, _REACH)
    parts, _ = _look(subject, points[:, None] + _AROUND * (reach * size)[:, None, None], codes, distances)
    telling = _TELLING.ravel()[_ROWS + parts].sum(1)
    guessed = inside & ~seen & ~away & (telling >= np.where(own, 1, 3))
    # A face is guessed from the rest of it.
    guessed[:5] &= seen[:5].sum() >= 2
    return np.where(seen, 2, np.where(guessed, 1, 0))


def _look(
    subject: Subject, places: np.ndarray, codes: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of this person (PERSON_CODES - 1: not its own) and the distances at (..., 2) places."""
    height, width = codes.shape
    place = np.rint(places).astype(np.int32)
    x, y = place[..., 0], place[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    index = np.where(inside, y * width + x, 0)
    part = np.take(codes, index).astype(np.int32) - (subject.number * PERSON_CODES + 1)
    own = inside & (part >= 0) & (part < PERSON_CODES - 1)
    return np.where(own, part, PERSON_CODES - 1), np.take(distances, index)


def annotation(
    subject: Subject, flags: np.ndarray, mask: np.ndarray, origin: tuple[int, int], oversampling: float
) -> dict | None:
    """Return a COCO annotation without ids, or None for a person who is not visible.

    Args:
        subject: the person, in the oversampled buffer's pixels.
        flags: (17,) from visibility.
        mask: (h, w) bool: where the person is visible, in the oversampled buffer from `origin` (x, y).
        oversampling: pixels of the buffer per pixel of the picture, in each direction.
    """
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if len(columns) == 0:
        return None
    left, top = (columns[0] + origin[0]) / oversampling, (rows[0] + origin[1]) / oversampling
    right, bottom = (columns[-1] + 1 + origin[0]) / oversampling, (rows[-1] + 1 + origin[1]) / oversampling
    # The outer edges of pixels coincide in both, their centers do not.
    points = (subject.points + 0.5) / oversampling - 0.5
    keypoints: list[float] = []
    for (x, y), flag in zip(points, flags, strict=True):
        keypoints += [round(float(x), 2), round(float(y), 2), int(flag)] if flag else [0, 0, 0]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [float(left), float(top), float(right - left), float(bottom - top)],
        "area": float(mask.sum()) / oversampling**2,
        "num_keypoints": int((flags > 0).sum()),
        "keypoints": keypoints,
    }
