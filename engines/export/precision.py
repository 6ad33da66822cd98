"""Converts an ONNX network to half precision or int8. The precision is stated in the ONNX itself.

Inputs and outputs stay float32, so that callers need not know the precision.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.runtimes import load_onnxruntime

if TYPE_CHECKING:
    import onnx

HALF_MAX = 65504.0
HALF_MIN = 2.0**-24
"""The largest and the smallest positive float16; weights outside this range are clamped to it."""

MANY = 1024
"""Weights with fewer elements are not worth shrinking."""

QUANTIZED = ("Conv",)
"""Convolutions take most of the time. Deconvolutions lose accuracy in int8; fully connected layers save little."""

PAIRS = ("both", "inputs")
"""Where to_int8 can place the QuantizeLinear and DequantizeLinear pairs of activations."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with float16 weights and activations, and float32 inputs and outputs.

    Resize runs in float16 too; only its scales stay float32, as ONNX requires.
    """
    import onnx
    from onnxconverter_common import float16

    with warnings.catch_warnings():
        # It warns of every clamped weight; the effect on the outputs is measured afterwards.
        warnings.filterwarnings("ignore", message="the float32 number", category=UserWarning)
        half = float16.convert_float_to_float16(
            _copy(model),
            keep_io_types=True,
            min_positive_val=HALF_MIN,
            max_finite_val=HALF_MAX,
            op_block_list=[name for name in float16.DEFAULT_OP_BLOCK_LIST if name != "Resize"],
        )
    scales = {node.input[2] for node in half.graph.node if node.op_type == "Resize" and len(node.input) > 2}
    originals = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in half.graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(originals[tensor.name])
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its float32 weights stored as float16 with casts: a smaller file, the same arithmetic.

    Loading folds the casts (oaks.onnx_file.in_precision). Only the rounding of the weights to float16 is lost. Small
    weights, and weights that float16 cannot hold, stay float32.
    """
    import onnx

    half = _copy(model)
    casts = []
    for tensor in half.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MANY or not np.abs(values).max() <= HALF_MAX:
            continue
        name, stored = tensor.name, f"{tensor.name}.stored"
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(
            onnx.helper.make_node(
                "Cast", [stored], [name], name=f"{name}.restored", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


def to_int8(
    model: onnx.ModelProto,
    samples: Iterable[np.ndarray],
    *,
    keep_float: Sequence[str] | None = None,
    pairs: str = "inputs",
) -> onnx.ModelProto:
    """Return the model with int8 convolutions: explicit, symmetric QuantizeLinear and DequantizeLinear pairs.

    Weights are scaled per output channel and stored as int8. Activations are scaled per tensor by the largest
    magnitude on the samples. Biases stay float32. TensorRT 10 and 11 accept only zero point 0 and no quantized bias.

    Args:
        model: float32 model, as to_onnx returns it.
        samples: inputs (N, ...) float32 to calibrate on, with any N.
        keep_float: names of nodes that stay float32; default: heatmap_layers(model) and depthwise_layers(model).
        pairs: where activations are quantized: only at each convolution's "inputs", which keeps sums and ReLUs in
            full precision, or at "both" ends. By benchmarks/int8_placement.py, inputs move fewer peaks and cost
            nothing on OpenVINO, which int8 is for; ONNX Runtime's CPU provider is slower with them.

    Raises:
        ArgumentError: there is no sample, a node of keep_float does not exist, or nothing is left to quantize.
    """
    import onnx

    load_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    check_choice("pairs", pairs, PAIRS)
    batches = list(samples)
    if not batches:
        raise ArgumentError("samples must be at least one batch to calibrate on, got none")
    if keep_float is None:
        keep_float = [*heatmap_layers(model), *depthwise_layers(model)]
    keep_float = list(keep_float)
    candidates = [node.name for node in model.graph.node if node.op_type in QUANTIZED]
    if unknown := set(keep_float) - {node.name for node in model.graph.node}:
        raise ArgumentError(
            f"keep_float must be names of nodes, got {sorted(unknown)}; convolutions are {candidates}"
        )
    if not set(candidates) - set(keep_float):
        raise ArgumentError(
            f"keep_float must leave a convolution to quantize, got {keep_float} of {candidates}"
        )
    with tempfile.TemporaryDirectory(prefix="oaks-int8-") as folder, _without_advice():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        reader: Any = _Batches(model.graph.input[0].name, batches)
        quantize_static(
            source,
            target,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=keep_float,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": list(QUANTIZED) if pairs == "inputs" else [],
            },
        )
        quantized = onnx.load(target)
    del quantized.graph.value_info[:]
    quantized.ClearField("metadata_props")
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def heatmap_layers(model: onnx.ModelProto) -> list[str]:
    """Return the convolutions whose output is an output of the network.

    A heatmap is nearly flat around its peak, so rounding in the last layer moves peaks more than anywhere else, and
    the layer is cheap. It therefore stays float32.
    """
    outputs = {output.name for output in model.graph.output}
    return [n.name for n in model.graph.node if n.op_type in QUANTIZED and outputs.intersection(n.output)]


def depthwise_layers(model: onnx.ModelProto) -> list[str]:
    """Return the depthwise convolutions.

    The ranges of their channels differ too much for one scale per tensor, and they take little time.
    """
    return [
        node.name
        for node in model.graph.node
        if node.op_type in QUANTIZED and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]


def layers_after_backbone(model: onnx.ModelProto) -> list[str]:
    """Return the convolutions of a detector's pyramid and heads, by the names of their weights.

    In int8 they score the background of some images like people, so they stay float32.
    """
    return [n.name for n in model.graph.node if n.op_type in QUANTIZED and ".backbone." not in n.input[1]]


class _Batches:
    """Calibration inputs in the form that onnxruntime.quantization reads."""

    def __init__(self, name: str, batches: Sequence[np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter([{name: np.asarray(b, np.float32)} for b in batches])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input, or None after the last."""
        return next(self._feeds, None)


class _without_advice(logging.Filter):
    """Drop the quantizer's advice to run its preprocessing, which graphs of to_onnx do not need."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    def __enter__(self) -> None:
        logging.getLogger().addFilter(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeFilter(self)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


__all__ = [
    "HALF_MAX",
    "HALF_MIN",
    "QUANTIZED",
    "heatmap_layers",
    "layers_after_backbone",
    "to_fp16",
    "to_int8",
    "with_half_weights",
]
