"""Several processes train as one."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from rich.console import Console

from oaks.training.data.sources import DataFolders
from oaks.training.recipe import read_recipe
from oaks.training.run import Hardware, train
from tests.training.conftest import pose_recipe, source
from tests.training.ddp_process import gradients


def run_two(*command: str) -> None:
    """Runs a Python command in two processes that find each other as those of torchrun do."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
                   "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
                   "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, *command], env={**environment, "RANK": rank, "LOCAL_RANK": rank}, cwd=root
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def test_two_processes_have_the_gradient_of_one(tmp_path: Path, people_folder: Path) -> None:
    run_two("-m", "tests.training.ddp_process", str(people_folder.parent), str(tmp_path / "gradients.pt"))
    alone = gradients(people_folder.parent, 0, 1)
    together = torch.load(tmp_path / "gradients.pt")
    assert together.keys() == alone.keys()
    assert sum(value.abs().max() > 0 for value in alone.values()) > len(alone) / 2
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))


def test_two_processes_count_damaged_images_and_end_as_one_does(tmp_path: Path, people_folder: Path) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    content = pose_recipe(
        data={"train": [source()], "folds": {"count": 3, "held_out": 1}}, augmentation={},
        training={"batch": 4, "average": None, "validate_every": 1.3},
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    recipe, place = read_recipe(tmp_path / "recipe.yaml"), DataFolders(people_folder.parent)
    train(recipe, tmp_path / "one", place, Hardware("cpu", 1), console=Console(file=io.StringIO()))
    run_two("-m", "oaks", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "two"), "--data",
            str(people_folder.parent), "--accelerator", "cpu", "--devices", "2")  # fmt: skip
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    assert one["damaged images passed over"] == 2 * (
        2 + 1
    )  # twice everyone; who comes to person 3 passes over 4 too
    for name in (
        "step",
        "steps",
        "data",
        "damaged images passed over",
        "damaged images left out of the validation",
    ):
        assert two[name] == one[name]
    assert two["step"] == two["steps"]
    assert two["metrics"]["people"] == one["metrics"]["people"]
