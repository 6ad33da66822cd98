"""What data sets on disk share: whose settings a folder holds, its files, and processes that do what is missing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from oaks.errors import ArgumentError
from oaks.files import replacing, write_json
from oaks.skeleton import COCO17
from oaks.structured import read_json

Job = TypeVar("Job")

CATEGORIES = [{
    "id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO17.keypoints),
    "skeleton": [[a + 1, b + 1] for a, b in COCO17.limbs],
}]  # fmt: skip
"""What COCO files say about people."""


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Makes a folder for a data set of such settings, or goes on with one.

    Raises:
        ArgumentError: it holds a data set of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if not path.is_file():
        write_json(path, settings)
        return
    found = read_json(path, top=dict)
    if found != settings:
        other = {name: found.get(name) for name, value in settings.items() if found.get(name) != value}
        raise ArgumentError(
            f"folder: {folder} holds pictures of other settings, {other}; name another folder or delete it"
        )


def check_settings(count: int, workers: int, quality: int) -> None:
    """ValueError for a number of things to render or of processes, or a quality of JPEG files, that cannot be."""
    if count < 1:
        raise ArgumentError(f"count must be 1 or more to render, got {count}")
    if workers < 1:
        raise ArgumentError(f"workers must be a number of processes from 1, got {workers}")
    if not 1 <= quality <= 100:
        raise ArgumentError(f"quality must be 1 to 100, got {quality}")


def write_jpeg(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Writes a picture (H, W, 3) uint8 BGR, whole or not at all."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    with replacing(path) as file:
        file.write(data.tobytes())


def run_in_parallel(
    jobs: Sequence[Job], work: Callable[[Job], None], prepare: Callable[[], None], workers: int
) -> Iterator[Job]:
    """Does jobs in several processes, or in this one where that is enough; yields each that is done, in order.

    Args:
        jobs: what `work` takes; picklable, as `work` and `prepare` are.
        work: does one job.
        prepare: is called once in each process, before its first job.
        workers: processes, from 1.
    """
    if workers == 1 or len(jobs) < 2:
        _start(prepare)
        for job in jobs:
            work(job)
            yield job
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (prepare,)) as pool:
        running = [pool.submit(work, job) for job in jobs]
        try:
            for job, future in zip(jobs, running, strict=True):
                future.result()
                yield job
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker(prepare: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    _start(prepare)


def _start(prepare: Callable[[], None]) -> None:
    cv2.setNumThreads(1)
    prepare()
