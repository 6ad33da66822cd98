"""`oaks train`, `oaks pack` and `oaks train-series`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb
from oaks.errors import ArgumentError


@verb(extra="training")
def train(
    output: Output,
    *,
    recipe: Annotated[str | None, typer.Argument(help="Recipe file, or name of a built-in recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="New output folder for this training.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a training to resume, instead of a recipe.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the recipe's paths are relative to. Default: the current one; with --resume, as before."
        ),
    ] = None,
    packed: options.Packed = None,
    change: options.Set = [],  # noqa: B006
    max_minutes: options.MaxMinutes = None,
    accelerator: options.Accelerator = "auto",
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes on this host. Default: one per GPU.")
    ] = None,
    hosts: Annotated[int, typer.Option(min=1, help="Hosts, each running this command.")] = 1,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print the network's parameters and cost, and exit.")
    ] = False,
) -> int:
    """Train a network from a recipe, or resume a training. A training that runs out of time exits with 1."""
    from oaks.training import run
    from oaks.training.data.sources import DataFolders
    from oaks.training.recipe import read_recipe

    if summary:
        others = (out, resume, data, packed, max_minutes, devices)
        if recipe is None or others != (None,) * 6 or hosts != 1 or accelerator != "auto":
            raise ArgumentError(
                "--summary must be given with a recipe and --set alone, got other options or no recipe"
            )
        output.say(run.network_summary(read_recipe(recipe, change)))
        return DONE
    machine = run.Hardware(accelerator, devices or "auto", hosts, max_minutes)
    console = output.console()
    if resume is not None:
        if recipe is not None or out is not None or change:
            raise ArgumentError(
                "--resume must be given without a recipe, --out and --set, got one of them; the run's own are used"
            )
        output.kept = f"the last checkpoint is in {resume}; oaks train --resume {resume} continues"
        network = run.resume(resume, machine, data=data, packed=packed, console=console)
    else:
        if recipe is None or out is None:
            raise ArgumentError("pass exactly one of a recipe with --out, --resume")
        output.kept = (
            f"the training so far is in {out}; oaks train --resume {out} continues from its last checkpoint"
        )
        place = DataFolders(data or Path(), packed)
        network = run.train(read_recipe(recipe, change), out, place, machine, console=console)
    if network is None:
        return SKIPPED
    output.item({"network": network})
    return DONE


@verb(extra="training")
def pack(
    output: Output,
    *,
    recipe: Annotated[str, typer.Argument(help="Recipe file, or name of a built-in recipe.")],
    out: Annotated[Path, typer.Option(help="Output folder for the packed people.")],
    data: options.Data = Path(),
    change: options.Set = [],  # noqa: B006
    detail: Annotated[float, typer.Option(min=1, help="Pixels kept per pixel of the network's input.")] = 1.3,
) -> None:
    """Pack a recipe's people into shards that training reads faster than images."""
    from oaks.training.data.packing import pack as library
    from oaks.training.data.sources import DataFolders
    from oaks.training.recipe import read_recipe

    output.kept = f"the sources packed so far are in {out}; the same command resumes"
    counts = library(
        read_recipe(recipe, change), out, DataFolders(data), detail=detail, console=output.console()
    )
    for source, people in counts.items():
        output.item({"source": source, "people": people})


@verb(extra="training")
def train_series(
    output: Output,
    *,
    which: Annotated[str, typer.Argument(help="small, tiny, rendered or detector.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that the recipes' paths are relative to. Default: the current one."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("runs"),
    packed: options.Packed = None,
    max_minutes: options.MaxMinutes = None,
    accelerator: options.Accelerator = "auto",
) -> int:
    """Run the trainings behind a shipped bundle one after another; completed ones are kept.

    Prints the arguments of oaks export. The same command resumes; it exits with 1 if the time runs out.
    """
    from oaks.training.checkpoint import read_description
    from oaks.training.series import train_series as library

    output.kept = f"the trainings so far are in {runs}; the same command resumes"
    trained = library(which, data, runs=runs, packed=packed, max_minutes=max_minutes, accelerator=accelerator)
    if trained is None:
        output.warn("not all networks are trained yet; the same command resumes")
        return SKIPPED
    output.item({read_description(path)["kind"]: path for path in trained}, " --ks ".join(map(str, trained)))
    return DONE
