"""Poses in many pictures: a Ray Dataset of them, or files whose results go to a folder that can be resumed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from oaks import errors, ops
from oaks.arguments import check_count, check_threshold
from oaks.box_files import PersonBoxes, read_boxes
from oaks.boxes import BoxSource, boxes_of_people, missing_boxes
from oaks.bundle import Bundle
from oaks.errors import ArgumentError, OaksError
from oaks.inference import WHOLE, Engine
from oaks.predict import TOGETHER
from oaks.ray.cluster import Pool, choose_pool, connected, import_ray
from oaks.ray.folder import BatchFolder
from oaks.ray.sources import VIDEO, Task, find_sources, stored
from oaks.ray.worker import Attempts, FileWorker, RowWorker, WorkerSettings, whole_picture

if TYPE_CHECKING:
    import ray.data

BoxesFor = Callable[[Engine], BoxSource]
"""Function that returns the source of boxes for a worker's Engine."""

_TASKS_PER_WORKER = 32
"""Tasks of a run per worker. More would waste time between tasks; fewer would leave workers idle at the end."""
_LARGEST_TASK = 1024
"""Maximum picture files of a task. A task that is stopped midway is computed again."""

log = logging.getLogger("oaks")


@dataclass
class BatchSummary:
    """Totals of a run's folder, of this call and of those that it resumed.

    Attributes:
        folder: holds run.json, status.json and parts/.
        pictures: number of pictures and frames, with or without an error.
        people: number of poses in them.
        resumed: number of pictures that earlier calls finished.
        errors: address -> why it could not be read.
        unfinished: pictures and other files whose worker died in every attempt; the next call tries them again.
        results: file of COCO results, or None.
    """

    folder: Path
    pictures: int = 0
    people: int = 0
    resumed: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    results: Path | None = None


def predict(
    dataset: ray.data.Dataset,
    bundle: str | Path = "small",
    *,
    picture: str = "path",
    boxes: str | Path | BoxesFor | None = None,
    boxes_column: str | None = None,
    detector: str | Path | None = None,
    nms: float | None = ops.OKS_THRESHOLD,
    keep: Sequence[str] = (),
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    batch_size: int = 64,
    **engine: Any,
) -> ray.data.Dataset:
    """Find the poses in the pictures of a Ray Dataset, with a pool of Engines.

    Args:
        dataset: a row per picture.
        bundle: path or name of a bundle; the same on every machine.
        picture: column of pictures: paths, addresses, encoded images, or arrays (H, W, 3) uint8 RGB.
        boxes: "whole": each picture is one person; the path of a COCO file with boxes, read here; or a function that
            returns a BoxSource for a worker's Engine. None: a detector finds the people.
        boxes_column: column of boxes instead, (N, 4) xyxy in image pixels.
        detector: a person detector (oaks.Detector), on every machine; None: the bundle's.
        nms: OKS threshold for NMS of poses in detected boxes; None keeps all.
        keep: columns of a picture's row that are copied to the rows of its people.
        workers: Engines; None: one per GPU, or without GPUs one per `threads` CPUs.
        threads: CPU threads of an Engine; None: 4, fewer where no machine has 4. Ray reserves one CPU less, so that
            tasks which read or write the dataset can run.
        device: "cpu": no GPUs are used; None: GPUs are used where there are any.
        batch_size: pictures per batch of a worker.
        engine: further arguments of oaks.Engine: backend, flip, precision, max_batch, refine.

    Returns:
        A lazy dataset: a row per person; for a picture without people a row without a person; for a picture that cannot
        be read a row with `error`. docs/ray.md describes the columns.

    Raises:
        ArgumentError: an argument is wrong.
        BackendUnavailable: Ray is not installed.
        BundleError: the bundle is damaged.
    """
    if sum(source is not None for source in (boxes, boxes_column, detector)) > 1:
        raise ArgumentError("pass at most one of boxes, boxes_column, detector")
    check_count("batch_size", batch_size)
    if not import_ray().is_initialized():
        raise ArgumentError(
            "Ray must be connected before a dataset is used, got no connection; call oaks.ray.connect() first"
        )
    pool = choose_pool(workers, threads, device)
    settings = make_settings(bundle, boxes, detector, nms, pool, engine, required=boxes_column is None)
    return dataset.map_batches(
        RowWorker,
        fn_constructor_args=(settings, picture, boxes_column, tuple(keep)),
        batch_size=batch_size,
        batch_format="numpy",
        **_pool_arguments(pool, shared=True),
    )


def predict_files(
    sources: Sequence[str | Path],
    out: str | Path,
    bundle: str | Path = "small",
    *,
    address: str | None = None,
    boxes: str | Path | BoxesFor | None = None,
    detector: str | Path | None = None,
    nms: float | None = ops.OKS_THRESHOLD,
    column: str = "image",
    coco: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    start: Callable[[int, int], object] = lambda _left, _done: None,
    advance: Callable[[int], object] = lambda _pictures: None,
    **engine: Any,
) -> BatchSummary:
    """Find the poses in files with a pool of Engines, and write them to a folder of Parquet parts.

    A folder that exists is resumed: finished pictures and files are not computed again. A picture that cannot be read
    is a row with an error. A worker that dies is restarted, and its task starts over.

    Args:
        sources: files, folders and globs, on this machine or behind addresses that fsspec opens: pictures, tar
            shards, Parquet files and videos. Every machine of the cluster must reach them by the same name.
        out: folder on this machine.
        address: of a Ray cluster (oaks.ray.connect); None starts Ray on this machine.
        column: of encoded images in Parquet files.
        coco: whether COCO results are written too, once all is done.
        threads: CPU threads of an Engine; None: 4, fewer where no machine has 4.
        start: callback with the number of pictures and other files that are left, and of pictures finished before.
        advance: callback with the number of pictures or other files that were finished since the last call.
        bundle, boxes, detector, nms, workers, device, engine: as for `predict`.

    Raises:
        ArgumentError: an argument is wrong, or the folder holds a run with other settings.
        FileNotFoundError: a source names nothing.
        BackendUnavailable: Ray, or the package that opens an address, is not installed.
        BundleError: the bundle is damaged.
        ConnectionError: there is no cluster at the address.
        OaksError: no worker can start, or workers keep dying.
    """
    import_ray()
    inventory = find_sources(sources)
    if coco and (videos := [name for name, kind in inventory.others.items() if kind == VIDEO]):
        raise ArgumentError(
            f"coco must be False for videos, whose frames have no image ids, got {stored(videos[0])}"
        )
    loaded = Bundle.load(bundle)
    _check(loaded, boxes, detector, nms, required=True)
    described = {
        "bundle": str(bundle), "bundle_sha256": loaded.sha256, "boxes": _described(boxes, detector),
        "nms": nms, "column": column, **{name: engine[name] for name in sorted(engine)},
    }  # fmt: skip
    with BatchFolder(out, described) as folder:
        summary = BatchSummary(folder.path, resumed=folder.progress.pictures)
        left = len(inventory.pictures_left(folder.done))
        failed: list[Task] = []
        if inventory.tasks(folder.done, 1):
            with connected(address):
                pool = choose_pool(workers, threads, device)
                settings = make_settings(bundle, boxes, detector, nms, pool, engine, column=column)
                given = inventory.tasks(folder.done, task_size(left, pool.workers))
                start(sum(map(_weight, given)), summary.resumed)
                numbers = count()
                while given:
                    tasks = dict(zip(numbers, given, strict=False))
                    for number in _finished(folder, tasks, settings, pool):
                        advance(_weight(tasks.pop(number)))
                        folder.tell([*tasks.values(), *failed])
                    # Tasks in which workers died are tried once more picture by picture: one picture spoils no other.
                    given = [alone for task in tasks.values() for alone in task.split()]
                    failed += [task for task in tasks.values() if not task.split()]
        folder.tell(failed, now=True)
        summary.pictures, summary.people = folder.progress.pictures, folder.progress.people
        summary.errors = dict(folder.progress.errors)
        unfinished = (name for task in failed for name in task.pictures or (str(task.address),))
        summary.unfinished = list(map(stored, unfinished))
        if coco and not failed:
            places = {name: number for number, name in enumerate(map(stored, inventory.pictures), start=1)}
            # Pictures in shards have no place in the list of files: they are numbered behind it.
            summary.results = folder.write_coco(lambda name: places.setdefault(name, len(places) + 1))
    return summary


def _finished(folder: BatchFolder, tasks: dict[int, Task], settings: WorkerSettings, pool: Pool) -> Any:
    """Run tasks and commit their results; yield the number of each finished task."""
    if not tasks:
        return
    import pyarrow as pa
    import ray
    import ray.data
    import ray.exceptions

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # One block per task, so that each is finished, lost or repeated alone.
    blocks = [
        pa.table({
            "task": pa.array([number], pa.int64()), "kind": [task.kind],
            "address": pa.array([task.address], pa.string()),
            "pictures": pa.array([list(task.pictures)], pa.list_(pa.string())),
        })
        for number, task in tasks.items()
    ]  # fmt: skip
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    results = ray.data.from_arrow(blocks).map_batches(
        FileWorker,
        fn_constructor_args=(settings, attempts),
        batch_size=1,
        batch_format="pyarrow",
        **_pool_arguments(pool),
    )
    try:
        # Whole blocks: each is of one task.
        tables = results.iter_batches(batch_size=None, batch_format="pyarrow")
        for table in cast("Iterable[pa.Table]", tables):
            if table.num_rows and folder.add(table):
                yield table["task"][0].as_py()
    except ray.exceptions.RayError as error:
        raise _cause(error) from error


def _cause(error: Exception) -> Exception:
    """Return the error that a worker raised, without the one that Ray wraps around it."""
    cause: BaseException | None = error
    while cause is not None:
        inner = getattr(cause, "cause", None)
        if isinstance(inner, OaksError | OSError):
            return inner
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    # If a worker could not start, Ray returns only the text.
    named = re.fullmatch(r"oaks\.errors\.(\w+): (.*)", last.strip())
    kind = getattr(errors, named[1], None) if named else None
    return OaksError(f"the run on Ray failed: {last}") if named is None or kind is None else kind(named[2])


def _pool_arguments(pool: Pool, *, shared: bool = False) -> dict[str, Any]:
    """Arguments of map_batches for a pool of Engines.

    Args:
        pool: the pool.
        shared: whether tasks of the caller's dataset run too. They would wait forever if Engines reserved every CPU, so
            each Engine reserves one CPU less than it uses.
    """
    import ray.data

    return {
        "compute": ray.data.ActorPoolStrategy(min_size=1, max_size=pool.workers, initial_size=pool.workers),
        "num_cpus": pool.threads - 1 if shared else pool.threads,
        "num_gpus": pool.gpus,
    }


def make_settings(
    bundle: str | Path,
    boxes: str | Path | BoxesFor | None,
    detector: str | Path | None,
    nms: float | None,
    pool: Pool,
    engine: dict[str, Any],
    *,
    column: str = "image",
    required: bool = True,
) -> WorkerSettings:
    """Settings of the workers, checked before any worker starts.

    Raises:
        ArgumentError: the arguments and the bundle do not tell where people are, though they must (`required`); or `nms`
            is out of range.
    """
    loaded = Bundle.load(bundle)
    _check(loaded, boxes, detector, nms, required=required)
    return WorkerSettings(
        # A shipped bundle keeps its name: other machines have it elsewhere.
        str(Path(bundle).absolute()) if Path(bundle).exists() else str(bundle),
        loaded.sha256,
        _boxes_for(boxes),
        nms,
        {
            **engine,
            "threads": pool.threads,
            "device": "cuda" if pool.gpus else "cpu",
            "detector": None if detector is None else str(detector),
        },
        pool.threads,
        column,
    )


def _check(
    bundle: Bundle,
    boxes: str | Path | BoxesFor | None,
    detector: str | Path | None,
    nms: float | None,
    *,
    required: bool,
) -> None:
    if nms is not None:
        check_threshold("nms", nms)
    if boxes is not None and detector is not None:
        raise ArgumentError("pass at most one of boxes, detector")
    if required and boxes is None and detector is None and not bundle.has("detector"):
        instead = f"boxes, boxes={WHOLE!r} for pictures of one person each, or detector"
        raise missing_boxes(bundle.name, instead)


def _boxes_for(boxes: str | Path | BoxesFor | None) -> BoxesFor | None:
    if boxes is None or callable(boxes):
        return boxes
    return whole_picture if str(boxes) == WHOLE else partial(_from_people, read_boxes(boxes))


def _from_people(people: PersonBoxes, _engine: Engine) -> BoxSource:
    return boxes_of_people(people, sequence=False)


def _described(boxes: str | Path | BoxesFor | None, detector: str | Path | None) -> str:
    """Return the origin of the boxes, for run.json."""
    if detector is not None:
        return f"detector: {detector}"
    if callable(boxes):
        return str(getattr(boxes, "description", "function"))
    return "the bundle's detector" if boxes is None else str(boxes)


def task_size(pictures: int, workers: int) -> int:
    """Return the picture files per task: whole passes of the networks, and few enough for workers to end together."""
    share = -(-pictures // (workers * _TASKS_PER_WORKER * TOGETHER)) * TOGETHER
    return min(max(share, TOGETHER), _LARGEST_TASK)


def _weight(task: Task) -> int:
    return len(task.pictures) or 1


__all__ = ["BatchSummary", "BoxesFor", "make_settings", "predict", "predict_files", "task_size"]
