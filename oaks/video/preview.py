"""A preview window of tracked poses."""

from __future__ import annotations

import os
import sys
from functools import partial

from oaks.errors import BackendUnavailable
from oaks.poses import Poses
from oaks.video.frames import Frame
from oaks.video.trails import FrameDrawing

_END = (27, ord("q"))  # Esc, q
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


class Preview:
    """A window per stream with poses, ids, scores and trails drawn in; q, Esc or its close button ends it.

    Use it in the main thread: some systems allow windows only there.

    Args:
        title: of the window; further streams append their number.
        absent, boxes: how poses are drawn (oaks.draw.draw).
        trails: trail length in seconds; 0 draws none.

    Attributes:
        ended: whether the user has ended it. Frames after that are not shown.

    Raises:
        BackendUnavailable: OpenCV has no windows here; the message says what to install.
    """

    def __init__(
        self, title: str = "oaks", *, absent: str = "hide", boxes: bool = False, trails: float = 1.0
    ) -> None:
        self._new_drawing = partial(FrameDrawing, absent=absent, boxes=boxes, trails=trails)
        self._drawings: dict[int, FrameDrawing] = {}
        self._title, self._opened, self._shown = title, set[str](), set[str]()
        self.ended = False
        self._open(title)

    def write(self, frame: Frame, poses: Poses) -> None:
        """Show one frame, and check whether the user wants to end."""
        import cv2

        if self.ended:
            return
        title = self._title if frame.stream == 0 else f"{self._title} {frame.stream + 1}"
        if title in self._shown and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            self.ended = True
            return
        if frame.stream not in self._drawings:
            self._drawings[frame.stream] = self._new_drawing()
            self._open(title)
        cv2.imshow(title, self._drawings[frame.stream].draw(frame, poses))
        self._shown.add(title)
        self.ended = cv2.waitKey(1) & 0xFF in _END

    def close(self) -> None:
        """Close the windows."""
        import cv2

        for title in self._opened:
            if cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1:
                cv2.destroyWindow(title)
        self._opened.clear()

    def _open(self, title: str) -> None:
        import cv2

        # Check for a display first: without one, Qt ends the process.
        if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in _DISPLAYS):
            raise BackendUnavailable(
                "display not found: neither DISPLAY nor WAYLAND_DISPLAY is set; run this in a desktop session, or "
                "without the preview"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise BackendUnavailable(
                "this OpenCV has no windows (it is the headless build); `pip uninstall opencv-python-headless`, then "
                "`pip install opencv-python`"
            ) from error
        self._opened.add(title)


__all__ = ["Preview"]
