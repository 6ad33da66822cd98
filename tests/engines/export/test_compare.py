"""Comparison of exported networks with the torch network: units, tolerances and the range of float16."""

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
    """Return the network y = factor * x + shift."""
    steps = [("Mul", ["x", "factor"], "product"), ("Add", ["product", "shift"], output)]
    return network(steps, {"factor": factor, "shift": shift}, output)


def network(
    steps: list[tuple[str, list[str], str]], constants: dict[str, float], output: str
) -> onnx.ModelProto:
    """Return a network of (operator, inputs, output)."""
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [name]) for kind, inputs, name in steps], "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(11, 2, 4, 4)).astype(np.float32)


def difference(model, expected, inputs, **settings) -> compare.Difference:
    (found,) = compare.differences(model, [expected], inputs, network="pose", precision="fp16", **settings)
    return found


@pytest.mark.parametrize("count", [1, 2, 9, 11])
def test_outputs_of_all_samples_are_returned_in_order(inputs, count):
    doubled = nn.Module()
    doubled.forward = lambda x: (x * 2, None)
    (ours,), (theirs,) = (
        compare.onnx_outputs(scaled(2.0), inputs[:count]),
        compare.torch_outputs(doubled, inputs[:count]),
    )
    np.testing.assert_array_equal(ours, 2 * inputs[:count])
    np.testing.assert_array_equal(theirs, 2 * inputs[:count])


def test_differences_of_heatmaps_are_in_standard_deviations(inputs):
    found = difference(scaled(1.0, shift=0.25), inputs, inputs)
    assert found.typical == pytest.approx(0.25 / inputs.std(), rel=1e-4)
    assert found.largest == pytest.approx(0.25 / inputs.std(), rel=1e-4)


def test_differences_of_logits_are_in_probability():
    zeros = np.zeros((3, 2, 4, 4), np.float32)
    found = difference(scaled(1.0, shift=1.0, output="visibility"), zeros, zeros)
    assert found.typical == pytest.approx(1 / (1 + np.exp(-1)) - 0.5, rel=1e-5)


def test_extreme_logits_do_not_overflow():
    logits = np.full((2, 2, 4, 4), -2000.0, np.float32)
    assert difference(scaled(1.0, output="similarity"), logits, logits).typical == 0


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_the_difference_of_outputs_that_are_not_finite_is_infinite(inputs, factor):
    found = difference(scaled(factor), inputs, inputs)
    assert found.typical == np.inf
    assert not found.accepted


def test_differences_are_accepted_up_to_the_tolerance(inputs):
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


def test_inner_values_beyond_the_range_of_half_are_found(inputs):
    """The first product overflows, but the output does not."""
    steps = [("Mul", ["x", "big"], "huge"), ("Mul", ["huge", "small"], "heatmaps")]
    model = network(steps, {"big": 1e6, "small": 1e-6}, "heatmaps")
    found = compare.exceeds_half_range(model, inputs)
    assert found == {"huge": pytest.approx(np.abs(inputs).max() * 1e6, rel=1e-5)}
    assert compare.exceeds_half_range(scaled(1.0), inputs) == {}


def test_nan_is_beyond_the_range_of_half_too(inputs):
    assert "heatmaps" in compare.exceeds_half_range(scaled(np.nan), inputs)


def test_the_table_marks_differences_above_the_tolerance(inputs):
    rows = [difference(scaled(1.0), inputs, inputs), difference(scaled(2.0), inputs, inputs)]
    console = Console(file=io.StringIO(), width=200)
    console.print(compare.table(rows))
    lines = console.file.getvalue().splitlines()
    within, far = (line for line in lines if "fp16" in line)
    assert "within" in within
    assert "too far" in far
