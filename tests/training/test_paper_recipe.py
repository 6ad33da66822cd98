"""The first steps of the paper's training (ResNet-101, 384×288, COCO), by its command, on a stand-in for COCO."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from oaks.cli.main import main
from oaks.training.checkpoint import load_network
from tests.training.conftest import write_people

STEPS = 50
NARROW = ("network.width=0.0625", "network.head_channels=16", "network.visibility_channels=8",
          "network.visibility_hidden=16", "training.batch=2")  # fmt: skip


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A folder with the layout of COCO 2017, with twelve people to train on and four to validate on."""
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for seed, (part, images) in enumerate((("train2017", 6), ("val2017", 2))):
        made = folder / f"{part}-made"
        write_people(made, images=images, seed=seed)
        (made / "images").rename(folder / part)
        (made / "annotations.json").rename(folder / "annotations" / f"person_keypoints_{part}.json")
    return folder


def run(coco: Path, out: Path, *changes: str) -> list[dict[str, float]]:
    """Run the first steps of the training; return the log."""
    kept = ("initial=null", "training.workers=0", "training.log_every=1", "data.validation=[]", *changes)
    words = ["train", "paper_oa_hpe", "--data", str(coco), "--out", str(out), "--accelerator", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main([*words, *(word for change in kept for word in ("--set", change))])
    assert not ended.value.code
    (path,) = out.glob("logs/session-*/metrics.csv")
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def check(rows: list[dict[str, float]], out: Path) -> dict[str, np.ndarray]:
    """Check what holds at any width; return the losses of every step."""
    losses = {
        name: np.array([row[name] for row in rows if name in row]) for name in ("loss", "visibility_loss")
    }
    assert len(losses["loss"]) == STEPS
    assert np.isfinite(losses["loss"]).all()
    # At first the predicted visibility of all 17 keypoints is about .5.
    assert losses["visibility_loss"][0] == pytest.approx(17 * np.log(2), rel=0.1)
    description = load_network(out / "network.safetensors")[1]
    assert description["architecture"]["backbone"] == "resnet101"
    assert description["input"]["size"] == [288, 384]
    assert description["heatmap_sigma"] == 1
    return losses


def test_the_first_steps_of_a_narrow_copy(coco: Path, tmp_path: Path) -> None:
    """All layers and settings of the recipe, but a sixteenth of the channels and a batch of 2."""
    epochs = STEPS / 6  # twelve people in batches of two
    rows = run(coco, tmp_path / "run", f"training.epochs={epochs}", *NARROW)
    visibility = check(rows, tmp_path / "run")["visibility_loss"]
    assert (
        visibility[-10:].mean() < 0.95 * visibility[:10].mean()
    )  # it learns how often each keypoint is labeled


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_steps_at_full_width(coco: Path, tmp_path: Path) -> None:
    """The network itself with one person per step: the learning rate of 1e-3 first increases the loss."""
    rows = run(coco, tmp_path / "run", f"training.epochs={STEPS / 12}", "training.batch=1")
    loss = check(rows, tmp_path / "run")["loss"]
    assert loss[-10:].mean() < 0.5 * loss[1:11].mean()
