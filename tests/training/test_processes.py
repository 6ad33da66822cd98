"""Training in several processes has the results of one process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.training.conftest import (
    assert_same_weights,
    card_of,
    checkpoint_step,
    losses,
    pose_recipe,
    source,
    start,
)
from tests.training.ddp_process import gradients


def run_two(*command: str) -> list[int]:
    """Run a Python command in two processes with torchrun's environment; return their exit codes."""
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
        return [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()


def on_two(people_folder: Path) -> tuple[str, ...]:
    """Return options of a training in two processes on this machine."""
    return "--data", str(people_folder.parent), "--accelerator", "cpu", "--devices", "2"


def test_two_processes_have_the_gradient_of_one(tmp_path: Path, people_folder: Path) -> None:
    folders = str(people_folder.parent), str(tmp_path / "gradients.pt")
    assert run_two("-m", "tests.training.ddp_process", *folders) == [0, 0]
    alone = gradients(people_folder.parent, 0, 1)
    together = torch.load(tmp_path / "gradients.pt")
    assert together.keys() == alone.keys()
    assert sum(value.abs().max() > 0 for value in alone.values()) > len(alone) / 2
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))


def test_two_processes_count_damaged_images_as_one_does(tmp_path: Path, people_folder: Path) -> None:
    (people_folder / "images" / "2.jpg").write_bytes(b"no picture")
    content = pose_recipe(
        data={"train": [source()], "folds": {"count": 3, "held_out": 1}}, augmentation={},
        training={"batch": 4, "average": None, "validate_every": 1.3},
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    start(tmp_path / "one", people_folder, content)
    train_two = ("train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "two"))
    # The first process reports skipped items in its exit code.
    assert run_two("-m", "oaks", *train_two, *on_two(people_folder)) == [1, 0]
    one, two = (card_of(tmp_path / run) for run in ("one", "two"))
    assert one["damaged images skipped"] == 2 * (2 + 1)  # as in test_training
    skipped = ("damaged images skipped", "damaged images left out of the validation")
    for name in ("step", "steps", "data", *skipped):
        assert two[name] == one[name]
    assert two["step"] == two["steps"]
    assert two["metrics"]["people"] == one["metrics"]["people"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_resume_exactly_after_one_was_killed(tmp_path: Path, people_folder: Path) -> None:
    """The second is killed in the middle; the resumed training has the losses and weights of one without a stop."""
    content = pose_recipe(training={"batch": 4, "average": None, "checkpoint_minutes": 1e-6})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    begin = ("train", str(tmp_path / "recipe.yaml"), *on_two(people_folder), "--out")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_two("-m", "oaks", *begin, str(whole)) == [0, 0]
    first, second = run_two("-m", "tests.training.killed_process", "3", *begin, str(killed))
    assert second == -signal.SIGKILL
    assert first != 0, "the first process must not continue alone"
    assert 0 < checkpoint_step(killed) <= 3
    assert not (killed / "network.safetensors").exists() or sorted(losses(killed)) != sorted(losses(whole))
    assert run_two("-m", "oaks", "train", "--resume", str(killed), *on_two(people_folder)[2:]) == [0, 0]
    assert len(losses(whole)) == 6
    assert losses(killed) == losses(whole)
    assert_same_weights(whole, killed)
