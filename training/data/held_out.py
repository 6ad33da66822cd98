"""Writes the held-out people of a training as COCO files: python -m oaks.training.data.held_out RUN --out FOLDER.

`oaks fit` and `oaks val` take these files: scorers, thresholds and calibration need people that the pose network has
not seen. With --trained, files of the people trained on are written too, from which the trees of a scorer can also learn.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.structured import read_json
from oaks.training.data.people import fold_of
from oaks.training.recipe import CocoSource, read_recipe
from oaks.training.run_folder import RunFolder


def in_folds(source: CocoSource, data: Path, count: int, folds: Collection[int]) -> dict[str, Any]:
    """Return the content of a source's annotation file, reduced to the images of some folds.

    Args:
        source: a recipe's source.
        data: folder that the recipe's paths are relative to.
        count: number of folds.
        folds: those to keep.

    Raises:
        FileNotFoundError: the annotation file is missing.
        ArgumentError: the folds have no images.
    """
    path = data / source.annotations
    content = read_json(path, top=dict)
    ids = np.array([image["id"] for image in content["images"]], np.int64)
    kept = set(ids[np.isin(fold_of(source.name, ids, count), list(folds))].tolist())
    if not kept:
        named = ", ".join(map(str, folds))
        raise ArgumentError(
            f"{path}: images must include some of fold {named} of {count}, got {len(ids)} others"
        )
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in kept],
        "annotations": [person for person in content["annotations"] if person["image_id"] in kept],
    }


def write_held_out(
    training: str | Path, data: Path, out: Path, *, trained: bool = False
) -> list[tuple[Path, Path]]:
    """Write one COCO file for each source with held-out people.

    Args:
        training: folder of a training, a recipe file, or the name of a built-in recipe.
        data: folder that the recipe's paths are relative to.
        out: folder of the files, which are named as the sources.
        trained: whether to write the people trained on instead, to files whose names end with "-trained".

    Returns:
        Annotation file and image folder of each source.

    Raises:
        ArgumentError: the training has no held-out people.
    """
    recipe = RunFolder(training).read()[0] if Path(training).is_dir() else read_recipe(training)
    folds = recipe.data.folds
    sources = [s for s in recipe.data.train if isinstance(s, CocoSource) and s.hold_out]
    if folds is None or folds.held_out is None or not sources:
        raise ArgumentError(
            f"{training} must have held-out people (data.folds, and sources with hold_out), got {folds}"
        )
    others = [n for n in range(folds.count) if n != folds.held_out]
    kept = [folds.held_out] if not trained else others if folds.trained is None else folds.trained
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sources:
        path = out / f"{source.name}{'-trained' if trained else ''}.json"
        write_json(path, in_folds(source, data, folds.count, kept))
        written.append((path, data / source.images))
    return written


def main(
    training: Annotated[str, typer.Argument(help="Folder of a training, or a recipe.")],
    out: Annotated[Path, typer.Option(help="Folder of the COCO files.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's paths are relative to.")] = Path(),
    trained: Annotated[
        bool,
        typer.Option(
            "--trained",
            help="Also write the training people of the same sources, as --trained-annotations and --trained-images.",
        ),
    ] = False,
) -> None:
    """Write the held-out people of a training as COCO files; print them as options of `oaks fit`."""
    words = [
        f"--annotations {annotations} --images {images}"
        for annotations, images in write_held_out(training, data, out)
    ]
    if trained:
        words += [
            f"--trained-annotations {annotations} --trained-images {images}"
            for annotations, images in write_held_out(training, data, out, trained=True)
        ]
    typer.echo(" ".join(words))


if __name__ == "__main__":
    typer.run(main)


__all__ = ["in_folds", "write_held_out"]
