"""From a frame and boxes to scored poses, against the usual alternatives. One run, one table.

    python benchmarks/end_to_end.py [BUNDLE] [--batch 8] [--turns 15] [--calls 10] [--save]

The alternatives run the same two networks with OpenCV and NumPy around them: in ONNX Runtime, and in torch eager
where the bundle has weights for it. All poses are compared with ours before anything is timed. Jobs take
turns. The ceiling is what the networks' multiplications would take at the rate of NumPy's matrix product.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import measure
import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import oaks
from oaks.box_files import read_boxes
from oaks.bundle import Bundle
from oaks.errors import BackendUnavailable
from oaks.images import read_image
from oaks.predict import DEMO

TARGETS = {"openvino fp32": 1.15, "openvino bf16": 2.0, "openvino int8": 3.0}
"""Least persons per second relative to ONNX Runtime with OpenCV and NumPy, batch 8 with flip."""

DECODER = "second_peak"
"""The same for all competitors, whatever the bundle's own."""

OUTSIDE = 0.05
"""Largest share of an Engine's time that should pass outside the two networks."""

Networks = tuple[Callable[[np.ndarray], list[np.ndarray]], Callable[[np.ndarray], np.ndarray]]


class Usual:
    """The usual way: cv2.warpAffine for each person, NumPy for everything else."""

    def __init__(self, bundle: Bundle, pose: Callable, ks: Callable) -> None:
        self.bundle, self.pose, self.ks = bundle, pose, ks
        self.order = bundle.skeleton.mirror
        self.mean, self.std = np.float32(bundle.pose.mean), np.float32(bundle.pose.std)

    def __call__(self, frame: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, K, 2) and OAKS scores (N,)."""
        crops, matrices = self.crop(frame, boxes)
        count = len(crops)
        heatmaps, logits = self.pose(np.concatenate([crops, crops[..., ::-1]]))
        averaged = 0.5 * (heatmaps[:count] + heatmaps[count:][:, self.order, :, ::-1])
        visibility = self.probability(0.5 * (logits[:count] + logits[count:][:, self.order]), "visibility")
        points = self.decode(averaged, matrices)
        similarity = self.probability(self.ks(averaged), "similarity")
        return points, (similarity * visibility).sum(axis=1) / visibility.sum(axis=1)

    def crop(self, frame: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width, height = self.bundle.pose.size
        crops = np.empty((len(boxes), 3, height, width), np.float32)
        matrices = np.empty((len(boxes), 2, 3), np.float32)
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            w, h = x2 - x1, y2 - y1
            scale = max(w, h * width / height) * self.bundle.pose.padding / width
            shift = (
                (x1 + x2 - 1) / 2 - (width - 1) / 2 * scale,
                (y1 + y2 - 1) / 2 - (height - 1) / 2 * scale,
            )
            matrices[i] = [[scale, 0, shift[0]], [0, scale, shift[1]]]
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            cut = cv2.warpAffine(frame, matrices[i], (width, height), flags=flags)
            pixels = (cv2.cvtColor(cut, cv2.COLOR_BGR2RGB).astype(np.float32) - self.mean) / self.std
            crops[i] = pixels.transpose(2, 0, 1)
        return crops, matrices

    def decode(self, heatmaps: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """Highest cell, a quarter towards the second-highest, back to the frame; all maps at once."""
        count, keypoints, _, width = heatmaps.shape
        flat = heatmaps.reshape(count, keypoints, -1).copy()
        first = flat.argmax(axis=2)
        np.put_along_axis(flat, first[..., None], -np.inf, axis=2)
        second = flat.argmax(axis=2)
        peak = np.stack([first % width, first // width], axis=2).astype(np.float32)
        step = np.stack([second % width, second // width], axis=2) - peak
        peak += 0.25 * step / np.linalg.norm(step, axis=2, keepdims=True)
        peak = self.bundle.pose.stride * (peak + 0.5) - 0.5
        return peak * matrices[:, None, (0, 1), (0, 1)] + matrices[:, None, :, 2]

    def probability(self, logits: np.ndarray, kind: str) -> np.ndarray:
        calibration = getattr(self.bundle, kind)
        return 1 / (1 + np.exp(-(calibration.scale * logits + calibration.bias)))


def onnxruntime_networks(bundle: Bundle) -> Networks:
    sessions = {
        role: onnxruntime.InferenceSession(bundle.network(role).read(), providers=["CPUExecutionProvider"])
        for role in ("pose", "ks")
    }

    def pose(crops: np.ndarray) -> list[np.ndarray]:
        return sessions["pose"].run(["heatmaps", "visibility"], {"crops": crops})

    return pose, lambda heatmaps: sessions["ks"].run(["similarity"], {"heatmaps": heatmaps})[0]


def torch_networks(bundle: Bundle) -> Networks:
    import torch

    from oaks.training.checkpoint import load_from_bundle

    modules = {network.role: load_from_bundle(network)[0] for network in bundle.weights()}

    def pose(crops: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [value.numpy() for value in modules["pose"](torch.from_numpy(crops))]

    def ks(heatmaps: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return modules["ks"](torch.from_numpy(heatmaps)).numpy()

    return pose, ks


def ours(bundle: Bundle, batch: int) -> tuple[dict[str, oaks.Engine], list[str]]:
    """An Engine for every available backend and precision, and why the others are not available."""
    engines, missing = {}, []
    for backend in ("onnxruntime", "openvino", "torch"):
        for precision in ("fp32", "bf16", "int8"):
            try:
                engine = oaks.Engine(
                    bundle, backend, precision=precision, device="cpu", max_batch=batch, refine=DECODER
                )
            except (BackendUnavailable, ValueError) as error:
                missing.append(f"{backend} {precision}: {error}")
                continue
            engines[f"{backend} {precision}"] = engine
    return engines, missing


def compare(name: str, points: np.ndarray, scores: np.ndarray, expected: oaks.Poses) -> dict[str, float]:
    """How far a competitor's poses are from those of our ONNX Runtime engine in fp32.

    Only keypoints that our engine counts as present are compared: the maximum of an absent keypoint's map means little.
    """
    apart = np.linalg.norm(points - expected.keypoints, axis=2)[expected.present]
    near = float((apart <= 0.5).mean())
    if "int8" not in name and "bf16" not in name and near < 0.97:
        raise AssertionError(f"{name}: only {near:.1%} of the points are within half a pixel of ours")
    return {"within_half_pixel": near, "score_difference": float(np.abs(scores - expected.oaks_scores).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--calls", type=int, default=10, help="calls in a turn")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/end_to_end.json")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    frame, boxes = people(options.batch)

    engines, missing = ours(bundle, options.batch)
    usual = {"ONNX Runtime fp32, cv2 + NumPy": Usual(bundle, *onnxruntime_networks(bundle))}
    if bundle.has_weights("pose"):
        usual["torch eager fp32, cv2 + NumPy"] = Usual(bundle, *torch_networks(bundle))
    else:
        missing.append("torch eager: the bundle has no weights")
    expected = engines["onnxruntime fp32"].infer(frame, boxes=boxes)
    jobs: dict[str, Callable[[], Any]] = {}
    agreement = {}
    for name, way in usual.items():
        agreement[name] = compare(name, *way(frame, boxes), expected)
        jobs[name] = lambda way=way: way(frame, boxes)
    for name, engine in engines.items():
        poses = engine.infer(frame, boxes=boxes)
        agreement[name] = compare(name, poses.keypoints, poses.oaks_scores, expected)
        jobs[name] = lambda engine=engine: engine.infer(frame, boxes=boxes)
        engine.timings.reset()

    timings = measure.interleaved(jobs, turns=options.turns, calls=options.calls)
    base = timings[next(iter(usual))].median
    rows = []
    for name, timing in timings.items():
        row: dict[str, object] = {
            "name": f"oaks, {name}" if name in engines else name,
            "persons_per_second": options.batch / timing.median,
            "spread": timing.spread,
            "ratio": base / timing.median,
            **agreement[name],
        }
        if name in engines:
            row["outside_networks"] = 1 - engines[name].timings.networks_share
            row["outside_networks_aim"] = OUTSIDE
            row["milliseconds"] = engines[name].timings.milliseconds
        row["target"] = TARGETS.get(name)
        rows.append(row)
    limit = ceiling(bundle)
    show(rows, bundle, options.batch, missing, limit)
    if options.save:
        machine = {
            "processor": measure.processor(),
            "cores": os.cpu_count(),
            "ceiling_persons_per_second": limit,
        }
        settings = {"bundle": bundle.name, "bundle_sha256": bundle.sha256, "batch": options.batch}
        path = Path(__file__).parent / "results" / "end_to_end.json"
        measure.save(path, {**machine, **settings}, rows)


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The package's picture with the most people, and boxes of them, again and again a few pixels aside."""
    annotated = read_boxes(DEMO / "people.json")
    name = max(annotated.image_ids, key=lambda name: len(annotated.of(annotated.image_ids[name])[0]))
    boxes, _ = annotated.of(annotated.image_ids[name])
    aside = np.tile(np.random.default_rng(0).uniform(-4, 4, (count, 2)), 2)
    return read_image(DEMO / name), (boxes[np.arange(count) % len(boxes)] + aside).astype(np.float32)


def ceiling(bundle: Bundle) -> float | None:
    """Persons per second if the networks were nothing but matrix products; None if these cannot be counted."""
    architectures = {role: bundle.architecture(role) for role in ("pose", "ks") if bundle.architecture(role)}
    if find_spec("torch") is None or "pose" not in architectures:
        return None
    from oaks.training.networks.summary import describe

    macs = {role: describe(made, bundle.pose.size).macs for role, made in architectures.items()}
    a, b = np.random.default_rng(0).random((2, 2048, 2048), np.float32)
    product = measure.interleaved({"product": lambda: a @ b}, turns=7)["product"].low
    return len(a) ** 3 / product / (2 * macs["pose"] + macs.get("ks", 0))


def show(
    rows: list[dict[str, Any]], bundle: Bundle, batch: int, missing: list[str], limit: float | None
) -> None:
    table = Table(
        title=f"{bundle.name}, batch {batch} with flip, {measure.processor()}, {os.cpu_count()} cores"
    )
    for name in (
        "", "persons/s", "+-", "ratio", "target", "outside networks", "aim", "within 0.5 px", "score differs",
    ):  # fmt: skip
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        target = row["target"]
        table.add_row(
            str(row["name"]), f"{row['persons_per_second']:.1f}", f"{row['spread']:.0%}",
            f"{row['ratio']:.2f}", "" if target is None else f">= {target}",
            f"{row['outside_networks']:.1%}" if "outside_networks" in row else "",
            f"<= {row['outside_networks_aim']:.0%}" if "outside_networks_aim" in row else "",
            f"{row['within_half_pixel']:.1%}", f"{row['score_difference']:.1e}",
        )  # fmt: skip
    table.caption = (
        "no ceiling: it needs torch, and the architecture in bundle.json"
        if limit is None
        else f"ceiling in fp32, the networks at the rate of NumPy's matrix product: {limit:.0f} persons/s"
    )
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    for reason in missing:
        console.print(f"not run: {reason}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
