"""`oaks plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import verb

if TYPE_CHECKING:
    from oaks.engines.plans.ahead import MadePlan


@verb(extra="tensorrt")
def plan(
    output: Output,
    *,
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; the plans are written into it.")],
    precision: Annotated[
        list[str],
        typer.Option(help="fp32, fp16, int8, or auto (the precision that the Engine chooses). Repeatable."),
    ] = ["auto"],  # noqa: B006
    flavor: Annotated[
        str,
        typer.Option(
            help="Library: tensorrt_rtx (needs no GPU; for several GPUs) or tensorrt (for this machine's GPU)."
        ),
    ] = "tensorrt_rtx",
    capability: Annotated[
        list[str],
        typer.Option(
            help="Target compute capability for tensorrt_rtx, for instance 75 for 7.5. Repeatable. Default: one plan for "
            "80, 86, 89, 120 and 121."
        ),
    ] = [],  # noqa: B006
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Maximum people per pass. Default: the Engine's.")
    ] = None,
    flip: options.Flip = True,
    gpu: Annotated[int, typer.Option(min=0, help="Index of the GPU to build on, for tensorrt.")] = 0,
) -> None:
    """Build the TensorRT plans of a bundle ahead of time, so that an Engine starts without building."""
    from oaks.engines.plans.ahead import plan_bundle

    output.kept = f"{bundle} is unchanged"
    made = plan_bundle(
        bundle, precisions=precision, flavor=flavor, capabilities=capability, max_batch=max_batch, flip=flip,
        device=gpu, show=not output.quiet,
    )  # fmt: skip
    show_plans(output, made)


def show_plans(output: Output, made: Sequence[MadePlan]) -> None:
    """Print a line for each plan: file, network, precision, size and build time."""
    for one in made:
        output.item(
            asdict(one),
            f"{one.file:40} {one.role:5} {one.precision:5} {one.bytes / 1e6:8.2f} MB {one.seconds:6.1f} s",
        )
