"""Drawing of tracked poses and their trails."""

from __future__ import annotations

from collections import deque

import numpy as np

from oaks.arguments import is_number
from oaks.draw import draw, track_color
from oaks.errors import ArgumentError
from oaks.poses import NO_TRACK, Poses
from oaks.video.frames import Frame

_SHIFT = 4  # cv2 draws at sixteenths of a pixel


class Trails:
    """Remembers the centers of each tracked person, and draws a line through them.

    Args:
        seconds: trail length in seconds; 0: no trails.

    Raises:
        ArgumentError: seconds is negative.
    """

    def __init__(self, seconds: float) -> None:
        if not is_number(seconds, finite=False) or seconds < 0:
            raise ArgumentError(f"trails must be 0 seconds or more, got {seconds!r}")
        self._seconds = seconds
        self._ways: dict[int, deque[tuple[float, float, float]]] = {}

    def draw(self, image: np.ndarray, poses: Poses, time: float) -> np.ndarray:
        """Return a picture with the trails drawn, fading towards their ends; the picture itself without trails.

        Args:
            image: (H, W, 3) uint8 BGR.
            poses: of this frame, with track_ids.
            time: of the frame, in seconds.
        """
        if not self._seconds:
            return image
        for pose in poses:
            assert pose.track_id is not None
            # Use absent keypoints too: the center of the visible ones would jump at each occlusion.
            x, y = np.nanmean(pose.keypoints, axis=0)
            self._ways.setdefault(pose.track_id, deque()).append((time, float(x), float(y)))
        for track_id, way in list(self._ways.items()):
            while way and time - way[0][0] > self._seconds:
                way.popleft()
            if not way:
                del self._ways[track_id]
        ways = {track_id: way for track_id, way in self._ways.items() if len(way) > 1}
        if not ways:
            return image
        picture = image.copy()
        for track_id, way in ways.items():
            self._draw_way(picture, np.array(way), track_color(track_id), time)
        return picture

    def _draw_way(
        self, picture: np.ndarray, way: np.ndarray, color: tuple[int, int, int], time: float
    ) -> None:
        import cv2

        width = max(float(np.sqrt(picture.shape[0] * picture.shape[1])) / 180, 1.0)
        limit = 4.0 * max(picture.shape[:2])
        points = np.round(np.clip(way[:, 1:], -limit, limit) * (1 << _SHIFT)).astype(int)
        for (when, *_), start, end in zip(way[1:], points[:-1], points[1:], strict=True):
            share = 1 - (time - when) / self._seconds
            thickness = max(round(width * (0.3 + 0.7 * share)), 1)
            cv2.line(picture, tuple(start), tuple(end), color, thickness, cv2.LINE_AA, _SHIFT)


class FrameDrawing:
    """Draws the tracked poses of one stream with ids, scores and trails.

    Args:
        absent, boxes: how poses are drawn (oaks.draw.draw).
        trails: trail length in seconds; 0 draws none.

    Raises:
        ArgumentError: trails is negative.
    """

    def __init__(self, *, absent: str = "hide", boxes: bool = False, trails: float = 1.0) -> None:
        self._absent, self._boxes, self._trails = absent, boxes, Trails(trails)

    def draw(self, frame: Frame, poses: Poses) -> np.ndarray:
        """Return a copy of the frame's picture with its tracked poses drawn.

        Args:
            frame: frames must come in order.
            poses: of this frame, with track_ids.
        """
        tracked = poses[np.flatnonzero(poses.track_ids != NO_TRACK)]
        under = self._trails.draw(frame.image, tracked, frame.time)
        return draw(under, tracked, absent=self._absent, boxes=self._boxes)


__all__ = ["FrameDrawing", "Trails"]
