"""`oaks predict`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb
from oaks.names import number_of

if TYPE_CHECKING:
    from oaks.predict import Prediction


@verb()
def predict(
    output: Output,
    *,
    source: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders of pictures or globs. With --ray also videos, tar shards, Parquet files and addresses."
        ),
    ],
    bundle: options.Bundle = "small",
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="COCO JSON with person boxes: annotations or box results. 'whole': each picture is one person. "
            "Default: the bundle's detector finds the people."
        ),
    ] = None,
    category: options.Category = None,
    detector: options.DetectorOptions,
    engine: options.EngineOptions,
    nms: options.Nms = options.NMS,
    pictures: Annotated[
        bool | None, typer.Option(help="Write annotated pictures. Default: yes, but not with --ray.")
    ] = None,
    drawing: options.DrawingOptions,
    out: Annotated[
        Path, typer.Option(help="Output folder for results.json and pictures/; with --ray for parts/.")
    ] = Path("runs/predict"),
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Run on Ray: on the cluster at this address (HOST:PORT or auto), or without one on this machine. "
            "The output is Parquet, and the same command resumes it.",
        ),
    ] = None,
    workers: options.Workers = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of encoded images in Parquet files, with --ray. Default: image."),
    ] = None,
    coco: Annotated[bool, typer.Option("--coco", help="Write COCO results too, with --ray.")] = False,
) -> int:
    """Find the poses in pictures: COCO results, annotated pictures, one line per picture.

    Without --boxes or --detector, the bundle's detector finds the people. With --ray many machines can work together,
    and the results are Parquet files: one row per person.
    """
    if ray is not None:
        options.leave_out({"--pictures": pictures}, "with --ray, which writes no annotated pictures")
        return predict_on_ray(
            output, source, bundle, address=ray, boxes=options.given_boxes(boxes, detector, bundle, category), engine=engine,
            nms=nms or None, out=out, workers=workers, column=column or "image", coco=coco,
        )  # fmt: skip
    options.leave_out({"--workers": workers, "--column": column, "--coco": coco}, "without --ray")
    from oaks import predict as library
    from oaks.images import find_images

    pictures, found = pictures is not False, find_images(source)
    with engine.open(bundle) as opened, output.progress("pictures", len(found)) as advance:
        people = options.box_source(boxes, detector, opened, category, found)
        output.say(options.about(opened, people.description))
        output.kept = f"the results so far are in {out}"

        def done(prediction: Prediction[Path]) -> None:
            tell(output, prediction)
            advance()

        summary = library.predict(
            opened, found, people, out, annotate=pictures, absent=drawing.absent, boxes=drawing.show_boxes,
            nms=nms or None, done=done,
        )  # fmt: skip
    output.say(f"{found_in(summary.people, len(found) - len(summary.skipped))}: {summary.results}")
    if pictures:
        output.say(f"annotated pictures: {out / 'pictures'}")
    if summary.skipped:
        output.say(f"skipped {len(summary.skipped)}: {', '.join(path.name for path in summary.skipped)}")
    return SKIPPED if summary.skipped or summary.undrawn or summary.unscored else DONE


def predict_on_ray(
    output: Output,
    sources: list[str],
    bundle: str,
    *,
    engine: options.EngineOptions,
    out: Path,
    **settings: Any,
) -> int:
    """`oaks predict --ray`: a progress bar, and totals at the end."""
    from oaks.ray.batches import predict_files

    output.kept = f"finished parts are in {out / 'parts'}; the same command resumes"
    bars = ExitStack()
    steps: list[Callable[..., None]] = []

    def start(left: int, done: int) -> None:
        if done:
            output.say(f"resumed: pictures done: {done}; pictures and other files left: {left}")
        steps.append(bars.enter_context(output.progress("pictures", left)))

    with bars:
        summary = predict_files(
            sources, out, bundle, start=start, advance=lambda count: steps[0](count),
            **vars(engine), **settings,
        )  # fmt: skip
    for name, reason in summary.errors.items():
        output.item({"image": name, "skipped": reason}, f"skipped {name}: {reason}")
    for name in summary.unfinished:
        output.warn(f"not finished: {name}: the worker died in every attempt; the same command tries again")
    record = {
        "pictures": summary.pictures, "people": summary.people, "errors": len(summary.errors),
        "unfinished": len(summary.unfinished), "parts": summary.folder / "parts", "results": summary.results,
    }  # fmt: skip
    read = summary.pictures - len(summary.errors)
    output.item(record, f"{found_in(summary.people, read)}: {summary.folder / 'parts'}")
    if summary.results is not None:
        output.say(f"COCO results: {summary.results}")
    return SKIPPED if summary.errors or summary.unfinished else DONE


def found_in(people: int, pictures: int) -> str:
    """Return the totals of the last line."""
    return f"{number_of(people, 'person', 'people')} in {number_of(pictures, 'picture')}"


def tell(output: Output, prediction: Prediction[Path]) -> None:
    """Print the outcome of a picture."""
    if prediction.poses is None or prediction.image_id is None:
        output.item(
            {"image": prediction.path, "skipped": prediction.problem},
            f"skipped {prediction.path}: {prediction.problem}",
        )
        return
    poses = prediction.poses
    scores = " ".join(f"{score:.2f}" for score in np.sort(poses.scores)[::-1][:8])
    more = " ..." if len(poses) > 8 else ""
    listed = f", {poses.score_kind} scores {scores}{more}" if scores else ""
    record = {
        "image": prediction.path, "image_id": prediction.image_id, "people": len(poses),
        "poses": poses.to_coco(prediction.image_id),
    }  # fmt: skip
    if prediction.problem is not None:
        record["problem"] = prediction.problem
        output.warn(f"{prediction.path}: {prediction.problem}")
    output.item(record, f"{prediction.path.name}: {number_of(len(poses), 'person', 'people')}{listed}")
