"""Shared parts of the tests: a data set of twelve people, tiny recipes, and trainings on the CPU."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from oaks.skeleton import COCO17
from oaks.training.checkpoint import load_network
from oaks.training.data.people import CocoPeople, read_coco
from oaks.training.data.sources import DataFolders
from oaks.training.recipe import parse_recipe
from oaks.training.run import Hardware, train

TINY = {"name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "head_channels": 8, "head_layers": 1}
CPU = Hardware("cpu", 1)
ONE_STEP = Hardware("cpu", 1, max_minutes=1e-9)
"""Hardware of a training that stops after one step."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Train in one thread, so that sums have the same order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_people(folder: Path, images: int = 6, people: int = 2, seed: int = 0) -> dict[str, Any]:
    """Write a COCO data set of smooth random pictures with people at random places; return its annotations."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}],
    }
    for image in range(1, images + 1):
        picture = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (128, 96))
        cv2.imwrite(str(folder / "images" / f"{image}.jpg"), picture)
        content["images"].append({"id": image, "file_name": f"{image}.jpg", "width": 128, "height": 96})
        for _ in range(people):
            low, extent = rng.uniform(0, 40, 2), rng.uniform(30, 50, 2)
            keypoints = np.zeros((17, 3))
            keypoints[:, :2] = low + rng.random((17, 2)) * extent
            keypoints[:, 2] = rng.choice([0, 1, 2], 17, p=[0.3, 0.2, 0.5])
            keypoints[0, 2] = 2
            keypoints[keypoints[:, 2] == 0] = 0
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": image, "category_id": 1, "iscrowd": 0,
                "keypoints": keypoints.ravel().tolist(), "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "bbox": [*low, *extent], "area": float(extent.prod() * 0.6),
            })  # fmt: skip
    save(folder, content)
    return content


def save(folder: Path, content: dict[str, Any]) -> None:
    """Write the annotation file of a data set."""
    (folder / "annotations.json").write_text(json.dumps(content))


@pytest.fixture
def people_folder(tmp_path: Path) -> Path:
    """A folder with annotations.json and images/: 6 images, 12 people."""
    write_people(tmp_path / "people")
    return tmp_path / "people"


@pytest.fixture
def people(people_folder: Path) -> CocoPeople:
    """The people of `people_folder`."""
    return read_people(people_folder)


def read_people(folder: Path, **arguments: Any) -> CocoPeople:
    """Return the people of a folder with annotations.json and images/."""
    return read_coco("people", folder / "annotations.json", folder / "images", COCO17, **arguments)


def quiet() -> Console:
    """Return a console that keeps its text in `file`."""
    return Console(file=io.StringIO(), width=400)


def start(
    run: Path, folder: Path, content: dict[str, Any], machine: Hardware = CPU, console: Console | None = None
) -> Path | None:
    """Start a training on `people_folder`."""
    place = DataFolders(folder.parent)
    return train(parse_recipe(content, "test"), run, place, machine, console=console or quiet())


def losses(run: Path) -> dict[int, str]:
    """Return the logged loss of every step; of repeated steps the last."""
    curve = {}
    for path in sorted(run.glob("logs/session-*/metrics.csv")):
        for row in csv.DictReader(io.StringIO(path.read_text())):
            if row.get("loss"):
                curve[int(row["step"])] = row["loss"]
    return curve


def card_of(run: Path) -> dict[str, Any]:
    """Return the metrics card of a training."""
    return json.loads((run / "metrics.json").read_text())


def checkpoint_step(run: Path) -> int:
    """Return the step of a training's checkpoint."""
    return torch.load(run / "last.ckpt", weights_only=True)["global_step"]


def assert_same_weights(first: Path, second: Path) -> None:
    """Compare the networks of two trainings bit by bit."""
    networks = (load_network(run / "network.safetensors")[0].state_dict() for run in (first, second))
    a, b = networks
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0, atol=0)


def source(name: str = "people", **fields: Any) -> dict[str, Any]:
    """Return a recipe's source for `people_folder`; the recipe's paths are relative to its parent."""
    return {
        "kind": "coco",
        "name": name,
        "annotations": f"{name}/annotations.json",
        "images": f"{name}/images",
        **fields,
    }


def pose_recipe(**fields: Any) -> dict[str, Any]:
    """Return a recipe that trains a tiny network for eight steps."""
    training = {
        "epochs": 2, "batch": 3, "schedule": {"kind": "cosine", "warmup_steps": 2}, "workers": 0,
        "validate_every": 1, "log_every": 1, "average": 0.9, **fields.pop("training", {}),
    }  # fmt: skip
    return {
        "kind": "pose", "title": "tiny", "network": TINY, "input": [48, 64], "heatmap_sigma": 1.0,
        "data": {"train": [source()]},
        "augmentation": {"rotation": 30, "scale": [0.8, 1.2], "flip": 0.5, "occluders": 0.5, "color": 0.5},
        "training": training, **fields,
    }  # fmt: skip


def ks_recipe(pose: list[str], **fields: Any) -> dict[str, Any]:
    """Return a recipe of a tiny KS-net."""
    training = {
        "epochs": 2, "batch": 4, "schedule": {"kind": "step", "epochs": [1]}, "workers": 0,
        "validate_every": 1, "log_every": 1, **fields.pop("training", {}),
    }  # fmt: skip
    return {
        "kind": "ks", "title": "tiny KS-net", "pose": pose, "data": {"train": [source()]},
        "network": {"name": "ks_net", "backbone": "conv2", "width": 0.125, "hidden": 16},
        "training": training, **fields,
    }  # fmt: skip
