"""Writes rendered people as a COCO keypoints data set: images/ and annotations.json."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oaks.files import replacing, write_json
from oaks.skeleton import COCO17
from oaks.training.render.people import RenderedPeople

_CHUNK = 50


def write_dataset(
    folder: str | Path,
    count: int,
    *,
    workers: int = 2,
    quality: int = 95,
    progress: bool = True,
    **settings: Any,
) -> Path:
    """Renders pictures 0 to count - 1 into a folder, going on where an earlier call stopped.

    Args:
        folder: is made; gets images/000000000001.jpg onwards (id = index + 1), annotations.json,
            settings.json, and the annotations piece by piece in pieces/.
        count: how many pictures; more than are there already extends the data set.
        workers: processes that render.
        quality: of the JPEG files, 1 to 100.
        progress: whether to show a bar.
        settings: what RenderedPeople takes, `seed` among them.

    Returns:
        the path of annotations.json.

    Raises:
        ValueError: an argument that does not fit, or a folder that holds a data set of other settings.
    """
    if count < 1:
        raise ValueError(f"count: wanted a number of pictures from 1, got {count}")
    if workers < 1:
        raise ValueError(f"workers: wanted a number of processes from 1, got {workers}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: wanted 1 to 100, got {quality}")
    folder = Path(folder)
    generator = RenderedPeople(**settings)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "pieces").mkdir(exist_ok=True)
    _claim(folder, {**generator.settings, "quality": quality})
    chunks = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    missing = [chunk for chunk in chunks if not _piece(folder, chunk).is_file()]
    with _bar(progress) as bar:
        task = bar.add_task(
            "rendering", total=count, completed=count - sum(stop - start for start, stop in missing)
        )
        for start, stop in _render(folder, missing, workers, quality, settings):
            bar.update(task, advance=stop - start)
    images, annotations = [], []
    for chunk in chunks:
        content = json.loads(_piece(folder, chunk).read_text(encoding="utf-8"))
        images += content["images"]
        annotations += content["annotations"]
    for number, entry in enumerate(annotations, 1):
        entry["id"] = number
    content = {
        "info": {"description": "rendered people", "settings": {**generator.settings, "quality": quality}},
        "images": images,
        "annotations": annotations,
        "categories": [{
            "id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO17.keypoints),
            "skeleton": [[a + 1, b + 1] for a, b in COCO17.limbs],
        }],
    }  # fmt: skip
    target = folder / "annotations.json"
    write_json(target, content)
    return target


def _render(
    folder: Path, chunks: list[tuple[int, int]], workers: int, quality: int, settings: dict[str, Any]
) -> Iterator[tuple[int, int]]:
    if workers == 1 or len(chunks) < 2:
        _start(settings)
        for chunk in chunks:
            yield _render_chunk(folder, chunk, quality)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (settings,)) as pool:
        running = [pool.submit(_render_chunk, folder, chunk, quality) for chunk in chunks]
        try:
            for future in running:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_generator: RenderedPeople | None = None


def _start_worker(settings: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    _start(settings)


def _start(settings: dict[str, Any]) -> None:
    global _generator
    cv2.setNumThreads(1)
    _generator = RenderedPeople(**settings)


def _render_chunk(folder: Path, chunk: tuple[int, int], quality: int) -> tuple[int, int]:
    """Writes the pictures of a chunk, then its annotations, so that a chunk with annotations is whole."""
    images, annotations = [], []
    for index in range(*chunk):
        image, people = _generator.sample(index)
        name = f"{index + 1:012d}.jpg"
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        with replacing(folder / "images" / name) as file:
            file.write(data.tobytes())
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        annotations += [{**entry, "image_id": index + 1} for entry in people]
    write_json(_piece(folder, chunk), {"images": images, "annotations": annotations})
    return chunk


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / "settings.json"
    if not path.is_file():
        write_json(path, settings)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != settings:
        other = {name: found.get(name) for name, value in settings.items() if found.get(name) != value}
        raise ValueError(
            f"folder: {folder} holds pictures of other settings, {other}; name another folder or delete it"
        )


def _piece(folder: Path, chunk: tuple[int, int]) -> Path:
    return folder / "pieces" / f"{chunk[0]:09d}-{chunk[1]:09d}.json"


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not shown,
    )
