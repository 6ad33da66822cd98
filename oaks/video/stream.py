"""The tracking loop: reading, detection, inference, tracking and smoothing, in parallel where possible."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks import limits
from oaks.arguments import check_count
from oaks.boxes import Boxes, BoxSource
from oaks.errors import ArgumentError
from oaks.images import in_order
from oaks.inference import NOTHING_WORKS, Engine, begin_each
from oaks.poses import Poses
from oaks.timings import Timings
from oaks.video.frames import Frame
from oaks.video.smoothing import OneEuro
from oaks.video.sources import FrameSource, open_source
from oaks.video.threads import ReadAhead
from oaks.video.tracking import Tracker

_QUEUE = 8  # frames read ahead from a file
_LIVE_QUEUE = 2  # of a live source, to keep the delay short
_TOGETHER = 8  # frames of a file that share a pass of the networks
_NOTES = 20  # failed frames that are named; further ones are only counted

_Located = tuple[Frame, Boxes | None]


@dataclass
class Summary:
    """Running totals, final once the generator is exhausted.

    Attributes:
        frames: yielded frames.
        people: poses in these frames, tracked or not.
        tracks: number of tracks.
        dropped: late frames of live sources.
        damaged: packets or pictures that could not be decoded, or only partly.
        failed: frames whose boxes or poses could not be found, or that have poses without a score.
        complete: whether nothing was damaged, no frame failed and no source ended early. `oaks track` also sets it to
            False if a file's boxes belong to other frames, or the annotated video could not hold the frames.
        problems: descriptions of what went wrong.
        seconds: wall-clock seconds.
        stages: seconds per stage. They overlap: their sum may exceed `seconds`. frames (reading and decoding,
            and waiting for a camera), boxes, track (with smoothing), and the Engine's own, each with "engine "
            before its name.
    """

    frames: int = 0
    people: int = 0
    tracks: int = 0
    dropped: int = 0
    damaged: int = 0
    failed: int = 0
    complete: bool = True
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    def add_stages(self, stages: Mapping[str, float]) -> None:
        """Add seconds to the stages."""
        for name, seconds in stages.items():
            self.stages[name] = self.stages.get(name, 0.0) + seconds


def track(
    sources: Any,
    engine: Engine,
    *,
    boxes: BoxSource | Sequence[BoxSource],
    tracker: Tracker | None = None,
    smoother: OneEuro | None = None,
    threaded: bool = True,
    together: int = _TOGETHER,
    summary: Summary | None = None,
) -> Generator[tuple[Frame, Poses], None, None]:
    """Tracked poses, frame by frame, of one source or of several through one Engine.

        for frame, poses in track("street.mp4", engine, boxes=boxes_from_detector(detector)):
            ...

    Frames of one source come in order. Those of several come as they are ready; frame.stream is the index of their
    source. Files never drop frames; a live source drops the oldest waiting frame and counts it. Where boxes do not
    depend on earlier poses (every=1), several frames of a file share a pass of the networks.

    Args:
        sources: what open_source takes, or a list of FrameSource for several.
        engine: estimates the poses.
        boxes: the box source: one per source, or one for all.
        tracker: a new tracker; each source gets a copy. None: Tracker's defaults, gated by the Engine's score.
        smoother: smooths the keypoints; each source gets a copy. None: no smoothing.
        threaded: whether to read frames and find boxes in threads, in parallel with the networks. Without threads, a
            live source drops nothing.
        together: maximum number of frames that share a pass.
        summary: updated while the generator runs.

    Yields:
        Each frame, and its Poses with track_ids; frame_index is the frame's own number.

    Raises:
        ArgumentError: an argument does not fit.
        FileNotFoundError, ConnectionError, BackendUnavailable: a source cannot be opened.
    """
    check_count("together", together)
    several = (
        isinstance(sources, Sequence) and bool(sources) and all(isinstance(s, FrameSource) for s in sources)
    )
    opened = list(sources) if several else [open_source(sources)]
    given = [boxes] * len(opened) if isinstance(boxes, BoxSource) else list(boxes)
    if len(given) != len(opened):
        raise ArgumentError(
            f"boxes must be given once for each of the {len(opened)} sources, got {len(given)}"
        )
    if tracker is None:
        tracker = Tracker(engine.bundle.skeleton, score=engine.score_kind)
    if tracker.score == "oaks" and not engine.gives_oaks:
        raise ArgumentError(
            f"the tracker's score must be 'conventional' with bundle {engine.bundle.name!r}, which gives no OAKS "
            "score, got 'oaks'"
        )
    streams = [
        _Stream(number, source, own, copy.deepcopy(tracker), copy.deepcopy(smoother), together)
        for number, (source, own) in enumerate(zip(opened, given, strict=True))
    ]
    return _run(streams, engine, threaded=threaded, summary=summary or Summary())


def _run(
    streams: list[_Stream], engine: Engine, *, threaded: bool, summary: Summary
) -> Generator[tuple[Frame, Poses], None, None]:
    start, before = time.perf_counter(), dict(engine.timings.seconds)
    changed = threading.Condition()
    begun: deque[tuple[_Group, Callable[[], Poses]]] = deque()
    try:
        if threaded:
            for stream in streams:
                stream.read_ahead(changed)
        ahead = int(engine.device != "cpu" and all(stream.independent for stream in streams))
        while begun or any(not stream.ended for stream in streams):
            group = [entry for stream in streams for entry in stream.take()]
            if group:
                begun.append((group, _begin(engine, group)))
            elif not begun and any(not stream.ended for stream in streams):
                with changed:
                    changed.wait_for(lambda: any(s.ready for s in streams if not s.ended), timeout=0.5)
                continue
            if len(begun) <= ahead and any(not stream.ended for stream in streams):
                continue  # the next group is uploaded and cropped while this one's networks run
            if not begun:
                continue
            group, end = begun.popleft()
            poses = end()
            for i, (stream, frame, found) in enumerate(group):
                own = stream.follow(frame, poses[poses.frame_index == i], own=found is None)
                summary.frames += 1
                summary.people += len(own)
                yield frame, own
    finally:
        for _, end in begun:
            with suppress(Exception):
                end()
        for stream in streams:
            stream.close()
        _sum_up(summary, streams)
        summary.seconds += time.perf_counter() - start
        summary.add_stages(
            {
                f"engine {name}": seconds - before.get(name, 0.0)
                for name, seconds in engine.timings.seconds.items()
            }
        )


_Group = list[tuple["_Stream", Frame, Boxes | None]]


def _begin(engine: Engine, group: _Group) -> Callable[[], Poses]:
    """Start inferring a group of frames; the returned call gives the poses, with frame_index within the group."""
    images = [in_order(frame.image, engine.color) for _, frame, _ in group]
    boxes = [stream.expected(frame) if found is None else found for stream, frame, found in group]
    corners, scores = map(list, zip(*boxes, strict=True))
    return begin_each(engine, images, corners, scores, lambda i, why: group[i][0].fail(group[i][1], why))


class _Stream:
    """State of one source: frames read ahead, and its tracks."""

    def __init__(
        self,
        number: int,
        source: FrameSource,
        boxes: BoxSource,
        tracker: Tracker,
        smoother: OneEuro | None,
        together: int,
    ) -> None:
        self.source, self.tracker, self.ended = source, tracker, False
        self._number, self._boxes, self._smoother = number, boxes, smoother
        self.failed, self.problems = set[int](), list[str]()
        # Boxes predicted from tracks need the earlier poses; live frames are not grouped.
        self.independent = boxes.every == 1 and not source.live
        self._together = together if self.independent else 1
        self._size: tuple[int, int] | None = None
        self._own = np.zeros(0, np.int64)
        self._frames: ReadAhead[Frame] | None = None
        self._located: ReadAhead[_Located] | Generator[_Located, None, None] = self._locate(self._read())
        self.timings = Timings()

    def read_ahead(self, changed: threading.Condition) -> None:
        """Start the reading threads, which notify `changed`."""
        live = self.source.live
        size = _LIVE_QUEUE if live else max(_QUEUE, self._together)
        heaviest = limits.current().read_ahead_bytes // 2  # for each of the two queues
        self._frames = ReadAhead(
            self._read(), size, weigh=lambda frame: frame.image.nbytes, heaviest=heaviest, drop_oldest=live
        )
        self._located = ReadAhead(
            self._locate(self._frames),
            1 if live else size,
            weigh=lambda located: located[0].image.nbytes,
            heaviest=heaviest,
            changed=changed,
        )

    def _read(self) -> Iterator[Frame]:
        frames = iter(self.source)
        while True:
            with self.timings.stage("frames"):
                frame = next(frames, None)
            if frame is None:
                return
            yield replace(frame, stream=self._number)

    def _locate(self, frames: Iterator[Frame]) -> Generator[_Located, None, None]:
        """Yield frames with their boxes, or with None if boxes are predicted from the tracks."""
        for looked_at, frame in enumerate(frames):
            if not self._boxes.due(looked_at):
                yield frame, None
                continue
            with self.timings.stage("boxes"):
                try:
                    found = self._boxes.find(frame)
                except NOTHING_WORKS:
                    raise
                except Exception as error:  # every runtime raises different errors
                    self.fail(frame, str(error) or type(error).__name__)
                    found = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
            yield frame, found

    def fail(self, frame: Frame, reason: str) -> None:
        """Record a frame whose boxes or poses could not be found."""
        if frame.index not in self.failed and len(self.problems) < _NOTES:
            name = Path(frame.name).name or f"frame {frame.index}"
            self.problems.append(f"{self.source.name}: {name}: {reason.removeprefix(f'{frame.name}: ')}")
        self.failed.add(frame.index)

    @property
    def ready(self) -> bool:
        """Whether the next frames can be taken without waiting for a live source."""
        return not (self.source.live and isinstance(self._located, ReadAhead)) or self._located.ready

    def take(self) -> _Group:
        """Return the next frames that share a pass; none if a live source has none now, or at the end."""
        taken: _Group = []
        while not self.ended and len(taken) < self._together and self.ready:
            item = next(self._located, None)
            if item is None:
                self.ended = True
            else:
                taken.append((self, *item))
        return taken

    def expected(self, frame: Frame) -> Boxes:
        """Return the predicted boxes of the tracks in a frame."""
        size = self._fit(frame)
        corners, self._own = self.tracker.boxes(frame.time, size)
        return corners, self.tracker.box_scores(self._own)

    def follow(self, frame: Frame, poses: Poses, *, own: bool) -> Poses:
        """Track and smooth the poses of the next frame; `own`: their boxes were predicted from the tracks."""
        size = self._fit(frame)
        poses = replace(poses, frame_index=np.full(len(poses), frame.index), frame_count=None)
        with self.timings.stage("track"):
            of_tracks, unique = self._own if own else None, own or self._boxes.detected
            poses = self.tracker.update(poses, frame.time, of_tracks=of_tracks, size=size, unique=unique)
            return poses if self._smoother is None else self._smoother.update(poses, frame.time)

    def _fit(self, frame: Frame) -> tuple[int, int]:
        """The frame's size (width, height); a change rescales the tracks."""
        size = (frame.image.shape[1], frame.image.shape[0])
        if self._size is not None and self._size != size:
            scale = [new / old for new, old in zip(size, self._size, strict=True)]
            self.tracker.rescale(scale)
            if self._smoother is not None:
                self._smoother.rescale(scale)
        self._size = size
        return size

    @property
    def dropped(self) -> int:
        """Number of dropped late frames."""
        return 0 if self._frames is None else self._frames.dropped

    def close(self) -> None:
        """Close the source and its threads."""
        self.source.close()
        if self._frames is not None:
            self._frames.close()
        self._located.close()


def _sum_up(summary: Summary, streams: list[_Stream]) -> None:
    for stream in streams:
        summary.tracks += stream.tracker.started
        summary.dropped += stream.dropped
        summary.damaged += stream.source.damaged
        summary.failed += len(stream.failed)
        summary.problems += stream.source.problems + stream.problems
        summary.complete &= not (stream.source.damaged or stream.source.cut_short or stream.failed)
        summary.add_stages(stream.timings.seconds)


__all__ = ["Summary", "track"]
