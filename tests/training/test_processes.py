"""Several processes train as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.training.ddp_process import gradients


def test_two_processes_have_the_gradient_of_one(tmp_path: Path, people_folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
                   "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "tests.training.ddp_process",
        str(people_folder.parent),
        str(tmp_path / "gradients.pt"),
    ]
    processes = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, cwd=root) for rank in (0, 1)
    ]
    alone = gradients(people_folder.parent, 0, 1)
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    together = torch.load(tmp_path / "gradients.pt")
    assert together.keys() == alone.keys()
    assert sum(value.abs().max() > 0 for value in alone.values()) > len(alone) / 2
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))
