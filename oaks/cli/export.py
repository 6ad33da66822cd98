"""`oaks export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.errors import ArgumentError


@verb(extra="export")
def export(
    output: Output,
    *,
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint (.safetensors) of a pose network or of a person detector.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle; a bundle in it is replaced.")],
    ks: Annotated[
        Path | None, typer.Option(help="Checkpoint of the KS network for its heatmaps. Default: none.")
    ] = None,
    precision: Annotated[
        list[str], typer.Option(help="fp16 (serves fp32 too), int8 or fp32. Repeatable.")
    ] = ["fp16"],  # noqa: B006
    crops: Annotated[
        str | None,
        typer.Option(
            help="Crops of people for the comparison and the int8 calibration: COCO JSON, folder, .npz, or 'rendered'. "
            "Default: rendered; required for int8."
        ),
    ] = None,
    tolerance: Annotated[
        list[str],
        typer.Option(
            help="Maximum relative difference (RMS) from torch in a precision: fp16=0.02. Repeatable. Default for heatmaps: "
            "fp32=0.0001, fp16=0.01, int8=0.15; for a detector's centers: int8=0.01."
        ),
    ] = [],  # noqa: B006
    keep_float: Annotated[
        list[str],
        typer.Option(help="Name of an ONNX node that stays in float32 in the int8 file. Repeatable."),
    ] = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Name of the bundle. Default: its folder's.")] = None,
    float_ks: Annotated[
        bool, typer.Option("--float-ks", help="Keep the KS network in fp16 when exporting int8.")
    ] = False,
    plan: Annotated[
        str | None,
        typer.Option(
            help="Also build TensorRT plans: rtx (needs no GPU) or trt (for this machine's GPU). Default: no plans."
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help="Shipped bundle whose person detector the new bundle uses. Default: none."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="For a detector: folder of pictures for the comparison and the int8 calibration."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For a detector: minimum score of a detected box.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="For a detector: model card to copy into the bundle.")
    ] = None,
) -> None:
    """Write a bundle from trained networks, and compare each precision with torch."""
    from oaks.training.checkpoint import read_description

    output.kept = f"{out} is unchanged"
    shared: dict[str, Any] = {
        "out": out, "precisions": precision, "tolerance": dict(map(_tolerance, tolerance)), "name": name,
        "show": not output.quiet,
    }  # fmt: skip
    for_poses = {
        "--plan": plan, "--ks": ks, "--crops": crops, "--keep-float": keep_float, "--float-ks": float_ks,
        "--detector": detector,
    }  # fmt: skip
    for_detectors = {"--images": images, "--threshold": threshold, "--card": card}
    if read_description(checkpoint)["kind"] == "detector":
        from oaks.engines.export.detector import export_detector

        options.leave_out(for_poses, "for a person detector")
        if images is None or threshold is None:
            raise ArgumentError(
                f"--images and --threshold must come with a person detector, got {checkpoint}"
            )
        bundle = export_detector(checkpoint, images=images, threshold=threshold, card=card, **shared)
    else:
        from oaks.engines.export.export import export as export_pose

        options.leave_out(for_detectors, "for a pose network")
        flavor = _flavor(plan)  # checked before the long export
        bundle = export_pose(
            checkpoint, ks, crops=crops, keep_float=keep_float or None, float_ks=float_ks, detector=detector,
            **shared,
        )  # fmt: skip
    for file, entry in bundle.files.items():
        output.item({"file": file, **entry}, f"{file:24} {entry['bytes'] / 1e6:8.2f} MB")
    output.say(f"bundle {bundle.name}: {bundle.path}")
    if plan is not None:
        from oaks.cli.plan import show_plans
        from oaks.engines.plans.ahead import plan_bundle

        output.kept = f"{out} has no plans"
        show_plans(output, plan_bundle(out, precisions=precision, flavor=flavor, show=not output.quiet))


def _flavor(plan: str | None) -> str:
    """The TensorRT library that --plan names.

    Raises:
        ArgumentError: it names none.
        BackendUnavailable: the library is not installed.
    """
    from oaks.engines.plans.library import RTX, TENSORRT, library

    flavors = {"rtx": RTX, "trt": TENSORRT}
    if plan is None:
        return RTX
    if plan not in flavors:
        raise ArgumentError(f"--plan must be rtx or trt, got {plan!r}")
    library(flavors[plan])
    return flavors[plan]


def _tolerance(text: str) -> tuple[str, float]:
    precision, _, number = text.partition("=")
    try:
        return precision, float(number)
    except ValueError:
        raise ArgumentError(
            f"--tolerance must be PRECISION=NUMBER, such as fp16=0.01, got {text!r}"
        ) from None
