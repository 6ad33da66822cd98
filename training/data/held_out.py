"""The held-out people of a training as COCO files: python -m oaks.training.data.held_out runs/small_pose --out FOLDER.

A scorer is fitted, thresholds are chosen and calibration is measured on people whom the pose network has not seen.
`oaks fit` and `oaks val` take these files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.structured import read_json
from oaks.training.data.people import fold_of
from oaks.training.recipe import CocoSource, read_recipe
from oaks.training.run import RunFolder


def held_out(source: CocoSource, data: Path, count: int, fold: int) -> dict[str, Any]:
    """The content of a source's annotation file, reduced to the images of one fold.

    Args:
        source: of a recipe.
        data: folder that the recipe's paths begin at.
        count: number of folds.
        fold: the one to keep.

    Raises:
        FileNotFoundError: the annotation file is missing.
        ArgumentError: no image is in that fold.
    """
    path = data / source.annotations
    content = read_json(path, top=dict)
    ids = np.array([image["id"] for image in content["images"]], np.int64)
    kept = set(ids[fold_of(source.name, ids, count) == fold].tolist())
    if not kept:
        raise ArgumentError(
            f"{path}: images must include some of fold {fold} of {count}, got {len(ids)} others"
        )
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in kept],
        "annotations": [person for person in content["annotations"] if person["image_id"] in kept],
    }


def write_held_out(training: str | Path, data: Path, out: Path) -> list[tuple[Path, Path]]:
    """Write one COCO file for each source of a training that holds people out.

    Args:
        training: folder of a training, a recipe file, or the name of a built-in recipe.
        data: folder that the recipe's paths begin at.
        out: folder of the files, each named as its source.

    Returns:
        Annotation file and image folder of each source.

    Raises:
        ArgumentError: the training holds nobody out.
    """
    recipe = RunFolder(training).read()[0] if Path(training).is_dir() else read_recipe(training)
    folds = recipe.data.folds
    sources = [s for s in recipe.data.train if isinstance(s, CocoSource) and s.hold_out]
    if folds is None or folds.held_out is None or not sources:
        raise ArgumentError(
            f"{training} must hold people out (data.folds, and sources with hold_out), got {folds}"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sources:
        path = out / f"{source.name}.json"
        write_json(path, held_out(source, data, folds.count, folds.held_out))
        written.append((path, data / source.images))
    return written


def main(
    training: Annotated[str, typer.Argument(help="Folder of a training, or a recipe.")],
    out: Annotated[Path, typer.Option(help="Folder of the COCO files.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's paths begin at.")] = Path(),
) -> None:
    """Write the people whom a training holds out as COCO files; print them as options of `oaks fit`."""
    pairs = write_held_out(training, data, out)
    typer.echo(" ".join(f"--annotations {annotations} --images {images}" for annotations, images in pairs))


if __name__ == "__main__":
    typer.run(main)


__all__ = ["held_out", "write_held_out"]
