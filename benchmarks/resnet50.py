"""Write a bundle of a familiar network, to time beside others: python benchmarks/resnet50.py OUT.

ResNet-50 at 256 x 192 with three deconvolutions (Simple Baselines), in fp32, with random weights and no scorer: only its
speed means anything. `oaks benchmark OUT small tiny` times it beside the shipped bundles.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer

import oaks
from oaks.engines.export.export import export
from oaks.training.checkpoint import save_network
from oaks.training.networks import build

SIZE = (192, 256)
ARCHITECTURE = {
    "name": "oa_hpe", "backbone": "resnet50", "head": "deconv", "visibility": False, "input": list(SIZE),
}  # fmt: skip
DESCRIPTION = {
    "kind": "pose",
    "architecture": ARCHITECTURE,
    "skeleton": oaks.COCO17.to_dict(),
    "input": {"size": list(SIZE), "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
    "stride": 4,
    "license": "random weights",
}


def main(out: Annotated[Path, typer.Argument(help="Folder of the bundle.")]) -> None:
    """Write the bundle."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "pose.safetensors"
        save_network(checkpoint, build(ARCHITECTURE).eval(), DESCRIPTION)
        export(checkpoint, out=out, precisions="fp32")


if __name__ == "__main__":
    typer.run(main)
