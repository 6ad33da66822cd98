"""Measure the speed of bundles on this machine and, with annotations, their average precision."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks import executors
from oaks.arguments import check_count, is_integer
from oaks.bundle import Bundle
from oaks.coco_results import make_header
from oaks.errors import ArgumentError, BackendUnavailable, BundleError
from oaks.files import write_json
from oaks.inference import Engine

if TYPE_CHECKING:
    from rich.table import Table

    from oaks.val.ground_truth import GroundTruth

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_STAGES = ("read", "crop", "pose", "decode", "ks", "score", "rest")
_FRAME = (480, 640)
_TURN_SECONDS = 0.3


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        bundle: the bundle's name.
        persons_per_second: median over the turns.
        spread: half the distance between the quartiles, relative to the median.
        milliseconds: stage -> milliseconds per call of `batch` people. On a device they are measured in separate
            calls that wait after each stage.
        networks_share: the part of that time that the two networks take.
        average_precision: 0 to 1, over the annotations; None without.
    """

    bundle: str
    backend: str
    device: str
    precision: str
    batch: int
    persons_per_second: float
    spread: float
    milliseconds: Mapping[str, float]
    networks_share: float
    average_precision: float | None = None


@dataclass(frozen=True)
class _Job:
    engine: Engine
    batch: int
    frame: np.ndarray
    boxes: np.ndarray

    def run(self) -> None:
        self.engine.infer(self.frame, boxes=self.boxes)

    def rate(self) -> float:
        """Persons per second, measured over at least _TURN_SECONDS."""
        calls, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < _TURN_SECONDS or not calls:
            self.run()
            calls += 1
        return calls * self.batch / elapsed

    def stages(self) -> tuple[dict[str, float], float]:
        """Milliseconds per stage and the networks' share of the time, with a wait after each stage."""
        self.engine.staged = self.engine.device != "cpu"
        self.run()
        self.engine.timings.reset()
        for _ in range(5):
            self.run()
        self.engine.staged = False
        return self.engine.timings.milliseconds, self.engine.timings.networks_share


def benchmark(
    engines: Sequence[Engine], batches: Sequence[int], *, turns: int = 7, advance: Any = lambda: None
) -> list[Row]:
    """Time engines in turns, so that other load on the machine affects all of them equally.

    Args:
        engines: Engines whose max_batch is at least the largest batch.
        batches: people per call.
        turns: repetitions for each engine and batch size.
        advance: callback after each timing.
    """
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (*_FRAME, 3), dtype=np.uint8)
    jobs = []
    for engine in engines:
        for batch in batches:
            corners = random.uniform(0, [300, 150], (batch, 2))
            boxes = np.concatenate([corners, corners + random.uniform(90, 300, (batch, 2))], axis=1)
            jobs.append(_Job(engine, batch, frame, boxes.astype(np.float32)))
    for job in jobs:
        job.run()
    rates: list[list[float]] = [[] for _ in jobs]
    for _ in range(turns):
        for job, own in zip(jobs, rates, strict=True):
            own.append(job.rate())
            advance()
    rows = []
    for job, own in zip(jobs, rates, strict=True):
        low, median, high = statistics.quantiles(own, n=4) if len(own) > 1 else own * 3
        milliseconds, share = job.stages()
        engine = job.engine
        place = (engine.bundle.name, engine.backend, engine.device, engine.precision, job.batch)
        rows.append(Row(*place, median, (high - low) / (2 * median), milliseconds, share))
    return rows


def average_precision(engine: Engine, truth: GroundTruth, images: str | Path) -> float:
    """Return COCO's AP of an engine with ground-truth boxes.

    Raises:
        FileNotFoundError: every image is missing.
    """
    import tempfile

    from oaks.val.coco_eval import coco_metrics
    from oaks.val.detect import detect
    from oaks.val.detections import Detections

    with tempfile.TemporaryDirectory(prefix="oaks-") as folder:
        made = detect(engine, truth, images, Path(folder) / "results.json")
        found = Detections.load(made, truth)
    return coco_metrics(truth, found.image, found.keypoints, found.scores)["AP"]


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table; each rate is also given relative to the first row of its batch size."""
    from rich.table import Table

    made = Table(title="Persons per second, and where a call's milliseconds go")
    for name in ("bundle", "backend", "device", "precision"):
        made.add_column(name)
    for name in ("batch", "persons/s", "+-", "ratio", *_STAGES, "networks"):
        made.add_column(name, justify="right")
    scored = any(row.average_precision is not None for row in rows)
    if scored:
        made.add_column("AP", justify="right")
    first: dict[int, float] = {}
    for row in rows:
        base = first.setdefault(row.batch, row.persons_per_second)
        other = sum(value for name, value in row.milliseconds.items() if name not in _STAGES)
        stages = {**row.milliseconds, "rest": row.milliseconds.get("rest", 0.0) + other}
        cells = [
            row.bundle, row.backend, row.device, row.precision, str(row.batch), f"{row.persons_per_second:.1f}",
            f"{row.spread:.0%}", f"{row.persons_per_second / base:.2f}",
            *(f"{stages[name]:.2f}" if name in stages else "" for name in _STAGES),
            f"{row.networks_share:.1%}",
        ]  # fmt: skip
        if scored:
            cells.append("" if row.average_precision is None else f"{100 * row.average_precision:.1f}")
        made.add_row(*cells)
    return made


@dataclass(frozen=True)
class BenchmarkReport:
    """Results of a benchmark.

    Attributes:
        rows: one per bundle, backend, precision and batch size.
        missing: why a backend or precision was not timed.
        headers: how the rows were made, one per bundle that was timed.
    """

    rows: list[Row]
    missing: list[str]
    headers: list[dict[str, Any]]

    def save(self, path: str | Path) -> None:
        """Write the figures as JSON."""
        rows = [asdict(row) for row in self.rows]
        write_json(path, {"made": self.headers, "rows": rows, "missing": self.missing}, indent=1)


def benchmark_bundles(
    *bundles: str | Path | Bundle,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batches: Sequence[int] = (8,),
    device: str | None = None,
    flip: bool = True,
    threads: int | None = None,
    turns: int = 7,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    progress: Callable[[int], AbstractContextManager[Callable[[], object]]] = lambda _total: nullcontext(
        lambda: None
    ),
) -> BenchmarkReport:
    """Time bundles on backends and precisions, in turns.

    Args:
        bundles: at least one; the first is what ratios refer to.
        backends: None: all.
        precisions: None: all.
        batches: people per call.
        device, flip, threads: settings of the Engines; device None: each backend's default.
        turns: repetitions per configuration; the median is reported.
        annotations: COCO keypoint annotations; adds the average precision.
        images: folder of their images; None: as oaks.val.evaluate.images_folder finds it.
        progress: takes the number of timings and returns a context that yields a callback for each.

    Raises:
        ArgumentError: an argument is wrong.
        BackendUnavailable: annotations need packages that are not installed.
        FileNotFoundError: a bundle, the annotations, or every image, is missing.
    """
    if not bundles:
        raise ArgumentError("bundles must be one or more, got none")
    if not batches or not all(is_integer(size) and size >= 1 for size in batches):
        raise ArgumentError(f"batches must be integers of at least 1, got {list(batches)}")
    check_count("turns", turns)
    if annotations is None and images is not None:
        raise ArgumentError("images must come with annotations, got them alone")
    loaded = [bundle if isinstance(bundle, Bundle) else Bundle.load(bundle) for bundle in bundles]
    people = None if annotations is None else [_people(annotations, images, bundle) for bundle in loaded]
    available, missing = [], []
    for backend in backends or tuple(reversed(executors.BACKENDS)):
        module = executors.load_backend(backend)
        if reason := module.unavailable(device or module.default_device()):
            missing.append(f"{backend}: {reason}")
        else:
            available.append(backend)
    with ExitStack() as opened:
        engines = []
        for bundle, backend, precision in product(loaded, available, precisions or PRECISIONS):
            try:
                engine = Engine(
                    bundle, backend, flip, max_batch=max(batches), precision=precision, device=device, threads=threads
                )  # fmt: skip
            except (BackendUnavailable, BundleError, ArgumentError) as error:
                missing.append(f"{bundle.name}, {backend} {precision}: {error}")
                continue
            engines.append(opened.enter_context(engine))
        if not engines:
            return BenchmarkReport([], missing, [])
        with progress(len(engines) * len(batches) * turns) as advance:
            rows = benchmark(engines, batches, turns=turns, advance=advance)
        if people is not None:
            found = [average_precision(e, *people[loaded.index(e.bundle)]) for e in engines]
            rows = [replace(row, average_precision=found[n // len(batches)]) for n, row in enumerate(rows)]
        first = {engine.bundle: engine for engine in reversed(engines)}
        headers = [
            make_header(engine.describe(), box_source="synthetic", turns=turns)
            for engine in reversed(first.values())
        ]
        return BenchmarkReport(rows, missing, headers)


def _people(annotations: str | Path, images: str | Path | None, bundle: Bundle) -> tuple[GroundTruth, Path]:
    """Return the annotated people and the folder of their images, checked before minutes go into timing.

    Raises:
        BackendUnavailable: the packages of `oaks val` are not installed.
        FileNotFoundError: the annotations, or every image, is missing.
        ArgumentError: the annotations do not fit the bundle.
    """
    from oaks.val import require_packages

    require_packages()
    from oaks.val.detect import ReadableImages
    from oaks.val.evaluate import images_folder
    from oaks.val.ground_truth import GroundTruth

    truth = GroundTruth.load(annotations, skeleton=bundle.skeleton)
    folder = images_folder(annotations, images)
    ReadableImages(truth, folder, np.unique(truth.image[truth.counted]))
    return truth, folder


__all__ = ["BenchmarkReport", "Row", "average_precision", "benchmark", "benchmark_bundles", "table"]
