"""A preview window of tracked poses."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from oaks.errors import BackendUnavailable
from oaks.poses import Poses
from oaks.video.frames import Frame
from oaks.video.trails import FrameDrawing

_END = (27, ord("q"))  # Esc, q
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_LARGEST = (1280, 720)  # pixels of a new window, whose size the user can change


class Preview:
    """A window per stream with poses, ids, scores and trails drawn in; q, Esc or its close button ends it.

    Use it in the main thread: some systems allow windows only there. Make it before the first video is opened: on Linux,
    windows of opencv-python hang if the wheel of PyAV was imported before them.

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
        if title in self._shown and not _is_visible(title):
            self.ended = True
            return
        if frame.stream not in self._drawings:
            self._drawings[frame.stream] = self._new_drawing()
            self._open(title)
        if title not in self._shown:
            cv2.resizeWindow(title, *_window_size(*frame.image.shape[:2]))
        cv2.imshow(title, self._drawings[frame.stream].draw(frame, poses))
        self._shown.add(title)
        self.ended = cv2.waitKey(1) & 0xFF in _END

    def close(self) -> None:
        """Close the windows."""
        import cv2

        for title in self._opened:
            if _is_visible(title):
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
        if not self._opened and _would_hang(_loaded_libraries(), Path(cv2.__file__).parent):
            raise BackendUnavailable(
                "PyAV was imported before the first window was opened, which makes windows of opencv-python hang; make "
                "the Preview before you open a video or import av"
            )
        # opencv-python names a folder of fonts that its wheel lacks, and Qt would warn of it several times.
        if not Path(os.environ.get("QT_QPA_FONTDIR", ".")).is_dir():
            os.environ["QT_QPA_FONTDIR"] = str(Path(cv2.__file__).parent)
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)  # without a toolbar
        except cv2.error as error:
            raise BackendUnavailable(
                "this OpenCV has no windows (it is the headless build); `pip uninstall opencv-python-headless`, then "
                "`pip install opencv-python`"
            ) from error
        self._opened.add(title)
        cv2.waitKey(1)  # a window that is resized or left alone before its first events may stay black in Qt


def _is_visible(title: str) -> bool:
    """Return whether a window is open; Qt's raises an error once the last one is closed."""
    import cv2

    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:
        return False


def _window_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of a new window: the frame's shape; no larger than most screens, not much smaller than half."""
    scale = min(_LARGEST[0] / width, _LARGEST[1] / height, max(1.0, _LARGEST[0] / 2 / width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _loaded_libraries() -> str:
    """The files that this process has mapped, as Linux lists them; empty on other systems."""
    maps = Path("/proc/self/maps")
    return maps.read_text("utf-8", "replace") if maps.is_file() else ""


def _would_hang(loaded: str, opencv: Path) -> bool:
    """Return whether Qt's X plugin in opencv-python is about to be linked to the X libraries of PyAV's wheel.

    Both wheels bring libxcb-shape and others under the same names, and the first one loaded serves both. With PyAV's,
    cv2.namedWindow never returns (github.com/PyAV-Org/PyAV/issues/978).
    """
    return "/av.libs/libxcb" in loaded and "/libqxcb" not in loaded and (opencv / "qt" / "plugins").is_dir()


__all__ = ["Preview"]
