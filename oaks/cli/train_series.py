"""`oaks train-series`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb


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
