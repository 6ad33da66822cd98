"""The command line: each verb reads its arguments, imports what it needs and hands over."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from oaks.errors import BackendUnavailable, BundleError
from oaks.val.commands import app as val

app = typer.Typer(
    name="oaks",
    help="Human poses with a score that means what it says, occluded or not.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.add_typer(val, name="val")

DetectorSet = Annotated[
    list[str],
    typer.Option(
        help="What the detector takes, each with its own: color=rgb, mean=A,B,C and std=A,B,C in that order "
        "(0-255), size=W,H, overlap=0.65."
    ),
]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    """Human poses with a score that means what it says, occluded or not."""
    if version:
        from oaks import __version__

        typer.echo(f"oaks {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """Say what is installed, what works here, and what is missing for the rest."""
    from oaks.doctor import main as examine

    raise typer.Exit(examine())


@app.command()
def predict(
    source: Annotated[list[str], typer.Argument(help="Pictures, folders of pictures or globs.")],
    bundle: Annotated[str, typer.Option(help="Folder, zip or name of a shipped bundle.")] = "small",
    boxes: Annotated[str, typer.Option(help="COCO JSON with person boxes: annotations or results.")] = "",
    detector: Annotated[str, typer.Option(help="ONNX detector; without either, a picture is a person.")] = "",
    detector_threshold: Annotated[float, typer.Option(help="Least score of a detected box.")] = 0.3,
    detector_person: Annotated[int, typer.Option(help="The detector's class index of a person.")] = 0,
    detector_set: DetectorSet = [],  # noqa: B006
    out: Annotated[str, typer.Option(help="Folder for results.json and pictures/.")] = "runs/predict",
    backend: Annotated[str, typer.Option(help="auto, tensorrt, torch, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; the backend's own if left out.")] = "",
    flip: Annotated[bool, typer.Option(help="Average with the mirrored crop, as the paper does.")] = True,
    refine: Annotated[str, typer.Option(help="second_peak, gradient, dark or none; else the bundle's.")] = "",
    nms: Annotated[float, typer.Option(help="OKS above which the worse of two poses goes; 0: none.")] = 0,
    pictures: Annotated[bool, typer.Option(help="Write annotated pictures.")] = True,
    absent: Annotated[str, typer.Option(help="Keypoints predicted absent: hide or hollow.")] = "hide",
    show_boxes: Annotated[bool, typer.Option(help="Draw the boxes too.")] = False,
) -> None:
    """Find the poses in pictures: results as COCO JSON, annotated pictures, one line for each."""
    from oaks.predict import predict_command

    raise typer.Exit(
        predict_command(
            source,
            bundle=bundle,
            boxes=boxes or None,
            detector=detector or None,
            detector_settings=_detector_settings(detector, detector_threshold, detector_person, detector_set),
            out=out,
            engine_settings={
                "backend": backend,
                "precision": precision,
                "device": device or None,
                "flip": flip,
                "refine": refine or None,
            },
            nms=nms or None,
            annotate=pictures,
            absent=absent,
            show_boxes=show_boxes,
        )
    )


@app.command()
def track(
    source: Annotated[list[str], typer.Argument(help="Video, folder of pictures, camera (0) or address.")],
    bundle: Annotated[str, typer.Option(help="Folder, zip or name of a shipped bundle.")] = "small",
    boxes: Annotated[list[str], typer.Option(help="COCO JSON or MOT .txt with boxes, for each source.")] = [],  # noqa: B006
    detector: Annotated[str, typer.Option(help="ONNX detector.")] = "",
    detector_threshold: Annotated[float, typer.Option(help="Least score of a detected box.")] = 0.3,
    detector_person: Annotated[int, typer.Option(help="The detector's class index of a person.")] = 0,
    detector_set: DetectorSet = [],  # noqa: B006
    first_boxes: Annotated[str, typer.Option(help="Boxes of the first frame: 'x1,y1,x2,y2 ...'.")] = "",
    every: Annotated[
        int, typer.Option(min=0, help="Boxes at every n-th frame, else from the tracks; 0: at the first.")
    ] = 1,
    out: Annotated[
        str, typer.Option(help="Folder of the results; several sources get one each.")
    ] = "runs/track",
    backend: Annotated[str, typer.Option(help="auto, tensorrt, torch, openvino or onnxruntime.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; the backend's own if left out.")] = "",
    flip: Annotated[bool, typer.Option(help="Average with the mirrored crop, as the paper does.")] = True,
    gate: Annotated[float, typer.Option(help="Probability below which a pose supports no track.")] = 0.3,
    gate_by: Annotated[str, typer.Option(help="oaks or conventional; else the bundle's score.")] = "",
    patience: Annotated[float, typer.Option(help="Seconds that a track lives without a pose.")] = 1.0,
    smooth: Annotated[bool, typer.Option(help="Steady the keypoints (one-euro filter).")] = True,
    video: Annotated[bool, typer.Option(help="Write the annotated video.")] = True,
    absent: Annotated[str, typer.Option(help="Keypoints predicted absent: hide or hollow.")] = "hide",
    show_boxes: Annotated[bool, typer.Option(help="Draw the boxes too.")] = False,
    trails: Annotated[float, typer.Option(help="Seconds for which a person's way remains; 0: none.")] = 1.0,
    live: Annotated[
        bool | None, typer.Option(help="Drop frames that come too late; else only of cameras and streams.")
    ] = None,
    retry: Annotated[
        float, typer.Option(help="Seconds for which a silent live source is opened again.")
    ] = 30.0,
    rate: Annotated[float, typer.Option(help="Frames per second of pictures.")] = 30.0,
    frames: Annotated[int, typer.Option(min=0, help="Stop after so many frames; 0: at the end.")] = 0,
) -> None:
    """Track people through videos and streams: poses per frame, MOT and COCO results, annotated video.

    Exit codes: 0 all there; 1 a source was damaged, ended early or did not return; 2 a wrong argument, or
    a source that cannot be opened; 3 a file could not be written; 130 Ctrl-C. What was written can be read
    in every case.
    """
    from oaks.video.command import track_command

    raise typer.Exit(
        track_command(
            source,
            bundle=bundle,
            engine_settings={
                "backend": backend,
                "precision": precision,
                "device": device or None,
                "flip": flip,
            },
            detector=detector or None,
            detector_settings=_detector_settings(detector, detector_threshold, detector_person, detector_set),
            boxes=boxes,
            first=first_boxes or None,
            every=every,
            source_settings={"rate": rate, "live": live, "retry": retry},
            tracker_settings={"gate": gate, "score": gate_by or None, "patience": patience},
            smooth=smooth,
            output_settings={"video": video, "absent": absent, "boxes": show_boxes, "trails": trails},
            out=out,
            most=frames or None,
        )
    )


@app.command()
def demo(
    bundle: Annotated[str, typer.Option(help="Folder, zip or name of a shipped bundle.")] = "small",
    out: Annotated[str, typer.Option(help="Folder for results.json and pictures/.")] = "demo_output",
) -> None:
    """Find the poses in the pictures that come with the package."""
    from oaks.predict import demo_command

    raise typer.Exit(demo_command(bundle, out))


@app.command()
def benchmark(
    bundle: Annotated[str, typer.Argument(help="Folder, zip or name of a shipped bundle.")] = "small",
    backend: Annotated[list[str], typer.Option(help="Backends, each with its own --backend; else all.")] = [],  # noqa: B006
    precision: Annotated[
        list[str], typer.Option(help="fp32, bf16, fp16, int8, each with its own; else all.")
    ] = [],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="Persons per call, each with its own --batch.")] = [8],  # noqa: B006
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; the backend's own if left out.")] = "",
    flip: Annotated[bool, typer.Option(help="Average with the mirrored crop, as the paper does.")] = True,
    threads: Annotated[int, typer.Option(help="CPU threads of the networks; 0: all cores.")] = 0,
    turns: Annotated[int, typer.Option(help="Turns that each has; the median counts.")] = 7,
    annotations: Annotated[str, typer.Option(help="COCO keypoints JSON: adds the average precision.")] = "",
    images: Annotated[str, typer.Option(help="Folder of its images.")] = "",
    out: Annotated[str, typer.Option(help="Write the figures to this JSON file too.")] = "",
) -> None:
    """Time a bundle on every backend and precision that is here: persons per second, stages, AP."""
    from oaks.benchmark import benchmark_command

    code = benchmark_command(
        bundle, backends=backend, precisions=precision, batches=batch, device=device or None, flip=flip,
        threads=threads or None, turns=turns, annotations=annotations or None, images=images or None,
        out=out or None,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a built-in one.")] = "",
    out: Annotated[str, typer.Option(help="Folder of the training, made new.")] = "",
    resume: Annotated[
        str, typer.Option(help="Folder of a training to go on with, instead of a recipe.")
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            help="Folder that the recipe's paths begin at: the current one, or as before on --resume."
        ),
    ] = "",
    packed: Annotated[
        str, typer.Option(help="Folder of packed people (oaks pack), read where it has a source.")
    ] = "",
    change: Annotated[list[str], typer.Option("--set", help="Change a field: training.epochs=10.")] = [],  # noqa: B006
    max_minutes: Annotated[float, typer.Option(help="Stop with a checkpoint after so long; 0: never.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes on this host; 0: one per GPU.")] = 0,
    hosts: Annotated[int, typer.Option(help="Hosts, each running this command.")] = 1,
    summary: Annotated[bool, typer.Option(help="Print the network's parameters and cost, and stop.")] = False,
) -> None:
    """Train a network by a recipe, or go on with a training."""
    from oaks.training.command import train_command

    train_command(
        recipe, out, resume, data=data, packed=packed, changes=change, max_minutes=max_minutes,
        accelerator=accelerator, devices=devices, hosts=hosts, summary=summary,
    )  # fmt: skip


@app.command()
def pack(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a built-in one.")],
    out: Annotated[str, typer.Option(help="Folder for the packed people.")],
    data: Annotated[str, typer.Option(help="Folder that the recipe's paths begin at.")] = ".",
    change: Annotated[list[str], typer.Option("--set", help="Change a field: input=[192,256].")] = [],  # noqa: B006
    detail: Annotated[float, typer.Option(help="Pixels kept per pixel of the network's input.")] = 1.3,
) -> None:
    """Pack a recipe's people into shards that training reads faster than images, and that travel."""
    from oaks.training.command import pack_command

    pack_command(recipe, out, data=data, changes=change, detail=detail)


@val.command()
def ablate(
    kind: Annotated[str, typer.Argument(help="backbones (table 5) or trainings (table 4).")],
    recipe: Annotated[str, typer.Argument(help="Recipe of a KS-net: a file, or the name of a built-in one.")],
    annotations: Annotated[str, typer.Option(help="COCO keypoint annotations to evaluate on.")],
    images: Annotated[str, typer.Option(help="Folder of their images.")],
    out: Annotated[str, typer.Option(help="Folder of the trainings.")],
    report: Annotated[str, typer.Option(help="Folder of the report that gets the table.")] = "report",
    pose: Annotated[str, typer.Option(help="Pose network to evaluate with; else the recipe's first.")] = "",
    data: Annotated[str, typer.Option(help="Folder that the recipe's paths begin at.")] = ".",
    packed: Annotated[str, typer.Option(help="Folder of packed people (oaks pack).")] = "",
    change: Annotated[list[str], typer.Option("--set", help="Change a field: training.epochs=10.")] = [],  # noqa: B006
    backbones: Annotated[str, typer.Option(help="With commas between; the paper's six if left out.")] = "",
    trainings: Annotated[int, typer.Option(min=1, help="How many, with seeds from 0.")] = 10,
    max_minutes: Annotated[float, typer.Option(help="Stop with a checkpoint after so long; 0: never.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    device: Annotated[str, typer.Option(help="To evaluate on: cpu or cuda.")] = "cpu",
    against: Annotated[str, typer.Option(help="'paper' prints the paper's figures beside these.")] = "",
) -> None:
    """Train variants of KS-net, evaluate them, and add the paper's table of them to a report."""
    from oaks.training.ablations import ablate_command

    ablate_command(
        kind, recipe, annotations=annotations, images=images, out=out, report=report, pose=pose, data=data,
        packed=packed, changes=change, backbones=backbones, trainings=trainings, max_minutes=max_minutes,
        accelerator=accelerator, device=device, against=against,
    )  # fmt: skip


@app.command()
def export(
    pose: Annotated[str, typer.Argument(help="Checkpoint (.safetensors) of a pose network.")],
    out: Annotated[str, typer.Option(help="Folder of the bundle; one that is there is replaced.")],
    ks: Annotated[str, typer.Option(help="Checkpoint of the KS network for its heatmaps.")] = "",
    precision: Annotated[
        list[str], typer.Option(help="fp16 (serves fp32 too), int8, fp32; repeat for several.")
    ] = ["fp16"],  # noqa: B006
    crops: Annotated[
        str,
        typer.Option(help="People to compare and calibrate on: COCO JSON, folder, .npz; or 'rendered'."),
    ] = "",
    tolerance: Annotated[list[str], typer.Option(help="Largest difference: fp16=0.01, say.")] = [],  # noqa: B006
    keep_float: Annotated[list[str], typer.Option(help="ONNX node that int8 leaves in float32.")] = [],  # noqa: B006
    name: Annotated[str, typer.Option(help="Name of the bundle; else the folder's.")] = "",
    float_ks: Annotated[bool, typer.Option(help="Write the KS network in fp16 instead of int8.")] = False,
) -> None:
    """Write a bundle from trained networks, each precision compared with torch on real people."""
    from oaks.engines.command import export_command

    raise typer.Exit(
        export_command(
            pose,
            ks=ks or None,
            out=out,
            precisions=precision,
            crops=crops or None,
            tolerances=tolerance,
            keep_float=keep_float,
            name=name or None,
            float_ks=float_ks,
        )
    )


@app.command()
def render(
    out: Annotated[str, typer.Argument(help="Folder of the data set; one begun there is gone on with.")],
    count: Annotated[int, typer.Option(help="How many pictures.")] = 1000,
    seed: Annotated[int, typer.Option(help="Every picture follows from it and the picture's number.")] = 0,
    size: Annotated[tuple[int, int], typer.Option(help="Width and height of the pictures.")] = (320, 320),
    classes: Annotated[
        str, typer.Option(help="Shares of almost, largely, slightly, not occluded people; else COCO's.")
    ] = "",
    poses: Annotated[str, typer.Option(help="File of 2D poses to render people in.")] = "",
    texture: Annotated[bool, typer.Option(help="Patterned clothes and occluders.")] = True,
    faces: Annotated[bool, typer.Option(help="Eyes, mouths and hair.")] = True,
    occluders: Annotated[bool, typer.Option(help="Things in front of people.")] = True,
    photograph: Annotated[bool, typer.Option(help="Blur, noise, colour casts and JPEG artefacts.")] = True,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    quality: Annotated[int, typer.Option(help="Of the JPEG files, 1 to 100.")] = 95,
) -> None:
    """Render people with keypoint labels: a COCO data set that needs no download."""
    from oaks.training.render.command import render_command

    render_command(
        out, count=count, workers=workers, quality=quality, classes=classes, seed=seed, size=size,
        poses=poses or None, texture=texture, faces=faces, occluders=occluders, photograph=photograph,
    )  # fmt: skip


@app.command()
def render_video(
    out: Annotated[str, typer.Argument(help="Folder of the clips; one begun there is gone on with.")],
    count: Annotated[int, typer.Option(help="How many clips.")] = 4,
    frames: Annotated[int, typer.Option(help="Frames of a clip.")] = 250,
    rate: Annotated[float, typer.Option(help="Frames per second.")] = 25,
    seed: Annotated[int, typer.Option(help="Every clip follows from it and the clip's number.")] = 0,
    size: Annotated[tuple[int, int], typer.Option(help="Width and height of the frames.")] = (640, 360),
    texture: Annotated[bool, typer.Option(help="Patterned clothes and occluders.")] = True,
    faces: Annotated[bool, typer.Option(help="Eyes, mouths and hair.")] = True,
    occluders: Annotated[bool, typer.Option(help="Things in front of people.")] = True,
    photograph: Annotated[bool, typer.Option(help="Blur, noise, colour casts and JPEG artefacts.")] = True,
    shake: Annotated[bool, typer.Option(help="Move the camera as a hand does.")] = False,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    quality: Annotated[int, typer.Option(help="Of the JPEG files, 1 to 100.")] = 95,
) -> None:
    """Render videos of walking people: frames, COCO keypoints with track ids, MOTChallenge's text."""
    from oaks.training.render.command import render_videos_command

    render_videos_command(
        out, count=count, workers=workers, quality=quality, seed=seed, size=size, frames=frames, rate=rate,
        texture=texture, faces=faces, occluders=occluders, photograph=photograph, shake=shake,
    )  # fmt: skip


def _detector_settings(detector: str, threshold: float, person: int, changes: list[str]) -> dict[str, Any]:
    from oaks.detector import read_settings

    if changes and not detector:
        raise ValueError(f"detector-set: a --detector wanted to set this of, got {changes} alone")
    return {"threshold": threshold, "person": person, **read_settings(changes)}


_EXTRAS = {
    "training": ("torch", "lightning", "pydantic", "yaml", "safetensors", "tensorboard", "pycocotools"),
    "export": ("onnx", "onnxscript", "onnxconverter_common", "safetensors", "torch"),
    "val": ("pycocotools", "faster_coco_eval", "scipy", "matplotlib", "jinja2"),
    "video": ("av", "scipy"),
}
"""The optional dependencies of pyproject.toml, and the modules that come with each."""

_EXTRA_OF = {"export": "export", "val": "val", "track": "video"}
"""Verbs with an extra of their own, which is the one to install where several bring a module."""


def _extra_with(module: str, verb: str) -> str | None:
    """The extra to install for a verb that lacks a module; None if no extra brings it."""
    bringing = [extra for extra, modules in _EXTRAS.items() if module in modules]
    own = _EXTRA_OF.get(verb)
    return own if own in bringing else next(iter(bringing), None)


def main() -> None:
    """Runs the command line. What the user can put right is said in one line, without a traceback."""
    try:
        app()
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        extra = _extra_with(missing, sys.argv[1] if len(sys.argv) > 1 else "")
        if extra is None:
            raise
        typer.secho(f"oaks: this needs {missing}: pip install 'oaks[{extra}]'", fg="red", err=True)
        sys.exit(2)
    except (BackendUnavailable, BundleError, OSError, ValueError) as error:
        typer.secho(f"oaks: {error}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
