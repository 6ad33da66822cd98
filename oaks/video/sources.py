"""Sources of frames: video files, animations, folders of pictures, cameras and network streams."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from oaks import limits
from oaks.addresses import redacted
from oaks.animations import Animation, is_animation
from oaks.arguments import check_flags, check_iterable
from oaks.errors import ArgumentError, BackendUnavailable, OutOfMemory
from oaks.forks import check_process, outlives_forks
from oaks.images import SUFFIXES, as_frame, find_images, open_image, pixels_of
from oaks.names import number_of
from oaks.video.clock import Clock
from oaks.video.container import as_shown, has_timestamps, is_whole, stated_length
from oaks.video.frames import Frame

if TYPE_CHECKING:
    import av
    import av.container

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
"""Schemes of addresses that are live by default; http may be either and counts as a file."""

_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_RETRY_EVERY = 0.5  # seconds between attempts to open a live source again
_TOLERANCE = 0.5  # seconds by which a file may end early: sound and rounding
_SLOWEST, _FASTEST = 1e-3, 1e5  # frames per second that a caller may state
_NOTES = 20  # problems that are described; further ones are only counted
_AT_ONCE = 0.02  # seconds between packets that were queued, for instance while the stream was opened
_WAITING = 500  # maximum number of queued packets


_PLAYLISTS = frozenset(
    ["applehttp", "concat", "concatf", "dash", "hls", "imf", "lavfi", "rtp", "rtsp", "sdp"]
)
"""FFmpeg's names of formats that name other files or addresses; a file of them may come under any name."""
_PLAYLIST_SUFFIXES = (".m3u8", ".m3u", ".ffconcat", ".mpd", ".sdp")


class _Decoded(NamedTuple):
    """A decoded frame with its number, its packet's arrival time in seconds, and its pixel aspect ratio."""

    picture: av.VideoFrame
    number: int
    arrived: float
    aspect: Fraction | None


def _with_next(pictures: Iterable[_Decoded], *, wait: bool) -> Iterator[tuple[_Decoded, _Decoded | None]]:
    """Yield each frame with the next one; with None after the last, and always if not `wait`.

    An error while the next frame is read is raised after the last one has been yielded.
    """
    if not wait:
        yield from ((picture, None) for picture in pictures)
        return
    last: _Decoded | None = None
    try:
        for picture in pictures:
            if last is not None:
                yield last, picture
            last = picture
    except Exception:
        if last is not None:
            yield last, None
        raise
    if last is not None:
        yield last, None


class FrameSource(ABC):
    """An iterable of frames, in order and only once, with a record of problems.

    Attributes:
        name: name in messages and files; passwords in an address are ***.
        expected: expected number of frames; None if unknown.
        read: number of frames so far.
        damaged: packets or pictures that could not be decoded, or only partly.
        cut_short: whether the source ended early.
        problems: descriptions of the first problems.
    """

    def __init__(self, name: str, *, live: bool = False, expected: int | None = None) -> None:
        self.name, self._live, self.expected = redacted(name, alone=True), live, expected
        self.read = self.damaged = 0
        self.cut_short = False
        self.problems: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames."""

    @property
    def live(self) -> bool:
        """Whether it is a real-time source, whose late frames are dropped."""
        return self._live

    def note(self, problem: str) -> None:
        """Record a problem."""
        if len(self.problems) < _NOTES:
            self.problems.append(redacted(problem))

    def close(self) -> None:  # noqa: B027 - most sources have nothing to end
        """Close the source; a read in progress ends when it can."""


class ImageFiles(FrameSource):
    """Image files as frames at a given rate. Damaged ones and animations are skipped, counted and named.

    Args:
        paths: image files.
        rate: frames per second.
    """

    def __init__(self, name: str, paths: Sequence[Path], rate: float) -> None:
        super().__init__(name, expected=len(paths))
        self._paths, self._time_base = paths, 1 / Fraction(float(rate)).limit_denominator(10**6)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            try:
                _, header = found = open_image(path)
                if header.animated and header.format != "TIFF":
                    raise ArgumentError(f"{path}: an animation among pictures; open it by itself")
                image = pixels_of(path, *found)
            except (ValueError, OSError) as error:
                self.damaged += 1
                self.note(str(error))
                continue
            self.read += 1
            yield Frame(image, index, index, self._time_base, name=str(path))


class AnimationFile(FrameSource):
    """The frames of an animated GIF, WebP, PNG or AVIF file, with its timing."""

    def __init__(self, path: Path) -> None:
        self._animation = Animation(path)
        super().__init__(str(path), expected=self._animation.count)

    def __iter__(self) -> Iterator[Frame]:
        time_base, start = Fraction(1, 1000), 0.0
        try:
            for image, seconds in self._animation:
                pts, start = round(start * 1000), start + seconds
                duration = round(start * 1000) - pts
                yield Frame(image, self.read, pts, time_base, duration=duration)
                self.read += 1
        except ArgumentError as error:
            self.damaged += 1
            self.note(str(error))
        self.cut_short = self._animation.cut_short
        if self.cut_short and not self.problems:
            self.note(f"{self.name}: the file ends before its animation does")


class FrameIterable(FrameSource):
    """Frames, or (H, W, 3) uint8 BGR arrays, from an iterable. Those without such a picture are skipped, counted and
    named.
    """

    def __init__(self, frames: Iterable[Frame | np.ndarray], rate: float) -> None:
        super().__init__("frames")
        self._frames, self._time_base = frames, 1 / Fraction(float(rate)).limit_denominator(10**6)
        self._first: Iterator[Frame | np.ndarray] | None = check_iterable("source", frames)

    def __iter__(self) -> Iterator[Frame]:
        first, self._first = self._first, None
        for index, entry in enumerate(self._frames if first is None else first):
            frame = entry if isinstance(entry, Frame) else Frame(entry, index, index, self._time_base)
            try:
                image = as_frame(f"frame {frame.index}", frame.image, "bgr", on_device=True)
            except (ValueError, OSError) as error:
                self.damaged += 1
                self.note(f"{self.name}: {error}")
                continue
            self.read += 1
            yield frame if image is frame.image else replace(frame, image=image)


class Video(FrameSource):
    """A video file, a camera or a network stream, through PyAV.

    Frames come as players show them: turned and mirrored by the display matrix, with square pixels. Their times are
    the source's own, from 0 (`Clock` handles missing and wrong timestamps); in formats without timestamps, arrival
    times are used. A packet that cannot be decoded is counted, and decoding continues
    with the next. A live source that sends nothing for `timeout` seconds, fails or ends is reopened, for up to `retry`
    seconds after its last frame; a gap keeps its real duration.

    Args:
        address: a path or an FFmpeg URL.
        live: whether it is live.
        container_format: FFmpeg's name of the format or device; None: it is detected.
        options: for FFmpeg's demuxer or device, as {"rtsp_transport": "udp"}.
        timeout: seconds without data after which an address (not a file) counts as stalled.
        retry: seconds for which a stalled live source is reopened.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: the camera or the address cannot be opened.
        ArgumentError: FFmpeg cannot read it, or it holds no video.
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
        self._address = address
        outlives_forks(self)
        self._process = os.getpid()
        self._format, self._options, self._retry = container_format, dict(options or {}), retry
        if address.startswith("rtsp"):
            self._options.setdefault("rtsp_transport", "tcp")  # UDP loses packets on most wireless networks
        remote = container_format is not None or "://" in address
        self._timeout = (timeout, timeout) if remote else None
        self._returns = live and remote  # the end of a file is final
        self._is_file = not remote and os.path.isfile(address)
        if not remote:
            formats = self._av.formats_available - _PLAYLISTS
            self._options.setdefault("format_whitelist", ",".join(sorted(formats)))
        self._stop, self._index = threading.Event(), 0
        self._failure: Exception | None = None  # why no further packet could be read
        self._asked = time.monotonic()
        self._container: Any = self._open()
        self._opened = time.monotonic()
        stream = self._container.streams.video[0]
        self._rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        self._length = None if live else stated_length(self._container)
        self._by_arrival = (
            not has_timestamps(self._container)
            and not self._is_file
            and (
                container_format is not None
                or _is_fifo(address)
                or self._container.size <= 0
                or self._container.format.name == "mpjpeg"  # a camera, whatever length it states
            )
        )
        if self._length is not None and not self._by_arrival:
            self.expected = stream.frames or max(round(self._length * self._rate), 1)
        self._clock = Clock(1 / self._rate, live=live)

    def _open(self) -> av.container.InputContainer:
        # FFmpeg's errors contain the whole address with its password, so they are not chained.
        try:
            container = self._av.open(
                self._address, format=self._format, options=self._options, timeout=self._timeout
            )
        except FileNotFoundError:
            raise FileNotFoundError(
                f"source not found: {self.name}; pass a video, pictures, a camera's number or an address"
            ) from None
        except (ValueError, EOFError) as error:
            reason = getattr(error, "strerror", error)
            if os.path.splitext(self._address)[1].lower() in _PLAYLIST_SUFFIXES:
                reason = "playlists in files are not read, since they can name any file; pass the videos themselves"
            raise ArgumentError(
                f"source must be a video that FFmpeg reads, got {self.name}: {redacted(str(reason))}"
            ) from None
        except (OSError, self._av.error.FFmpegError) as error:
            raise ConnectionError(f"source {self.name} cannot be opened: {error.strerror}") from None
        if not container.streams.video:
            container.close()
            raise ArgumentError(f"source must be a video, got {self.name}, which holds none")
        context = container.streams.video[0].codec_context
        if context is None:
            container.close()
            raise ArgumentError(
                f"source must be a video that FFmpeg reads, got {self.name} of an unknown codec"
            )
        try:
            self._check_size(context.width, context.height)
        except ArgumentError:
            container.close()
            raise
        # The size may change within a stream.
        context.options = {"max_pixels": str(limits.current().video_pixels)}
        # Frame threads delay frames, which a live source must not.
        container.streams.video[0].thread_type = "SLICE" if self.live else "AUTO"
        return container

    def _check_size(self, width: int, height: int) -> None:
        """Refuse frames beyond the limit before they are converted to an array."""
        limits.check(f"source: {self.name}: width times height", "video_pixels", width * height)

    def __iter__(self) -> Iterator[Frame]:
        while self._container is not None:
            check_process(self._process, "Video")  # the decoder's threads do not run in a fork
            try:
                yield from self._decode(self._container)
            finally:
                if self._process == os.getpid():
                    self._container.close()
                    self._container = None
            if self._returns and not self._stop.is_set():
                self._container = self._open_again()
        self._check_end()

    def _check_end(self) -> None:
        """Record whether a file ended early, and timestamps that jumped."""
        if self._clock.jumps:
            at, seconds = self._clock.jumps[0]
            self.note(
                f"{self.name}: timestamps jumped {number_of(len(self._clock.jumps), 'time')}, first by {seconds:.0f} s at "
                f"{at:.2f} s; the frames were joined without a gap"
            )
        if self._stop.is_set() or self._by_arrival:
            return
        whole = is_whole(self._address) if self._is_file else None
        stated = f" of {self._length:.2f} s" if self._length is not None else ""
        if whole is None and self._length is not None and self._clock.farthest <= _TOLERANCE:
            # Writers take the length from the largest timestamp, even from a wrong one.
            made_up = abs(self._clock.latest - self._length) <= _TOLERANCE
            whole = made_up or self._clock.end >= self._length - _TOLERANCE
        if whole is False:
            self.cut_short = True
            self.note(f"{self.name}: ends after {self._clock.end:.2f} s{stated}; the file is incomplete")

    def _decode(self, container: av.container.InputContainer) -> Iterator[Frame]:
        """Yield the frames of an open container, up to its end or to the first packet that cannot be read."""
        stream = container.streams.video[0]
        self._clock.restart()
        pictures = self._pictures(container, stream)
        # Streams must not wait for the next frame.
        for (picture, number, arrived, aspect), following in _with_next(pictures, wait=self._is_file):
            if self._by_arrival or (picture.pts is None and not self._is_file):
                pts, duration = self._clock.place_at(arrived)
            else:
                time_base = picture.time_base or stream.time_base or Fraction(1, 1000)
                next_pts = None if following is None else following.picture.pts
                pts, duration = self._clock.place(picture.pts, time_base, picture.duration or 0, next_pts)
            image = as_shown(picture, aspect)
            self.read += 1
            yield Frame(image, number, pts, self._clock.time_base, duration=duration)
        if self._failure is not None:  # told here, since the last frames come after it
            self._tell_failure(self._failure)
            self._failure = None

    def _pictures(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[_Decoded]:
        """Yield the frames of an open container, numbered, up to its end or to the first packet that cannot be read."""
        context = stream.codec_context
        # The pixel aspect of a broadcast may change midway; the decoder states it. One of the container is for all frames.
        of_decoder = stream.sample_aspect_ratio == context.sample_aspect_ratio
        arrivals: deque[float] = deque()
        for packet, arrived in self._packets(container, stream):
            arrivals.append(arrived)
            try:
                decoded = packet.decode()
            except MemoryError as error:
                raise OutOfMemory(f"source {self.name}: a frame does not fit into memory") from error
            except self._av.error.FFmpegError:
                self.damaged += 1
                self._index += 1  # a packet holds one frame: later frames keep their numbers
                continue
            for picture in decoded:
                self._check_size(picture.width, picture.height)
                self.damaged += picture.is_corrupt
                # A decoder may return a frame some packets late; an empty packet flushes it.
                arrived = arrivals.popleft() if arrivals else arrived
                aspect = (context if of_decoder else stream).sample_aspect_ratio
                self._index += 1
                yield _Decoded(picture, self._index - 1, arrived, aspect)

    def _packets(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[tuple[av.Packet, float]]:
        """Yield packets with their arrival times in seconds (arbitrary origin), up to the first that cannot be
        read."""
        packets = container.demux(stream)
        waited: list[av.Packet] | None = [] if self._by_arrival else None
        before = self._opened
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except MemoryError as error:
                raise OutOfMemory(f"source {self.name}: its next packet does not fit into memory") from error
            except self._av.error.FFmpegError as error:
                packet, self._failure = None, error
            now = time.monotonic()
            if waited is not None:
                if packet is not None and now - before < _AT_ONCE and len(waited) < _WAITING:
                    waited.append(packet)
                    before = now
                    continue
                # FFmpeg read these packets while it opened the stream.
                step = (self._opened - self._asked) / max(len(waited), 1)
                for place, early in enumerate(waited):
                    yield early, self._opened - step * (len(waited) - 1 - place)
                waited = None
            if packet is None:
                return
            yield packet, now

    def _tell_failure(self, error: Exception) -> None:
        reason = f"{self._clock.end:.2f} s: {getattr(error, 'strerror', error)}"
        if self._by_arrival:  # without length or timestamps, this is the only sign of the end
            self.note(f"{self.name}: the stream ended after {reason}")
        else:
            self.cut_short = not self._returns
            self.note(f"{self.name}: reading failed after {reason}")

    def _open_again(self) -> Any:
        """Reopen a stalled live source; return its container, or None if that fails."""
        lost = time.monotonic()
        self.note(f"{self.name}: nothing more after {self._clock.end:.2f} s, opened again")
        while time.monotonic() - lost < self._retry:
            if self._stop.wait(_RETRY_EVERY):
                return None
            try:
                self._asked = time.monotonic()
                container = self._open()
                self._opened = time.monotonic()
                return container
            except (OSError, ValueError):
                continue
        self.cut_short = True
        self.note(f"{self.name}: did not return within {self._retry:g} s")
        return None

    def close(self) -> None:
        self._stop.set()


def open_source(
    source: str | Path | Sequence[str | Path] | Iterable[Frame | np.ndarray] | FrameSource,
    *,
    rate: float = 30.0,
    live: bool | None = None,
    **settings: Any,
) -> FrameSource:
    """Open a source of frames.

    Args:
        source: a video file, an animated GIF, WebP, PNG or AVIF file, a folder of pictures, a glob, a list of
            pictures, a camera ("0", "/dev/video0"), an address ("rtsp://..."), Frames or arrays (H, W, 3) uint8
            BGR, or a FrameSource.
        rate: frames per second of pictures and arrays, which have no timestamps.
        live: whether late frames are dropped; None: for cameras and addresses of LIVE_SCHEMES.
        settings: options, timeout, retry (see Video).

    Raises:
        ArgumentError, FileNotFoundError, ConnectionError, BackendUnavailable: as Video, or no picture found.
    """
    if isinstance(rate, bool) or not isinstance(rate, Real) or not _SLOWEST <= rate <= _FASTEST:
        raise ArgumentError(f"rate must be {_SLOWEST:g} to {_FASTEST:g} frames per second, got {rate!r}")
    if live is not None:
        check_flags(live=live)
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, str | Path):
        return _open_named(str(source), rate, live, settings)
    if isinstance(source, Sequence) and source and all(isinstance(entry, str | Path) for entry in source):
        paths = cast("Sequence[str | Path]", source)
        if strange := [str(entry) for entry in paths if Path(entry).suffix.lower() not in SUFFIXES]:
            raise ArgumentError(
                f"source must be a list of pictures, got {', '.join(redacted(name, alone=True) for name in strange)} in it; "
                "open each video by itself"
            )
        return ImageFiles(str(paths[0]), find_images(paths), rate)
    return FrameIterable(cast("Iterable[Frame | np.ndarray]", source), rate)


def _open_named(name: str, rate: float, live: bool | None, settings: dict[str, Any]) -> FrameSource:
    if name.isdecimal() or name.startswith(("/dev/video", "video=")):
        device = f"/dev/video{name}" if name.isdecimal() and sys.platform == "linux" else name
        camera = _CAMERAS.get(sys.platform)
        return Video(device, live=live is not False, container_format=camera, **settings)
    if "://" in name:
        scheme = name.partition("://")[0].lower()
        return Video(name, live=scheme in LIVE_SCHEMES if live is None else live, **settings)
    path = Path(name)
    if is_animation(path):
        return _open_animation(path)
    if (
        path.is_dir()
        or path.suffix.lower() in SUFFIXES
        or (not path.exists() and any(c in name for c in "*?["))
    ):
        return ImageFiles(name, find_images([name]), rate)
    return Video(name, live=bool(live), **settings)


def _open_animation(path: Path) -> FrameSource:
    """Return the frames of an animated picture file.

    Raises:
        ArgumentError: the file holds pages.
    """
    if open_image(path)[1].format == "TIFF":
        raise ArgumentError(
            f"source must be a video or pictures, got {path}, a TIFF of several pages; write each page as a picture"
        )
    return AnimationFile(path)


def _is_fifo(address: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(address).st_mode)
    except (OSError, ValueError):
        return address.startswith("pipe:")


def load_av() -> Any:
    """Import and return PyAV.

    Raises:
        BackendUnavailable: it is not installed; the message says what to install.
    """
    try:
        import av
    except ImportError as error:
        raise BackendUnavailable(f"video needs PyAV: {error}; `pip install 'oaks[video]'`") from error
    return av


__all__ = [
    "LIVE_SCHEMES",
    "AnimationFile",
    "FrameIterable",
    "FrameSource",
    "ImageFiles",
    "Video",
    "load_av",
    "open_source",
]
