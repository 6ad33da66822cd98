"""Measure networks that are trained on rendered people only on photographs.

    python benchmarks/rendered_to_real.py --data DIR [--annotations FILE --images FOLDER] [--pictures 2500 --epochs 8]

The small recipe with everything, and without patterned clothes, faces, or objects in front of people; everything else,
including the number of steps, is equal. Ground-truth boxes. The same command resumes an interrupted run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

VARIANTS = {
    "everything": {},
    "no patterns on clothes and things": {"texture": False},
    "no faces and hair": {"faces": False},
    "nothing in front of people": {"occluders": False},
}
FIGURES = ("conventional AP50", "conventional AP", "oracle AP50", "visibility accuracy", "majority accuracy")


def train(folder: Path, changes: dict, data: Path) -> dict[str, float]:
    """Train the small recipe with changes, or resume or read a training; return its metrics."""
    card = folder / "metrics.json"
    if not card.is_file() or (done := json.loads(card.read_text()))["step"] < done["steps"]:
        words = ["--resume", str(folder)]
        if not (folder / "run.json").is_file():
            words = ["rendered_oa_hpe", "--out", str(folder), "--data", str(data)]
            for field, value in changes.items():
                words += ["--set", f"{field}={yaml.safe_dump(value, default_flow_style=True).strip()}"]
        subprocess.run([sys.executable, "-m", "oaks", "train", *words], check=True)
    return json.loads(card.read_text())["metrics"]


def main(
    data: Annotated[Path, typer.Option(help="Folder that the annotations and images are relative to.")],
    annotations: Annotated[str, typer.Option(help="COCO keypoint annotations.")] = "coco-val2017/train.json",
    images: Annotated[str, typer.Option(help="Folder of their images.")] = "coco-val2017/train",
    pictures: Annotated[int, typer.Option(help="Number of rendered pictures.")] = 2500,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.")] = 8,
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("runs/rendered_to_real"),
) -> None:
    """Train the variants and print the table."""
    table = Table(
        "trained on rendered people with", *FIGURES, title=f"Measured on {annotations}, ground-truth boxes"
    )
    for title, settings in VARIANTS.items():
        changes = {
            "data.train.0.count": pictures,
            "data.train.0.settings": settings,
            "data.validation": [
                {"kind": "coco", "name": "photographs", "annotations": annotations, "images": images}
            ],
            "training.epochs": epochs,
            "training.validate_every": epochs,
        }
        found = train(out / "-".join(settings or ["everything"]), changes, data)
        table.add_row(title, *(f"{100 * found[name]:.1f}" for name in FIGURES))
    table.caption = f"{pictures} pictures, {epochs} epochs of the small recipe"
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
