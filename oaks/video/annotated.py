"""Writer of the annotated video, with the source's timing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from oaks.arguments import check_choice, check_flags, is_number
from oaks.draw import ABSENT
from oaks.errors import ArgumentError, BackendUnavailable, OaksError
from oaks.files import Staged, check_no_fifo, followed, naming
from oaks.forks import check_process, outlives_forks
from oaks.images import fitted_size
from oaks.poses import Poses
from oaks.video.frames import Frame
from oaks.video.sources import load_av
from oaks.video.trails import FrameDrawing

_FRAGMENT = 30  # frames between key frames: the most that a power cut loses


class EncodingError(OaksError):
    """A frame cannot be drawn or encoded; the video ends before it."""


class AnnotatedVideo:
    """An MP4 file (H.264) with poses, ids, scores and trails drawn in; frames keep the source's times.

    The file is written in fragments, so that all but the last can be played if writing stops midway. It has the size
    of the first frame, rounded to even numbers for H.264; frames of another size are fitted in, with bars.
    Untracked poses and sound are left out.

    Args:
        path: the file.
        absent, boxes: how poses are drawn (oaks.draw.draw).
        trails: trail length in seconds; 0 draws none.
        quality: x264's constant rate factor, 0 (best) to 51.

    Raises:
        OSError: the file cannot be written.
        BackendUnavailable: PyAV is not installed, or has no encoder for H.264.
        ArgumentError: an argument does not fit.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        absent: str = "hide",
        boxes: bool = False,
        trails: float = 1.0,
        quality: int = 20,
    ) -> None:
        check_choice("absent", absent, ABSENT)
        check_flags(boxes=boxes)
        if not is_number(quality) or not 0 <= quality <= 51:
            raise ArgumentError(f"quality must be from 0 to 51, got {quality!r}")
        self._av = load_av()
        outlives_forks(self)
        self._process = os.getpid()
        self._drawing = FrameDrawing(absent=absent, boxes=boxes, trails=trails)
        self._quality = quality
        flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        self._file = _File(path)
        self._container: Any = self._av.open(self._file, "w", format="mp4", options=flags)
        self._stream: Any = None
        self._last = -1
        self._durations: dict[int, int] = {}
        self._ended = False

    def write(self, frame: Frame, poses: Poses) -> None:
        """Draw and encode one frame.

        Raises:
            OSError: the file cannot be written.
            EncodingError: H.264 cannot hold such a picture, for instance one of more than 16,384 rows.
        """
        check_process(self._process, "AnnotatedVideo")
        import cv2

        try:
            self._encode(frame, poses)
        except OaksError:  # a wrong argument
            raise
        except (ValueError, MemoryError, cv2.error, self._av.error.FFmpegError) as error:
            self._ended = True
            height, width = frame.image.shape[:2]
            raise EncodingError(
                f"annotated video ends before frame {frame.index}: H.264 cannot hold its {width} x {height} pixels: "
                f"{error}"
            ) from error
        self._file.check()

    def _encode(self, frame: Frame, poses: Poses) -> None:
        if self._stream is None:
            self._stream = self._open_stream(frame)
        drawn = self._drawing.draw(frame, poses)
        picture = self._av.VideoFrame.from_ndarray(
            _fitted(drawn, (self._stream.width, self._stream.height)), format="bgr24"
        )
        picture.time_base = self._stream.codec_context.time_base
        # Players cannot show two frames of the same time.
        picture.pts = self._last = max(round(frame.pts * frame.time_base / picture.time_base), self._last + 1)
        if frame.duration:
            self._durations[picture.pts] = round(frame.duration * frame.time_base / picture.time_base)
        self._mux(self._stream.encode(picture))

    def close(self) -> None:
        """Flush the encoder and finish the file. Does nothing in a fork."""
        if self._container is None or self._process != os.getpid():
            return
        container, self._container = self._container, None
        if self._stream is not None and not self._ended:
            self._mux(self._stream.encode(None), container)
        container.close()
        self._file.close()
        self._file.check()

    def _mux(self, packets: Any, container: Any = None) -> None:
        """Write packets with their frames' durations; no later timestamp states that of the last frame."""
        for packet in packets:
            if packet.pts in self._durations:
                packet.duration = self._durations.pop(packet.pts)
            (container or self._container).mux(packet)

    def _open_stream(self, frame: Frame) -> Any:
        """The encoder's stream, for pictures of this frame's size and time base."""
        try:
            stream = self._container.add_stream("libx264", rate=30)
        except (ValueError, self._av.error.FFmpegError) as error:
            raise BackendUnavailable(
                f"this PyAV has no encoder for H.264 (libx264): {error}; `pip install 'oaks[video]'` brings one"
            ) from error
        height, width = frame.image.shape[:2]
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(self._quality), "preset": "veryfast"}
        context = stream.codec_context
        context.time_base = frame.time_base
        # Without B-frames, packets leave in display order and the first has time 0.
        context.max_b_frames, context.gop_size = 0, _FRAGMENT
        return stream


class _File:
    """File object for FFmpeg: writes never raise errors, because FFmpeg crashes when it continues after one.

    The file appears under its name with its first bytes (header and first fragment), so that it is never empty.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = followed(path)
        replaceable = self._path.is_file() or not self._path.exists()
        replaceable &= os.name != "nt"  # Windows cannot rename open files
        check_no_fifo(self._path)
        with naming(self._path):
            self._staged = Staged(self._path, buffering=0) if replaceable else None
            self._file = self._staged.file if self._staged else open(self._path, "wb", buffering=0)  # noqa: SIM115
        self._error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write everything, or nothing after the first failure."""
        left = memoryview(content)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
            if self._staged is not None and self._error is None:
                self._staged.replace()
                self._staged = None
        except OSError as error:
            if error.filename is None:
                error.filename = str(self._path)
            self._error = error
        return len(content)

    def close(self) -> None:
        if self._staged is not None:
            self._staged.close()
        self._file.close()

    def check(self) -> None:
        """Raise the error of a failed write."""
        if self._error is not None:
            raise self._error


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fit an image into a size (width, height): unchanged, or scaled and centered with bars."""
    import cv2

    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    if 0 <= size[0] - width <= 1 and 0 <= size[1] - height <= 1:  # an odd size made even
        return cv2.copyMakeBorder(image, 0, size[1] - height, 0, size[0] - width, cv2.BORDER_REPLICATE)
    inner, scale = fitted_size((width, height), size)
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        image, inner, interpolation=interpolation
    )
    return picture


__all__ = ["AnnotatedVideo"]
