"""How fast people are rendered: pictures per second in several processes, against decoding photographs.

Run as `python benchmarks/render.py`; prints a table.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import typer
from measure import interleaved, processor
from rich.console import Console
from rich.table import Table

from oaks.training.render import RenderedPeople

_WARM = 200
# Pictures drawn before the clock starts: bodies, faces and fabrics are made when they are first met.


def draw(seed: int, start: int, count: int) -> tuple[float, float, int]:
    """Seconds, and seconds of a core, that `count` pictures of 320x320 take once warm, and their people."""
    cv2.setNumThreads(1)
    people = RenderedPeople(seed)
    for index in range(start, start + _WARM):
        people.sample(index)
    begin, worked = time.perf_counter(), time.process_time()
    labeled = sum(len(people.sample(index)[1]) for index in range(start + _WARM, start + _WARM + count))
    return time.perf_counter() - begin, time.process_time() - worked, labeled


def main(count: int = 400, processes: int = 2, seed: int = 0) -> None:
    """Renders COUNT pictures in each process, and compares with reading photographs of COCO's size."""
    table = Table("processes", "pictures/s", "people/s", "people per picture", "ms of a core per picture")
    for number in sorted({1, processes}):
        with ProcessPoolExecutor(number, get_context("spawn")) as pool:
            jobs = [pool.submit(draw, seed, 10_000 * job, count) for job in range(number)]
            results = [job.result() for job in jobs]
        seconds = max(duration for duration, _, _ in results)
        labeled = sum(people for _, _, people in results)
        pictures = number * count
        table.add_row(
            str(number), f"{pictures / seconds:.1f}", f"{labeled / seconds:.1f}",
            f"{labeled / pictures:.2f}",
            f"{1e3 * sum(worked for _, worked, _ in results) / pictures:.1f}",
        )  # fmt: skip
    cv2.setNumThreads(1)
    people = RenderedPeople(seed, size=(640, 480))
    large = [people.sample(index)[0] for index in range(12)]
    files = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1] for image in large]
    small = RenderedPeople(seed)
    numbers = iter(np.arange(_WARM, 1 << 30))
    for index in range(_WARM):
        small.sample(index)
    timings = interleaved({
        "render": lambda: [small.sample(int(next(numbers))) for _ in range(12)],
        "decode": lambda: [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in files],
    })  # fmt: skip
    console = Console()
    console.print(table)
    ratio = timings["render"].median / timings["decode"].median
    console.print(
        f"A rendered picture of 320x320 with its labels costs {ratio:.1f} times decoding a 640x480 JPEG "
        f"({1e3 * timings['render'].median / 12:.1f} ms and {1e3 * timings['decode'].median / 12:.1f} ms, "
        f"one thread). {processor()}, OpenCV {cv2.__version__}, NumPy {np.__version__}."
    )


if __name__ == "__main__":
    typer.run(main)
