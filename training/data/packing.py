"""Packs a recipe's people into shards, one folder per source, so that training reads less and needs no images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from oaks.errors import ArgumentError
from oaks.files import held
from oaks.progress import plain_console, progress, say
from oaks.skipping import skip
from oaks.training.data.people import DamagedImage, People, Person
from oaks.training.data.shards import read_index, required_packing, write_shards
from oaks.training.data.sources import DataFolders, describe_source, open_source
from oaks.training.recipe import AnyRecipe, PoseRecipe, RenderedSource


def pack(
    recipe: AnyRecipe,
    out: str | Path,
    place: DataFolders,
    *,
    detail: float = 1.3,
    console: Console | None = None,
) -> dict[str, int]:
    """Pack every source of a recipe into `out`/<its name>, unless it is already packed with enough detail and margin.

    Training reads them with `packed=out`. The order of people within a source does not change, so a seed draws the same
    people from packed and unpacked sources.

    Args:
        recipe: its sources, input size, padding, and the augmentation's scale are used.
        out: the folder.
        place: folders of the sources.
        detail: stored pixels per pixel of the network's input; crops are never enlarged.
        console: shows the progress.

    Returns:
        Number of packed people by source.

    Raises:
        ArgumentError: a source is empty or damaged, `detail` is below 1, or another run is writing a folder.
        FileNotFoundError: a source is missing.
    """
    if not isinstance(recipe, PoseRecipe):
        raise ArgumentError(
            f"recipe must be of kind pose, which determines the size of crops, got {recipe.title!r}"
        )
    if detail < 1:
        raise ArgumentError(f"detail must be at least 1, got {detail}; crops are never enlarged in training")
    out, console = Path(out), console or plain_console()
    counts: dict[str, int] = {}
    # Enough for rotation by any angle.
    reach = max(1, recipe.augmentation.scale[1]) * (1 + 2 * recipe.augmentation.shift)
    required = required_packing(recipe.augmentation, recipe.input, recipe.padding, detail)
    for source in [*recipe.data.train, *recipe.data.validation]:
        folder = out / source.name
        if (folder / "index.json").is_file():
            _, packing = read_index(folder)
            if packing.serves(required):
                say(console, f"{source.name}: already packed in {folder}")
                continue
            say(
                console,
                f"{source.name}: packed for {packing}, but this recipe needs {required}; packing again",
            )
        if isinstance(source, RenderedSource):  # a live source would return only one person of each picture
            source = source.model_copy(update={"stored": True})
        people = open_source(
            source, recipe.load_skeleton(), place._replace(rendered=out / "pictures"), required
        )
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder), progress(source.name, len(people), console=console) as advance:
            counts[source.name] = write_shards(
                source.name, readable_people(people), folder, size=recipe.input, padding=recipe.padding,
                detail=detail, reach=reach, progress=advance,
            )  # fmt: skip
        say(console, describe_source(people, f"packed into {folder}", counts[source.name]))
    return counts


def readable_people(people: People) -> Iterator[tuple[np.ndarray, Person]]:
    """Yield every person whose image can be decoded; the others are skipped and counted."""
    for index in range(len(people)):
        try:
            yield people.sample(index, np.random.default_rng(index))
        except DamagedImage as error:
            people.skipped["people in damaged images"] += 1
            skip(f"person {people.person_ids[index]} of {people.name}", error)


__all__ = ["pack", "readable_people"]
