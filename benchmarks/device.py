"""The whole way on a GPU: ResNet-50 at 256 x 192 with random weights, or a bundle; torch and CUDA graphs.

    python benchmarks/device.py [--bundle NAME] [--precision fp16] [--batch 1 --batch 16 ...] [--save]

The random networks run in torch in fp16; a bundle on the first backend that has its networks, as Engine chooses.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import measure
import torch
from rich.console import Console

import oaks
from oaks import bundle as bundles
from oaks.benchmark import benchmark, table
from oaks.errors import BackendUnavailable, BundleError
from oaks.training.checkpoint import save_network
from oaks.training.networks import build

SIZE = (192, 256)
ARCHITECTURES = {
    "pose": {"name": "oa_hpe", "backbone": "resnet50", "head": "fpn", "input": list(SIZE)},
    "ks": {"name": "ks_net"},
}
DESCRIPTION = {
    "name": "resnet50-random",
    "skeleton": oaks.COCO17.to_dict(),
    "networks": {
        "pose": {
            "kind": "heatmaps",
            "files": {"torch": "pose.safetensors"},
            "input": {"size": list(SIZE), "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
            "stride": 4,
        },
        "ks": {"files": {"torch": "ks.safetensors"}},
    },
    "license": "random weights",
}


def random_bundle(folder: Path) -> bundles.Bundle:
    """Both of the paper's networks, untrained."""
    torch.manual_seed(0)
    for kind, architecture in ARCHITECTURES.items():
        network = build(architecture).eval()
        save_network(folder / f"{kind}.safetensors", network, {"kind": kind, "architecture": architecture})
    return bundles.write(folder, DESCRIPTION)


def machine(device: str) -> dict[str, object]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else measure.processor()
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle")
    parser.add_argument("--backend", help="torch without a bundle, else auto")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", help="fp16 without a bundle, else auto")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/device-NAME.json")
    options = parser.parse_args()
    batches = options.batch or [1, 16, 64, 256]
    made = nullcontext() if options.bundle else tempfile.TemporaryDirectory()
    with made as folder:
        bundle = options.bundle or random_bundle(Path(folder))
        backend = options.backend or ("auto" if options.bundle else "torch")
        precision = options.precision or ("auto" if options.bundle else "fp16")
        settings = {"precision": precision, "device": options.device, "max_batch": max(batches)}
        try:
            engine = oaks.Engine(bundle, backend, **settings)
        except (BackendUnavailable, BundleError, FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        with engine:
            engine.warmup()
            rows = benchmark([engine], batches, turns=options.turns)
            described = engine.describe()
            name = engine.bundle.name
    console = Console()
    (console if console.is_terminal else Console(width=180)).print(table(rows))
    console.print(f"CUDA graphs: {described['cuda_graphs']}", markup=False, soft_wrap=True)
    if options.save:
        path = Path(__file__).parent / "results" / f"device-{name}.json"
        about = {**machine(options.device), "bundle": name, "cuda_graphs": described["cuda_graphs"]}
        measure.save(path, about, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
