"""Export of pose and KS networks to bundles: their content, what engines compute with them, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import bundles
import numpy as np
import onnx
import pytest
import torch

from oaks import Engine
from oaks.bundle import Bundle
from oaks.engines.export import compare, precision
from oaks.engines.export.export import ExportError, export

pytestmark = pytest.mark.usefixtures("traced_once")

LOOSE = {"int8": 0.6}
"""Untrained networks lose more accuracy in int8 than trained ones."""
ALL = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def bundle(checkpoints, pictures, tmp_path_factory) -> Bundle:
    """A bundle of both networks in every precision."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    return export(*checkpoints, out=out, precisions=ALL, crops=pictures, tolerance=LOOSE, show=False)


@pytest.fixture
def export_to(checkpoints, pictures, tmp_path) -> Callable[..., Bundle]:
    """Export the pose network, and with ks=True the KS network, to tmp_path / "b" unless told otherwise."""

    def run(ks: bool = False, **settings: object) -> Bundle:
        settings = {"out": tmp_path / "b", "crops": pictures, "show": False, **settings}
        return export(*checkpoints[: 1 + ks], **settings)

    return run


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_holds_each_network_in_each_precision(bundle):
    assert {role: dict(bundle.networks[role].files) for role in bundle.networks} == {
        role: {kind: f"{role}.{kind}.onnx" for kind in ("fp32", "fp16", "int8")} for role in ("pose", "ks")
    }
    assert listed(bundle.path) == sorted([*bundle.files, "bundle.json"])
    assert listed(bundle.path.parent) == ["tiny"]


def test_bundle_json_has_the_content_of_the_checkpoints(bundle):
    description = json.loads((bundle.path / "bundle.json").read_text())
    assert description["name"] == "tiny"
    assert description["license"] == "CC0-1.0"
    assert description["score"] == "oaks"
    for role, name in (("pose", "oa_hpe"), ("ks", "ks_net")):
        assert description["networks"][role]["trained_on"] == ["noise"]
        assert description["networks"][role]["metrics"] == {"AP": 0.1}
        assert description["networks"][role]["architecture"]["name"] == name
    assert description["networks"]["pose"]["decoder"] == {"alignment": "half_pixel"}
    assert description["networks"]["pose"]["input"]["padding"] == 1.25
    assert description["scorer"]["kind"] == "ks_net"
    assert description["scorer"]["estimator"]["network"] == description["files"]["pose.fp16.onnx"]["sha256"]
    assert description["calibration"] == {
        "visibility": {"scale": 0.5, "bias": 0.1},
        "similarity": {"scale": 2.0, "bias": 0.0},
    }
    export = description["extra"]["export"]
    assert len(export.pop("differences")) == 3 * 3
    assert export == {"people": "array", "compared_on": 12, "calibrated_on": 12}
    assert str(bundle.path.parent) not in (bundle.path / "bundle.json").read_text()


def test_the_description_follows_the_schema(bundle):
    import jsonschema

    import oaks

    schema = json.loads((Path(oaks.__file__).parent / "bundle.schema.json").read_text())
    jsonschema.validate(json.loads((bundle.path / "bundle.json").read_text()), schema)


def test_inputs_and_outputs_have_the_names_of_bundles(bundle):
    for role, inputs, outputs in (
        ("pose", ["crops"], ["heatmaps", "visibility"]),
        ("ks", ["heatmaps"], ["similarity"]),
    ):
        for kind in ALL:
            graph = onnx.load_from_string(bundle.network(role, kind).read()).graph
            assert [value.name for value in graph.input] == inputs
            assert [value.name for value in graph.output] == outputs


@pytest.mark.parametrize("kind", ALL)
def test_an_engine_runs_every_precision(bundle, pictures, kind):
    with Engine(bundle, backend="onnxruntime", precision=kind) as engine:
        poses = engine.infer(pictures[:3], boxes="whole")
    assert poses.score_kind == "oaks"
    assert np.isfinite(poses.scores).all()


def test_engines_on_torch_and_onnx_runtime_agree(bundle, pictures):
    found = []
    for backend in ("torch", "onnxruntime"):
        with Engine(bundle, backend=backend, precision="fp32", device="cpu") as engine:
            found.append(engine.infer(pictures[:3], boxes="whole"))
    np.testing.assert_allclose(found[0].heat, found[1].heat, atol=1e-4)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-4)


def test_a_bundle_can_share_a_shipped_detector(export_to, tmp_path, monkeypatch):
    shipped = bundles.write_with_detector(tmp_path / "shipped" / "finder")
    monkeypatch.setattr("oaks.bundle.SHIPPED", tmp_path / "shipped")
    made = export_to(detector="finder")
    assert made.has("detector")
    assert not any("detector" in name for name in made.files)
    assert made.detector == shipped.detector


def test_a_bundle_can_hold_a_pose_network_alone(export_to, tmp_path):
    made = export_to(out=tmp_path / "new" / "alone", name="mine")
    assert sorted(made.files) == ["pose.fp16.onnx"]
    assert made.name == "mine"
    assert "similarity" not in made.description["calibration"]


@pytest.fixture(scope="module")
def half(checkpoints, pictures, tmp_path_factory) -> Bundle:
    """A bundle with one file per network, in fp16, as the shipped ones."""
    return export(*checkpoints, out=tmp_path_factory.mktemp("export") / "half", crops=pictures, show=False)


def test_one_fp16_file_serves_every_float_precision_and_torch(half, bundle, pictures):
    assert sorted(half.files) == ["ks.fp16.onnx", "pose.fp16.onnx"]
    with Engine(bundle, "onnxruntime", precision="fp32") as engine:
        expected = engine.infer(pictures[:3], boxes="whole")
    for backend in ("onnxruntime", "openvino", "torch"):
        for precision_of in ("fp32", "fp16"):
            with Engine(half, backend, precision=precision_of, device="cpu") as engine:
                poses = engine.infer(pictures[:3], boxes="whole")
            np.testing.assert_allclose(poses.scores, expected.scores, atol=5e-3)
    rows = half.description["extra"]["export"]["differences"]
    assert {row["precision"] for row in rows} == {"fp16", "fp32 of fp16"}
    assert all(row["typical"] > 1e-6 for row in rows)


@pytest.mark.parametrize("name", ["bundle", "half"])
def test_every_torch_weight_can_be_read_from_the_file(request, checkpoints, name):
    """Batch norm is folded in the graph and unfolded here, to the rounding of float16 or float32."""
    from oaks.training.checkpoint import load_from_bundle, load_network

    made = request.getfixturevalue(name)
    for path, network in zip(checkpoints, made.weights(), strict=True):
        trained, described = load_network(path)
        again, description = load_from_bundle(network)
        assert not again.training
        same = ("kind", "architecture", "skeleton", "stride", "padding", "trained_on", "metrics", "license")
        for field in same:
            assert description[field] == described[field], field
        assert description["input"] == {key: described["input"][key] for key in ("size", "mean", "std")}
        assert description["calibration"] == described["calibration"]
        found = again.state_dict()
        assert sum("running_var" in key for key in found) >= 2
        for key, value in trained.state_dict().items():
            rounding = {"fp16": 2**-11, "fp32": 1e-5}[network.stored]
            largest = value.double().abs().max()
            apart = (found[key].double() - value.double()).abs().max()
            assert apart <= rounding * largest + 2**-24, key


def test_runtimes_do_not_see_the_spare_weights(half):
    stored = onnx.load_from_string(half.read("pose.fp16.onnx"))
    spare = [t.name for t in stored.graph.initializer if t.name.startswith(("torch:", "scale:"))]
    assert len(spare) > 20
    for kind in ("fp32", "fp16"):
        graph = onnx.load_from_string(half.network("pose", kind).read()).graph
        assert not {tensor.name for tensor in graph.initializer} & set(spare)
        assert len(graph.initializer) == len(stored.graph.initializer) - len(spare)


def test_the_ks_network_can_stay_in_float_beside_int8(export_to):
    for precisions in (("int8",), ("fp16", "int8")):
        made = export_to(ks=True, precisions=precisions, tolerance=LOOSE, float_ks=True)
        files = {f"pose.{kind}.onnx" for kind in precisions} | {"ks.fp16.onnx"}
        assert set(made.files) == files
        with Engine(made, backend="onnxruntime", precision="int8") as engine:
            ran = {role: about["precision"] for role, about in engine.describe()["networks"].items()}
        assert ran == {"pose": "int8", "ks": "fp32"}
        assert made.has_weights("pose") == ("fp16" in precisions)
    for tensor in onnx.load_from_string(made.network("pose", "int8").read()).graph.initializer:
        assert tensor.data_type != onnx.TensorProto.FLOAT16, tensor.name


def test_int8_alone_has_no_weights_for_torch(export_to):
    made = export_to(ks=True, tolerance=LOOSE, precisions="int8")
    assert sorted(made.files) == ["ks.int8.onnx", "pose.int8.onnx"]
    with pytest.raises(ValueError, match="must have the pose network's weights"):
        Engine(made, backend="torch", device="cpu")


def test_differences_are_shown(export_to, capsys):
    export_to(precisions="fp16", show=True)
    shown = capsys.readouterr().err
    assert "Difference from the torch network" in shown
    assert "visibility" in shown
    assert "within" in shown


def test_an_export_above_the_tolerance_writes_nothing(export_to, tmp_path):
    message = r"nothing is written: .*pose fp16 heatmaps by [\d.e-]+, tolerance 1e-09"
    with pytest.raises(ExportError, match=message):
        export_to(ks=True, precisions=("fp32", "fp16"), tolerance={"fp16": 1e-9})
    assert listed(tmp_path) == []


def test_a_wrong_conversion_is_found(export_to, tmp_path, monkeypatch):
    """The model is valid, but one layer is 5% off."""

    def wrong(model):
        broken = precision._copy(model)
        (layer,) = precision.heatmap_layers(broken)
        (weight,) = (n.input[1] for n in broken.graph.node if n.name == layer)
        for tensor in broken.graph.initializer:
            if tensor.name == weight:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(1.05)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return broken

    monkeypatch.setattr(precision, "to_fp16", wrong)
    with pytest.raises(ExportError, match="pose fp16 heatmaps"):
        export_to(precisions="fp16")
    assert listed(tmp_path) == []


def test_a_network_that_overflows_half_is_not_written_in_fp16(checkpoints, pictures, tmp_path):
    """The outputs are small, but those of a layer in the middle are not; ONNX Runtime on the CPU hides this."""
    from oaks.training.checkpoint import load_network, save_network

    network, description = load_network(checkpoints[0])
    stem = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    stem.weight.data *= 1e6
    stem.bias.data *= 1e6
    following = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][1:]
    for layer in following:
        layer.weight.data *= 1e-6 if layer.in_channels == stem.num_features else 1.0
    save_network(tmp_path / "hot.safetensors", network, description)
    message = r"fp16: \d+ tensors hold values above 65504.* reaches .*fp32 or int8"
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "hot.safetensors", out=tmp_path / "b", crops=pictures, show=False)
    assert listed(tmp_path) == ["hot.safetensors"]


def test_a_bundle_is_replaced_only_by_a_complete_one(export_to, tmp_path):
    out = tmp_path / "b"
    export_to()
    (out / "extra.txt").write_text("of the first")
    with pytest.raises(ExportError):
        export_to(tolerance={"fp16": 0.0})
    assert "extra.txt" in listed(out)
    assert "ks.fp16.onnx" in export_to(ks=True).files
    assert "extra.txt" not in listed(out)
    assert listed(tmp_path) == ["b"]


def test_a_folder_with_other_files_is_not_replaced(export_to, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"out must be a new folder or a bundle to replace"):
        export_to(out=tmp_path / "photos")
    assert listed(tmp_path / "photos") == ["me.jpg"]


def test_int8_is_calibrated_and_compared_on_different_people(export_to, pictures, monkeypatch):
    given = {}

    def quantize(model, samples, *, keep_float):
        given["calibrated"] = np.concatenate(list(samples))
        return model

    def differences(model, expected, samples, **_):
        given["compared"] = samples
        return []

    monkeypatch.setattr(precision, "to_int8", quantize)
    monkeypatch.setattr(compare, "differences", differences)
    export_to(precisions="int8")
    assert len(given["calibrated"]) + len(given["compared"]) == len(pictures)
    same = [(a == b).all() for a in given["calibrated"] for b in given["compared"]]
    assert not any(same)


def test_the_ks_network_is_compared_on_flip_averaged_heatmaps(checkpoints, export_to, pictures, monkeypatch):
    from oaks.engines.export.samples import load_crops, split
    from oaks.training.checkpoint import load_network

    given = {}
    real = compare.differences

    def differences(model, expected, samples, *, network, **settings):
        given[network] = samples
        return real(model, expected, samples, network=network, **settings)

    monkeypatch.setattr(compare, "differences", differences)
    export_to(ks=True)
    network, description = load_network(checkpoints[0])
    crops = split(load_crops(pictures, description, count=32), 32)[0]
    with torch.no_grad():
        straight = network(torch.from_numpy(crops))[0]
        back = network(torch.from_numpy(crops).flip(3))[0].flip(3)
    order = list(range(17))
    for left in range(1, 17, 2):
        order[left], order[left + 1] = left + 1, left
    expected = 0.5 * (straight + back[:, order]).numpy()
    np.testing.assert_allclose(given["ks"], expected, atol=1e-5)


def test_layers_can_be_kept_in_float(export_to, tmp_path, bundle):
    graph = onnx.load_from_string(bundle.network("pose", "fp32").read()).graph
    names = [node.name for node in graph.node if node.op_type == "Conv"]
    made = export_to(precisions="int8", keep_float=names[1:], tolerance=LOOSE)
    quantized = onnx.load_from_string(made.network("pose", "int8").read()).graph
    weights = {n.input[0] for n in quantized.node if n.op_type == "DequantizeLinear"}
    kept = {tensor.name for tensor in quantized.initializer if tensor.data_type == onnx.TensorProto.INT8}
    assert len([name for name in weights & kept if "weight" in name]) == 1
    with pytest.raises(ValueError, match=r"keep_float must be names of nodes .*, got \['nothing'\]"):
        export_to(out=tmp_path / "c", precisions="int8", keep_float=["nothing"])


def test_without_crops_rendered_people_are_used(export_to):
    rows = export_to(crops=None).description["extra"]["export"]["differences"]
    assert {row["precision"] for row in rows} == {"fp16", "fp32 of fp16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precisions": ()}, r"precisions must be some of \['fp32', 'fp16', 'int8'\], got \[\]"),
        ({"precisions": ("fp32", "fp8")}, r"precisions must be .*got \['fp32', 'fp8'\]"),
        (
            {"tolerance": {"int8": 1.0}},
            r"tolerance must be for precisions that are exported, \['fp16'\], got \['int8'\]",
        ),
        ({"precisions": "int8", "crops": None}, r"crops must be given for int8"),
        ({"precisions": "int8", "crops": np.zeros((1, 8, 8, 3), np.uint8)}, r"crops must be 2 or more"),
        ({"detector": "elsewhere"}, r"detector must be a shipped bundle, \[.*'small'.*\], got 'elsewhere'"),
    ],
)
def test_wrong_arguments_are_named(export_to, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_to(**arguments)
    assert listed(tmp_path) == []


def test_checkpoints_of_the_wrong_kind_are_named(checkpoints, pictures, tmp_path):
    pose, ks = checkpoints
    settings = {"out": tmp_path / "b", "crops": pictures, "show": False}
    with pytest.raises(ValueError, match=r"must be a network of kind 'pose', got 'ks'"):
        export(ks, **settings)
    with pytest.raises(ValueError, match=r"must be a network of kind 'ks', got 'pose'"):
        export(pose, pose, **settings)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export(tmp_path / "nowhere.safetensors", **settings)


def test_networks_of_different_skeletons_are_refused(checkpoints, pictures, tmp_path):
    from oaks.training.checkpoint import load_network, save_network

    network, description = load_network(checkpoints[1])
    renamed = json.loads(json.dumps(description))
    renamed["skeleton"]["keypoints"][0] = "snout"
    save_network(tmp_path / "ks.safetensors", network, renamed)
    with pytest.raises(ValueError, match=r"ks must have the pose network's keypoints .*got \('snout'"):
        export(checkpoints[0], tmp_path / "ks.safetensors", out=tmp_path / "b", crops=pictures, show=False)


def test_an_engine_runs_a_zip_file_of_the_bundle(bundle, pictures, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "tiny"), "zip", bundle.path)
    with Engine(packed, backend="onnxruntime") as engine:
        assert len(engine.infer(pictures[:2], boxes="whole")) == 2


def test_a_training_can_start_from_an_fp16_file(half, checkpoints):
    from oaks.training.checkpoint import load_network
    from oaks.training.networks import build
    from oaks.training.pretrained import load_weights, read_state_dict
    from oaks.training.recipe import InitialWeights

    trained, described = load_network(checkpoints[0])
    fresh = build(described["architecture"])
    load_weights(fresh, InitialWeights(path=half.path / "pose.fp16.onnx"))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 48)).astype(np.float32))
    with torch.no_grad():
        expected, found = trained(x)[0], fresh.eval()(x)[0]
    assert (expected - found).abs().max() < 0.05 * expected.std()  # float16 rounding of random weights
    fresh.train()(x)  # in training mode too, with batch norm
    (half.path.parent / "bare.onnx").write_bytes(half.network("ks", "fp32").read())
    assert set(read_state_dict(half.path.parent / "bare.onnx")) < set(
        read_state_dict(half.path / "ks.fp16.onnx")
    )
