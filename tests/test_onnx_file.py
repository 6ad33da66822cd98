"""ONNX files as bytes, against the onnx package: what is refused, and that rewritten graphs compute the same."""

from __future__ import annotations

import contextlib
import os
import random

import bundles
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from oaks import BundleError, onnx_file
from oaks.detector import Detector
from oaks.fit import import_network
from oaks.limits import BundleLimits


def external(name: str = "secret", location: str = "*/_ORT_MEM_ADDR_/*") -> TensorProto:
    """A tensor that ONNX Runtime and OpenVINO would read from an address in this process's memory."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "4096"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(*nodes, initializers=(), functions=()) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ("N", 4))],
        [value("y", TensorProto.FLOAT, ("N", 4))],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, (4,))
    return helper.make_graph(
        [helper.make_node("Identity", [tensor.name], ["inner"])], "b", [], [output], [tensor]
    )


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4), "i")
    return onnx.SparseTensorProto(values=tensor, indices=indices, dims=[4])


def constant(tensor: TensorProto, **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **(attributes or {"value": tensor}))


def hidden() -> dict[str, onnx.ModelProto]:
    """External tensors in every place that the format has for one."""
    branch = helper.make_node(
        "If", ["t"], ["c"], then_branch=subgraph(external()), else_branch=subgraph(external())
    )
    inner = helper.make_graph([branch], "outer", [], [helper.make_tensor_value_info("c", 1, (4,))])
    graphs = onnx.AttributeProto(name="many", type=onnx.AttributeProto.GRAPHS)
    graphs.graphs.append(subgraph(external()))
    tensors = onnx.AttributeProto(name="many", type=onnx.AttributeProto.TENSORS)
    tensors.tensors.append(external())
    several = []
    for attribute in (graphs, tensors):
        node = helper.make_node("Odd", [], ["c"], domain="here")
        node.attribute.append(attribute)
        several.append(node)
    sparse_tensors = onnx.AttributeProto(name="many", type=onnx.AttributeProto.SPARSE_TENSORS)
    sparse_tensors.sparse_tensors.append(sparse(external()))
    odd = helper.make_node("Odd", [], ["c"], domain="here")
    odd.attribute.append(sparse_tensors)
    function = helper.make_function(
        "here", "F", [], ["c"], [constant(external())], [helper.make_opsetid("", 17)]
    )
    in_sparse = model()
    in_sparse.graph.sparse_initializer.append(sparse(external()))
    in_training = model()
    in_training.training_info.add().initialization.CopyFrom(subgraph(external()))
    in_algorithm = model()
    in_algorithm.training_info.add().algorithm.CopyFrom(subgraph(external()))
    only_entries = external()
    only_entries.ClearField("data_location")
    only_location = external()
    del only_location.external_data[:]
    return {
        "initializer": model(initializers=[external()]),
        "a file name": model(initializers=[external(location="/etc/passwd")]),
        "constant": model(constant(external())),
        "sparse constant": model(constant(external(), sparse_value=sparse(external()))),
        "a branch": model(branch),
        "a branch of a branch": model(
            helper.make_node("If", ["t"], ["c"], then_branch=inner, else_branch=inner)
        ),
        "a list of graphs": model(several[0]),
        "a list of tensors": model(several[1]),
        "a list of sparse tensors": model(odd),
        "a function": model(functions=[function]),
        "sparse initializer": in_sparse,
        "training": in_training,
        "training algorithm": in_algorithm,
        "entries alone": model(initializers=[only_entries]),
        "the location alone": model(initializers=[only_location]),
        "EPContext": model(helper.make_node("EPContext", ["x"], ["c"], domain="com.microsoft", embed_mode=0)),
    }


@pytest.mark.parametrize("place", hidden())
def test_external_data_is_refused_wherever_it_is(tmp_path, place):
    content = hidden()[place].SerializeToString()
    message = "EPContext" if place == "EPContext" else "external data for .*; save the model as one file"
    with pytest.raises(BundleError, match=f"x.onnx .*{message}"):
        onnx_file.check(content, "x.onnx")
    path = tmp_path / "detector.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"detector: .*detector\.onnx .*(external data|EPContext)"):
        Detector(path)
    with pytest.raises(ValueError, match=r"detector\.onnx .*(external data|EPContext)"):
        import_network(path, tmp_path / "imported", preset="hrnet")
    assert not (tmp_path / "imported").exists()
    bundles.write(tmp_path / "tiny")
    (tmp_path / "tiny" / "pose.fp32.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"pose\.fp32\.onnx .*(external data|EPContext)"):
        bundles.rewrite(tmp_path / "tiny")


def test_external_data_in_a_repeated_message_is_refused():
    """Parsers merge a singular message that occurs twice: the second part of a tensor may make it external."""
    plain, part = model(constant(numpy_helper.from_array(np.zeros(4, np.float32)))), external()
    attribute = plain.graph.node[0].attribute[0]
    doubled = attribute.SerializeToString() + b"\x2a" + bytes([part.ByteSize()]) + part.SerializeToString()
    merged = onnx.AttributeProto.FromString(doubled)
    assert merged.t.data_location == TensorProto.EXTERNAL
    node = onnx.NodeProto(op_type="Constant", output=["c"]).SerializeToString()
    node += b"\x2a" + bytes([len(doubled) & 127 | 128, len(doubled) >> 7]) + doubled
    graph = b"\x0a" + bytes([len(node) & 127 | 128, len(node) >> 7]) + node
    content = b"\x08\x08\x3a" + bytes([len(graph) & 127 | 128, len(graph) >> 7]) + graph
    assert onnx.ModelProto.FromString(content).graph.node[0].attribute[0].t.external_data
    with pytest.raises(BundleError, match="external data"):
        onnx_file.check(content, "x.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "with one graph, got 0"),
        (b"\x08\x08", "with one graph, got 0"),
        (b"<?xml version='1.0'?><net>", "must be an ONNX file"),
        (b"\x08\x08\x00\x00ORTM" + bytes(64), "got another format"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(64), "got another format"),
        (b"\xff" * 64, "must be an ONNX file"),
        (b"\x3a\xff\xff\xff\xff\x0f", "must be an ONNX file"),
        (model().SerializeToString()[:-3], "must be an ONNX file"),
        (model().SerializeToString() * 2, "with one graph, got 2"),
    ],
)
def test_files_that_are_not_onnx_are_refused(content, message):
    with pytest.raises(BundleError, match=f"x.onnx .*{message}"):
        onnx_file.check(content, "x.onnx")


def test_nesting_and_size_are_bounded():
    graph = subgraph(numpy_helper.from_array(np.zeros(4, np.float32), "z"))
    for _ in range(25):
        node = helper.make_node("If", ["t"], ["c"], then_branch=graph)
        graph = helper.make_graph([node], "deeper", [], [])
    deep = onnx.ModelProto(ir_version=8, graph=graph)
    with pytest.raises(BundleError, match="at most 64 levels deep"):
        onnx_file.check(deep.SerializeToString(), "x.onnx")
    with pytest.raises(BundleError, match="at most 20 protobuf fields"):
        onnx_file.check(model().SerializeToString(), "x.onnx", largest=20)


def test_damaged_files_raise_only_bundle_errors():
    whole = bundles.pose_network(3, bundles.SIZE, visibility=True, half=True)
    draw = random.Random(0)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3, 20))):
            content[draw.randrange(min(len(content), 1200))] = draw.randrange(256)
        content = bytes(content[: draw.choice((len(content), draw.randrange(1, len(content))))])
        try:
            onnx_file.check(content, "x.onnx")
            onnx_file.in_precision(content, "fp16", "fp32", "x.onnx")
            onnx_file.state(content, "x.onnx")
        except BundleError:
            refused += 1
    assert refused > 100


def run(content: bytes, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def test_an_fp16_model_widens_to_what_float32_arithmetic_gives():
    """Against a float32 graph whose weights were rounded to float16 by NumPy."""
    from oaks.engines.export.precision import to_fp16

    plain = onnx.load_from_string(bundles.pose_network(3, bundles.SIZE, visibility=False))
    rounded = onnx.ModelProto.FromString(plain.SerializeToString())
    for tensor in rounded.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    crops = np.random.default_rng(0).random((2, 3, *bundles.SIZE[::-1])).astype(np.float32)
    wide = onnx_file.in_precision(to_fp16(plain).SerializeToString(), "fp16", "fp32", "x.onnx")
    onnx.checker.check_model(onnx.load_from_string(wide), full_check=True)
    assert b"FLOAT16" not in str(onnx.load_from_string(wide)).encode()
    for ours, theirs in zip(
        run(wide, crops=crops), run(rounded.SerializeToString(), crops=crops), strict=True
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_float16_in_subgraphs_attributes_and_types_is_widened():
    half = TensorProto.FLOAT16
    value = helper.make_tensor_value_info
    tensor = numpy_helper.from_array(np.float16([1, 2, 3, 4]), "half")
    packed = TensorProto(name="packed", data_type=half, dims=[4])
    packed.int32_data.extend(np.float16([1, 2, -3, 0.5]).view(np.uint16).tolist())
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["u"], value=tensor)], "then", [], [value("u", half, (4,))]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["packed"], ["v"])], "else", [], [value("v", half, (4,))]
    )
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=half),
        helper.make_node("If", ["flag"], ["w"], then_branch=then, else_branch=other),
        helper.make_node("Mul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, (4,)), value("flag", TensorProto.BOOL, ())],
        [value("y", TensorProto.FLOAT, (4,))], [packed], value_info=[value("h", half, (4,))],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wide = onnx_file.in_precision(made.SerializeToString(), "fp16", "fp32", "x.onnx")
    parsed = onnx.load_from_string(wide)
    onnx.checker.check_model(parsed, full_check=True)
    assert parsed.graph.value_info[0].type.tensor_type.elem_type == TensorProto.FLOAT
    x = np.float32([70_000, 2**-20, 1, 1])  # beyond float16, and below its normal numbers
    np.testing.assert_array_equal(run(wide, x=x, flag=np.array(True))[0], x * [1, 2, 3, 4])
    np.testing.assert_array_equal(run(wide, x=x, flag=np.array(False))[0], x * np.float32([1, 2, -3, 0.5]))


def test_casts_of_stored_weights_are_folded():
    from oaks.engines.export.precision import with_half_weights

    rng = np.random.default_rng(1)
    weight = rng.normal(size=(64, 4, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, ("N", 4, 8, 8))], [value("y", 1, ("N", 64, 6, 6))],
        [numpy_helper.from_array(weight, "weight")],
    )  # fmt: skip
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    stored = with_half_weights(plain).SerializeToString()
    folded = onnx_file.in_precision(stored, "int8", "int8", "x.onnx")
    assert [n.op_type for n in onnx.load_from_string(stored).graph.node] == ["Cast", "Conv"]
    assert [n.op_type for n in onnx.load_from_string(folded).graph.node] == ["Conv"]
    x = rng.normal(size=(2, 4, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(folded, x=x)[0], run(stored, x=x)[0])


def test_a_weight_with_two_readers_keeps_its_casts():
    half = numpy_helper.from_array(np.float16([1, 2, 3, 4]), "half")
    nodes = [
        helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["half"], ["again"], to=TensorProto.DOUBLE),
    ]
    made = model(*nodes, initializers=[half])
    same = onnx.load_from_string(onnx_file.in_precision(made.SerializeToString(), "fp32", "fp32", "x"))
    assert same == made


def test_precisions_that_cannot_be_made_are_refused():
    content = model().SerializeToString()
    for stored, expected in (("fp32", "fp16"), ("int8", "fp32"), ("fp16", "int8")):
        with pytest.raises(ValueError, match=f"precision must be '{stored}' for a file stored as {stored}"):
            onnx_file.in_precision(content, stored, expected, "x.onnx")


def test_state_unfolds_scales_and_adds_spares():
    tensors = {
        "network.a.weight": np.float16([[2, 4], [6, 8]]), "scale:a.weight": np.float32([[2], [0]]),
        "network.a.bias": np.float32([1, 2]), "torch:b.running_var": np.float32([5]),
        "torch:b.num_batches_tracked": np.array(7), "val_3": np.float32([9]),
    }  # fmt: skip
    made = model(initializers=[numpy_helper.from_array(array, name) for name, array in tensors.items()])
    found = onnx_file.state(made.SerializeToString(), "x.onnx")
    assert sorted(found) == ["a.bias", "a.weight", "b.num_batches_tracked", "b.running_var"]
    np.testing.assert_array_equal(found["a.weight"], [[1, 2], [6, 8]])
    assert found["b.num_batches_tracked"] == 7
    for name, factor in (("scale:c", np.float32([1])), ("scale:a.weight", np.ones((3, 1), np.float32))):
        wrong = model(initializers=[*made.graph.initializer, numpy_helper.from_array(factor, name)])
        with pytest.raises(BundleError, match=rf"x\.onnx: '{name}' scales no parameter"):
            onnx_file.state(wrong.SerializeToString(), "x.onnx")


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, np.float64, np.int64, np.int32, np.uint8, np.bool_]
)
@pytest.mark.parametrize("raw", [True, False])
def test_every_way_to_store_a_tensor_is_read(dtype, raw):
    array = np.array([[0, 1, 3], [1, 0, 7]]).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = helper.make_tensor(
        "network.w", kind, array.shape, array.tobytes() if raw else array.ravel(), raw=raw
    )
    found = onnx_file.state(model(initializers=[tensor]).SerializeToString(), "x")["w"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_a_tensor_of_another_length_than_its_shape_is_damaged():
    tensor = numpy_helper.from_array(np.zeros(6, np.float32), "network.w")
    for dims in ([7], [-1], [2, 2]):
        tensor.dims[:] = dims
        with pytest.raises(BundleError, match=r"x must hold .*tensors.*, got 'network\.w'"):
            onnx_file.state(model(initializers=[tensor]).SerializeToString(), "x")


def test_read_takes_regular_files_of_bounded_size(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(model().SerializeToString())
    assert onnx_file.read(path) == path.read_bytes()
    with pytest.raises(BundleError, match=r"a\.onnx cannot be read: it must have at most 10 bytes"):
        onnx_file.read(path, BundleLimits(file_bytes=10))
    with pytest.raises(FileNotFoundError, match=r"ONNX file not found: .*gone"):
        onnx_file.read(tmp_path / "gone")
    with pytest.raises(BundleError, match="cannot be read"):
        onnx_file.read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(BundleError, match="must be a regular file"):
            onnx_file.read(tmp_path / "fifo")


def long_tag(number: int, wire: int) -> bytes:
    """A tag of five bytes with a bit above 32, which the parsers of protobuf drop."""
    value = (number << 3 | wire) | 1 << 32
    return bytes((value >> shift & 0x7F) | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))


def test_tags_that_runtimes_read_differently_are_refused():
    """Field 13 of a tensor, external data, would look like field 536870925."""
    content = model(initializers=[external()]).SerializeToString()
    tensor = external().SerializeToString()
    changed = tensor.replace(b"\x6a", long_tag(13, 2)).replace(b"\x70\x01", long_tag(14, 0) + b"\x01")
    assert changed != tensor
    plain = model()
    graph = plain.graph.SerializeToString() + onnx_file._encoded([(5, 2, changed)])
    plain.ClearField("graph")
    bad = plain.SerializeToString() + onnx_file._encoded([(7, 2, graph)])
    for refused in (content, bad):
        with pytest.raises(BundleError, match="external data|something else or a damaged one"):
            onnx_file.check(refused, "a")


@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_numbers_in_place_of_bytes_allocate_nothing(number):
    """A number where bytes belong is a field that runtimes skip; as a length it would be 8 GB."""
    whole = model(helper.make_node("Cast", ["h"], ["w"], to=1), initializers=[
        numpy_helper.from_array(np.ones(2, np.float16), "h")
    ])  # fmt: skip
    node = whole.graph.node[0].SerializeToString() + bytes([number << 3]) + b"\x80\x80\x80\x80\x20"
    del whole.graph.node[0]
    graph = onnx_file._encoded([(1, 2, node)]) + whole.graph.SerializeToString()
    whole.ClearField("graph")
    grown = whole.SerializeToString() + onnx_file._encoded([(7, 2, graph)])
    assert len(onnx.load_from_string(grown).graph.node) == 2
    with contextlib.suppress(BundleError):
        onnx_file.check(grown, "a")
        onnx_file.in_precision(grown, "fp16", "fp32", "a")
        onnx_file.in_precision(grown, "fp16", "fp16", "a")
