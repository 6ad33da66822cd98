"""Files of tracked streams: annotated video, poses per frame, and MOT and COCO results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oaks.boxes import BoxSource, number_from_one
from oaks.coco_results import header_path, make_header
from oaks.files import held, write_json
from oaks.inference import Engine
from oaks.names import file_name
from oaks.poses import Poses
from oaks.timings import Timings
from oaks.video.annotated import AnnotatedVideo, EncodingError
from oaks.video.frames import Frame
from oaks.video.preview import Preview
from oaks.video.sinks import CocoFile, JsonLines, MotFile, Sink
from oaks.video.smoothing import OneEuro
from oaks.video.sources import FrameSource
from oaks.video.stream import Summary, track
from oaks.video.threads import WriteBehind
from oaks.video.tracking import Tracker

_QUEUE = 4  # maximum number of frames waiting to be drawn and written


@dataclass(frozen=True)
class StreamFiles:
    """Output files of a stream, and how poses are drawn.

    Attributes:
        folder: gets poses.jsonl, results.json (COCO), results.header.json, tracks.txt (MOT), annotated.mp4. If the
            process is killed, poses.jsonl and tracks.txt hold every frame, and results.json may lack the newest
            (oaks.video.CocoFile).
        image_id: frame -> the image id of its rows.
        video: how annotated.mp4 is drawn (arguments of AnnotatedVideo); None: it is not written.
        problems: why annotated.mp4 ends early, if it does; the other files are complete.
    """

    folder: Path
    image_id: Callable[[Frame], int] = number_from_one
    video: Mapping[str, Any] | None = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def open(self, timings: Timings) -> Iterator[Callable[[tuple[Frame, Poses]], object]]:
        """Context of a function that takes the stream's frames; a thread draws and writes them."""
        with ExitStack() as stack:
            sinks: list[tuple[str, Sink]] = []

            def add(stage: str, sink: Sink) -> None:
                sinks.append((stage, sink))
                stack.callback(sink.close)

            add("write", JsonLines(self.folder / "poses.jsonl", self.image_id))
            add("write", CocoFile(self.folder / "results.json", self.image_id))
            add("write", MotFile(self.folder / "tracks.txt"))
            if self.video is not None:
                add("draw", AnnotatedVideo(self.folder / "annotated.mp4", **self.video))

            def write(item: tuple[Frame, Poses]) -> None:
                for stage, sink in list(sinks):
                    with timings.stage(stage):
                        try:
                            sink.write(*item)
                        except EncodingError as error:
                            sinks.remove((stage, sink))
                            self.problems.append(str(error))

            behind = WriteBehind(write, _QUEUE)
            stack.callback(behind.close)
            yield behind


def track_into(
    outputs: Sequence[StreamFiles],
    sources: Sequence[FrameSource],
    engine: Engine,
    *,
    boxes: Sequence[BoxSource],
    tracker: Tracker,
    smoother: OneEuro | None,
    most: int | None = None,
    preview: Preview | None = None,
    done: Callable[[Frame, Poses], object] = lambda _frame, _poses: None,
    **settings: Any,
) -> Summary:
    """Track people through sources and write the results of each source.

    Args:
        outputs, sources, boxes: one of each for every stream.
        most: maximum number of frames; None: up to the end of the sources.
        preview: shows the frames; a user who ends it ends the run.
        done: callback for each frame.
        settings: for `track`.

    Raises:
        ArgumentError: another run is writing into a folder.
        OSError: a file cannot be written.
    """
    summary, timings = Summary(), [Timings() for _ in outputs]

    def write_headers(complete: bool) -> None:
        for output, own in zip(outputs, boxes, strict=True):
            header = make_header(
                engine.describe(), box_source=own.description, every=own.every, gate=tracker.gate, gated_by=tracker.score,
                patience=tracker.patience, smoothed=smoother is not None, dropped=summary.dropped, damaged=summary.damaged,
                failed=summary.failed, problems=summary.problems, complete=complete,
            )  # fmt: skip
            write_json(header_path(output.folder / "results.json"), header, indent=1)

    with ExitStack() as folders:
        for output in outputs:
            output.folder.mkdir(parents=True, exist_ok=True)
            folders.enter_context(held(output.folder))
        write_headers(complete=False)  # the header's content if the run is killed or the disk is full
        complete = False
        try:
            with ExitStack() as stack:
                writers = [
                    stack.enter_context(output.open(own))
                    for output, own in zip(outputs, timings, strict=True)
                ]
                tracked = track(
                    sources,
                    engine,
                    boxes=boxes,
                    tracker=tracker,
                    smoother=smoother,
                    summary=summary,
                    **settings,
                )
                stack.callback(tracked.close)
                for frame, poses in tracked:
                    writers[frame.stream]((frame, poses))
                    done(frame, poses)
                    if preview is not None:
                        preview.write(frame, poses)
                    if summary.frames == most or (preview is not None and preview.ended):
                        break
                else:  # a run that stops early may not have reached the frames with boxes
                    unmatched = [problem for own in dict.fromkeys(boxes) if (problem := own.unmatched())]
                    summary.problems += unmatched
                    summary.complete &= not unmatched
            for output in outputs:
                summary.problems += output.problems
                summary.complete &= not output.problems
            complete = summary.complete
        finally:  # keep the results so far when the run is stopped
            for own in timings:
                summary.add_stages(own.seconds)
            write_headers(complete)
    return summary


def folders_for(out: str | Path, sources: Sequence[FrameSource]) -> list[Path]:
    """The output folder of each source: `out` for a single one, otherwise a subfolder each."""
    if len(sources) == 1:
        return [Path(out)]
    return [
        Path(out) / f"{number}_{file_name(Path(file_name(source.name)).stem)}"
        for number, source in enumerate(sources, start=1)
    ]


__all__ = ["StreamFiles", "folders_for", "track_into"]
