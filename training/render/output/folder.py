"""Shared parts of data sets on disk: the settings of a folder, its files, and processes for the missing parts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from oaks.arguments import check_count, is_integer
from oaks.errors import ArgumentError
from oaks.files import replacing, write_json
from oaks.skeleton import COCO17
from oaks.structured import read_json

Job = TypeVar("Job")
Maker = TypeVar("Maker")

CATEGORIES = [{
    "id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO17.keypoints),
    "skeleton": [[a + 1, b + 1] for a, b in COCO17.limbs],
}]  # fmt: skip
"""The person category of COCO files."""


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Create a folder for a data set of these settings, or resume one.

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
            f"folder must be new or hold pictures of the same settings, got {folder} of other settings, {other}; "
            "name another folder or delete it"
        )


def check_settings(count: int, workers: int, quality: int) -> None:
    """Check the number of pictures or clips, of processes, and the quality of JPEG files.

    Raises:
        ArgumentError: one is out of range.
    """
    check_count("count", count)
    check_count("workers", workers)
    if not is_integer(quality) or not 1 <= quality <= 100:
        raise ArgumentError(f"quality must be an integer from 1 to 100, got {quality!r}")


def write_jpeg(path: Path, image: np.ndarray, quality: int = 95) -> None:
    """Write a picture (H, W, 3) uint8 BGR atomically."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    with replacing(path) as file:
        file.write(data.tobytes())


def run_in_parallel(
    jobs: Sequence[Job], work: Callable[[Maker, Job], None], make: Callable[[], Maker], workers: int
) -> Iterator[Job]:
    """Do jobs in several processes, or in this one if that is enough; yield each finished job, in order.

    Args:
        jobs: picklable, as `work` and `make` are.
        work: does one job with what `make` made.
        make: called once in each process, before its first job.
        workers: number of processes, from 1.
    """
    if workers == 1 or len(jobs) < 2:
        cv2.setNumThreads(1)
        maker = make()
        for job in jobs:
            work(maker, job)
            yield job
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (make,)) as pool:
        running = [pool.submit(_work, work, job) for job in jobs]
        try:
            for job, future in zip(jobs, running, strict=True):
                future.result()
                yield job
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_maker: Any
"""Made by `_start_worker`, in a worker process."""


def _start_worker(make: Callable[[], Any]) -> None:
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    cv2.setNumThreads(1)
    _maker = make()


def _work(work: Callable[[Any, Job], None], job: Job) -> None:
    work(_maker, job)
