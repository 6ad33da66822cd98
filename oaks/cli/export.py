"""`oaks export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.errors import ArgumentError


@verb(extra="export")
def export(
    output: Output,
    *,
    pose: Annotated[Path, typer.Argument(help="Checkpoint (.safetensors) of a pose network.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle; a bundle in it is replaced.")],
    ks: Annotated[Path | None, typer.Option(help="Checkpoint of the KS network for its heatmaps.")] = None,
    precision: Annotated[
        list[str], typer.Option(help="fp16 (serves fp32 too), int8 or fp32. Repeatable.")
    ] = ["fp16"],  # noqa: B006
    crops: Annotated[
        str | None,
        typer.Option(
            help="People to compare and calibrate on: COCO JSON, folder, .npz, or 'rendered'. "
            "Default: rendered; int8 must be told."
        ),
    ] = None,
    tolerance: Annotated[
        list[str], typer.Option(help="Largest difference from torch: fp16=0.01. Repeatable.")
    ] = [],  # noqa: B006
    keep_float: Annotated[
        list[str], typer.Option(help="ONNX node that int8 leaves in float32. Repeatable.")
    ] = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Name of the bundle. Default: its folder's.")] = None,
    float_ks: Annotated[bool, typer.Option(help="Write the KS network in fp16 instead of int8.")] = False,
) -> None:
    """Write a bundle from trained networks, each precision compared with torch on people."""
    from oaks.engines.export.export import export as library

    output.kept = f"{out} is as it was"
    bundle = library(
        pose, ks, out=out, precisions=precision, crops=crops, tolerance=dict(map(_tolerance, tolerance)),
        keep_float=keep_float or None, name=name, float_ks=float_ks, show=not output.quiet,
    )  # fmt: skip
    for file, entry in bundle.files.items():
        output.item({"file": file, **entry}, f"{file:24} {entry['bytes'] / 1e6:8.2f} MB")
    output.say(f"bundle {bundle.name}: {bundle.path}")


def _tolerance(text: str) -> tuple[str, float]:
    precision, _, number = text.partition("=")
    try:
        return precision, float(number)
    except ValueError:
        raise ArgumentError(
            f"--tolerance must be PRECISION=NUMBER, such as fp16=0.01, got {text!r}"
        ) from None
