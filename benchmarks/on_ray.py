"""The cost of Ray: batches beside a plain loop over the same Engine, and the service beside the Engine alone.

    python benchmarks/on_ray.py [--bundle tiny] [--pictures 2000] [--turns 3] [--seconds 10] [--minutes 7] [--save]

Every picture and every request is one person. Batches: pictures per second of a plain loop, of one worker and of two,
with one thread each, in turns; counted from the first finished task to the last, so that the start of Ray and the workers
does not count. Service: persons per second when it is saturated, the 99th percentile at half that load relative to one call,
and the time of a 503 when more requests arrive than can be served. Medians over the turns; a turn that would not end within
--minutes is left out, and the tables give the number of turns. Nothing else should run: two workers need two free cores.
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
from rich import box
from rich.console import Console
from rich.table import Table

import oaks
import oaks.ray
import oaks.ray.cluster
from oaks.boxes import boxes_from_file
from oaks.files import write_json, write_text
from oaks.images import read_image
from oaks.predict import DEMO, find_poses
from oaks.ray.serving import running

FIGURES = {
    "engine_persons_per_second": "persons per second, the Engine alone",
    "service_persons_per_second": "persons per second, the service saturated",
    "saturated": "of the Engine's rate",
    "one_call_seconds": "seconds of one call",
    "p99_at_half_load": "99th percentile at half load, in calls",
    "full_p95_seconds": "seconds of a 503 at twice the load that it can serve, 95th percentile",
    "storm_p95_seconds": "the same, of callers that ask again at once instead of after Retry-After",
    "requests": "requests answered in a turn",
}
BATCHES_SHARE = 0.7
"""Of --minutes; the service gets the rest."""
PLAIN, ONE, TWO = "plain loop", "Ray, 1 worker", "Ray, 2 workers"


def make_pictures(folder: Path, count: int) -> tuple[list[Path], Path]:
    """Copy the package's pictures; return the copies, and a file with the box of one person in each."""
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
        person = next(person for person in people if person["image_id"] == original["id"])
        annotations.append({**person, "id": number + 1, "image_id": number + 1})
    boxes = folder / "boxes.json"
    write_json(boxes, {**content, "images": images, "annotations": annotations})
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


def turns(most: int, seconds: float) -> Iterator[int]:
    """Yield numbers of turns, at least one, as long as another turn like the longest so far would end in time."""
    begin, longest = time.perf_counter(), 0.0
    for turn in range(most):
        start = time.perf_counter()
        if turn and start - begin + longest > seconds:
            return
        yield turn
        longest = max(longest, time.perf_counter() - start)


def batches(options: argparse.Namespace, folder: Path, console: Console) -> list[dict[str, object]]:
    """Return the rows of the first table."""
    paths, boxes = make_pictures(folder, options.pictures)
    given = options.bundle, options.backend, paths, boxes
    jobs = {
        PLAIN: lambda: plain_loop(*given),
        ONE: lambda: on_ray(*given, folder / "one", 1),
        TWO: lambda: on_ray(*given, folder / "two", 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    oaks.ray.connect()
    for turn in turns(options.turns, 60 * options.minutes * BATCHES_SHARE):
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
    """Return the status and the seconds of one request."""
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
    """Run callers that ask again as soon as they are answered; return (end, status, seconds) of each request."""

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
    """Send requests at random times, whether or not earlier ones are answered; return as `saturate` does."""
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
    """Yield persons per second of the Engine alone, as `oaks benchmark` calls it; each next() measures again."""
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
    """Return the figures of the second table: medians over the turns."""
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
        for turn in turns(options.turns, 60 * options.minutes * (1 - BATCHES_SHARE)):
            engine = next(alone)
            once = callers.submit(saturate, host, picture, 1, options.seconds / 2).result()
            single = statistics.median(took for _, _, took in once)
            full = callers.submit(saturate, host, picture, 2 * batch, options.seconds).result()
            persons = len(full) / (max(end for end, _, _ in full) - min(end - took for end, _, took in full))
            half = callers.submit(at_rate, host, picture, persons / 2, options.seconds).result()
            double = callers.submit(at_rate, host, picture, 2 * persons, options.seconds).result()
            storm = callers.submit(saturate, host, picture, 2 * queue, options.seconds / 2).result()
            assert all(status == 200 for _, status, _ in [*once, *full, *half])
            assert {status for _, status, _ in [*double, *storm]} == {200, 503}, "the queue was never full"
            refused, stormed = (
                [took for _, status, took in answers if status == 503] for answers in (double, storm)
            )
            figures = {
                "engine_persons_per_second": engine, "service_persons_per_second": persons,
                "saturated": persons / engine, "one_call_seconds": single,
                "p99_at_half_load": float(np.percentile([took for _, _, took in half], 99)) / single,
                "full_p95_seconds": float(np.percentile(refused, 95)),
                "storm_p95_seconds": float(np.percentile(stormed, 95)), "requests": len(once) + len(full) + len(half),
            }  # fmt: skip
            console.print(f"turn {turn + 1}: {figures}", highlight=False)
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
    alone.close()
    made: dict[str, object] = {name: statistics.median(values) for name, values in found.items()}
    return {**made, "turns": len(found["saturated"])}


def machine(options: argparse.Namespace) -> dict[str, object]:
    return {
        "processor": measure.processor(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        "bundle": options.bundle, "backend": options.backend, "pictures": options.pictures,
    }  # fmt: skip


def batches_table(rows: list[dict[str, object]]) -> Table:
    title = f"Batches, one thread for each Engine, turns: {len(rows[0]['turns'])}"
    table = Table("", "pictures/s", "of the plain loop", "of one worker", title=title, box=box.MARKDOWN)
    for row in rows:
        figures = (row[name] for name in ("pictures_per_second", "of_plain_loop", "of_one_worker"))
        table.add_row(str(row["how"]), *(f"{figure:.2f}" for figure in figures))
    return table


def service_table(figures: dict[str, object]) -> Table:
    title = f"Service, one Engine with one thread, turns: {figures['turns']}"
    table = Table("", "", title=title, box=box.MARKDOWN)
    for name, text in FIGURES.items():
        table.add_row(text, f"{figures[name]:.3g}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3, help="at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement of the service")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="for all turns together, without the start of Ray"
    )
    parser.add_argument("--only", choices=["batches", "service"])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/on_ray.json and .txt")
    options = parser.parse_args()
    if options.pictures < 64:
        parser.error(f"--pictures must be at least 64, got {options.pictures}")
    about = machine(options)  # the load before anything is measured
    console, tables, rows = Console(), [], []
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "service":
            rows += batches(options, Path(folder), console)
            tables.append(batches_table(rows))
        if options.only != "batches":
            figures = service(options, console)
            rows.append({"how": "service", **figures})
            tables.append(service_table(figures))
    oaks.ray.cluster.import_ray().shutdown()
    printed = Console(width=120, record=True)
    for table in tables:
        printed.print(table)
    printed.print(", ".join(f"{name} {value}" for name, value in about.items()), highlight=False)
    if options.save:
        results = Path(__file__).parent / "results"
        measure.save(results / "on_ray.json", about, rows)
        text = "\n".join(line.rstrip() for line in printed.export_text().splitlines())
        write_text(results / "on_ray.txt", text + "\n")


if __name__ == "__main__":
    main()
