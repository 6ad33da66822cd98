"""`oaks finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb


@verb(extra="training")
def finetune(
    output: Output,
    *,
    bundle: options.BundleArgument,
    annotations: Annotated[
        list[Path], typer.Option(help="COCO keypoint annotations of your people. Repeatable.")
    ],
    images: Annotated[list[Path], typer.Option(help="Folder of the images of each annotation file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="New folder of the bundle. Default: runs/finetune/BUNDLE-finetuned."),
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Share of the people, by image, held out to evaluate and to fit the scorer.")
    ] = 0.25,
    epochs: Annotated[
        float | None,
        typer.Option(help="Epochs. Default: enough for 2,000 samples, between 4 and 25."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="People per step.")] = 16,
    category: options.Category = None,
    accelerator: options.Accelerator = "auto",
    threads: options.Threads = None,
    max_minutes: options.MaxMinutes = None,
    seed: options.Seed = 0,
    resamples: options.Resamples = 1000,
) -> int:
    """Fine-tune a bundle's network on your own people, and write a new bundle.

    Prints AP before and after on people of held-out images. The same command resumes.
    """
    from oaks import finetune as library

    if out is None:
        out = Path("runs/finetune") / f"{Path(bundle).resolve().name.removesuffix('.zip')}-finetuned"
    work = out.with_name(f"{out.name}.finetune")
    output.kept = f"what is done so far is in {work}; the same command resumes"
    settings = library.FinetuneSettings(held_out, epochs, learning_rate, batch, seed, resamples)
    done = library.finetune(
        bundle, annotations, images, out=out, settings=settings, category=category, accelerator=accelerator,
        threads=threads, max_minutes=max_minutes, console=output.console(),
    )  # fmt: skip
    if done is None:
        output.warn(f"the training is not complete; {output.kept}")
        return SKIPPED
    output.tables(done.tables)
    output.item({"bundle": done.path}, f"bundle: {done.path} (checkpoints and heatmaps: {work})")
    return DONE


__all__ = ["finetune"]
