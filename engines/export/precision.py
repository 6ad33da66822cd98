"""The same network in half precision, or in int8: all of it stands in the ONNX.

All keep float32 inputs and outputs, so that whoever feeds the network need not know its precision.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.runtimes import load_onnxruntime

if TYPE_CHECKING:
    import onnx

HALF_MAX = 65504.0
HALF_MIN = 2.0**-24
"""The largest and the smallest positive float16; weights beyond them are clamped, not lost."""

MANY = 1024
"""Weights of fewer elements take no space worth saving."""

QUANTIZED = ("Conv",)
"""Convolutions are where the time goes. Deconvolutions quantise badly; fully connected layers save little."""

PAIRS = ("both", "inputs")
"""Where to_int8 may put the pairs that quantise activations."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float16 weights and activations, float32 inputs and outputs.

    Resize runs in float16 too; only its scales stay float32, as ONNX wants them.
    """
    import onnx
    from onnxconverter_common import float16

    with warnings.catch_warnings():
        # One warning for every clamped weight; what clamping does to the outputs is measured afterwards.
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
    """The model with its float32 weights stored as float16 behind casts: a smaller file, the same arithmetic.

    Loading folds the casts (oaks.onnx_file.in_precision). What is lost is what rounding the weights to float16
    changes. Small weights, and those float16 cannot hold, stay float32.
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
    """The model with int8 convolutions: explicit, symmetric QuantizeLinear and DequantizeLinear pairs.

    Weights are scaled per output channel and stored as int8, activations per tensor by the largest magnitude
    that the samples give; biases stay float32. TensorRT 10 and 11 accept no other zero-point than 0 and no
    quantised bias.

    Args:
        model: float32, as to_onnx gives it.
        samples: inputs (N, ...) float32 to calibrate on, N as one likes.
        keep_float: names of nodes to leave in float32; heatmap_layers(model) and depthwise_layers(model) unless given.
        pairs: where activations are quantised: at each convolution's "inputs" only, which leaves sums and ReLUs to
            full precision, or at "both" ends. By benchmarks/int8_placement.py, inputs move fewer peaks and cost
            nothing on OpenVINO, which int8 is for; ONNX Runtime's CPU provider is slower with them.

    Raises:
        ArgumentError: there is no sample, a node of keep_float does not exist, or nothing is left to quantise.
    """
    import onnx

    load_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if pairs not in PAIRS:
        raise ArgumentError(f"pairs must be one of {', '.join(map(repr, PAIRS))}, got {pairs!r}")
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
            f"keep_float must leave a convolution to quantise, got {keep_float} of {candidates}"
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
    """The convolutions whose output is an output of the network.

    A heatmap is nearly flat around its peak, so its last layer keeps float32: rounding there moves peaks
    more than anywhere else, and the layer is cheap.
    """
    outputs = {output.name for output in model.graph.output}
    return [n.name for n in model.graph.node if n.op_type in QUANTIZED and outputs.intersection(n.output)]


def depthwise_layers(model: onnx.ModelProto) -> list[str]:
    """The depthwise convolutions.

    Their channels differ too much in range for one scale of all activations, and they take little of the time.
    """
    groups = {
        node.name: next((a.i for a in node.attribute if a.name == "group"), 1)
        for node in model.graph.node
        if node.op_type in QUANTIZED
    }
    return [name for name, count in groups.items() if count > 1]


def last_layers(model: onnx.ModelProto) -> list[str]:
    """The convolutions that no other convolution follows: a detector's, whose boxes are worked out of their outputs."""
    reached: set[str] = set()  # values that a convolution is worked out of
    last = []
    for node in reversed(model.graph.node):
        convolution = node.op_type in QUANTIZED
        if convolution and not reached.intersection(node.output):
            last.append(node.name)
        if convolution or reached.intersection(node.output):
            reached.update(node.input)
    return last[::-1]


class _Batches:
    """What onnxruntime.quantization reads calibration inputs from."""

    def __init__(self, name: str, batches: Sequence[np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter([{name: np.asarray(b, np.float32)} for b in batches])

    def get_next(self) -> dict[str, Any] | None:
        """The next input, or None after the last."""
        return next(self._feeds, None)


class _without_advice(logging.Filter):
    """Drops the quantiser's advice to run its pre-processing, which to_onnx has no need of."""

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
    "last_layers",
    "to_fp16",
    "to_int8",
    "with_half_weights",
]
