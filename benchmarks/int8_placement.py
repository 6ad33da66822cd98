"""Accuracy and speed of int8 by placement: around convolutions or at their inputs, in all or only some. One table.

    python benchmarks/int8_placement.py [BUNDLE] [--crops FILE] [--count 96] [--batch 8] [--turns 15]

All placements are made from the bundle's fp32 pose network, calibrated on half of the crops and compared with fp32 on
the others. `oaks export` takes the last one. The layer of the heatmaps is never quantized. Speeds are ratios to fp32 in
the same runtime; jobs take turns.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

from oaks.bundle import Bundle
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


def outputs(model: bytes, crops: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of a network, computed in batches of 8."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    parts = [session.run(names, {"crops": crops[i : i + 8]}) for i in range(0, len(crops), 8)]
    return {
        name: np.concatenate(columns) for name, columns in zip(names, zip(*parts, strict=True), strict=True)
    }


def peaks(maps: np.ndarray) -> np.ndarray:
    """(N, K) flat index of each map's largest value."""
    return maps.reshape(*maps.shape[:2], -1).argmax(axis=2)


def accuracy(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> tuple[float, ...]:
    """RMS of the heatmaps in standard deviations, share of peaks in another cell, cells that the nearest nine tenths of
    peaks move on average, RMS of visibility (NaN without one)."""
    heat = float(np.sqrt(np.mean((ours["heatmaps"] - theirs["heatmaps"]) ** 2)) / theirs["heatmaps"].std())
    width = ours["heatmaps"].shape[3]
    own, other = (np.stack(divmod(peaks(made["heatmaps"]), width)) for made in (ours, theirs))
    far = np.sort(np.hypot(*(own - other)), axis=None)
    moved, distance = float(np.mean(far > 0)), float(np.mean(far[: int(0.9 * far.size)]))
    if "visibility" not in ours:
        return heat, moved, distance, float("nan")
    probability = [1 / (1 + np.exp(-made["visibility"])) for made in (ours, theirs)]
    return heat, moved, distance, float(np.sqrt(np.mean((probability[0] - probability[1]) ** 2)))


def seconds(jobs: dict[str, Run], turns: int) -> dict[str, float]:
    """Median seconds of each job; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if turn:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


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
    plain = bundle.network("pose", "fp32").read()
    description = {"input": bundle.description["networks"]["pose"]["input"], "padding": bundle.pose.padding}
    compared, calibrated = split(
        load_crops(options.crops, description, count=options.count), options.count // 2
    )
    batches = np.array_split(calibrated, -(-len(calibrated) // 8))
    models = {"fp32": plain}
    graph = onnx.load_from_string(plain)
    heatmaps, depthwise = heatmap_layers(graph), depthwise_layers(graph)
    placements = {f"all, pairs at {pairs}": (pairs, heatmaps) for pairs in PAIRS}
    if depthwise:
        placements["not depthwise, pairs at inputs"] = ("inputs", [*heatmaps, *depthwise])
    for name, (pairs, keep_float) in placements.items():
        made = to_int8(graph, batches, pairs=pairs, keep_float=keep_float)
        models[f"int8: {name}"] = made.SerializeToString()
    expected = outputs(plain, compared)
    runtimes = {"ONNX Runtime": onnxruntime_job}
    if find_spec("openvino"):
        runtimes["OpenVINO"] = openvino_job
    crops = np.resize(compared, (options.batch, *compared.shape[1:]))
    times = {
        name: seconds({kind: make(model, crops) for kind, model in models.items()}, options.turns)
        for name, make in runtimes.items()
    }
    table = Table(caption=f"{bundle.name}, {len(compared)} people compared, {len(calibrated)} calibrated on")
    for heading in (
        "placement",
        "heatmap RMS / sd",
        "peaks moved",
        "by cells (nearest 90 %)",
        "visibility RMS",
        *(f"{n}: time, fp32 = 1" for n in times),
    ):
        table.add_column(heading)
    for kind, model in models.items():
        heat, moved, distance, visibility = accuracy(outputs(model, compared), expected)
        relative = [f"{values[kind] / values['fp32']:.2f}" for values in times.values()]
        table.add_row(kind, f"{heat:.3f}", f"{moved:.1%}", f"{distance:.2f}", f"{visibility:.3f}", *relative)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
