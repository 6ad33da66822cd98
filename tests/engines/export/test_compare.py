from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from torch import nn

from oaks.engines.export import compare

SHAPE = ["batch", 2, 4, 4]


def scaled(factor: float, shift: float = 0.0, output: str = "heatmaps") -> onnx.ModelProto:
    """y = factor * x + shift"""
    constants = [numpy_helper.from_array(np.float32(v), n) for n, v in (("factor", factor), ("shift", shift))]
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "shift"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, SHAPE)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(11, 2, 4, 4)).astype(np.float32)


def difference(model, expected, inputs, **settings) -> compare.Difference:
    (found,) = compare.differences(model, [expected], inputs, network="pose", precision="fp16", **settings)
    return found


@pytest.mark.parametrize("count", [1, 2, 9, 11])
def test_both_sides_give_every_sample_in_order(inputs, count):
    doubled = nn.Module()
    doubled.forward = lambda x: (x * 2, None)
    (ours,), (theirs,) = (
        compare.onnx_outputs(scaled(2.0), inputs[:count]),
        compare.torch_outputs(doubled, inputs[:count]),
    )
    np.testing.assert_array_equal(ours, 2 * inputs[:count])
    np.testing.assert_array_equal(theirs, 2 * inputs[:count])


def test_heatmaps_differ_in_standard_deviations(inputs):
    found = difference(scaled(1.0, shift=0.25), inputs, inputs)
    assert found.typical == pytest.approx(0.25 / inputs.std(), rel=1e-4)
    assert found.largest == pytest.approx(0.25 / inputs.std(), rel=1e-4)


def test_logits_differ_as_probabilities():
    zeros = np.zeros((3, 2, 4, 4), np.float32)
    found = difference(scaled(1.0, shift=1.0, output="visibility"), zeros, zeros)
    assert found.typical == pytest.approx(1 / (1 + np.exp(-1)) - 0.5, rel=1e-5)


def test_extreme_logits_do_not_overflow():
    logits = np.full((2, 2, 4, 4), -2000.0, np.float32)
    assert difference(scaled(1.0, output="similarity"), logits, logits).typical == 0


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_what_is_not_finite_is_infinitely_far(inputs, factor):
    found = difference(scaled(factor), inputs, inputs)
    assert found.typical == np.inf
    assert not found.accepted


def test_the_tolerance_decides(inputs):
    far = scaled(1.0, shift=0.02 * inputs.std())
    assert not difference(far, inputs, inputs).accepted  # 1e-2 for heatmaps in fp16
    assert difference(scaled(1.0, shift=0.005 * inputs.std()), inputs, inputs).accepted
    assert difference(far, inputs, inputs, tolerance=0.03).accepted
    assert not difference(scaled(1.0, shift=0.005), inputs, inputs, tolerance=1e-4).accepted


def test_every_precision_has_a_tolerance_for_every_output():
    for tolerances in compare.TOLERANCE.values():
        assert set(tolerances) == {"heatmaps", "visibility", "similarity", "centers", "sizes", "offsets"}
    order = [compare.TOLERANCE[precision]["heatmaps"] for precision in ("fp32", "fp16", "int8")]
    assert order == sorted(order)


def test_values_that_half_cannot_hold_are_found_inside(inputs):
    """The product overflows; the sum, which alone is an output, does not."""
    constants = {"big": 1e6, "small": 1e-6, "factor": 1.0, "shift": 0.0}
    model = scaled(1.0)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), n) for n, v in constants.items())
    first = [
        helper.make_node("Mul", ["x", "big"], ["huge"]),
        helper.make_node("Mul", ["huge", "small"], ["y"]),
    ]
    rest = [type(node).FromString(node.SerializeToString()) for node in model.graph.node]
    rest[0].input[0] = "y"
    del model.graph.node[:]
    model.graph.node.extend([*first, *rest])
    found = compare.exceeds_half_range(model, inputs)
    assert found == {"huge": pytest.approx(np.abs(inputs).max() * 1e6, rel=1e-5)}
    assert compare.exceeds_half_range(scaled(1.0), inputs) == {}


def test_not_a_number_is_beyond_half_too(inputs):
    assert "heatmaps" in compare.exceeds_half_range(scaled(np.nan), inputs)


def test_the_table_says_what_is_too_far(inputs):
    rows = [difference(scaled(1.0), inputs, inputs), difference(scaled(2.0), inputs, inputs)]
    console = Console(file=io.StringIO(), width=200)
    console.print(compare.table(rows))
    lines = console.file.getvalue().splitlines()
    within, far = (line for line in lines if "fp16" in line)
    assert "within" in within
    assert "too far" in far
