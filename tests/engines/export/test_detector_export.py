"""Export of a person detector, from checkpoint to detections, with an untrained network."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from oaks import Bundle, Detector  # noqa: E402
from oaks.boxes import iou  # noqa: E402
from oaks.cli.main import app, main  # noqa: E402
from oaks.detector_formats import decode_centers  # noqa: E402
from oaks.engines.export.detector import export_detector  # noqa: E402
from oaks.engines.export.onnx_graph import _pad_in_convolutions  # noqa: E402
from oaks.images import images_in  # noqa: E402
from oaks.predict import DEMO  # noqa: E402
from oaks.training.checkpoint import load_from_bundle, save_network  # noqa: E402
from oaks.training.networks import build  # noqa: E402

SIZE = (64, 96)
ARCHITECTURE = {"name": "person_detector", "width": 0.25}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    network = build(ARCHITECTURE).eval()
    with torch.no_grad():  # so that logits differ between cells, and half of the cells are people
        network.center.output.bias.zero_()
        logits = network(torch.rand(4, 3, *SIZE[::-1]) * 2 - 1)[0]
        network.center.output.weight.mul_(2 / logits.std())
        network.center.output.bias.fill_(-2 * (logits.mean() / logits.std()).item())
    save_network(folder / "network.safetensors", network, {
        "kind": "detector", "architecture": ARCHITECTURE, "stride": 4, "overlap": 0.6, "license": "CC0-1.0",
        "input": {"size": list(SIZE), "mean": [127.5] * 3, "std": [127.5] * 3, "color": "rgb"},
    })  # fmt: skip
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(images / f"{number}.png"), rng.integers(0, 256, (96, 64, 3), np.uint8))
    bundle = export_detector(
        folder / "network.safetensors", images=images, out=folder / "bundle", threshold=0.4,
        precisions=("fp16",), tolerance={"fp16": 0.05}, show=False,
    )  # fmt: skip
    return bundle, network, cv2.imread(str(images / "0.png"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_every_backend_finds_the_boxes_of_the_torch_network(made, backend):
    pytest.importorskip(backend)
    bundle, network, image = made
    pixels = torch.from_numpy((image[..., ::-1].astype(np.float32) - 127.5) / 127.5).permute(2, 0, 1)[None]
    with torch.inference_mode():
        maps = [value[0].numpy() for value in network(pixels.contiguous())]
    expected, scores = decode_centers(*maps, stride=4, threshold=0.4, overlap=0.6)
    inside = np.clip(expected, 0, np.tile(SIZE, 2))
    usable = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    boxes, found = Detector(bundle, backend=backend, precision="fp32", device="cpu").detect(image)
    assert len(boxes)
    assert len(boxes) == usable.sum()
    apart = np.abs(boxes[:, None] - inside[usable]).max(axis=2)
    nearest = apart.argmin(axis=1)
    assert sorted(nearest) == list(range(len(boxes)))
    # With weights in half precision, a peak can move to a neighboring cell with nearly the same logit.
    assert (apart.min(axis=1) < 0.5).mean() > 0.95
    assert apart.min(axis=1).max() < 4.5
    np.testing.assert_allclose(found, scores[usable][nearest], atol=0.02)


def test_pictures_that_cannot_be_read_are_skipped_and_named(made, tmp_path):
    checkpoint = made[0].path.with_name("network.safetensors")
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((96, 64, 3), 40 * number, np.uint8))
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    result = CliRunner().invoke(app, [
        "export", str(checkpoint), "--images", str(tmp_path), "--threshold", ".4", "--out", str(tmp_path / "out"),
        "--tolerance", "fp16=.2",
    ])  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "skipped 1: " in result.output
    assert "3.png" in result.output
    assert Bundle.load(tmp_path / "out").has("detector")


def test_the_bundle_describes_the_detector(made):
    bundle = made[0]
    part = bundle.detector
    assert (part.size, part.stride, part.threshold, part.nms) == (SIZE, 4, 0.4, 0.6)
    assert bundle.precisions("detector") == ["fp32", "fp16"]
    assert bundle.description["networks"]["detector"]["architecture"] == ARCHITECTURE


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [cv2.imread(str(path)) for path in images_in(DEMO)]


def test_backends_agree_on_the_boxes_of_the_shipped_detector_to_half_a_pixel(pictures):
    backends = ["onnxruntime", "openvino", "torch"]
    for backend in backends:
        pytest.importorskip(backend)
    first, *others = (
        Detector("detector", backend=backend, precision="fp32", device="cpu") for backend in backends
    )
    for picture in pictures:
        boxes, scores = first.detect(picture)
        assert len(boxes)
        for other in others:
            theirs, their_scores = other.detect(picture)
            np.testing.assert_allclose(theirs, boxes, rtol=0, atol=0.5)
            np.testing.assert_allclose(their_scores, scores, rtol=0, atol=0.005)


def test_the_shipped_detector_finds_the_same_people_in_int8(pictures, tmp_path):
    network, description = load_from_bundle(Bundle.load("detector").network("detector"))
    save_network(tmp_path / "network.safetensors", network, description)
    bundle = export_detector(
        tmp_path / "network.safetensors", images=DEMO, out=tmp_path / "int8", threshold=0.1,
        precisions=("fp32", "int8"), show=False,
    )  # fmt: skip
    exact = Detector(bundle, backend="onnxruntime", precision="fp32", threshold=0.4)
    rounded = Detector(bundle, backend="onnxruntime", precision="int8", threshold=0.2)
    for picture in pictures:
        (boxes, scores), (theirs, their_scores) = exact.detect(picture), rounded.detect(picture)
        overlaps = iou(boxes, theirs)
        assert (overlaps.max(axis=1) > 0.8).all()
        np.testing.assert_allclose(their_scores[overlaps.argmax(axis=1)], scores, atol=0.1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--images and --threshold must come with a person detector"),
        (
            ["--images", "images", "--threshold", "0.4", "--crops", "x"],
            "--crops must be left out for a person detector",
        ),
    ],
)
def test_wrong_options_are_named(made, tmp_path, capsys, options, problem):
    checkpoint = made[0].path.parent / "network.safetensors"
    with pytest.raises(SystemExit) as ended:
        main(["export", str(checkpoint), "--out", str(tmp_path / "bundle"), *options])
    assert ended.value.code == 2
    assert problem in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bundle").exists()


def test_the_command_writes_the_same_bundle_as_the_library(made, tmp_path):
    folder = made[0].path.parent
    with pytest.raises(SystemExit) as ended:
        main([
            "export", str(folder / "network.safetensors"), "--out", str(tmp_path / "bundle"), "--images",
            str(folder / "images"), "--threshold", "0.4", "--tolerance", "fp16=0.05", "--quiet",
        ])  # fmt: skip
    assert ended.value.code == 0
    written = Bundle.load(tmp_path / "bundle").description
    for part in ("files", "networks"):
        assert written[part] == made[0].description[part]


def padded(mode: str, around: list[int], fill: float) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Pad", ["x", "around", "fill"], ["wide"], mode=mode),
        helper.make_node("Conv", ["wide", "kernel"], ["y"], strides=[2, 2], pads=[1, 0, 0, 1]),
    ]
    constants = {
        "around": np.array(around, np.int64),
        "fill": np.float32(fill),
        "kernel": rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes, "padded", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 8, 10))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("mode", "around", "fill", "joined"),
    [
        ("constant", [0, 0, 0, 0, 0, 0, 1, 1], 0, True),
        ("constant", [0, 0, 2, 1, 0, 0, 0, 3], 0, True),
        ("constant", [0, 0, 0, 0, 0, 0, 1, 1], 1, False),
        ("reflect", [0, 0, 0, 0, 0, 0, 1, 1], 0, False),
        ("constant", [0, 1, 0, 0, 0, -1, 1, 1], 0, False),
    ],
)
def test_padding_with_zeros_moves_into_the_convolution(mode, around, fill, joined):
    import onnxruntime

    model = padded(mode, around, fill)
    x = np.random.default_rng(1).normal(size=(1, 2, 8, 10)).astype(np.float32)

    def run() -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    before = run()
    _pad_in_convolutions(model.graph)
    np.testing.assert_allclose(run(), before, atol=1e-5)
    assert (model.graph.node[1].input[0] == "x") == joined
