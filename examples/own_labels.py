"""Fine-tune a shipped network on your own labels, and try the new bundle on a picture.

    pip install ".[training,export,fit]"
    python examples/own_labels.py people.json pictures --out mine

`oaks finetune` does the same. docs/finetune.md says what labels must hold, and how to read the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import oaks
from oaks.coco import read_annotations
from oaks.finetune import FinetuneSettings, finetune


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a shipped network on your own labels.")
    parser.add_argument("annotations", help="COCO keypoint annotations")
    parser.add_argument("images", help="folder of the pictures")
    parser.add_argument("--bundle", default="tiny", help="bundle to start from")
    parser.add_argument("--epochs", type=int, help="default: chosen by the number of people")
    parser.add_argument("--out", default="mine", help="folder of the new bundle")
    given = parser.parse_args(arguments)

    settings = FinetuneSettings(epochs=given.epochs)
    done = finetune(given.bundle, given.annotations, given.images, out=given.out, settings=settings)
    done.print()  # average precision before and after, on people that were held out
    people = read_annotations(given.annotations)
    first = Path(given.images) / people.file_names[people.image[0]]
    poses = oaks.Engine(given.out).infer(first, boxes=people.corners[:1])
    print(f"{given.out}: score {poses.scores[0]:.2f} on the first labeled person")


if __name__ == "__main__":
    main()
