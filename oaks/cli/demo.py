"""`oaks demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.predict import found_in, tell
from oaks.cli.verb import DONE, verb


@verb()
def demo(
    output: Output,
    *,
    bundle: options.Bundle = "small",
    engine: options.EngineOptions,
    detector: options.DetectorOptions,
    out: Annotated[Path, typer.Option(help="Output folder for results.json and pictures/.")] = Path(
        "demo_output"
    ),
) -> int:
    """Find the people and their poses in the pictures of the package."""
    from oaks import predict as library
    from oaks.boxes import boxes_from_file
    from oaks.images import find_images

    detector.check(None)
    pictures = find_images([library.DEMO])
    with engine.open(bundle) as opened:
        if opened.has_detector or detector.given:
            people = options.detected_boxes(detector, opened, "--detector")
        else:
            people = boxes_from_file(library.DEMO / "people.json")
        output.say(options.about(opened, people.description))
        output.kept = f"the results so far are in {out}"
        summary = library.predict(opened, pictures, people, out, done=lambda found: tell(output, found))
    output.say(f"{found_in(summary.people, len(pictures))}: {summary.results}")
    output.say(f"annotated pictures: {out / 'pictures'}")
    return DONE
