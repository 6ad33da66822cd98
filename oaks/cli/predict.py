"""`oaks predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import DONE, SKIPPED, verb

if TYPE_CHECKING:
    from oaks.predict import Prediction


@verb()
def predict(
    output: Output,
    *,
    source: Annotated[list[str], typer.Argument(help="Pictures, folders of pictures or globs.")],
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
    pictures: Annotated[bool, typer.Option(help="Write annotated pictures.")] = True,
    drawing: options.DrawingOptions,
    out: Annotated[Path, typer.Option(help="Output folder for results.json and pictures/.")] = Path(
        "runs/predict"
    ),
) -> int:
    """Find the poses in pictures: COCO results, annotated pictures, one line per picture.

    Without --boxes or --detector, the bundle's detector finds the people.
    """
    from oaks import predict as library
    from oaks.images import find_images

    found = find_images(source)
    with engine.open(bundle) as opened, output.progress("pictures", len(found)) as advance:
        people = options.box_source(boxes, detector, opened, category)
        output.say(options.about(opened, people.description))
        output.kept = f"the results so far are in {out}"

        def done(prediction: Prediction) -> None:
            tell(output, prediction)
            advance()

        summary = library.predict(
            opened, found, people, out, annotate=pictures, absent=drawing.absent, boxes=drawing.show_boxes,
            nms=options.threshold(nms), done=done,
        )  # fmt: skip
    output.say(f"{summary.people} people in {len(found) - len(summary.skipped)} pictures: {summary.results}")
    if pictures:
        output.say(f"{summary.pictures} annotated pictures: {out / 'pictures'}")
    if summary.skipped:
        output.say(f"skipped {len(summary.skipped)}: {', '.join(path.name for path in summary.skipped)}")
    return SKIPPED if summary.skipped or summary.undrawn or summary.unscored else DONE


def tell(output: Output, prediction: Prediction) -> None:
    """Print what became of a picture."""
    if prediction.poses is None or prediction.image_id is None:
        output.item(
            {"image": prediction.path, "skipped": prediction.problem},
            f"skipped {prediction.path}: {prediction.problem}",
        )
        return
    poses = prediction.poses
    people = "1 person" if len(poses) == 1 else f"{len(poses)} people"
    scores = " ".join(f"{score:.2f}" for score in np.sort(poses.scores)[::-1][:8])
    more = " ..." if len(poses) > 8 else ""
    listed = f", {poses.score_kind} scores {scores}{more}" if scores else ""
    record = {
        "image": prediction.path,
        "image_id": prediction.image_id,
        "people": len(poses),
        "poses": poses.to_coco(prediction.image_id),
    }
    if prediction.problem is not None:
        record["problem"] = prediction.problem
        output.warn(f"{prediction.path}: {prediction.problem}")
    output.item(record, f"{prediction.path.name}: {people}{listed}")
