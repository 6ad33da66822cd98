"""What the verbs `oaks train` and `oaks pack` do with their arguments."""

from __future__ import annotations

from pathlib import Path

from oaks.training.recipe import KSRecipe, PoseRecipe, read_recipe


def train_command(
    recipe: str,
    out: str,
    resume: str,
    *,
    data: str,
    packed: str,
    changes: list[str],
    max_minutes: float,
    accelerator: str,
    devices: int,
    hosts: int,
    summary: bool,
) -> None:
    """Starts or resumes a training, or prints the size of a recipe's network.

    Raises:
        ValueError: neither a recipe with a folder nor a training to resume was named, or both were, or another
            option that would have no effect.
    """
    from oaks.training import run
    from oaks.training.data.sources import DataFolders

    if summary:
        if out or resume or data or packed or max_minutes or devices or hosts != 1 or accelerator != "auto":
            raise ValueError(
                "summary: prints the size of a recipe's network; give the recipe and --set alone"
            )
        print(network_summary(read_recipe(recipe, changes)))
        return
    machine = run.Hardware(accelerator, devices or "auto", hosts, max_minutes or None)
    if resume:
        if recipe or out or changes:
            raise ValueError(
                "resume: goes on with the recipe and in the folder that the training was started with; "
                "give no recipe, --out or --set"
            )
        run.resume(
            resume, machine, data=Path(data) if data else None, packed=Path(packed) if packed else None
        )
        return
    if not recipe or not out:
        raise ValueError(
            "recipe: wanted a recipe and --out for a new training, or --resume with a training's folder"
        )
    place = DataFolders(Path(data), Path(packed) if packed else None)
    run.train(read_recipe(recipe, changes), out, place, machine)


def network_summary(recipe: PoseRecipe | KSRecipe) -> str:
    """One line: parameters and multiply-accumulates of a recipe's network."""
    from oaks.training.networks.summary import describe

    size = recipe.input if isinstance(recipe, PoseRecipe) else (192, 256)
    cost = describe(recipe.architecture(), size)
    return (f"{recipe.title}: {cost.parameters:,} parameters, {cost.macs / 1e9:.3f} GMAC "
            f"for a crop of {size[0]}×{size[1]}")  # fmt: skip


def pack_command(recipe: str, out: str, *, data: str, changes: list[str], detail: float) -> None:
    """Packs a recipe's people.

    Raises:
        ValueError: the recipe is not one for people.
    """
    from oaks.training.data.packing import pack
    from oaks.training.data.sources import DataFolders

    read = read_recipe(recipe, changes)
    if not isinstance(read, PoseRecipe):
        raise ValueError(
            f"recipe: wanted one of kind pose, whose input size the crops are packed for, got {recipe}"
        )
    pack(read, out, DataFolders(Path(data)), detail=detail)


__all__ = ["network_summary", "pack_command", "train_command"]
