"""Constant memory over long videos; benchmarks/video_memory.py runs an hour of video."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import bundles
import numpy as np

import oaks
from oaks.video import BoxSource, Frame, OneEuro, Tracker, open_source
from oaks.video.outputs import StreamFiles, track_into

FRAMES, WARM, ROOM = 500, 200, 100_000


def walkers(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Two people who cross every 30 frames."""
    x = abs(frame.index % 30 - 15) * 6
    return np.array([(x, 8, x + 40, 60), (90 - x, 8, 130 - x, 60)], np.float32), np.ones(2, np.float32)


def test_memory_does_not_grow_after_the_first_frames(tmp_path):
    """Memory of Python and NumPy while all files are written; the rows alone exceed ROOM."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (64, 136, 3), dtype=np.uint8) for _ in range(30)]
    frames = (Frame(images[n % 30], n, n, Fraction(1, 30)) for n in range(FRAMES))
    held: dict[int, int] = {}

    def done(frame: Frame, _poses: oaks.Poses) -> None:
        if frame.index in (WARM, FRAMES - 1):
            held[frame.index] = tracemalloc.get_traced_memory()[0]

    bundle = bundles.write(tmp_path / "tiny")
    tracker = Tracker(bundles.RGB, gate=0.0)
    tracemalloc.start()
    try:
        with oaks.Engine(bundle, "onnxruntime") as engine:
            summary = track_into(
                [StreamFiles(tmp_path / "out")], [open_source(frames)], engine, boxes=[BoxSource("walkers", walkers)],
                tracker=tracker, smoother=OneEuro(), done=done,
            )  # fmt: skip
    finally:
        tracemalloc.stop()
    assert summary.frames == FRAMES
    assert (tmp_path / "out" / "results.json").stat().st_size > 3 * ROOM, "rows that were kept would be seen"
    # The number of poses in the queues varies.
    assert held[FRAMES - 1] - held[WARM] < ROOM
