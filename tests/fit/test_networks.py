"""Import of other networks' ONNX files as bundles: layouts, fixed batches and sizes, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import oaks
from oaks.fit import Preset, fit_heatmaps, import_network
from oaks.fit.networks import read_settings


def network(path, outputs, *, batch=1, count=17, size=(48, 64), input_name="input"):
    """An ONNX file as others export it: a fixed batch of 1, names of their own, strided convolutions."""
    rng = np.random.default_rng(0)
    nodes, constants, described = [], {}, []
    for name, channels in outputs:
        constants[f"{name}.w"] = rng.normal(size=(channels, 3, 4, 4)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [input_name, f"{name}.w"], [name], strides=[4, 4]))
        shape = [batch, channels, size[1] // 4, size[0] // 4]
        described.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    source = helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 3, size[1], size[0]])
    graph = helper.make_graph(nodes, "g", [source], described)
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_a_network_with_names_of_its_own_and_a_fixed_batch_is_imported(tmp_path, caplog):
    import onnxruntime

    path = network(tmp_path / "hrnet.onnx", [("output", 17)])
    with caplog.at_level(logging.WARNING, "oaks"):
        bundle = import_network(path, tmp_path / "bundle", preset="hrnet")
    assert "has not been verified with real weights" in caplog.text
    assert (bundle.pose.alignment, bundle.pose.refine, bundle.pose.stride) == ("hrnet", "gradient", 4)
    crops = np.random.default_rng(1).normal(size=(3, 3, 64, 48)).astype(np.float32)
    original = onnxruntime.InferenceSession(str(path))
    expected = np.concatenate([original.run(None, {"input": crop[None]})[0] for crop in crops])
    session = onnxruntime.InferenceSession(bundle.network("pose").read())
    np.testing.assert_allclose(session.run(["heatmaps"], {"crops": crops})[0], expected, rtol=1e-5, atol=1e-5)
    with oaks.Engine(bundle, "onnxruntime", threads=1) as engine:
        assert len(engine.infer(np.zeros((64, 48, 3), np.uint8), boxes=[[0, 0, 48, 64]])) == 1


@pytest.mark.parametrize("order", ["xy", "yx"])
@pytest.mark.parametrize("flip", [True, False])
def test_simcc_vectors_are_decoded_in_the_engine(tmp_path, order, flip):
    """Against the vectors of the original network, decoded by the operation."""
    import onnxruntime

    rng = np.random.default_rng(0)
    nodes, constants, outputs = [helper.make_node("Flatten", ["input"], ["flat"])], {}, []
    for axis in order:
        side = {"x": 48, "y": 64}[axis] * 2
        constants[f"{axis}.w"] = rng.normal(size=(3 * 64 * 48, 17 * side)).astype(np.float32) / 100
        constants[f"{axis}.s"] = np.int64([-1, 17, side])
        nodes.append(helper.make_node("MatMul", ["flat", f"{axis}.w"], [f"{axis}.long"]))
        nodes.append(helper.make_node("Reshape", [f"{axis}.long", f"{axis}.s"], [f"simcc_{axis}"]))
        outputs.append(helper.make_tensor_value_info(f"simcc_{axis}", TensorProto.FLOAT, [1, 17, side]))
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 48])
    graph = helper.make_graph(nodes, "g", [source], outputs)
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    path = tmp_path / "rtmpose.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    bundle = import_network(path, tmp_path / "bundle", preset="rtmpose")
    frame = rng.integers(0, 255, (90, 70, 3), np.uint8)
    boxes = np.float32([[5, 5, 45, 80], [20, 0, 60, 70]])
    with oaks.Engine(bundle, "onnxruntime", flip=flip, threads=1) as engine:
        poses = engine.infer(frame, boxes=boxes)
        assert engine.describe()["decoder"] == "simcc"
        assert (engine.score_kind, np.isnan(poses.oaks_scores).all()) == ("conventional", True)
    part = bundle.pose
    crops = oaks.ops.crop(
        frame, boxes, size=part.size, padding=1.25, mean=part.mean, std=part.std, mirrored=True
    )
    original = onnxruntime.InferenceSession(str(path))
    vectors = [original.run(["simcc_x", "simcc_y"], {"input": crop[None]}) for crop in crops.pixels]
    x, y = (np.concatenate([v[axis] for v in vectors]) for axis in (0, 1))
    mirrored = {"mirrored": (x[2:], y[2:]), "flip_pairs": oaks.COCO17.pairs} if flip else {}
    expected = oaks.ops.decode_simcc(x[:2], y[:2], split=2.0, transforms=crops.transforms, **mirrored)
    np.testing.assert_allclose(poses.keypoints, expected.points, atol=1e-3)
    np.testing.assert_allclose(poses.heat, expected.heat, rtol=1e-4)
    with pytest.raises(ValueError, match="refine must be None with a SimCC network"):
        oaks.Engine(bundle, "onnxruntime", refine="dark")
    with pytest.raises(ValueError, match="model must give heatmaps, got kind 'simcc'"):
        fit_heatmaps(bundle, path, tmp_path, store=tmp_path / "maps")


def test_movenets_heads_become_maps_of_one_person(tmp_path):
    """Against the weighting said again in NumPy."""
    import onnxruntime

    heads = [("heat", 17), ("center", 1), ("regress", 34), ("offset", 34)]
    path = network(tmp_path / "movenet.onnx", heads)
    bundle = import_network(path, tmp_path / "bundle", preset="movenet")
    crops = np.random.default_rng(1).normal(size=(4, 3, 64, 48)).astype(np.float32)
    original = onnxruntime.InferenceSession(str(path))
    told = onnxruntime.InferenceSession(bundle.network("pose").read()).run(None, {"crops": crops})[0]
    y, x = np.mgrid[:16, :12]
    cells = set()
    for crop, maps in zip(crops, told, strict=True):
        heat, center, regression, _ = (a[0] for a in original.run(None, {"input": crop[None]}))
        prior = np.hypot(y - 8, x - 6) + 1.8
        cy, cx = divmod(int((1 / (1 + np.exp(-center[0])) / prior).argmax()), 12)
        cells.add((cy, cx))
        at = regression[:, cy, cx].reshape(17, 2) + np.array([cy, cx])
        distance = np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None]) + 1.8
        np.testing.assert_allclose(maps, 1 / (1 + np.exp(-heat)) / distance, rtol=1e-4, atol=1e-6)
    assert len(cells) > 2


@pytest.mark.parametrize(
    ("outputs", "preset", "message"),
    [
        ([("output", 16)], "hrnet", r"output must be one of shape \(N, 17, .*got output \(1, 16, 16, 12\)"),
        ([("x", 17), ("y", 17)], "mmpose", r"output must be one .*got x \(1, 17, 16, 12\); y"),
        ([("output", 17)], "movenet", r"outputs must be MoveNet's heatmaps"),
        ([("output", 17)], "rtmpose", r"outputs must be SimCC vectors .*got output \(1, 17, 16, 12\)"),
        ([("output", 17)], "openpose", "preset must be one of 'simple-baselines', 'hrnet'"),
    ],
)
def test_an_unknown_layout_is_refused_with_what_was_found(tmp_path, outputs, preset, message):
    path = network(tmp_path / "net.onnx", outputs)
    with pytest.raises(ValueError, match=message):
        import_network(path, tmp_path / "bundle", preset=preset)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("outputs", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_half_precision_is_converted_in_the_graph(tmp_path, outputs):
    import onnxruntime

    path = network(tmp_path / "net.onnx", [("heat", 17)])
    graph = onnx.load(path)
    for value in graph.graph.initializer:
        value.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(value).astype(np.float16), value.name)
        )
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    graph.graph.output[0].type.tensor_type.elem_type = outputs
    if outputs == TensorProto.FLOAT:
        graph.graph.node[0].output[0] = "maps"
        graph.graph.node.append(helper.make_node("Cast", ["maps"], ["heat"], to=TensorProto.FLOAT))
    onnx.save(graph, path)
    bundle = import_network(path, tmp_path / "bundle", preset="hrnet")
    session = onnxruntime.InferenceSession(bundle.network("pose").read())
    assert [value.type for value in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float)"] * 2
    crops = np.random.default_rng(1).normal(size=(3, 3, 64, 48)).astype(np.float32)
    original = onnxruntime.InferenceSession(str(path))
    expected = np.concatenate([original.run(None, {"input": c[None].astype(np.float16)})[0] for c in crops])
    np.testing.assert_allclose(session.run(["heatmaps"], {"crops": crops})[0], expected, rtol=1e-2, atol=0.05)


def test_a_fixed_batch_of_several_is_refused(tmp_path):
    path = network(tmp_path / "net.onnx", [("heat", 17)], batch=4)
    with pytest.raises(ValueError, match=r"net\.onnx: input must take a batch of 1 or of any size, got 4"):
        import_network(path, tmp_path / "bundle", preset="hrnet")


def single(path, batch):
    """A network whose graph reshapes to a batch of 1 in the middle."""
    network(path, [("output", 17)], batch=batch)
    graph = onnx.load(path)
    (node,) = graph.graph.node
    node.output[0] = "maps"
    shape = onnx.numpy_helper.from_array(np.int64([1, 17, 16, 12]), "shape")
    graph.graph.initializer.append(shape)
    graph.graph.node.append(helper.make_node("Reshape", ["maps", "shape"], ["output"]))
    onnx.save(graph, path)
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_network_that_takes_one_crop_at_a_time_runs_in_a_loop(tmp_path, caplog, backend):
    pytest.importorskip(backend)
    with caplog.at_level(logging.WARNING, "oaks"):
        alone = import_network(single(tmp_path / "one.onnx", 1), tmp_path / "one", preset="hrnet")
    assert "takes only one crop at a time, so it runs once per crop" in caplog.text
    assert alone.pose.batch == 1
    any_size = import_network(
        network(tmp_path / "any.onnx", [("output", 17)]), tmp_path / "any", preset="hrnet"
    )
    assert any_size.pose.batch is None
    frame = np.random.default_rng(2).integers(0, 256, (96, 96, 3), np.uint8)
    boxes = [[0, 0, 48, 64], [20, 20, 68, 84], [40, 10, 90, 80]]
    found = []
    for bundle in (alone, any_size):
        with oaks.Engine(bundle, backend, threads=1) as engine:
            found.append(engine.infer(frame, boxes=boxes))
    assert np.ptp(found[0].heat) > 0
    np.testing.assert_allclose(found[0].heat, found[1].heat, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[0].keypoints, found[1].keypoints, atol=1e-3)


def test_a_network_whose_crops_depend_on_each_other_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a batch must give the outputs of its crops one by one, got "):
        import_network(single(tmp_path / "net.onnx", "N"), tmp_path / "bundle", preset="hrnet")


def test_settings_replace_a_presets_fields(tmp_path):
    path = network(tmp_path / "net.onnx", [("output", 17)])
    with pytest.raises(ValueError, match="settings must be among .* got 'decoder'"):
        import_network(path, tmp_path / "bundle", preset="hrnet", decoder="dark")
    bundle = import_network(
        path, tmp_path / "bundle", preset=Preset(source="a test"), refine="dark", color="bgr"
    )
    assert (bundle.pose.refine, bundle.pose.color) == ("dark", "bgr")


def test_a_network_that_takes_any_size_is_told_one(tmp_path):
    path = network(tmp_path / "net.onnx", [("output", 17)])
    fixed = import_network(path, tmp_path / "fixed", preset="hrnet")
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        for n, dimension in enumerate(value.type.tensor_type.shape.dim[2:]):
            dimension.dim_param = f"side{n}"
    onnx.save(model, path)
    with pytest.raises(ValueError, match="set size=WIDTH,HEIGHT if it takes any"):
        import_network(path, tmp_path / "bundle", preset="hrnet")
    bundle = import_network(path, tmp_path / "bundle", preset="hrnet", size=(48, 64))
    assert bundle.pose.size == fixed.pose.size == (48, 64)
    boxes, picture = [[3, 4, 50, 60]], np.random.default_rng(0).integers(0, 255, (80, 70, 3), np.uint8)
    poses = []
    for each in (fixed, bundle):
        with oaks.Engine(each, "onnxruntime", threads=1) as engine:
            poses.append(engine.infer(picture, boxes=boxes))
    np.testing.assert_array_equal(poses[0].keypoints, poses[1].keypoints)
    with pytest.raises(ValueError, match=r"size must be 48,64, which the network states, got \(64, 48\)"):
        import_network(fixed.path / "pose.fp32.onnx", tmp_path / "other", preset="hrnet", size=(64, 48))


def test_settings_are_read_as_they_are_typed():
    typed = ["refine=dark", "mean=0,0.5,1", "blur_sigma=1.5", "weighted=false", "padding=1.1", "size=192,256"]
    assert read_settings(typed) == {
        "refine": "dark", "mean": (0, 0.5, 1), "blur_sigma": 1.5, "weighted": False, "padding": 1.1, "size": (192, 256),
    }  # fmt: skip
    with pytest.raises(
        ValueError, match=r"--set must be NAME=VALUE with NAME one of source, mean, .*'width=3'"
    ):
        read_settings(["width=3"])
