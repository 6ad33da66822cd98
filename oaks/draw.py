"""Draw poses into pictures: limbs colored by side; keypoints predicted absent are hidden by default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oaks.arguments import check_choice, check_flags, is_number
from oaks.errors import ArgumentError
from oaks.images import as_frame
from oaks.poses import NO_TRACK, Pose, Poses
from oaks.skeleton import Skeleton

ABSENT = ("hide", "hollow")
"""Ways to draw keypoints that are predicted absent."""
# BGR. Okabe and Ito's blue and vermilion, which color-blind people can tell apart.
_COLORS = {"left": (233, 180, 86), "right": (60, 120, 245), "middle": (80, 215, 245)}
_TRACKS = ((120, 220, 120), (230, 130, 230), (200, 220, 80), (180, 140, 255), (80, 235, 190), (255, 190, 190))
_RIM = (25, 25, 25)
_PAPER = (255, 255, 255)
_SHIFT = 4  # cv2 draws at sixteenths of a pixel
_TURNS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)  # of radius 1 around 0
_ENDS = np.concatenate([np.linspace(-np.pi / 2, np.pi / 2, 9), np.linspace(np.pi / 2, 1.5 * np.pi, 9)])
_CAPSULE = np.stack([np.cos(_ENDS), np.sin(_ENDS)], axis=1)  # both ends' halves of a circle, along x
_FONT_HEIGHT = 22.0  # pixels of a capital of cv2's font at scale 1


@dataclass(frozen=True)
class _Pen:
    """Line widths in pixels, for a person of some size in a picture of some size."""

    limb: float
    rim: float
    joint: float

    @classmethod
    def for_person(cls, pose: Pose, image: np.ndarray) -> _Pen:
        picture = float(np.sqrt(image.shape[0] * image.shape[1]))
        x1, y1, x2, y2 = (float(value) for value in pose.box)
        person = float(np.sqrt(max(x2 - x1, 1) * max(y2 - y1, 1)))
        limb = float(np.clip(0.75 * person / 45 + 0.25 * picture / 180, 1.0, picture / 60 + 1))
        return cls(limb=limb, rim=max(0.3 * limb, 0.5), joint=0.95 * limb)


def draw(
    image: Any,
    poses: Poses,
    *,
    absent: str = "hide",
    scores: bool = True,
    boxes: bool = False,
    threshold: float = 0.0,
) -> np.ndarray:
    """Return a copy of a picture with poses drawn in, the best score on top.

    Args:
        image: (H, W, 3) uint8 BGR, a path or a PIL image.
        poses: in this picture's pixels, of any skeleton.
        absent: how keypoints with a visibility below .5 are drawn: "hide" leaves them and their limbs
            out, as the paper's figure 9 does; "hollow" draws them as rings and their limbs thinly.
        scores: whether to write each person's score above the box, after the track id if there is one.
        boxes: whether the boxes are drawn.
        threshold: poses with a lower score are left out.

    Raises:
        ArgumentError: an argument does not fit.
        FileNotFoundError: there is no such picture.
    """
    image = as_frame("image", image, "bgr", on_device=False)
    if not isinstance(poses, Poses):
        raise ArgumentError(f"poses must be Poses, got {poses!r}")
    check_choice("absent", absent, ABSENT)
    check_flags(scores=scores, boxes=boxes)
    if not is_number(threshold, finite=False):
        raise ArgumentError(f"threshold must be a number, got {threshold!r}")
    picture = np.ascontiguousarray(image).copy()
    order = np.argsort(np.nan_to_num(poses.scores), kind="stable")
    chosen = [poses[int(i)] for i in order if not poses.scores[i] < threshold]
    for pose in chosen:
        pen = _Pen.for_person(pose, picture)
        if boxes:
            _draw_box(picture, pose, pen)
        _draw_person(picture, pose, poses.skeleton, pen, hollow=absent == "hollow")
    if scores:
        for pose in chosen:
            _draw_score(picture, pose)
    return picture


def thumbnail(poses: Poses, height: int = 240, most: int = 6) -> bytes | None:
    """Return a PNG of poses on gray, the frames side by side without their images; None without poses.

    Args:
        height: of the picture, in pixels.
        most: maximum number of frames.
    """
    import cv2

    parts = [part for part in poses.by_frame() if np.isfinite(part.keypoints).all(axis=2).any()]
    if not parts:
        return None
    drawn = [_alone(part, height) for part in parts[:most]]
    return cv2.imencode(".png", np.hstack(drawn))[1].tobytes()


def _alone(poses: Poses, height: int) -> np.ndarray:
    """(height, W, 3) uint8: the poses of a frame on gray, scaled to fill it."""
    points = np.concatenate([poses.keypoints.reshape(-1, 2), poses.boxes.reshape(-1, 2)])
    points = points[np.isfinite(points).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(high - low, 1)
    scale = 0.8 * height / max(extent[1], extent[0] / 3)
    width = max(int(np.ceil(extent[0] * scale + 0.2 * height)), 1)
    shift = (np.array([width, height]) - extent * scale) / 2 - low * scale
    moved = replace(
        poses, keypoints=poses.keypoints * scale + shift, boxes=poses.boxes * scale + np.tile(shift, 2)
    )
    return draw(np.full((height, width, 3), 96, np.uint8), moved)


def track_color(track_id: int) -> tuple[int, int, int]:
    """Return the BGR color of a track's id and trail, light enough for the dark plate under the id."""
    return _TRACKS[track_id % len(_TRACKS)]


def _draw_person(picture: np.ndarray, pose: Pose, skeleton: Skeleton, pen: _Pen, *, hollow: bool) -> None:
    finite = np.all(np.isfinite(pose.keypoints), axis=1)
    present = np.logical_and(finite, np.logical_not(pose.visibility < 0.5))
    shown = finite if hollow else present
    limbs = [limb for limb in skeleton.limbs if shown[limb[0]] and shown[limb[1]]]
    for rim in (True, False):
        for a, b in limbs:
            solid = bool(present[a] and present[b])
            width = pen.limb if solid else 0.4 * pen.limb
            color = _RIM if rim else _COLORS[_side(skeleton, a, b)]
            _line(picture, pose.keypoints[a], pose.keypoints[b], width + (2 * pen.rim if rim else 0), color)
    for k, radius in _joints(pose.keypoints, shown, pen):
        color, center = _COLORS[skeleton.side(k)], pose.keypoints[k]
        _disc(picture, center, radius + pen.rim, _RIM)
        if present[k]:
            _disc(picture, center, radius, color)
            _disc(picture, center, 0.45 * radius, _PAPER)
        else:
            _disc(picture, center, radius, color)
            _disc(picture, center, 0.6 * radius, _RIM)


def _joints(keypoints: np.ndarray, shown: np.ndarray, pen: _Pen) -> list[tuple[int, float]]:
    """Return the keypoints to draw and the radii of their discs, which are smaller for keypoints close together."""
    indices = np.flatnonzero(shown)
    points = keypoints[indices].astype(np.float64)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1, initial=np.inf)
    radii = np.clip(0.45 * nearest - pen.rim, 0.5 * pen.joint, pen.joint)
    return [(int(k), float(radius)) for k, radius in zip(indices, radii, strict=True)]


def _side(skeleton: Skeleton, a: int, b: int) -> str:
    """Side of a limb: left or right if one end is on that side and none is on the other."""
    sides = {skeleton.side(a), skeleton.side(b)} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _draw_box(picture: np.ndarray, pose: Pose, pen: _Pen) -> None:
    x1, y1, x2, y2 = pose.box - 0.5  # edges to pixel indices
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32)
    for width, color in ((0.5 * pen.limb + pen.rim, _RIM), (0.5 * pen.limb, _PAPER)):
        for i in range(4):
            _line(picture, corners[i], corners[(i + 1) % 4], width, color)


def _draw_score(picture: np.ndarray, pose: Pose) -> None:
    """Draw the score on a plate above the box, moved inside the picture."""
    import cv2

    height, width = picture.shape[:2]
    text, color = f"{pose.score:.2f}", _PAPER
    if pose.track_id is not None and pose.track_id != NO_TRACK:
        text, color = f"#{pose.track_id} {text}", track_color(pose.track_id)
    capital = float(np.clip(np.sqrt(height * width) / 55, 7, 60))
    scale, thickness = capital / _FONT_HEIGHT, max(1, round(capital / 9))
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    margin = max(2, round(0.35 * capital))
    plate = (text_width + 2 * margin, text_height + 2 * margin)
    x = int(np.clip(pose.box[0], 0, max(width - plate[0], 0)))
    y = int(np.clip(pose.box[1] - plate[1], 0, max(height - plate[1], 0)))
    region = picture[y : y + plate[1], x : x + plate[0]]
    region[:] = (0.25 * region + 0.75 * np.array(_RIM)).astype(np.uint8)
    at = (x + margin, y + margin + text_height)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)


def _line(
    picture: np.ndarray, start: np.ndarray, end: np.ndarray, width: float, color: tuple[int, int, int]
) -> None:
    """Draw a capsule: cv2's lines take whole widths only."""
    import cv2

    x, y = (float(value) for value in end - start)
    length = float(np.hypot(x, y))
    x, y = (x / length, y / length) if length else (1.0, 0.0)
    rim = 0.5 * width * _CAPSULE @ np.array([(x, y), (-y, x)])
    rim[:9] += end
    rim[9:] += start
    cv2.fillConvexPoly(picture, _fixed(rim, picture), color, cv2.LINE_AA, _SHIFT)


def _disc(picture: np.ndarray, center: np.ndarray, radius: float, color: tuple[int, int, int]) -> None:
    import cv2

    rim = center + radius * _CIRCLE
    cv2.fillConvexPoly(picture, _fixed(rim, picture), color, cv2.LINE_AA, _SHIFT)


def _fixed(points: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Points in cv2's fixed-point numbers, clipped so that none overflows."""
    limit = 4.0 * max(picture.shape[:2])
    return np.round(np.clip(points, -limit, limit) * (1 << _SHIFT)).astype(np.int32)


__all__ = ["draw", "thumbnail", "track_color"]
