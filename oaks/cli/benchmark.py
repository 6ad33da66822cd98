"""`oaks benchmark`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, FAILED, verb


@verb(extra="val")
def benchmark(
    output: Output,
    *,
    bundles: Annotated[
        list[str],
        typer.Argument(
            help="Model bundles: folders, zip files, or names of shipped ones; the first has ratio 1."
        ),
    ] = ["small"],  # noqa: B006
    backend: Annotated[list[str], typer.Option(help="Backend to time. Repeatable. Default: all.")] = [],  # noqa: B006
    precision: Annotated[
        list[str], typer.Option(help="fp32, bf16, fp16 or int8. Repeatable. Default: all.")
    ] = [],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="People per call. Repeatable.")] = [8],  # noqa: B006
    device: options.Device = None,
    threads: options.Threads = None,
    flip: options.Flip = True,
    turns: Annotated[
        int, typer.Option(min=1, help="Repetitions per configuration; the median is reported.")
    ] = 7,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO keypoint annotations: adds the average precision.")
    ] = None,
    images: options.Images = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> int:
    """Time bundles on every available backend and precision, in turns: persons/s, stages, AP."""
    from oaks.benchmark import benchmark_bundles, table

    found = benchmark_bundles(
        *bundles, backends=backend, precisions=precision, batches=batch, device=device, flip=flip, threads=threads,
        turns=turns, annotations=annotations, images=images,
        progress=lambda total: output.progress("timing", total),
    )  # fmt: skip
    for row in found.rows:
        output.item(asdict(row))
    if found.rows:
        output.table(table(found.rows))
        if out is not None:
            found.save(out)
    for reason in found.missing:
        (output.say if found.rows else output.warn)(f"not run: {reason}")
    return DONE if found.rows else FAILED
