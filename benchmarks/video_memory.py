"""Memory of the process during an hour of video in `oaks track`: after the first minute and at the end.

    python benchmarks/video_memory.py [--minutes 60] [--bundle NAME] [--size 320 240]

A short clip is repeated. Two people who cross are found in every frame, tracked, smoothed, drawn, and written to every
kind of file. Without a bundle, the network is one convolution, so that everything around the network takes the time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import oaks
from oaks.video import BoxSource, Frame, OneEuro, Tracker, open_source
from oaks.video.outputs import StreamFiles, track_into

RATE = 30
CLIP = 300  # frames until it begins again


def resident() -> int:
    """Return the bytes of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_convolution(folder: Path) -> Path:
    """Write the tests' bundle of one convolution."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import bundles

    return bundles.write(folder / "tiny").path


def write_clip(path: Path, size: tuple[int, int]) -> Path:
    """Write a clip of drifting noise, which is hard for the encoder."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (size[1] // 8, size[0] // 8 + CLIP, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(CLIP):
            image = noise[:, n : n + size[0] // 8].repeat(8, axis=0).repeat(8, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def looped(path: Path, count: int) -> Iterator[Frame]:
    """Yield `count` frames of a clip that is repeated."""
    index = 0
    while True:
        for frame in open_source(path):
            if index == count:
                return
            yield replace(frame, index=index, pts=round(index / RATE / frame.time_base))
            index += 1


def crossing(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of two people who walk to and fro, and their scores."""
    height, width = frame.image.shape[:2]
    way = abs(frame.index % CLIP - CLIP / 2) / (CLIP / 2) * 0.75 * width
    lefts = (way, 0.75 * width - way)
    boxes = [(left, 0.1 * height, left + 0.25 * width, 0.9 * height) for left in lefts]
    return np.array(boxes, np.float32), np.ones(2, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--bundle")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240))
    parser.add_argument("--out", help="folder of the results; default: a temporary folder")
    options = parser.parse_args()
    count, minute = round(options.minutes * 60 * RATE), 60 * RATE
    marks: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        task = progress.add_task("frames", total=count)

        def done(frame: Frame, _poses: oaks.Poses) -> None:
            progress.advance(task)
            passed = frame.index + 1
            if passed == minute or passed % max(count // 6, 1) == 0:
                marks[passed] = resident()

        clip = write_clip(Path(folder) / "clip.mp4", tuple(options.size))
        out = Path(options.out or folder) / "results"
        with oaks.Engine(options.bundle or one_convolution(Path(folder))) as engine:
            summary = track_into(
                [StreamFiles(out)],
                [open_source(looped(clip, count))],
                engine,
                boxes=[BoxSource("two people who cross", crossing)],
                tracker=Tracker(engine.bundle.skeleton, score=engine.score_kind, gate=0.0),
                smoother=OneEuro(),
                done=done,
            )
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 2**20:.0f}" for path in sorted(out.iterdir()))
    table = Table(
        title=f"{engine.bundle.name} on {engine.backend}, {summary.frames / summary.seconds:.0f} frames/s"
    )
    for name in ("frames", "of video", "MiB", "MiB more than after a minute"):
        table.add_column(name, justify="right")
    first = marks.get(minute, next(iter(marks.values())))
    for done, held in marks.items():
        more = f"{(held - first) / 2**20:+.2f}"
        table.add_row(f"{done:,}", f"{done / minute:.0f} min", f"{held / 2**20:.1f}", more)
    Console().print(table)
    print(f"{summary.frames:,} frames, {summary.people:,} poses, {summary.tracks:,} tracks; MiB: {sizes}")
    stages = ", ".join(f"{name} {1000 * s / summary.frames:.2f}" for name, s in summary.stages.items())
    print(f"ms per frame by stage (stages overlap): {stages}")


if __name__ == "__main__":
    main()
