"""Packing a recipe's people into shards, source by source, so that training reads few bytes and no images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from oaks.errors import ArgumentError
from oaks.progress import plain_console, progress
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
    """Packs every source of a recipe into `out`/<its name>; what is packed well enough already is left as it is.

    Training reads them with `packed=out`. The order of people within a source is kept, so the same seed draws
    the same people from packed and unpacked sources.

    Args:
        recipe: whose sources, input size, padding and scale of augmentation count.
        out: the folder.
        place: where the sources are.
        detail: pixels kept per pixel of the network's input; never enlarged.
        console: where the progress is drawn.

    Returns:
        people packed, by source.

    Raises:
        ArgumentError: a source is empty or damaged, or `detail` is below 1.
        FileNotFoundError: a source is not there.
    """
    if not isinstance(recipe, PoseRecipe):
        raise ArgumentError(
            f"recipe must be of kind pose, whose input size the crops are packed for, got {recipe.title!r}"
        )
    if detail < 1:
        raise ArgumentError(f"detail must be at least 1, got {detail}; crops are never enlarged in training")
    out, console = Path(out), console or plain_console()
    counts: dict[str, int] = {}
    reach = max(1, recipe.augmentation.scale[1]) * (1 + 2 * recipe.augmentation.shift)  # turned by any angle
    required = required_packing(recipe.augmentation, recipe.input, recipe.padding, detail)
    for source in [*recipe.data.train, *recipe.data.validation]:
        folder = out / source.name
        if (folder / "index.json").is_file():
            _, packing = read_index(folder)
            if packing.serves(required):
                console.print(f"{source.name}: packed already in {folder}", markup=False)
                continue
            console.print(f"{source.name}: packed for {packing}, but this recipe needs {required}: packing again",
                          highlight=False, soft_wrap=True, markup=False)  # fmt: skip
        if isinstance(source, RenderedSource):  # everyone in every picture, not one drawn from each
            source = source.model_copy(update={"stored": True})
        people = open_source(
            source, recipe.load_skeleton(), place._replace(rendered=out / "pictures"), required
        )
        with progress(source.name, len(people), console=console) as advance:
            counts[source.name] = write_shards(
                source.name, readable_people(people), folder, size=recipe.input, padding=recipe.padding,
                detail=detail, reach=reach, progress=advance,
            )  # fmt: skip
        console.print(
            describe_source(people, f"packed into {folder}", counts[source.name]),
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return counts


def readable_people(people: People) -> Iterator[tuple[np.ndarray, Person]]:
    """Every person whose image can be decoded; the others are skipped and counted."""
    for index in range(len(people)):
        try:
            yield people.sample(index, np.random.default_rng(index))
        except DamagedImage as error:
            people.skipped["people in damaged images"] += 1
            skip(f"person {people.person_ids[index]} of {people.name}", error)


__all__ = ["pack", "readable_people"]
