"""`oaks render` and `oaks render-video`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.errors import ArgumentError
from oaks.names import number_of


@dataclass(frozen=True)
class LookOptions:
    """What rendered pictures look like."""

    texture: Annotated[bool, typer.Option(help="Patterned clothes and occluders.")] = True
    faces: Annotated[bool, typer.Option(help="Eyes, mouths and hair.")] = True
    occluders: Annotated[bool, typer.Option(help="Objects in front of people.")] = True
    photograph: Annotated[bool, typer.Option(help="Blur, noise, color casts and JPEG artifacts.")] = True


@dataclass(frozen=True)
class WritingOptions:
    """How rendered pictures are written."""

    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of the JPEG files.")] = 95


@verb(extra="training")
def render(
    output: Output,
    *,
    out: Annotated[Path, typer.Argument(help="Folder of the data set; one begun in it is resumed.")],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 1000,
    seed: options.Seed = 0,
    size: Annotated[tuple[int, int], typer.Option(help="Width and height of the pictures.")] = (320, 320),
    classes: Annotated[
        str | None,
        typer.Option(help="Shares of almost, largely, slightly and not occluded people. Default: COCO's."),
    ] = None,
    poses: Annotated[
        str | None, typer.Option(help="File of 2D poses to take poses from. Default: generated poses.")
    ] = None,
    looks: LookOptions,
    writing: WritingOptions,
) -> None:
    """Render people with keypoint labels: a COCO data set that needs no download."""
    from oaks.training.render import write_dataset
    from oaks.training.render.output.sheet import write_people_sheet

    settings = {"seed": seed, "size": size, "poses": poses, **asdict(looks)}
    if classes is not None:
        settings["classes"] = _shares(classes)
    output.kept = f"the pictures so far are in {out}; the same command resumes"
    annotations = write_dataset(out, count, **asdict(writing), progress=not output.quiet, **settings)
    sheet = write_people_sheet(out, count, **settings)
    output.item(
        {"annotations": annotations, "sheet": sheet},
        f"{number_of(count, 'picture')} with labels: {annotations}",
    )
    output.say(f"the first of them side by side: {sheet}")


@verb(extra="training")
def render_video(
    output: Output,
    *,
    out: Annotated[Path, typer.Argument(help="Folder of the clips; one begun in it is resumed.")],
    count: Annotated[int, typer.Option(min=1, help="Number of clips.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Frames per clip.")] = 250,
    rate: Annotated[float, typer.Option(help="Frames per second.")] = 25,
    seed: options.Seed = 0,
    size: Annotated[tuple[int, int], typer.Option(help="Width and height of the frames.")] = (640, 360),
    looks: LookOptions,
    shake: Annotated[bool, typer.Option("--shake", help="Simulate a hand-held camera.")] = False,
    writing: WritingOptions,
) -> None:
    """Render videos of walking people: frames, COCO keypoints with track ids, MOTChallenge text files."""
    from oaks.training.render import write_videos
    from oaks.training.render.output.sheet import write_video_sheet

    settings = {
        "seed": seed, "size": size, "frames": frames, "rate": rate, "shake": shake, **asdict(looks)
    }  # fmt: skip
    output.kept = f"the clips so far are in {out}; the same command resumes"
    folders = write_videos(out, count, **asdict(writing), progress=not output.quiet, **settings)
    for folder in folders:
        output.item({"clip": folder})
    output.say(f"{number_of(count, 'clip')} with labels and track ids, a folder each: {folders[0]} onwards")
    output.say(f"frames of the first of them side by side: {write_video_sheet(out, count, **settings)}")


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError as error:
        raise ArgumentError(f"--classes must be four numbers with commas between, got {text!r}") from error
