"""Compares the outputs of an exported network with those of the torch network on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.engines.export.precision import HALF_MAX
from oaks.runtimes import load_onnxruntime

if TYPE_CHECKING:
    import onnx
    import torch
    from rich.table import Table

_BOXES = ("centers", "sizes", "offsets")
"""Outputs of a detector."""

TOLERANCE: Mapping[str, Mapping[str, float]] = {
    "fp32": {"heatmaps": 1e-4, "visibility": 1e-4, "similarity": 1e-4} | dict.fromkeys(_BOXES, 1e-4),
    "fp32 of fp16": {"heatmaps": 1e-2, "visibility": 5e-3, "similarity": 5e-3} | dict.fromkeys(_BOXES, 1e-2),
    "fp16": {"heatmaps": 1e-2, "visibility": 5e-3, "similarity": 5e-3} | dict.fromkeys(_BOXES, 1e-2),
    "int8": {"heatmaps": 0.15, "visibility": 0.05, "similarity": 0.05}
    | dict.fromkeys(_BOXES, 0.15)
    | {"centers": 0.01},  # most cells are background, where a small error becomes a person
}
"""Largest Difference.typical of an output with which a precision is still written."""

BATCH = 8


@dataclass(frozen=True)
class Difference:
    """Difference between an output and that of the torch network.

    Attributes:
        network: "pose", "ks" or "detector".
        precision: a key of TOLERANCE.
        output: its name in the network.
        typical: root mean square of the difference: of heatmaps, sizes and offsets relative to the standard deviation
            of the torch network's output, of logits as probabilities. Infinite if an output is not finite.
        largest: the largest difference, in the same unit.
        tolerance: largest allowed `typical`.
    """

    network: str
    precision: str
    output: str
    typical: float
    largest: float
    tolerance: float

    @property
    def accepted(self) -> bool:
        return self.typical <= self.tolerance


def torch_outputs(network: torch.nn.Module, samples: np.ndarray) -> list[np.ndarray]:
    """Return the network's outputs that are not None, for inputs (N, ...) float32."""
    import torch

    parts = []
    with torch.inference_mode():
        for first in range(0, len(samples), BATCH):
            given = network(torch.from_numpy(samples[first : first + BATCH]))
            given = given if isinstance(given, tuple) else (given,)
            parts.append([output.numpy() for output in given if output is not None])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def onnx_outputs(model: onnx.ModelProto, samples: np.ndarray) -> list[np.ndarray]:
    """Return the model's outputs on ONNX Runtime, for inputs (N, ...) float32, run in batches of unequal size."""
    session = _session(model)
    name, parts = model.graph.input[0].name, []
    starts = [0, 1, *range(1 + BATCH, len(samples), BATCH)]
    for first, last in zip(starts, [*starts[1:], len(samples)], strict=True):
        if first < last:
            parts.append(session.run(None, {name: samples[first:last]}))
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def differences(
    model: onnx.ModelProto,
    expected: Sequence[np.ndarray],
    samples: np.ndarray,
    *,
    network: str,
    precision: str,
    tolerance: float | None = None,
) -> list[Difference]:
    """Return one Difference per output of the model.

    Args:
        expected: torch_outputs for the same samples.
        samples: inputs (N, ...) float32.
        network, precision: the compared network and precision, for the table and the tolerance.
        tolerance: tolerance of every output; None: TOLERANCE's.
    """
    rows = []
    given = onnx_outputs(model, samples)
    for output, ours, theirs in zip(model.graph.output, given, expected, strict=True):
        typical, largest = _distance(output.name, ours.astype(np.float64), theirs.astype(np.float64))
        limit = TOLERANCE[precision][output.name] if tolerance is None else tolerance
        rows.append(Difference(network, precision, output.name, typical, largest, limit))
    return rows


def _distance(output: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(ours).all():
        return float("inf"), float("inf")
    if output in ("heatmaps", "sizes", "offsets"):
        unit = max(float(theirs.std()), 1e-12)
        apart = (ours - theirs) / unit
    else:
        apart = _sigmoid(ours) - _sigmoid(theirs)
    return float(np.sqrt(np.mean(apart**2))), float(np.abs(apart).max())


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def exceeds_half_range(model: onnx.ModelProto, samples: np.ndarray) -> dict[str, float]:
    """Return the tensors of a float32 model whose values float16 cannot hold, with their largest magnitude.

    On the CPU, ONNX Runtime computes float16 networks in float32, which does not overflow; on a GPU they overflow.
    """
    import onnx

    traced = onnx.ModelProto()
    traced.CopyFrom(model)
    typed = onnx.shape_inference.infer_shapes(model).graph.value_info
    inner = [value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    traced.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    session = _session(traced)
    names = [*(output.name for output in model.graph.output), *inner]
    largest = dict.fromkeys(names, 0.0)
    for sample in samples:
        for name, value in zip(
            names, session.run(None, {model.graph.input[0].name: sample[None]}), strict=True
        ):
            largest[name] = float(np.maximum(largest[name], np.abs(value).max()))  # keeps NaN
    return {name: value for name, value in largest.items() if not value <= HALF_MAX}


def _session(model: onnx.ModelProto) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def table(rows: Sequence[Difference]) -> Table:
    """Return the differences as a table."""
    from rich.table import Table
    from rich.text import Text

    view = Table(title="Difference from the torch network")
    for heading in ("network", "precision", "output"):
        view.add_column(heading)
    for heading in ("typical", "largest", "tolerance"):
        view.add_column(heading, justify="right")
    view.add_column("verdict")
    for row in rows:
        numbers = (f"{value:.2g}" for value in (row.typical, row.largest, row.tolerance))
        verdict = Text("within", "green") if row.accepted else Text("too far", "red")
        view.add_row(row.network, row.precision, row.output, *numbers, verdict)
    view.caption = (
        "typical: root mean square; heatmaps in standard deviations of the maps, the others in probability"
    )
    return view


__all__ = [
    "TOLERANCE",
    "Difference",
    "differences",
    "exceeds_half_range",
    "onnx_outputs",
    "table",
    "torch_outputs",
]
