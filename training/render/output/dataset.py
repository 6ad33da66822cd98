"""Write rendered people as a COCO keypoints data set: images/ and annotations.json."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from oaks import progress as bars
from oaks.files import write_json
from oaks.structured import read_json, require
from oaks.training.render.output.folder import (
    CATEGORIES,
    check_settings,
    claim_folder,
    run_in_parallel,
    write_jpeg,
)
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
    """Render pictures 0 to count - 1 into a folder; an earlier call that was stopped is resumed.

    Args:
        folder: created if missing; gets images/000000000001.jpg onwards (id = index + 1), annotations.json,
            settings.json, and the annotations in pieces in pieces/.
        count: number of pictures; a larger number than before extends the data set.
        workers: number of processes.
        quality: of the JPEG files, 1 to 100.
        progress: whether to show a bar.
        settings: arguments of RenderedPeople, including `seed`.

    Returns:
        Path of annotations.json.

    Raises:
        ArgumentError: an argument is wrong, or the folder holds a data set of other settings.
    """
    check_settings(count, workers, quality)
    folder = Path(folder)
    generator = RenderedPeople(**settings)
    claim_folder(folder, {**generator.settings, "quality": quality})
    for name in ("images", "pieces"):
        (folder / name).mkdir(exist_ok=True)
    chunks = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    missing = [chunk for chunk in chunks if not _piece(folder, chunk).is_file()]
    work = partial(_render_chunk, folder, quality)
    done = count - sum(stop - start for start, stop in missing)
    with bars.progress("rendering", count, done=done, shown=progress) as advance:
        for start, stop in run_in_parallel(missing, work, partial(RenderedPeople, **settings), workers):
            advance(stop - start)
    images, annotations = [], []
    for chunk in chunks:
        content = read_json(_piece(folder, chunk), top=dict)
        require(content, {"images": list, "annotations": list}, _piece(folder, chunk))
        images += content["images"]
        annotations += content["annotations"]
    for number, entry in enumerate(annotations, 1):
        entry["id"] = number
    content = {
        "info": {"description": "rendered people", "settings": {**generator.settings, "quality": quality}},
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
    }
    target = folder / "annotations.json"
    write_json(target, content)
    return target


def _piece(folder: Path, chunk: tuple[int, int]) -> Path:
    return folder / "pieces" / f"{chunk[0]:09d}-{chunk[1]:09d}.json"


def _render_chunk(folder: Path, quality: int, generator: RenderedPeople, chunk: tuple[int, int]) -> None:
    """Write the pictures of a chunk, then its annotations, so that a chunk with annotations is complete."""
    images, annotations = [], []
    for index in range(*chunk):
        image, people = generator.sample(index)
        name = f"{index + 1:012d}.jpg"
        write_jpeg(folder / "images" / name, image, quality)
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        annotations += [{**entry, "image_id": index + 1} for entry in people]
    write_json(_piece(folder, chunk), {"images": images, "annotations": annotations})
