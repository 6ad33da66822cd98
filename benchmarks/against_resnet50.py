"""How much faster a bundle is than a usual pose network: ResNet-50 at 256 x 192 with three deconvolutions.

    python benchmarks/against_resnet50.py [BUNDLE] [--batch 8] [--turns 9]

Both through oaks.Engine with flip, in turns. The ResNet-50 (Simple Baselines, random weights) runs alone, without
KS-net, in ONNX Runtime in fp32; the bundle with both its networks on every available CPU backend and precision.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import measure
import torch
from rich.console import Console
from rich.table import Table

import oaks
from oaks.benchmark import benchmark
from oaks.engines.export.export import export
from oaks.errors import BackendUnavailable
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


def usual(folder: Path) -> oaks.Engine:
    """ResNet-50 in ONNX Runtime."""
    torch.manual_seed(0)
    checkpoint = folder / "pose.safetensors"
    save_network(checkpoint, build(ARCHITECTURE).eval(), DESCRIPTION)
    made = export(checkpoint, out=folder / "resnet50", precisions="fp32", show=False)
    return oaks.Engine(made, "onnxruntime", precision="fp32")


def ours(bundle: str) -> list[oaks.Engine]:
    """The bundle on the CPU, in every way that it can run."""
    engines = []
    for backend in ("onnxruntime", "openvino"):
        for precision in ("fp32", "bf16", "int8"):
            try:
                engines.append(oaks.Engine(bundle, backend, precision=precision, device="cpu"))
            except (BackendUnavailable, ValueError) as error:
                Console().print(f"not run: {backend} {precision}: {error}", markup=False, soft_wrap=True)
    return engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engines = [usual(Path(folder)), *ours(options.bundle)]
        rows = benchmark(engines, [options.batch], turns=options.turns)
    table = Table(title=f"Batch {options.batch} with flip, {measure.processor()}")
    for name in ("bundle", "backend", "precision", "persons/s", "+-", "ratio"):
        table.add_column(name, justify="right" if name in ("persons/s", "+-", "ratio") else "left")
    for engine, row in zip(engines, rows, strict=True):
        table.add_row(
            engine.bundle.name, row.backend, row.precision, f"{row.persons_per_second:.1f}", f"{row.spread:.0%}",
            f"{row.persons_per_second / rows[0].persons_per_second:.2f}",
        )  # fmt: skip
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)


if __name__ == "__main__":
    main()
