"""Speed and accuracy of bundles beside ResNet-50 at 256 x 192 with three deconvolutions, which people know.

    python benchmarks/known_networks.py small tiny [BUNDLE ...] [--batch 8] [--turns 9] [--save]

All run through oaks.Engine with flip, in turns: in ONNX Runtime in fp32, and in the other ways that the CPU can run
them. ResNet-50 (Simple Baselines, random weights) has no scorer; a bundle runs with its own. The AP is that of
the last run on the test people that the log has under the bundle's name. MoveNet as published is a bundle that
`oaks import --preset movenet` writes; it looks at squares.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import measure
import torch
import typer
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
WAYS = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "bf16"),
        ("openvino", "int8"))  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def resnet50(folder: Path) -> Path:
    """A bundle of ResNet-50, in fp32."""
    torch.manual_seed(0)
    checkpoint = folder / "pose.safetensors"
    save_network(checkpoint, build(ARCHITECTURE).eval(), DESCRIPTION)
    return export(checkpoint, out=folder / "resnet50", precisions="fp32", show=False)


def engines_of(bundle: str | Path, batch: int, console: Console) -> list[oaks.Engine]:
    """The bundle on the CPU, in every way that it can run."""
    engines = []
    for backend, precision in WAYS:
        try:
            engines.append(oaks.Engine(bundle, backend, precision=precision, device="cpu", max_batch=batch))
        except (BackendUnavailable, ValueError) as error:
            console.print(f"not run: {bundle}, {backend} {precision}: {error}", markup=False, soft_wrap=True)
    return engines


def logged_accuracy() -> dict[str, tuple[float, float]]:
    """Name -> conventional AP and OAKS AP with ground-truth boxes, of the last run on the test people in the log."""
    lines = (RESULTS / "coco-val2017-test.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [json.loads(line) for line in lines]
    return {
        run.get("bundle") or run["estimator"]: (run["conventional"]["AP"], run["oaks"]["AP"])
        for run in runs
        if run.get("boxes", "ground truth") == "ground truth"
        and ("bundle_sha256" in run or run.get("scorer") == "heatmaps")
        and "conventional" in run
    }


def main(
    bundles: Annotated[list[str], typer.Argument(help="Names or folders of bundles.")],
    batch: Annotated[int, typer.Option(min=1, help="Persons per call.")] = 8,
    turns: Annotated[int, typer.Option(min=3, help="Turns of each.")] = 9,
    save: Annotated[bool, typer.Option(help="Write benchmarks/results/known_networks.json.")] = False,
) -> None:
    """Measure bundles beside ResNet-50."""
    console = Console(width=120)
    accuracy = logged_accuracy()
    with tempfile.TemporaryDirectory() as folder:
        groups = [engines_of(bundle, batch, console) for bundle in (resnet50(Path(folder)), *bundles)]
        timed = [engine for group in groups for engine in group]
        rows = benchmark(timed, [batch], turns=turns)
    reference = rows[0].persons_per_second
    table = Table(
        "bundle", "input", "backend", "precision", "persons/s", "+-", "ratio", "AP", "OAKS AP",
        title=f"Batch {batch} with flip, {measure.processor()}",
    )  # fmt: skip
    saved: list[dict[str, Any]] = []
    for engine, row in zip(timed, rows, strict=True):
        width, height = engine.bundle.pose.size
        found = accuracy.get(engine.bundle.name, (None, None))
        table.add_row(
            engine.bundle.name, f"{height}x{width}", row.backend, row.precision, f"{row.persons_per_second:.1f}",
            f"{row.spread:.0%}", f"{row.persons_per_second / reference:.2f}",
            *("" if figure is None else f"{100 * figure:.1f}" for figure in found),
        )  # fmt: skip
        saved.append(
            {"bundle": engine.bundle.name, "input": [width, height], **asdict(row), "AP": found[0], "OAKS AP": found[1],
             "ratio": row.persons_per_second / reference}
        )  # fmt: skip
    console.print(table)
    if save:
        machine = {"processor": measure.processor(), "batch": batch}
        measure.save(RESULTS / "known_networks.json", machine, saved)


if __name__ == "__main__":
    typer.run(main)
