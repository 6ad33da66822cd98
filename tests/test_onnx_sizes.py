"""Networks of a few bytes that ask for gigabytes are refused before a runtime sees them; others are not."""

from __future__ import annotations

import contextlib

import bundles
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import oaks
from oaks import BundleError, onnx_file
from oaks.bundle import Bundle, shipped
from oaks.limits import BundleLimits

LARGE = 40_000


def model(nodes, constants=None, shape=("N", 3, 64, 48)) -> bytes:
    graph = helper.make_graph(
        nodes, "a", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def ints(*values):
    return np.array(values, np.int64)


HUNGRY = {
    "ConstantOfShape": ([helper.make_node("ConstantOfShape", ["s"], ["y"])], {"s": ints(LARGE, LARGE)}),
    "ConstantOfShape, several sides": (
        [helper.make_node("ConstantOfShape", ["s"], ["y"])], {"s": ints(2000, 2000, 2000)}
    ),
    "ConstantOfShape of a Constant": (
        [constant("s", ints(LARGE, LARGE)), helper.make_node("ConstantOfShape", ["s"], ["y"])], {}
    ),
    "Expand": ([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": ints(LARGE, 3, 64, 48)}),
    "Tile": ([helper.make_node("Tile", ["x", "s"], ["y"])], {"s": ints(1, 1, 300, 300)}),
    "Tile in steps": (
        [helper.make_node("Tile", ["x", "s"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
         helper.make_node("Tile", ["b", "s"], ["c"]), helper.make_node("Tile", ["c", "s"], ["y"])],
        {"s": ints(1, 1, 20, 20)},
    ),
    "Range": (
        [helper.make_node("Range", ["a", "b", "c"], ["y"])],
        {"a": np.float32(0), "b": np.float32(1e9), "c": np.float32(0.5)},
    ),
    "Resize by scales": ([helper.make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.float32([1, 1, 300, 300])}),
    "Resize to sizes": ([helper.make_node("Resize", ["x", "", "", "s"], ["y"])], {"s": ints(1, 3, LARGE, LARGE)}),
    "Pad": ([helper.make_node("Pad", ["x", "s"], ["y"])], {"s": ints(0, 0, 0, 0, 0, 0, 0, 10**9)}),
    "RandomNormal": ([helper.make_node("RandomNormal", [], ["y"], shape=[LARGE, LARGE])], {}),
    "a computed shape": (
        [helper.make_node("Mul", ["s", "s"], ["a"]), helper.make_node("Concat", ["a", "a"], ["b"], axis=0),
         helper.make_node("Cast", ["b"], ["c"], to=TensorProto.INT64), helper.make_node("ConstantOfShape", ["c"], ["y"])],
        {"s": ints(300)},
    ),
    "a shape of a shape": (
        [helper.make_node("Shape", ["k"], ["a"]), helper.make_node("Mul", ["a", "s"], ["b"]),
         helper.make_node("Expand", ["x", "b"], ["y"])],
        {"k": np.zeros((4, 3, 2, 1), np.float32), "s": ints(1000, 1000, 1000, 1000)},
    ),
    "many parts": ([helper.make_node("Concat", ["x"] * 20_000, ["y"], axis=0)], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", HUNGRY)
def test_a_few_bytes_that_ask_for_gigabytes_are_refused(case):
    nodes, constants = HUNGRY[case]
    with pytest.raises(
        BundleError, match=r"a\.onnx must have tensors of at most 134217728 elements, got one of"
    ):
        onnx_file.check(model(nodes, constants), "a.onnx")


def test_subgraphs_are_checked():
    inner = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["s"], ["z"])], "inner", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )  # fmt: skip
    content = model(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        {"s": ints(LARGE, LARGE), "c": np.array(True)},
    )
    with pytest.raises(BundleError, match="ConstantOfShape"):
        onnx_file.check(content, "a.onnx")


def test_values_computed_around_a_graph_are_known_within_it():
    inner = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["t"], ["z"])], "inner", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )  # fmt: skip
    content = model(
        [helper.make_node("Mul", ["s", "s"], ["t"]),
         helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        {"s": ints(300, 300), "c": np.array(True)},
    )  # fmt: skip
    with pytest.raises(BundleError, match="ConstantOfShape"):
        onnx_file.check(content, "a.onnx")


def with_functions(content: bytes, **bodies) -> bytes:
    loaded = onnx.load_from_string(content)
    for name, nodes in bodies.items():
        loaded.functions.append(
            helper.make_function("own", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
        )
    return loaded.SerializeToString()


def test_functions_are_checked():
    call = [helper.make_node("Mine", ["s"], ["y"], domain="own")]
    body = [helper.make_node("ConstantOfShape", ["a"], ["b"])]
    onnx_file.check(with_functions(model(call, {"s": ints(3, 3)}), Mine=body), "a.onnx")
    with pytest.raises(BundleError, match="ConstantOfShape"):
        onnx_file.check(with_functions(model(call, {"s": ints(LARGE, LARGE)}), Mine=body), "a.onnx")


@pytest.mark.parametrize(("names", "end"), [(["Mine"], "Mine"), ([f"F{n}" for n in range(40)], "Identity")])
def test_functions_that_call_themselves_or_double_end(names, end):
    bodies = {
        name: [helper.make_node(following, ["a"], ["b"], domain="" if following == "Identity" else "own")] * 2
        for name, following in zip(names, [*names[1:], end], strict=True)
    }
    call = [helper.make_node(names[0], ["s"], ["y"], domain="own")]
    with pytest.raises(BundleError, match="must call its functions less often"):
        onnx_file.check(with_functions(model(call, {"s": ints(3, 3)}), **bodies), "a.onnx", largest=20_000)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_function_may_be_called_as_the_operation_that_it_calls(domain):
    body = [helper.make_node("Sigmoid", ["a"], ["b"], domain=domain)]
    call = [helper.make_node("Sigmoid", ["s"], ["y"], domain="own")]
    onnx_file.check(with_functions(model(call, {"s": ints(3, 3)}), Sigmoid=body), "a.onnx", largest=20_000)


@pytest.mark.parametrize("overload", ["small", "large"])
def test_functions_of_one_name_are_told_apart_by_their_overload(overload):
    call = helper.make_node("Mine", ["s"], ["y"], domain="own")
    call.overload = overload
    content = with_functions(
        model([call], {"s": ints(LARGE, LARGE)}),
        Mine=[helper.make_node("ConstantOfShape", ["a"], ["b"])],
        Other=[helper.make_node("Shape", ["a"], ["b"])],
    )
    loaded = onnx.load_from_string(content)
    for function, of in zip(loaded.functions, ("large", "small"), strict=True):
        function.name, function.overload = "Mine", of
    refused = pytest.raises(BundleError, match="ConstantOfShape")
    with refused if overload == "large" else contextlib.nullcontext():
        onnx_file.check(loaded.SerializeToString(), "a.onnx")


@pytest.mark.parametrize(("called", "defined"), [("", "ai.onnx"), ("ai.onnx", "")])
def test_onnx_has_two_names_for_its_own_domain(called, defined):
    content = with_functions(
        model([helper.make_node("Mine", ["s"], ["y"], domain=called)], {"s": ints(LARGE, LARGE)}),
        Mine=[helper.make_node("ConstantOfShape", ["a"], ["b"])],
    )
    loaded = onnx.load_from_string(content)
    loaded.functions[0].domain = defined
    with pytest.raises(BundleError, match="ConstantOfShape"):
        onnx_file.check(loaded.SerializeToString(), "a.onnx")


def test_modest_networks_are_accepted():
    onnx_file.check(
        model([
            constant("s", ints(1, 3, 128, 96)), helper.make_node("Resize", ["x", "", "", "s"], ["a"]),
            helper.make_node("Shape", ["a"], ["b"]), helper.make_node("Expand", ["a", "b"], ["y"]),
        ]), "a.onnx",
    )  # fmt: skip
    for name in shipped():
        Bundle.load(name)


def test_the_bound_never_exceeds_what_onnx_infers(tmp_path):
    """A lower bound: for every tensor of the test's networks it is at most the true size."""
    for content in (
        bundles.pose_network(3, bundles.SIZE, visibility=True), bundles.ks_network(3, bundles.SIZE),
        oaks.Bundle.load("tiny").network("pose", "fp32").read(),
    ):  # fmt: skip
        inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), data_prop=True)
        sizes = [
            int(np.prod([max(side.dim_value, 1) for side in value.type.tensor_type.shape.dim]))
            for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        ]
        onnx_file.check(content, "a.onnx", elements=max(sizes))


def test_the_limit_can_be_changed(tmp_path):
    nodes, constants = HUNGRY["Tile"]
    (tmp_path / "a.onnx").write_bytes(model(nodes, constants))
    with pytest.raises(BundleError, match="Tile"):
        onnx_file.read(tmp_path / "a.onnx")
    onnx_file.read(tmp_path / "a.onnx", BundleLimits(tensor_elements=1 << 40))
