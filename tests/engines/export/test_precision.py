"""Graphs in reduced precision: the form that TensorRT's parsers and ONNX Runtime require."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from oaks.engines.export.onnx_graph import to_onnx
from oaks.engines.export.precision import (
    depthwise_layers,
    heatmap_layers,
    to_fp16,
    to_int8,
    with_half_weights,
)
from tests.engines.conftest import SIZE, Small, noise, settle


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    torch.manual_seed(0)
    network = settle(Small(upsample="bilinear"), torch.from_numpy(noise(16, 3, SIZE[1], SIZE[0])))
    example = torch.zeros(2, 3, SIZE[1], SIZE[0])
    return to_onnx(network, example, input_name="crops", output_names=["heatmaps", "visibility"])


@pytest.fixture(scope="module")
def half(plain) -> onnx.ModelProto:
    return to_fp16(plain)


@pytest.fixture(scope="module")
def stored(plain) -> onnx.ModelProto:
    return with_half_weights(plain)


@pytest.fixture(scope="module")
def quantized(plain) -> onnx.ModelProto:
    return to_int8(plain, [noise(4, 3, SIZE[1], SIZE[0], seed=s) for s in range(4)])


def run(model: onnx.ModelProto, crops: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": crops})


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_original_does_not_change(plain):
    before = plain.SerializeToString()
    to_fp16(plain)
    with_half_weights(plain)
    to_int8(plain, [noise(2, 3, SIZE[1], SIZE[0])])
    assert plain.SerializeToString() == before


@pytest.mark.parametrize("kind", ["half", "stored", "quantized"])
def test_inputs_and_outputs_stay_float32_and_dynamic(kind, request):
    graph = request.getfixturevalue(kind).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert value.type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize(("kind", "closeness"), [("half", 5e-3), ("stored", 2e-3), ("quantized", 0.1)])
def test_outputs_are_near_the_original_but_not_equal(kind, closeness, plain, request):
    crops = noise(5, 3, SIZE[1], SIZE[0], seed=9)
    for ours, theirs in zip(run(request.getfixturevalue(kind), crops), run(plain, crops), strict=True):
        apart = np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std()
        assert 0 < apart < closeness


def test_every_weight_and_layer_is_in_float16(half):
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    for node in half.graph.node:
        if node.op_type == "Resize":
            assert types[node.input[0]] == TensorProto.FLOAT16
            assert types[node.input[2]] == TensorProto.FLOAT  # ONNX allows no other type for scales
        elif node.op_type not in ("Cast", "ReduceMean"):
            assert {types[name] for name in node.input if name} == {TensorProto.FLOAT16}, node.name
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(half.graph.input) + len(half.graph.output)  # only at inputs and outputs


def test_weights_are_clamped_to_the_range_of_float16():
    """The converter's own limits, 1e-7 and 1e4, are narrower."""
    values = np.array([3e-8, 2.0**-24, 1e-5, 30000.0, 65504.0, -60000.0, 1e6, -1e9], np.float32)
    layer = nn.Conv2d(1, len(values), 1, bias=False).eval()
    layer.weight.data = torch.from_numpy(values).reshape(-1, 1, 1, 1)
    model = to_onnx(layer, torch.zeros(2, 1, 4, 4), input_name="crops", output_names=["heatmaps"])
    (weights,) = constants(to_fp16(model)).values()
    expected = values.astype(np.float64)
    expected[0] = 2.0**-24  # not 0
    expected[-2:] = 65504.0, -65504.0
    np.testing.assert_allclose(weights.ravel().astype(np.float64), expected, rtol=2e-3)


def test_quantization_is_symmetric_int8(quantized):
    values = constants(quantized)
    pairs = [n for n in quantized.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert (values[node.input[1]] > 0).all()


def test_no_bias_is_quantized(quantized):
    """TensorRT's parser does not support DequantizeLinear of int32."""
    values = constants(quantized)
    for node in quantized.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            assert values[node.input[0]].dtype == np.int8
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2:
            assert values[node.input[2]].dtype == np.float32
    assert "DynamicQuantizeLinear" not in {node.op_type for node in quantized.graph.node}


def test_weights_have_a_scale_per_output_channel(quantized):
    values = constants(quantized)
    dequantized = [node for node in quantized.graph.node if node.op_type == "DequantizeLinear"]
    weights = [node for node in dequantized if node.input[0] in values]
    assert weights
    for node in weights:
        kernel, scale = values[node.input[0]], values[node.input[1]]
        assert scale.shape == (kernel.shape[0],)
        assert [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"] == [0]
        assert (np.abs(kernel.astype(int)).reshape(len(kernel), -1).max(1) == 127).all()


def test_only_convolutions_are_quantized_except_the_heatmap_layer(plain, quantized):
    made_by = {name: node.op_type for node in quantized.graph.node for name in node.output}
    last = heatmap_layers(plain)
    assert len(last) == 1
    for node in quantized.graph.node:
        inputs = [made_by.get(name) for name in node.input[:2]]
        if node.op_type == "Conv" and node.name not in last:
            assert inputs == ["DequantizeLinear", "DequantizeLinear"], node.name
        if node.op_type in ("ConvTranspose", "Gemm") or node.name in last:
            assert inputs[1] is None, node.name
    kinds = Counter(node.op_type for node in plain.graph.node)
    assert kinds["Conv"] == 5


def convolutions(model: onnx.ModelProto, *, in_int8: bool | None = None) -> list[str]:
    """Return the names of all convolutions, or of those that are, or are not, in int8."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and in_int8 in (None, made_by.get(node.input[1]) == "DequantizeLinear")
    ]


def test_depthwise_convolutions_stay_in_float():
    torch.manual_seed(0)
    separable = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 8, 1), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    example = torch.zeros(2, 3, 8, 6)
    model = to_onnx(separable.eval(), example, input_name="crops", output_names=["heatmaps"])
    names = convolutions(model)
    assert depthwise_layers(model) == [names[0], names[2]]
    samples = [noise(4, 3, 8, 6)]
    quantized = to_int8(model, samples)
    assert convolutions(quantized, in_int8=True) == [names[1], names[3]]
    everything = to_int8(model, samples, keep_float=heatmap_layers(model))
    scales = [sum(n.op_type == "QuantizeLinear" for n in m.graph.node) for m in (quantized, everything)]
    assert scales[0] < scales[1]


def test_only_the_standard_opset_is_used(quantized, half):
    for model in (quantized, half):
        assert {node.domain for node in model.graph.node} == {""}
        assert {entry.version for entry in model.opset_import if not entry.domain} == {18}
        assert model.ir_version == 8


def test_layers_can_be_kept_in_float(plain):
    first = convolutions(plain)[0]
    model = to_int8(plain, [noise(2, 3, SIZE[1], SIZE[0])], keep_float=[first])
    assert convolutions(model, in_int8=False) == [first]


@pytest.mark.parametrize(
    ("samples", "keep_float", "message"),
    [
        ([], None, r"samples must be at least one"),
        ([np.zeros((1, 3, 64, 48))], ["nothing"], r"keep_float must be names of nodes, got \['nothing'\]"),
        ([np.zeros((1, 3, 64, 48))], "all", r"keep_float must leave a convolution"),
    ],
)
def test_wrong_arguments_are_named(plain, samples, keep_float, message):
    if keep_float == "all":
        keep_float = convolutions(plain)
    with pytest.raises(ValueError, match=message):
        to_int8(plain, samples, keep_float=keep_float)


def test_with_half_weights_outputs_are_those_of_rounded_float32_weights(plain, stored):
    rounded = onnx.ModelProto()
    rounded.CopyFrom(plain)
    for tensor in rounded.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 1024:
            halves = values.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(halves, tensor.name))
    crops = noise(5, 3, SIZE[1], SIZE[0], seed=9)
    for ours, theirs in zip(run(stored, crops), run(rounded, crops), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_half_weights_need_half_the_space_and_larger_values_stay_float32():
    layer, example = nn.Conv2d(32, 64, 3).eval(), torch.zeros(2, 32, 9, 9)
    model = to_onnx(layer, example, input_name="crops", output_names=["y"])
    stored = with_half_weights(model)
    types = sorted(values.dtype.name for values in constants(stored).values())
    assert types == ["float16", "float32"]  # the weights, and the bias of 64 numbers
    saved = len(model.SerializeToString()) - len(stored.SerializeToString())
    assert saved == pytest.approx(2 * 32 * 64 * 9, abs=256)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = 1e6
    model = to_onnx(layer, example, input_name="crops", output_names=["y"])
    assert {values.dtype.name for values in constants(with_half_weights(model)).values()} == {"float32"}


def test_with_pairs_at_inputs_outputs_of_convolutions_are_not_quantized(plain):
    samples = [noise(2, 3, SIZE[1], SIZE[0])]
    counts = {}
    for pairs in ("both", "inputs"):
        graph = to_int8(plain, samples, pairs=pairs).graph
        made = {name for node in graph.node if node.op_type == "Conv" for name in node.output}
        counts[pairs] = sum(node.op_type == "QuantizeLinear" and node.input[0] in made for node in graph.node)
    assert counts["inputs"] == 0 < counts["both"]
    with pytest.raises(ValueError, match="pairs must be one of 'both', 'inputs', got 'none'"):
        to_int8(plain, samples, pairs="none")
