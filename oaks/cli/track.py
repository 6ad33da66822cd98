"""`oaks track`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb
from oaks.errors import ArgumentError
from oaks.names import number_of

if TYPE_CHECKING:
    from oaks.boxes import BoxSource
    from oaks.inference import Engine
    from oaks.poses import Poses
    from oaks.video import Frame, FrameSource, Summary


@verb(extra="video")
def track(
    output: Output,
    *,
    source: Annotated[
        list[str],
        typer.Argument(
            help="Videos, folders of pictures, pictures (in natural order), cameras (0) or stream addresses."
        ),
    ],
    bundle: options.Bundle = "small",
    boxes: Annotated[
        list[Path], typer.Option(help="COCO JSON or MOT .txt with boxes, one per source. Repeatable.")
    ] = [],  # noqa: B006
    category: options.Category = None,
    detector: options.DetectorOptions,
    first_boxes: Annotated[
        str | None, typer.Option(help="Boxes of the first frame: 'x1,y1,x2,y2 x1,y1,x2,y2 ...'.")
    ] = None,
    every: Annotated[
        str,
        typer.Option(
            help="Take boxes at every n-th frame, or only at the 'first'; at other frames, predict them from the tracks."
        ),
    ] = "1",
    engine: options.EngineOptions,
    gate: Annotated[float, typer.Option(help="Minimum score of a pose that updates its track.")] = 0.3,
    gate_by: Annotated[
        str | None, typer.Option(help="Score for --gate: oaks or conventional. Default: the bundle's.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds that a track survives without a pose.")] = 1.0,
    smooth: Annotated[bool, typer.Option(help="Smooth the keypoints (one-euro filter).")] = True,
    video: Annotated[bool, typer.Option(help="Write the annotated video.")] = True,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Show the frames in a window; q or Esc ends the run. Needs an OpenCV with a GUI (opencv-python).",
        ),
    ] = False,
    drawing: options.DrawingOptions,
    trails: Annotated[float, typer.Option(help="Trail length in seconds; 0 draws none.")] = 1.0,
    live: Annotated[
        bool | None,
        typer.Option(help="Drop late frames. Default: only for cameras and live streams."),
    ] = None,
    retry: Annotated[
        float, typer.Option(help="Seconds for which to try to reopen a live source that sends no frames.")
    ] = 30.0,
    rate: Annotated[float, typer.Option(help="Frame rate of picture sources, in frames per second.")] = 30.0,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of frames. Default: to the end.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder; several sources get a folder each in it.")] = Path(
        "runs/track"
    ),
) -> int:
    """Track people through videos and streams: poses per frame, MOT and COCO results, annotated video.

    Pass at most one of --boxes, --detector, --first-boxes; without them the bundle's detector finds the people.
    The output files stay readable even if the run is interrupted. A source that was damaged, ended early or could not
    be reopened counts as skipped.
    """
    from oaks.video import OneEuro, Preview, Tracker
    from oaks.video.outputs import StreamFiles, folders_for, track_into
    from oaks.video.sinks import frame_record

    if bool(boxes) + (detector.detector is not None) + (first_boxes is not None) > 1:
        raise ArgumentError("pass at most one of --boxes, --detector, --first-boxes")
    detector.check(boxes)
    if first_boxes is not None:
        options.leave_out({"--detector-threshold": detector.detector_threshold}, "with --first-boxes")
    looks: dict[str, Any] = {"absent": drawing.absent, "boxes": drawing.show_boxes, "trails": trails}
    with ExitStack() as stack:
        preview = Preview(**looks) if show else None  # before PyAV is imported (see Preview)
        if preview is not None:
            stack.callback(preview.close)
        sources = _sources(source, rate=rate, live=live, retry=retry)
        opened = stack.enter_context(engine.open(bundle))
        people = _box_sources(len(sources), boxes, category, detector, first_boxes, _every(every), opened)
        files = [
            StreamFiles(folder, own.id_in_results, looks if video else None)
            for folder, own in zip(folders_for(out, sources), people, strict=True)
        ]
        score, skeleton = gate_by or opened.score_kind, opened.bundle.skeleton
        tracker = Tracker(skeleton, gate=gate, score=score, patience=patience)
        output.say(options.about(opened, people[0].description))
        output.say(f"gate: {tracker.score} score {tracker.gate:g}")
        output.kept = f"what was written is in {out}"
        with output.progress("frames", _expected(sources, frames)) as advance:

            def done(frame: Frame, poses: Poses) -> None:
                if output.json:
                    record = frame_record(frame, poses, people[frame.stream].id_in_results)
                    output.item({"source": sources[frame.stream].name, **record})
                advance()

            summary = track_into(
                files, sources, opened, boxes=people, tracker=tracker, smoother=OneEuro() if smooth else None,
                most=frames, preview=preview, done=done,
            )  # fmt: skip
    _tell(output, summary)
    output.say(f"results: {', '.join(str(own.folder) for own in files)}")
    return DONE if summary.complete else SKIPPED


def _sources(named: Sequence[str], **settings: Any) -> list[FrameSource]:
    """Open a source for each name, and one source for several pictures, since shells expand globs.

    Shells put frame10 before frame2, so the pictures are brought into natural order. The first decides whether they are
    animations.
    """
    from oaks.animations import is_animation
    from oaks.images import SUFFIXES, natural_key
    from oaks.video import open_source

    pictures = all(Path(name).suffix.lower() in SUFFIXES for name in named)
    if len(named) > 1 and pictures and not is_animation(named[0]):
        return [open_source(sorted(named, key=natural_key), **settings)]
    return [open_source(name, **settings) for name in named]


def _box_sources(
    count: int,
    files: Sequence[Path],
    category: str | None,
    detector: options.DetectorOptions,
    first: str | None,
    every: int | None,
    engine: Engine,
) -> list[BoxSource]:
    """One box source for each of `count` sources."""
    from oaks.boxes import boxes_from_file, first_boxes

    if first is not None:
        return [first_boxes(_read_boxes(first))] * count
    if not files:
        instead = "--boxes, --detector, --first-boxes"
        return [options.detected_boxes(detector, engine, instead, every)] * count
    if len(files) != count:
        raise ArgumentError(f"--boxes must be given once for each of the {count} sources, got {len(files)}")
    return [boxes_from_file(path, every, category) for path in files]


def _every(text: str) -> int | None:
    """The value of --every: a number of frames, or None for the first frame only."""
    if text == "first":
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**9):
        raise ArgumentError(f"--every must be a positive integer or 'first', got {text!r}")
    return int(text)


def _read_boxes(text: str) -> list[list[float]]:
    try:
        return [[float(value) for value in box.split(",")] for box in text.split()]
    except ValueError as error:
        raise ArgumentError(
            f"--first-boxes must be x1,y1,x2,y2 with spaces between boxes, got {text!r}"
        ) from error


def _expected(sources: Sequence[FrameSource], most: int | None) -> int | None:
    """The expected number of frames, if known."""
    expected = [source.expected for source in sources if source.expected is not None]
    total = sum(expected) if len(expected) == len(sources) else None
    return total if most is None else min(most, most if total is None else total)


def _tell(output: Output, summary: Summary) -> None:
    for problem in summary.problems:
        output.warn(problem)
    rate = summary.frames / max(summary.seconds, 1e-9)
    output.say(
        f"{number_of(summary.frames, 'frame')}, {summary.dropped} dropped, {summary.damaged} damaged, "
        f"{summary.failed} failed; {number_of(summary.people, 'pose')} of {number_of(summary.tracks, 'track')}; "
        f"{rate:.1f} frames/s"
    )
    per_frame = 1000 / max(summary.frames, 1)
    stages = ", ".join(f"{name} {seconds * per_frame:.1f}" for name, seconds in summary.stages.items())
    output.say(f"ms per frame by stage (stages overlap): {stages}")
