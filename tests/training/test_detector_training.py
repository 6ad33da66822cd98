"""Training of a person detector: it learns, resumes exactly, and the network's file describes its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oaks.training.checkpoint import load_network
from oaks.training.data.sources import DataFolders
from oaks.training.detector import open_images
from oaks.training.recipe import parse_recipe
from oaks.training.run import resume
from tests.training.conftest import (
    CPU,
    ONE_STEP,
    assert_same_weights,
    card_of,
    losses,
    quiet,
    save,
    start,
    write_people,
)

RECIPE = {
    "kind": "detector", "title": "test", "network": {"name": "person_detector", "width": 0.25, "blocks": 14},
    "input": [64, 64], "augmentation": {"flip": 0.5, "scale": [0.8, 1.25]},
    "data": {
        "train": [{"kind": "coco", "name": "own", "annotations": "data/annotations.json", "images": "data/images"}],
        "folds": {"count": 3, "held_out": 0},
    },
    "training": {
        "epochs": 30, "batch": 4, "learning_rate": 0.01, "optimizer": "adamw", "workers": 0, "average": 0.5,
        "schedule": {"kind": "cosine"}, "log_every": 1, "validate_every": 30,
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = write_people(tmp_path / "data", images=12)
    for image in content["images"]:
        image["annotations_complete"] = True
    save(tmp_path / "data", content)
    return tmp_path / "data"


def test_a_detector_learns_and_describes_its_input(tmp_path: Path, folder: Path) -> None:
    path = start(tmp_path / "run", folder, RECIPE)
    assert path is not None
    curve = [float(value) for _, value in sorted(losses(tmp_path / "run").items())]
    assert np.mean(curve[-8:]) < 0.85 * np.mean(curve[:8])
    network, described = load_network(path)
    centers, sizes, _ = network(torch.zeros(1, 3, 64, 96))
    assert centers.shape == (1, 1, 64 // described["stride"], 96 // described["stride"])
    assert (sizes > 0).all()
    assert (described["kind"], described["input"]["size"]) == ("detector", [64, 64])
    assert set(card_of(tmp_path / "run")["metrics"]) == {"AP", "AP50", "AR"}


def test_a_stopped_training_resumes_exactly(tmp_path: Path, folder: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    start(whole, folder, RECIPE)
    assert start(stopped, folder, RECIPE, ONE_STEP) is None
    assert resume(stopped, CPU, console=quiet()) is not None
    assert losses(stopped) == losses(whole)
    assert_same_weights(whole, stopped)


@pytest.mark.parametrize("wrong", ["text", "size"])
def test_a_wrong_folder_of_images_is_found_before_the_training(
    tmp_path: Path, folder: Path, wrong: str
) -> None:
    for path in (folder / "images").iterdir():
        if wrong == "text":
            path.write_text("no picture")
        else:
            Image.new("RGB", (40, 30)).save(path)
    recipe = parse_recipe(RECIPE, "test")
    message = "own must have images that can be decoded, got none for"
    with pytest.raises(
        ValueError, match=message if wrong == "text" else f"{message}.*its size must be that of"
    ):
        open_images(recipe.data, DataFolders(tmp_path))


def test_damaged_validation_images_are_skipped_and_counted(tmp_path: Path, folder: Path) -> None:
    """An AP over the others, not one that compares the next image's boxes with the damaged image's people."""
    short = {**RECIPE, "training": {**RECIPE["training"], "epochs": 1}}
    recipe = parse_recipe(short, "test")
    held_out = open_images(recipe.data, DataFolders(tmp_path)).validation[0]
    assert len(held_out) > 1
    (folder / "images" / held_out.files[0]).write_bytes(b"no picture")
    start(tmp_path / "run", folder, short)
    assert card_of(tmp_path / "run")["damaged images left out of the validation"] == 1
