"""Training a person detector: it learns, resumes exactly, and the network's file describes its input."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from oaks.training.checkpoint import load_network
from oaks.training.data.sources import DataFolders
from oaks.training.recipe import parse_recipe
from oaks.training.run import Hardware, resume, train
from tests.training.conftest import save, write_people

RECIPE = {
    "kind": "detector", "title": "test", "network": {"name": "person_detector", "width": 0.25, "blocks": 14},
    "input": [64, 64], "augmentation": {"flip": 0.5, "scale": [0.8, 1.25]},
    "data": {
        "train": [{"kind": "coco", "name": "own", "annotations": "annotations.json", "images": "images"}],
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


def losses(run: Path) -> np.ndarray:
    rows: list[dict[str, str]] = []
    for path in sorted(run.glob("logs/session-*/metrics.csv")):
        rows += csv.DictReader(io.StringIO(path.read_text()))
    return np.array([float(row["loss"]) for row in rows if row.get("loss")])


def start(run: Path, folder: Path, machine: Hardware) -> Path | None:
    return train(
        parse_recipe(RECIPE, "test"), run, DataFolders(folder), machine, console=Console(file=io.StringIO())
    )


def test_a_detector_learns_and_says_what_it_takes(tmp_path: Path, folder: Path) -> None:
    path = start(tmp_path / "run", folder, Hardware("cpu", 1))
    assert path is not None
    curve = losses(tmp_path / "run")
    assert curve[-8:].mean() < 0.85 * curve[:8].mean()
    network, described = load_network(path)
    centers, sizes, _ = network(torch.zeros(1, 3, 64, 96))
    assert centers.shape == (1, 1, 64 // described["stride"], 96 // described["stride"])
    assert (sizes > 0).all()
    assert (described["kind"], described["input"]["size"]) == ("detector", [64, 64])
    assert (
        "val/AP50" in (tmp_path / "run" / "metrics.json").read_text()
        or "AP50" in (tmp_path / "run" / "metrics.json").read_text()
    )


def test_a_stopped_training_goes_on_exactly(tmp_path: Path, folder: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    start(whole, folder, Hardware("cpu", 1))
    assert start(stopped, folder, Hardware("cpu", 1, max_minutes=1e-9)) is None
    assert resume(stopped, Hardware("cpu", 1), console=Console(file=io.StringIO())) is not None
    np.testing.assert_array_equal(losses(stopped), losses(whole))
    first, second = (load_network(run / "network.safetensors")[0].state_dict() for run in (whole, stopped))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
