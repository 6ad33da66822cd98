"""Accuracy and speed of int8 by placement: around convolutions or at their inputs, in all of them or only some.

    python benchmarks/int8_placement.py [BUNDLE] [--crops FILE] [--count 96] [--batch 8] [--turns 15]

All placements are made from the bundle's fp32 pose network, calibrated on half of the crops and compared with fp32 on
the others. `oaks export` takes the last one. The layer of the heatmaps is never quantized. Speeds are ratios to fp32 in
the same runtime; jobs take turns.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
from measure import interleaved
from rich.console import Console
from rich.table import Table

from oaks.bundle import Bundle
from oaks.engines.export.compare import onnx_outputs
from oaks.engines.export.precision import PAIRS, depthwise_layers, heatmap_layers, to_int8
from oaks.engines.export.samples import load_crops, split
from oaks.predict import DEMO

Run = Callable[[], object]


def onnxruntime_job(model: bytes, crops: np.ndarray) -> Run:
    """The network on ONNX Runtime's CPU provider."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: crops})


def openvino_job(model: bytes, crops: np.ndarray) -> Run:
    """The network on OpenVINO's CPU device."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda: compiled(crops)


def outputs(model: onnx.ModelProto, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a network by name."""
    return dict(zip((output.name for output in model.graph.output), onnx_outputs(model, crops), strict=True))


def peaks(maps: np.ndarray) -> np.ndarray:
    """Return the flat index (N, K) of each map's largest value."""
    return maps.reshape(*maps.shape[:2], -1).argmax(axis=2)


def accuracy(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> tuple[float, ...]:
    """Return the RMS of the heatmaps in standard deviations, the share of peaks in another cell, the mean shift in cells
    of the nearest nine tenths of the peaks, and the RMS of visibility (NaN without one)."""
    heat = float(np.sqrt(np.mean((ours["heatmaps"] - theirs["heatmaps"]) ** 2)) / theirs["heatmaps"].std())
    width = ours["heatmaps"].shape[3]
    own, other = (np.stack(divmod(peaks(made["heatmaps"]), width)) for made in (ours, theirs))
    far = np.sort(np.hypot(*(own - other)), axis=None)
    moved, distance = float(np.mean(far > 0)), float(np.mean(far[: int(0.9 * far.size)]))
    if "visibility" not in ours:
        return heat, moved, distance, float("nan")
    probability = [1 / (1 + np.exp(-made["visibility"])) for made in (ours, theirs)]
    return heat, moved, distance, float(np.sqrt(np.mean((probability[0] - probability[1]) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="small")
    parser.add_argument(
        "--crops", default=str(DEMO), help="people to calibrate and compare on, as oaks export takes"
    )
    parser.add_argument("--count", type=int, default=96, help="most people")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    description = {"input": bundle.description["networks"]["pose"]["input"], "padding": bundle.pose.padding}
    compared, calibrated = split(
        load_crops(options.crops, description, count=options.count), options.count // 2
    )
    batches = np.array_split(calibrated, -(-len(calibrated) // 8))
    graph = onnx.load_from_string(bundle.network("pose", "fp32").read())
    models = {"fp32": graph}
    heatmaps, depthwise = heatmap_layers(graph), depthwise_layers(graph)
    placements = {f"all, pairs at {pairs}": (pairs, heatmaps) for pairs in PAIRS}
    if depthwise:
        placements["not depthwise, pairs at inputs"] = ("inputs", [*heatmaps, *depthwise])
    for name, (pairs, keep_float) in placements.items():
        models[f"int8: {name}"] = to_int8(graph, batches, pairs=pairs, keep_float=keep_float)
    expected = outputs(graph, compared)
    runtimes = {"ONNX Runtime": onnxruntime_job}
    if find_spec("openvino"):
        runtimes["OpenVINO"] = openvino_job
    crops = np.resize(compared, (options.batch, *compared.shape[1:]))
    times = {
        name: interleaved(
            {kind: make(model.SerializeToString(), crops) for kind, model in models.items()},
            turns=options.turns,
        )
        for name, make in runtimes.items()
    }
    table = Table(
        "placement", "heatmap RMS / sd", "peaks moved", "by cells (nearest 90 %)", "visibility RMS",
        *(f"{name}: time, fp32 = 1" for name in times),
        caption=f"{bundle.name}, {len(compared)} people compared, {len(calibrated)} calibrated on",
    )  # fmt: skip
    for kind, model in models.items():
        heat, moved, distance, visibility = accuracy(outputs(model, compared), expected)
        relative = [f"{timings[kind].median / timings['fp32'].median:.2f}" for timings in times.values()]
        table.add_row(kind, f"{heat:.3f}", f"{moved:.1%}", f"{distance:.2f}", f"{visibility:.3f}", *relative)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
