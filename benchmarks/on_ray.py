"""What Ray costs: batches against a plain loop over the same Engine, and the service against the Engine alone.

    python benchmarks/on_ray.py [--bundle small] [--pictures 2000] [--turns 3] [--seconds 20] [--save]

Batches: pictures per second of a plain loop, of one worker and of two, with one thread each, in turns. Counted from
the first finished task to the last, so that starting Ray and the workers is apart. Service: persons per second when it
is saturated, the 99th percentile at half that load against one call, and the time of a 503 when the queue is full.
Every request is one person. It should be the only program that runs: two workers need two free cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import measure
import numpy as np
from rich.console import Console
from rich.table import Table

import oaks
import oaks.ray
import oaks.ray.cluster
from oaks.boxes import boxes_from_file
from oaks.images import read_image
from oaks.predict import DEMO, find_poses
from oaks.ray.serving import running

GOALS = {
    "overhead": 0.10, "two_workers": 1.7, "saturated": 0.85, "p99_at_half_load": 3.0, "full_p95_seconds": 0.050,
}  # fmt: skip
PLAIN, ONE, TWO = "plain loop", "Ray, 1 worker", "Ray, 2 workers"


def make_pictures(folder: Path, count: int) -> tuple[list[Path], Path]:
    """Copies of the package's own pictures, and a file of their people's boxes."""
    content = json.loads((DEMO / "people.json").read_text())
    originals, people = content["images"], content["annotations"]
    paths, images, annotations = [], [], []
    (folder / "pictures").mkdir()
    for number in range(count):
        original = originals[number % len(originals)]
        path = folder / "pictures" / f"{number:06}.jpg"
        shutil.copyfile(DEMO / original["file_name"], path)
        paths.append(path)
        images.append({**original, "id": number + 1, "file_name": path.name})
        for person in people:
            if person["image_id"] == original["id"]:
                annotations.append({**person, "id": len(annotations) + 1, "image_id": number + 1})
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    return paths, boxes


def rate(marks: list[tuple[float, int]]) -> float:
    """Pictures per second between the first mark and the last; a mark is (time, pictures finished since the one before)."""
    return sum(count for _, count in marks[1:]) / (marks[-1][0] - marks[0][0])


def plain_loop(bundle: str, backend: str, paths: list[Path], boxes: Path) -> float:
    """Pictures per second of a loop over an Engine with one thread."""
    marks = []
    with oaks.Engine(bundle, backend, threads=1) as engine:
        source = boxes_from_file(boxes, sequence=False)
        found = find_poses(engine, ((path, partial(read_image, path)) for path in paths), source)
        for number, _ in enumerate(found):
            if number % 8 == 7:
                marks.append((time.perf_counter(), 8))
    return rate(marks)


def on_ray(bundle: str, backend: str, paths: list[Path], boxes: Path, folder: Path, workers: int) -> float:
    """Pictures per second of a pool of Engines with one thread each."""
    marks: list[tuple[float, int]] = []
    shutil.rmtree(folder, ignore_errors=True)
    summary = oaks.ray.predict_files(
        paths, folder, bundle, boxes=boxes, workers=workers, threads=1, device="cpu", backend=backend,
        advance=lambda count: marks.append((time.perf_counter(), count)),
    )  # fmt: skip
    assert (summary.pictures, summary.errors, summary.unfinished) == (len(paths), {}, [])
    return rate(marks)


def batches(options: argparse.Namespace, folder: Path, console: Console) -> list[dict[str, object]]:
    """Rows of the first table."""
    paths, boxes = make_pictures(folder, options.pictures)
    given = options.bundle, options.backend, paths, boxes
    jobs = {
        PLAIN: lambda: plain_loop(*given),
        ONE: lambda: on_ray(*given, folder / "one", 1),
        TWO: lambda: on_ray(*given, folder / "two", 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    oaks.ray.connect()
    for turn in range(options.turns):
        for name, job in jobs.items():
            rates[name].append(job())
            console.print(f"turn {turn + 1}: {name}: {rates[name][-1]:.1f} pictures/s", highlight=False)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return [
        {
            "how": name, "pictures_per_second": medians[name], "of_plain_loop": medians[name] / medians[PLAIN],
            "of_one_worker": medians[name] / medians[ONE], "turns": rates[name],
        }
        for name in jobs
    ]  # fmt: skip


def call(
    host: str, picture: bytes, connection: http.client.HTTPConnection | None = None
) -> tuple[int, float]:
    """Status and seconds of one request."""
    own = connection or http.client.HTTPConnection(host, timeout=120)
    start = time.perf_counter()
    own.request("POST", "/predict?boxes=whole", picture)
    reply = own.getresponse()
    reply.read()
    seconds = time.perf_counter() - start
    if connection is None:
        own.close()
    return reply.status, seconds


def saturate(host: str, picture: bytes, callers: int, seconds: float) -> list[tuple[float, int, float]]:
    """Callers that ask again as soon as they are answered: (end, status, seconds) of each request."""

    def one(_number: int) -> list[tuple[float, int, float]]:
        done, connection = [], http.client.HTTPConnection(host, timeout=120)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            status, took = call(host, picture, connection)
            done.append((time.perf_counter(), status, took))
        connection.close()
        return done

    with ThreadPoolExecutor(callers) as pool:
        return [entry for own in pool.map(one, range(callers)) for entry in own]


def at_rate(host: str, picture: bytes, per_second: float, seconds: float) -> list[tuple[float, int, float]]:
    """Requests that come at random times, whether or not the ones before are answered."""
    random = np.random.default_rng(0)
    times = np.cumsum(random.exponential(1 / per_second, int(per_second * seconds)))
    begin = time.perf_counter()

    def one(at: float) -> tuple[float, int, float]:
        time.sleep(max(0.0, begin + at - time.perf_counter()))
        status, took = call(host, picture)
        return time.perf_counter(), status, took

    with ThreadPoolExecutor(64) as pool:
        return list(pool.map(one, times))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def engine_rate(
    bundle: str, backend: str, picture: np.ndarray, batch: int, seconds: float
) -> Iterator[float]:
    """Persons per second of the Engine alone, as `oaks benchmark` calls it; each next() measures again."""
    height, width = picture.shape[:2]
    with oaks.Engine(bundle, backend, threads=1, max_batch=batch) as engine:
        frames, boxes = [picture] * batch, [[[0, 0, width, height]]] * batch
        engine.infer(frames, boxes=boxes)
        while True:
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                engine.infer(frames, boxes=boxes)
                count += batch
            yield count / (time.perf_counter() - start)


def service(options: argparse.Namespace, console: Console) -> dict[str, object]:
    """The second table's figures: medians over the turns."""
    path, batch, queue = DEMO / "people_6.jpg", 8, 32
    picture = path.read_bytes()
    alone = engine_rate(options.bundle, options.backend, read_image(path), batch, options.seconds)
    found: dict[str, list[float]] = {}
    spawn = multiprocessing.get_context("spawn")  # the callers must not take the service's interpreter
    with (
        running(options.bundle, port=free_port(), replicas=1, threads=1, device="cpu", backend=options.backend,
                boxes="whole", queue=queue, max_batch=batch) as address,
        ProcessPoolExecutor(1, spawn) as callers,
    ):  # fmt: skip
        host = address.removeprefix("http://")
        callers.submit(saturate, host, picture, 4, 2.0).result()
        for turn in range(options.turns):
            engine = next(alone)
            once = callers.submit(saturate, host, picture, 1, options.seconds / 2).result()
            single = statistics.median(took for _, _, took in once)
            full = callers.submit(saturate, host, picture, 2 * batch, options.seconds).result()
            persons = len(full) / (max(end for end, _, _ in full) - min(end - took for end, _, took in full))
            half = callers.submit(at_rate, host, picture, persons / 2, options.seconds).result()
            refused = callers.submit(saturate, host, picture, 2 * queue, options.seconds / 2).result()
            times = [took for _, status, took in refused if status == 503]
            assert times, "the queue was never full"
            assert all(status == 200 for _, status, _ in [*once, *full, *half])
            assert {status for _, status, _ in refused} <= {200, 503}
            figures = {
                "engine_persons_per_second": engine, "service_persons_per_second": persons,
                "saturated": persons / engine, "one_call_seconds": single,
                "p99_at_half_load": float(np.percentile([took for _, _, took in half], 99)) / single,
                "full_p95_seconds": float(np.percentile(times, 95)), "requests": len(once) + len(full) + len(half),
            }  # fmt: skip
            console.print(f"turn {turn + 1}: {figures}", highlight=False)
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
    alone.close()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of the service")
    parser.add_argument("--only", choices=["batches", "service"])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/on_ray.json")
    options = parser.parse_args()
    if options.pictures < 64:
        parser.error(f"--pictures must be at least 64, got {options.pictures}")
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "service":
            rows += batches(options, Path(folder), console)
            table = Table(
                "how", "pictures/s", "of the plain loop", "of one worker", title="Batches, one thread each"
            )
            for row in rows:
                figures = (
                    f"{row[name]:.2f}" for name in ("pictures_per_second", "of_plain_loop", "of_one_worker")
                )
                table.add_row(row["how"], *figures)
            console.print(table)
            one, two = rows[1], rows[2]
            goal(console, "overhead of Ray", 1 - one["of_plain_loop"], GOALS["overhead"], most=True)
            goal(console, "two workers against one", two["of_one_worker"], GOALS["two_workers"])
        if options.only != "batches":
            figures = service(options, console)
            rows.append({"how": "service", **figures})
            table = Table("figure", "value", title="Service, one thread, one person a request")
            for name, value in figures.items():
                table.add_row(name, f"{value:.4g}")
            console.print(table)
            goal(console, "saturated, of the Engine's rate", figures["saturated"], GOALS["saturated"])
            for name in ("p99_at_half_load", "full_p95_seconds"):
                goal(console, name, figures[name], GOALS[name], most=True)
    oaks.ray.cluster.import_ray().shutdown()
    if options.save:
        machine = {
            "processor": measure.processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "bundle": options.bundle, "backend": options.backend, "pictures": options.pictures,
        }  # fmt: skip
        measure.save(Path(__file__).parent / "results" / "on_ray.json", machine, rows)


def goal(console: Console, what: str, value: float, aim: float, *, most: bool = False) -> None:
    met = value <= aim if most else value >= aim
    console.print(
        f"{what}: {value:.3f}, goal {'<=' if most else '>='} {aim}: {'met' if met else 'not met'}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
