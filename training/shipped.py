"""Trains the networks that ship with the package and writes their bundle: python -m oaks.training.shipped --data DIR.

Stopped at any moment, the same command goes on where it was.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from oaks.bundle import Bundle
from oaks.engines.export import export
from oaks.training.data.sources import Place
from oaks.training.recipe import read_recipe
from oaks.training.run import Machine, RunFolder, resume, train

RECIPES = {
    "real": ("real_oa_hpe_coarse", "real_oa_hpe", "real_ks_net"),
    "small": ("small_oa_hpe", "small_ks_net"),
}
"""In the order of training: each names the networks of those before it, and the last is the KS-net."""

PRECISIONS = ("fp16", "int8")


def ship(
    which: str,
    data: Path,
    *,
    runs: Path = Path("runs"),
    packed: Path | None = None,
    crops: str | None = None,
    max_minutes: float | None = None,
    accelerator: str = "auto",
) -> Bundle | None:
    """Trains what is not trained yet, then exports.

    Args:
        which: a key of RECIPES.
        data: folder that the recipes' paths begin at.
        runs: folder of the trainings, named as their recipes, and of the bundle; the recipes look for each other's
            networks in `runs` of the working directory.
        packed: folder of packed people (`oaks pack`).
        crops: people that int8 is calibrated on and every precision compared on; rendered ones if not given.
        max_minutes: stop with a checkpoint after so long, counted over all trainings.
        accelerator: "auto", "cpu" or "gpu".

    Returns:
        The bundle, or None if the time was up before all was trained.

    Raises:
        ValueError: `which` is unknown, or a recipe's data do not fit.
        FileNotFoundError: data are not there.
    """
    if which not in RECIPES:
        raise ValueError(f"which: one of {', '.join(RECIPES)} wanted, got {which!r}")
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    for name in RECIPES[which]:
        left = None if deadline is None else max(0.0, (deadline - time.monotonic()) / 60)
        if not _train(name, runs / name, Place(data, packed), Machine(accelerator, max_minutes=left)):
            return None
    *_, pose, ks = (runs / name / "network.safetensors" for name in RECIPES[which])
    return export(
        pose, ks, out=runs / f"{which}_bundle", name=which, precisions=PRECISIONS, crops=crops or "rendered",
        weights=False,
    )  # fmt: skip


def _train(name: str, folder: Path, place: Place, machine: Machine) -> bool:
    """Whether the training in `folder` is complete, after going on with it if it was not."""
    run = RunFolder(folder)
    if run.complete():
        return True
    if run.settings.exists():
        return resume(folder, machine) is not None
    return train(read_recipe(name), folder, place, machine) is not None


def main(
    which: Annotated[str, typer.Argument(help=f"{' or '.join(RECIPES)}.")] = "real",
    data: Annotated[Path, typer.Option(help="Folder that the recipes' paths begin at.")] = Path(),
    packed: Annotated[Path | None, typer.Option(help="Folder of packed people (oaks pack).")] = None,
    crops: Annotated[str, typer.Option(help="People to calibrate int8 and compare on.")] = "rendered",
    max_minutes: Annotated[float, typer.Option(help="Stop with a checkpoint after so long; 0: never.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
) -> None:
    """Train and export the networks that ship with the package."""
    bundle = ship(
        which, data, packed=packed, crops=crops, max_minutes=max_minutes or None, accelerator=accelerator
    )
    if bundle is None:
        typer.echo("Not all is trained yet: the same command goes on.")
        raise typer.Exit(3)
    typer.echo(f"Bundle: {bundle.path}")


if __name__ == "__main__":
    typer.run(main)


__all__ = ["RECIPES", "ship"]
