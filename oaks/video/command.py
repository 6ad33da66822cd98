"""What `oaks track` does: streams in; annotated video, poses per frame, and MOT and COCO results out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oaks.coco import header_path, make_header
from oaks.detector import Detector
from oaks.files import write_json
from oaks.images import SUFFIXES
from oaks.inference import Engine
from oaks.poses import Poses
from oaks.timings import Timings
from oaks.video.annotated import AnnotatedVideo
from oaks.video.boxes import BoxSource, boxes_from_detector, boxes_from_file, first_boxes
from oaks.video.frames import Frame, number_from_one
from oaks.video.sinks import CocoFile, JsonLines, MotFile, Sink
from oaks.video.smoothing import OneEuro
from oaks.video.sources import FrameSource, open_source
from oaks.video.stream import Summary, track
from oaks.video.threads import WriteBehind
from oaks.video.tracking import Tracker

COMPLETE, INCOMPLETE, WRONG, UNWRITTEN, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: every frame is in the results; a source gave less than it should have; an argument does not fit
or a source cannot be opened; a file could not be written; Ctrl-C. What was written can be read in every case."""

_QUEUE = 4  # frames that wait to be drawn and written


@dataclass(frozen=True)
class Output:
    """What is written of a stream, and how it is drawn.

    Attributes:
        folder: gets poses.jsonl, results.json (COCO), results.header.json, tracks.txt (MOT), annotated.mp4.
        image_id: frame -> the image id of its rows.
        video: whether annotated.mp4 is written.
        absent, boxes, trails: how it is drawn (AnnotatedVideo).
    """

    folder: Path
    image_id: Callable[[Frame], int] = number_from_one
    video: bool = True
    absent: str = "hide"
    boxes: bool = False
    trails: float = 1.0

    @contextmanager
    def open(self, timings: Timings) -> Iterator[Callable[[tuple[Frame, Poses]], object]]:
        """What takes the stream's frames, and draws and writes them in a thread of its own."""
        with ExitStack() as stack:
            sinks: list[tuple[str, Sink]] = []

            def add(stage: str, sink: Sink) -> None:
                sinks.append((stage, sink))
                stack.callback(sink.close)

            add("write", JsonLines(self.folder / "poses.jsonl", self.image_id))
            add("write", CocoFile(self.folder / "results.json", self.image_id))
            add("write", MotFile(self.folder / "tracks.txt"))
            if self.video:
                looks = {"absent": self.absent, "boxes": self.boxes, "trails": self.trails}
                add("draw", AnnotatedVideo(self.folder / "annotated.mp4", **looks))

            def write(item: tuple[Frame, Poses]) -> None:
                for stage, sink in sinks:
                    with timings.stage(stage):
                        sink.write(*item)

            behind = WriteBehind(write, _QUEUE)
            stack.callback(behind.close)
            yield behind

    def write_header(self, header: dict[str, Any]) -> None:
        """Says beside results.json how the results were made."""
        write_json(header_path(self.folder / "results.json"), header, indent=1)


def track_into(
    outputs: Sequence[Output],
    sources: Sequence[FrameSource],
    engine: Engine,
    *,
    boxes: Sequence[BoxSource],
    tracker: Tracker,
    smoother: OneEuro | None,
    most: int | None = None,
    advance: Callable[[Frame], object] = lambda _frame: None,
    **settings: Any,
) -> Summary:
    """Tracks people through sources, and writes each one's results.

    Args:
        outputs, sources, boxes: one of each for every stream.
        most: frames after which it ends.
        advance: told of every frame.
        settings: for `track`.

    Raises:
        OSError: a file cannot be written.
    """
    summary, timings = Summary(), [Timings() for _ in outputs]

    def write_headers(complete: bool) -> None:
        for output, own in zip(outputs, boxes, strict=True):
            header = make_header(
                engine.describe(),
                box_source=own.description,
                every=own.every,
                gate=tracker.gate,
                gated_by=tracker.score,
                patience=tracker.patience,
                smoothed=smoother is not None,
                dropped=summary.dropped,
                damaged=summary.damaged,
                problems=summary.problems,
                complete=complete,
            )
            output.write_header(header)

    for output in outputs:
        output.folder.mkdir(parents=True, exist_ok=True)
    write_headers(complete=False)  # of a run that is killed or finds the disk full, this is what remains
    complete = False
    try:
        with ExitStack() as stack:
            writers = [
                stack.enter_context(output.open(own)) for output, own in zip(outputs, timings, strict=True)
            ]
            tracked = track(
                sources, engine, boxes=boxes, tracker=tracker, smoother=smoother, summary=summary, **settings
            )
            stack.callback(tracked.close)
            for frame, poses in tracked:
                writers[frame.stream]((frame, poses))
                advance(frame)
                if summary.frames == most:
                    break
        complete = summary.complete
    finally:  # stopped midway, what is done so far is kept
        for own in timings:
            for stage, seconds in own.seconds.items():
                summary.stages[stage] = summary.stages.get(stage, 0.0) + seconds
        write_headers(complete)
    return summary


def track_command(
    named: Sequence[str],
    *,
    bundle: str,
    engine_settings: dict[str, Any],
    detector: str | None,
    detector_settings: dict[str, Any],
    boxes: Sequence[str],
    first: str | None,
    every: int,
    source_settings: dict[str, Any],
    tracker_settings: dict[str, Any],
    smooth: bool,
    output_settings: dict[str, Any],
    out: str,
    most: int | None,
) -> int:
    """`oaks track`: `track_into` with a progress bar.

    Returns:
        The exit code (COMPLETE, INCOMPLETE, UNWRITTEN or INTERRUPTED; WRONG is the command line's own).
    """
    try:
        sources = _sources(named, source_settings)
        given = _boxes(len(sources), boxes, detector, detector_settings, first, every)
        outputs = [
            Output(folder, own.image_id, **output_settings)
            for folder, own in zip(_folders(Path(out), sources), given, strict=True)
        ]
        with Engine(bundle, **engine_settings) as engine:
            score = tracker_settings.pop("score") or engine.score_kind
            tracker = Tracker(engine.bundle.skeleton, score=score, **tracker_settings)
            about = f"bundle {engine.bundle.name} on {engine.backend} ({engine.device}, {engine.precision})"
            print(f"{about}, boxes: {given[0].description}, gate: {tracker.score} score {tracker.gate:g}")
            with _progress(sources, most) as advance:
                summary = track_into(
                    outputs, sources, engine, boxes=given, tracker=tracker,
                    smoother=OneEuro() if smooth else None, most=most, advance=advance,
                )  # fmt: skip
    except KeyboardInterrupt:
        print(f"interrupted; what was written is in {out}", file=sys.stderr)
        return INTERRUPTED
    except (ConnectionError, FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        print(f"oaks: not everything could be written: {error}; what was is in {out}", file=sys.stderr)
        return UNWRITTEN
    _report(summary, outputs)
    return COMPLETE if summary.complete else INCOMPLETE


def _sources(named: Sequence[str], settings: dict[str, Any]) -> list[FrameSource]:
    """Each name is a source, except that pictures make one together, as a shell's own globs hand them over."""
    if len(named) > 1 and all(Path(name).suffix.lower() in SUFFIXES for name in named):
        return [open_source(list(named), **settings)]
    return [open_source(name, **settings) for name in named]


def _boxes(
    count: int,
    files: Sequence[str],
    detector: str | None,
    detector_settings: dict[str, Any],
    first: str | None,
    every: int,
) -> list[BoxSource]:
    """One box source for each of `count` sources."""
    if bool(files) + bool(detector) + bool(first) != 1:
        raise ValueError("boxes, detector and first-boxes: one of them wanted, to say where the people are")
    if detector:
        return [boxes_from_detector(Detector(detector, **detector_settings), every)] * count
    if first:
        return [first_boxes(_read_boxes(first))] * count
    if len(files) != count:
        raise ValueError(f"boxes: a file for each of the {count} sources wanted, got {len(files)}")
    return [boxes_from_file(path, every) for path in files]


def _read_boxes(text: str) -> list[list[float]]:
    try:
        return [[float(value) for value in box.split(",")] for box in text.split()]
    except ValueError as error:
        raise ValueError(
            f"first-boxes: x1,y1,x2,y2 with spaces between boxes wanted, got {text!r}"
        ) from error


def _folders(out: Path, sources: Sequence[FrameSource]) -> list[Path]:
    """Where each source's results go: `out` itself for one, a folder in it for each of several."""
    if len(sources) == 1:
        return [out]
    return [out / f"{number}_{Path(source.name).stem}" for number, source in enumerate(sources, start=1)]


@contextmanager
def _progress(sources: Sequence[FrameSource], most: int | None) -> Iterator[Callable[[Frame], object]]:
    """A bar on stderr; without a known end it only counts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    expected = [source.expected for source in sources]
    total = None if None in expected else sum(expected)
    if most is not None:
        total = most if total is None else min(most, total)
    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda _frame: progress.advance(task)


def _report(summary: Summary, outputs: Sequence[Output]) -> None:
    """The summary in a few lines."""
    for problem in summary.problems:
        print(problem)
    rate = summary.frames / max(summary.seconds, 1e-9)
    lost = f", {summary.dropped} dropped, {summary.damaged} damaged"
    print(
        f"{summary.frames} frames{lost}; {summary.people} poses of {summary.tracks} tracks; {rate:.1f} frames/s"
    )
    per_frame = 1000 / max(summary.frames, 1)
    stages = ", ".join(f"{name} {seconds * per_frame:.1f}" for name, seconds in summary.stages.items())
    print(f"ms per frame, beside one another: {stages}")
    print(f"results: {', '.join(str(output.folder) for output in outputs)}")


__all__ = [
    "COMPLETE",
    "INCOMPLETE",
    "INTERRUPTED",
    "UNWRITTEN",
    "WRONG",
    "Output",
    "track_command",
    "track_into",
]
