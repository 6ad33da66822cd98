"""The worker processes of Ray: each has one Engine and computes tasks or rows."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.boxes import Boxes, BoxSource, boxes_from_detector, whole_image
from oaks.errors import ArgumentError, OaksError
from oaks.inference import Engine
from oaks.predict import TOGETHER, find_poses
from oaks.ray import rows, sources

if TYPE_CHECKING:
    import pyarrow as pa

_ATTEMPTS = 2
"""Workers that may die in a task before the task is given up."""
_GIVEN_UP = 100
_ROWS = 1024
"""Frames of a video or pictures of a shard whose rows leave the worker together."""

Pictures = Iterable[tuple[str, Callable[[], np.ndarray]]]

log = logging.getLogger("oaks")


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of the workers, all of which get the same; picklable.

    Attributes:
        bundle: path or name of the bundle, on every machine.
        sha256: of the bundle on the caller's machine; another one is refused.
        boxes: function that returns the source of boxes for a worker's Engine; None: the Engine's detector.
        nms: OKS threshold, or None.
        engine: further arguments of Engine.
        readers: threads that read and decode pictures ahead.
        column: of encoded images in Parquet files.
    """

    bundle: str
    sha256: str
    boxes: Callable[[Engine], BoxSource] | None = None
    nms: float | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    readers: int = 1
    column: str = "image"

    def open_engine(self) -> Engine:
        """Open the Engine.

        Raises:
            ArgumentError: this machine has another bundle of that name.
        """
        engine = Engine(self.bundle, **self.engine)
        if engine.bundle.sha256 != self.sha256:
            raise ArgumentError(
                f"bundle {self.bundle!r} must be the same on every machine, got SHA-256 {engine.bundle.sha256} here "
                f"and {self.sha256} where the run was started"
            )
        return engine

    def source(self, engine: Engine) -> BoxSource | None:
        """Return the source of boxes for an Engine; None without `boxes` and without a detector."""
        if self.boxes is not None:
            return self.boxes(engine)
        return boxes_from_detector(engine.detector) if engine.has_detector else None


def whole_picture(_engine: Engine) -> BoxSource:
    """WorkerSettings.boxes for pictures of one person each."""
    return whole_image()


class Attempts:
    """Counts the attempts at each task; one actor for all workers. A task in which workers keep dying is given up."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._given_up = 0

    def begin(self, task: int) -> bool:
        """Return whether a task should be tried, for the first time or again.

        Raises:
            OaksError: so many tasks were given up that their pictures cannot be the reason.
        """
        self._begun[task] = self._begun.get(task, 0) + 1
        if self._begun[task] <= _ATTEMPTS:
            return True
        self._given_up += 1
        if self._given_up > _GIVEN_UP:
            raise OaksError(f"workers died in more than {_GIVEN_UP} tasks; Ray's logs say why")
        return False


class FileWorker:
    """Poses in the pictures of tasks; a callable class for Ray Data.

    It takes tables with the columns task, kind, address and pictures, and yields rows of `rows.schema` with two more
    columns: task, and about, which is set in the last row of a task and null in all others.

    Args:
        settings: how poses are made.
        attempts: actor of Attempts; None tries every task.
    """

    def __init__(self, settings: WorkerSettings, attempts: Any = None) -> None:
        self.settings, self._attempts = settings, attempts
        self.engine = settings.open_engine()
        boxes = settings.source(self.engine)
        assert boxes is not None  # make_settings has checked it
        self.boxes = boxes
        self._readers = ThreadPoolExecutor(settings.readers)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            if self._attempts is not None:
                import ray

                if not ray.get(self._attempts.begin.remote(row["task"])):
                    continue
            task = sources.Task(row["kind"], row["address"], tuple(row["pictures"]))
            yield from self._labeled(row["task"], task)

    def _labeled(self, number: int, task: sources.Task) -> Iterator[pa.Table]:
        import pyarrow as pa

        found = restarting(self._found(task))
        part = list(islice(found, _ROWS))
        while part:
            following = list(islice(found, _ROWS))
            table = rows.to_table(part)
            ends: list[str | None] = [None] * table.num_rows
            if not following:
                ends[-1] = self._about(task)
            table = table.append_column("task", pa.array([number] * table.num_rows, pa.int64()))
            yield table.append_column("about", pa.array(ends, pa.string()))
            part = following

    def _about(self, task: sources.Task) -> str:
        made = {**self.engine.describe(), "box_source": self.boxes.description}
        nms = self.settings.nms if self.boxes.detected else None
        skeleton, kind = self.engine.bundle.skeleton, self.engine.score_kind
        return rows.about(
            skeleton, kind, made=made, nms=nms, source=task.address and sources.stored(task.address)
        )

    def _found(self, task: sources.Task) -> Iterator[rows.Found]:
        """Yield the result for each picture or frame of a task; at least one entry."""
        if task.kind == sources.PICTURES:
            yield from self._poses(
                (sources.stored(name), sources.picture_reader(name)) for name in task.pictures
            )
            return
        address, count = str(task.address), 0
        name = sources.stored(address)  # what the log of a worker may hold
        try:
            for found in self._inside(task.kind, address):
                count += 1
                yield found
        except (ValueError, OSError, OaksError) as error:
            reason = str(error).removeprefix(f"{name}: ") or type(error).__name__
            yield rows.Found(name, error=reason)
        else:
            if not count:
                yield rows.Found(name, error="holds no pictures")

    def _inside(self, kind: str, address: str) -> Iterator[rows.Found]:
        if kind == sources.VIDEO:
            return self._video(address)
        if kind == sources.TAR:
            return self._poses(sources.tar_pictures(address))
        return self._poses(sources.parquet_pictures(address, self.settings.column))

    def _poses(self, pictures: Pictures) -> Iterator[rows.Found]:
        return poses_of(self.engine, self.boxes, self.settings.nms, ahead(pictures, self._readers))

    def _video(self, address: str) -> Iterator[rows.Found]:
        """Yield the tracked people of each frame, as `oaks track` finds them."""
        from oaks.video import OneEuro, Summary, track

        summary = Summary()
        with sources.local_copy(address) as path:
            frames = track(path, self.engine, boxes=self.boxes, smoother=OneEuro(), summary=summary)
            for frame, poses in frames:
                height, width = frame.image.shape[:2]
                yield rows.Found(address, poses, (width, height), frame=frame.index, time=frame.time)
        if not summary.complete:
            yield rows.Found(address, error="; ".join(summary.problems) or "damaged")


class RowWorker:
    """Poses in the pictures of a dataset's rows; a callable class for Ray Data.

    Args:
        settings: how poses are made.
        picture: column of pictures: addresses, encoded images, or arrays (H, W, 3) uint8 RGB.
        boxes: column of boxes (N, 4) xyxy, or None.
        keep: columns that each person's row gets from its picture's row.
    """

    def __init__(
        self, settings: WorkerSettings, picture: str, boxes: str | None, keep: tuple[str, ...]
    ) -> None:
        self.settings, self.picture, self.column, self.keep = settings, picture, boxes, keep
        self.engine = settings.open_engine()
        self.boxes = None if boxes is not None else settings.source(self.engine)
        self._readers = ThreadPoolExecutor(settings.readers)

    def __call__(self, batch: Mapping[str, Any]) -> pa.Table:
        import pyarrow as pa

        values = batch[self.picture]
        names = [str(number) for number in range(len(values))]
        boxes = self.boxes
        if self.column is not None:
            given = dict(zip(names, batch[self.column], strict=True))
            boxes = BoxSource(f"column {self.column}", lambda image: _boxes_of(given[image.name]))
        assert boxes is not None  # make_settings has checked it
        pictures = zip(names, map(_value_reader, values), strict=True)
        found = poses_of(self.engine, boxes, self.settings.nms, ahead(pictures, self._readers))
        table = rows.to_table(found)
        # The pictures' names are the numbers of their rows.
        origin = np.array(table["file"].to_pylist(), np.int64)
        files = [value if isinstance(value, str) else None for value in values]
        table = table.set_column(0, "file", pa.array([files[i] for i in origin], pa.string()))
        for name in self.keep:
            table = table.append_column(name, pa.array([batch[name][i] for i in origin]))
        return table


def _boxes_of(value: Any) -> Boxes:
    corners = np.array([] if value is None else [list(box) for box in value], np.float32).reshape(-1, 4)
    return corners, np.ones(len(corners), np.float32)


def _value_reader(value: Any) -> Callable[[], np.ndarray]:
    if isinstance(value, str):
        return sources.picture_reader(value)
    if isinstance(value, bytes):
        return sources.decoder(value, "picture")

    def array() -> np.ndarray:
        pixels = np.asarray(value)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ArgumentError(f"picture must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
        return np.ascontiguousarray(pixels[..., ::-1])

    return array


def poses_of(engine: Engine, boxes: BoxSource, nms: float | None, pictures: Pictures) -> Iterator[rows.Found]:
    """Yield the result for each picture; damaged pictures have an error."""
    for prediction, image in find_poses(engine, pictures, boxes, nms=nms):
        name = str(prediction.path)
        if image is None:
            yield rows.Found(name, error=prediction.problem)
        else:
            size = (image.shape[1], image.shape[0])
            yield rows.Found(name, prediction.poses, size, prediction.problem, prediction.image_id)


def ahead(pictures: Pictures, readers: ThreadPoolExecutor) -> Pictures:
    """Read pictures ahead in threads, as many as share a pass of the networks."""
    waiting: deque[tuple[str, Future[np.ndarray]]] = deque()
    remaining = iter(pictures)
    while True:
        for name, read in islice(remaining, TOGETHER - len(waiting)):
            waiting.append((name, readers.submit(read)))
        if not waiting:
            return
        name, future = waiting.popleft()
        yield name, future.result


def restarting(found: Iterator[rows.Found]) -> Iterator[rows.Found]:
    """Yield the same results. An error of the Engine ends this process; Ray starts a new one with a new Engine."""
    try:
        yield from found
    except Exception:
        log.exception("the Engine failed; its process ends and is started again")
        logging.shutdown()
        os._exit(1)


__all__ = ["FileWorker", "RowWorker", "WorkerSettings", "ahead", "poses_of", "restarting", "whole_picture"]
