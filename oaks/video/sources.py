"""Where frames come from: video files, folders of pictures, cameras and network streams."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.errors import ArgumentError, BackendUnavailable
from oaks.images import SUFFIXES, find_images, read_image
from oaks.video.frames import Frame

if TYPE_CHECKING:
    import av

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
"""Addresses that are live unless one says otherwise; http may be either, and counts as a file."""

_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_RETRY_EVERY = 0.5  # seconds between attempts to open a live source again
_TOLERANCE = 0.5  # seconds that a file may end before it says: sound and rounding
_NOTES = 20  # problems that are put into words; further ones are counted


class FrameSource(ABC):
    """Frames, once, in order, and what went wrong with them.

    Attributes:
        name: what it is called in messages and files.
        live: whether frames come when they come, and late ones are worth nothing.
        expected: how many frames there should be; None if nobody knows.
        read: how many frames have come.
        damaged: how many packets or pictures could not be decoded, or only in part.
        cut_short: whether it ended before it should have.
        problems: what went wrong, in words; the first of them.
    """

    def __init__(self, name: str, *, live: bool = False, expected: int | None = None) -> None:
        self.name, self.live, self.expected = name, live, expected
        self.read = self.damaged = 0
        self.cut_short = False
        self.problems: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames."""

    def note(self, problem: str) -> None:
        """Puts a problem on record."""
        if len(self.problems) < _NOTES:
            self.problems.append(problem)

    def close(self) -> None:  # noqa: B027 - most sources have nothing to end
        """Ends it; a read under way ends when it can."""


class ImageFiles(FrameSource):
    """Image files as frames, at a rate one chooses. A damaged one is counted, named and left out.

    Args:
        paths: image files.
        rate: frames per second.
    """

    def __init__(self, name: str, paths: Sequence[Path], rate: float) -> None:
        super().__init__(name, expected=len(paths))
        self._paths, self._time_base = paths, 1 / Fraction(rate).limit_denominator(10**6)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except (ValueError, OSError) as error:
                self.damaged += 1
                self.note(str(error))
                continue
            self.read += 1
            yield Frame(image, index, index, self._time_base, name=path.name)


class FrameIterable(FrameSource):
    """Frames, or (H, W, 3) uint8 BGR arrays, that somebody else has."""

    def __init__(self, frames: Iterable[Frame | np.ndarray], rate: float) -> None:
        super().__init__("frames")
        self._frames, self._time_base = frames, 1 / Fraction(rate).limit_denominator(10**6)

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._frames):
            self.read += 1
            yield frame if isinstance(frame, Frame) else Frame(frame, index, index, self._time_base)


class Video(FrameSource):
    """A video file, a camera or a network stream, through PyAV.

    Frames are turned upright as the rotation in the metadata says. Timestamps are the source's own; where
    they are missing or run backwards, the frame stands one frame's length after the last. A packet that
    cannot be decoded is counted, and decoding goes on with the next. A live source that gives nothing for
    `timeout` seconds, fails or ends, is opened again, for `retry` seconds after its last frame; the frames
    after a gap are later by as much as it lasted.

    Args:
        address: a path, or what FFmpeg calls an address.
        live: whether it is live.
        container_format: FFmpeg's name of the format or device; None: it looks for itself.
        options: for FFmpeg's demuxer or device, as {"rtsp_transport": "udp"}.
        timeout: seconds without data after which an address (not a file) counts as stalled.
        retry: seconds for which a live source that stalled is opened again.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: the camera or the address cannot be opened.
        ArgumentError: it is nothing that FFmpeg reads, or holds no video.
        BackendUnavailable: PyAV is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        live: bool = False,
        container_format: str | None = None,
        options: dict[str, str] | None = None,
        timeout: float = 10.0,
        retry: float = 30.0,
    ) -> None:
        self._av = load_av()
        super().__init__(address, live=live)
        self._format, self._options, self._retry = container_format, dict(options or {}), retry
        if address.startswith("rtsp"):
            self._options.setdefault("rtsp_transport", "tcp")  # over UDP, packets are lost in every Wi-Fi
        remote = container_format is not None or "://" in address
        self._timeout = (timeout, timeout) if remote else None
        self._returns = live and remote  # a file that ends has ended
        self._stop, self._index = threading.Event(), 0
        self._container: Any = self._open()
        stream = self._container.streams.video[0]
        self._rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        self._length = None if live else _length(self._container)
        if self._length is not None:
            self.expected = stream.frames or max(round(self._length * self._rate), 1)
        self._clock = _Clock(1 / self._rate)

    def _open(self) -> av.container.InputContainer:
        try:
            container = self._av.open(
                self.name, format=self._format, options=self._options, timeout=self._timeout
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(f"source: no such file: {self.name}") from error
        except ValueError as error:
            reason = getattr(error, "strerror", error)
            raise ArgumentError(f"source: {self.name}: no video that FFmpeg reads: {reason}") from error
        except (OSError, self._av.error.FFmpegError) as error:
            raise ConnectionError(f"source: {self.name}: cannot be opened: {error.strerror}") from error
        if not container.streams.video:
            container.close()
            raise ArgumentError(f"source: {self.name}: there is no video in it")
        # Frame threads give frames late; a live picture is wanted now.
        container.streams.video[0].thread_type = "SLICE" if self.live else "AUTO"
        return container

    def __iter__(self) -> Iterator[Frame]:
        while self._container is not None:
            try:
                yield from self._decode(self._container)
            finally:
                self._container.close()
                self._container = None
            if self._returns and not self._stop.is_set():
                self._container = self._open_again()
        if self._length is not None and self._clock.end < self._length - _TOLERANCE:
            self.cut_short = True
            self.note(f"{self.name}: ends after {self._clock.end:.2f} s of {self._length:.2f} s")

    def _decode(self, container: av.container.InputContainer) -> Iterator[Frame]:
        """The frames of an open container, up to its end or to the first packet that cannot be read."""
        stream = container.streams.video[0]
        packets = container.demux(stream)
        self._clock.restart()
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError as error:
                self.cut_short = not self._returns
                self.note(f"{self.name}: reading failed after {self._clock.end:.2f} s: {error.strerror}")
                return
            if packet is None:
                return
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError:
                self.damaged += 1
                self._index += 1  # a packet holds a frame: those after it keep their numbers
                continue
            for picture in decoded:
                self.damaged += picture.is_corrupt
                pts = self._clock.place(picture.pts, picture.time_base or stream.time_base)
                self.read += 1
                self._index += 1
                yield Frame(_upright(picture), self._index - 1, pts, self._clock.time_base)

    def _open_again(self) -> Any:
        """The container of a live source that stalled, or None if it does not return."""
        lost = time.monotonic()
        self.note(f"{self.name}: nothing more after {self._clock.end:.2f} s, opened again")
        while time.monotonic() - lost < self._retry:
            if self._stop.wait(_RETRY_EVERY):
                return None
            try:
                return self._open()
            except (OSError, ValueError):
                continue
        self.cut_short = True
        self.note(f"{self.name}: did not return within {self._retry:g} s")
        return None

    def close(self) -> None:
        self._stop.set()


class _Clock:
    """Places frames on one time line that never runs backwards, whatever their timestamps do."""

    def __init__(self, step: Fraction) -> None:
        self._step = step  # seconds from frame to frame, where nothing better is known
        self.time_base = Fraction(0)
        self._origin: Fraction | None = None
        self._last: int | None = None
        self._arrived, self._gap = 0.0, False

    @property
    def end(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return 0.0 if self._last is None else float(self._last * self.time_base + self._step)

    def restart(self) -> None:
        """The next timestamp begins a new line of its own, after a gap that lasts as long as it takes."""
        self._origin, self._gap = None, True

    def place(self, pts: int | None, time_base: Fraction) -> int:
        """When a frame is shown, in units of `time_base` after the first one."""
        now = time.monotonic()
        if self._last is None:
            self.time_base, placed = time_base, 0
        else:
            step = max(self._step, Fraction(now - self._arrived)) if self._gap else self._step
            placed = self._last + max(round(step / self.time_base), 1)
        if pts is not None:
            at = pts * time_base
            if self._origin is not None and at - self._origin > (self._last or 0) * self.time_base:
                placed = round((at - self._origin) / self.time_base)
            else:  # a first timestamp, or one that runs backwards: the line goes on from here
                self._origin = at - placed * self.time_base
        self._last, self._arrived, self._gap = placed, now, False
        return placed


def open_source(
    source: str | Path | Sequence[str | Path] | Iterable[Frame | np.ndarray] | FrameSource,
    *,
    rate: float = 30.0,
    live: bool | None = None,
    **settings: Any,
) -> FrameSource:
    """A source for what one has.

    Args:
        source: a video file, a folder of pictures, a glob, a list of pictures, a camera ("0", "/dev/video0"),
            an address ("rtsp://..."), Frames or arrays (H, W, 3) uint8 BGR, or a Source.
        rate: frames per second of pictures and arrays, which have no timestamps.
        live: whether frames that come too late are dropped; None: cameras, and addresses of LIVE_SCHEMES.
        settings: options, timeout, retry (see Video).

    Raises:
        ValueError, FileNotFoundError, ConnectionError, BackendUnavailable: as Video, or no picture found.
    """
    if not rate > 0:
        raise ArgumentError(f"rate: frames per second above 0 wanted, got {rate!r}")
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, str | Path):
        return _open_named(str(source), rate, live, settings)
    if isinstance(source, Sequence) and source and all(isinstance(entry, str | Path) for entry in source):
        if strange := [str(entry) for entry in source if Path(entry).suffix.lower() not in SUFFIXES]:
            raise ArgumentError(
                f"source: a list of pictures wanted, got {strange}; open each video by itself"
            )
        return ImageFiles(str(source[0]), find_images(source), rate)
    return FrameIterable(source, rate)


def _open_named(name: str, rate: float, live: bool | None, settings: dict[str, Any]) -> FrameSource:
    if name.isdecimal() or name.startswith(("/dev/video", "video=")):
        device = f"/dev/video{name}" if name.isdecimal() and sys.platform == "linux" else name
        camera = _CAMERAS.get(sys.platform)
        return Video(device, live=live is not False, container_format=camera, **settings)
    if "://" in name:
        scheme = name.partition("://")[0].lower()
        return Video(name, live=scheme in LIVE_SCHEMES if live is None else live, **settings)
    path = Path(name)
    if (
        path.is_dir()
        or path.suffix.lower() in SUFFIXES
        or (not path.exists() and any(c in name for c in "*?["))
    ):
        return ImageFiles(name, find_images([name]), rate)
    return Video(name, live=bool(live), **settings)


def _length(container: av.container.InputContainer) -> float | None:
    """Seconds of video that a file says it holds; None if it does not say.

    The stream's own duration may count what an edit list leaves out, and the container's may count sound:
    the smaller of the two is the one that the pictures must reach.
    """
    stream = container.streams.video[0]
    known = []
    if stream.duration and stream.duration > 0:
        known.append(float(stream.duration * stream.time_base))
    elif len(container.streams) > 1:
        return None
    if container.duration and container.duration > 0:
        known.append(container.duration / 1e6)
    return min(known, default=None)


def _upright(picture: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 BGR, turned as the metadata says."""
    import cv2

    image = picture.to_ndarray(format="bgr24")
    turns = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
    turn = turns.get(round(picture.rotation / 90) % 4)
    return image if turn is None else cv2.rotate(image, turn)


def load_av() -> Any:
    """PyAV.

    Raises:
        BackendUnavailable: it is not installed; the message says what to install.
    """
    try:
        import av
    except ImportError as error:
        raise BackendUnavailable(f"video needs PyAV: {error}; `pip install 'oaks[video]'`") from error
    return av


__all__ = ["LIVE_SCHEMES", "FrameIterable", "FrameSource", "ImageFiles", "Video", "load_av", "open_source"]
