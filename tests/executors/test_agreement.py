"""The same people through ONNX Runtime, OpenVINO and torch give the same poses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import oaks
from oaks import bundle
from oaks.bundle import Bundle
from oaks.engines.export.export import export
from oaks.training.checkpoint import save_network
from oaks.training.networks import build

SIZE = (96, 128)
DESCRIPTION = {
    "skeleton": oaks.COCO17.to_dict(),
    "input": {"size": list(SIZE), "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4], "color": "bgr"},
    "stride": 4, "alignment": "half_pixel", "heatmap_sigma": 2.0, "refine": "second_peak", "padding": 1.25,
    "trained_on": ["noise"], "license": "CC0-1.0",
}  # fmt: skip
POSE = {"name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "head": "upsample", "input": list(SIZE)}


def blobs(count: int, seed: int) -> np.ndarray:
    """(count, 200, 150, 3) uint8: smooth colors with bright spots, so that heatmaps have clear peaks."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :150]
    images = np.full((count, 200, 150, 3), 60.0)
    for image in images:
        for _ in range(12):
            center, width = random.uniform((0, 0), (150, 200)), random.uniform(4, 25)
            spot = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2))
            image += spot[..., None] * random.uniform(-120, 190, 3)
    return np.clip(images, 0, 255).astype(np.uint8)


def settled(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """With batch norm statistics of an example, so that outputs depend on the input as a trained one's do."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None
    network.train()
    with torch.no_grad():
        network(example)
    return network.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Bundle:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("agreement")
    torch.manual_seed(0)
    crops = oaks.ops.crop(
        blobs(24, 1), np.tile(np.float32([0, 0, 150, 200]), (24, 1)),
        size=SIZE, frame_index=np.arange(24, dtype=np.int32),
        mean=DESCRIPTION["input"]["mean"], std=DESCRIPTION["input"]["std"],
    ).pixels  # fmt: skip
    pose = settled(build(POSE), torch.from_numpy(crops))
    architecture = {"name": "ks_net", "backbone": "conv2", "width": 0.25, "hidden": 32}
    with torch.no_grad():
        heatmaps, visibility = pose(torch.from_numpy(crops))
        pose.head.final_layer.weight /= heatmaps.std()
        pose.occlusion.logits.weight *= 2 / visibility.std()
        heatmaps, _ = pose(torch.from_numpy(crops))
        ks = settled(build(architecture), heatmaps)
        last = [layer for layer in ks.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight *= 2 / ks(heatmaps).std()
    for kind, network, made in (("pose", pose, POSE), ("ks", ks, architecture)):
        save_network(
            folder / f"{kind}.safetensors", network, {"kind": kind, "architecture": made, **DESCRIPTION}
        )
    bundle = export(
        folder / "pose.safetensors", folder / "ks.safetensors", out=folder / "bundle",
        precisions=("fp32", "fp16"), crops=blobs(24, 1), show=False,
    )  # fmt: skip
    torch.set_num_threads(threads)
    return bundle


@pytest.fixture(scope="module")
def people():
    return list(blobs(40, 2)), [np.float32([[10, 5, 140, 190]])] * 40


@pytest.fixture(scope="module")
def expected(exported, people):
    with oaks.Engine(exported, backend="onnxruntime") as engine:
        poses = engine.infer(people[0], boxes=people[1])
    assert poses.keypoints.std(axis=0).min() > 5, "the network gives everyone the same pose"
    assert poses.scores.std() > 0.02
    return poses


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_in_fp32_the_backends_agree(exported, people, expected, backend):
    with oaks.Engine(exported, backend=backend, device="cpu", precision="fp32") as engine:
        poses = engine.infer(people[0], boxes=people[1])
    apart = np.linalg.norm(poses.keypoints - expected.keypoints, axis=2)
    assert (apart <= 0.05).mean() >= 0.99
    for name in ("scores", "oaks_scores", "conventional_scores", "visibility", "similarity"):
        np.testing.assert_allclose(getattr(poses, name), getattr(expected, name), atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("onnxruntime", "fp16"), ("openvino", "fp16"), ("torch", "fp16"), ("torch", "bf16")],
)
def test_in_lower_precision_they_stay_close(exported, people, expected, backend, precision):
    with oaks.Engine(exported, backend=backend, device="cpu", precision=precision) as engine:
        poses = engine.infer(people[0], boxes=people[1])
    apart = np.linalg.norm(poses.keypoints - expected.keypoints, axis=2)
    limit = {"fp16": 0.05, "bf16": 0.5}[precision]
    assert np.median(apart) <= limit
    np.testing.assert_allclose(poses.scores, expected.scores, atol={"fp16": 0.01, "bf16": 0.05}[precision])


def test_torch_reads_weights_out_of_a_zip(exported, people, expected, tmp_path):
    path = shutil.make_archive(str(tmp_path / "packed"), "zip", exported.path)
    with oaks.Engine(path, backend="torch", device="cpu", flip=False) as engine:
        poses = engine.infer(people[0][:2], boxes=people[1][:2])
        assert engine.describe()["networks"]["pose"]["file"] == "pose.fp32.onnx"
    with oaks.Engine(exported, backend="onnxruntime", flip=False) as engine:
        same = engine.infer(people[0][:2], boxes=people[1][:2])
    np.testing.assert_allclose(poses.keypoints, same.keypoints, atol=0.05)


def test_torch_has_no_int8(exported):
    with pytest.raises(ValueError, match="precision must be fp32, bf16 or fp16 with backend 'torch'"):
        oaks.Engine(exported, backend="torch", device="cpu", precision="int8")


def test_weights_that_do_not_fit_their_architecture_are_named(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "broken")
    path = tmp_path / "broken" / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["networks"]["ks"]["architecture"]["hidden"] += 1
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        oaks.BundleError,
        match=r"ks\.fp32\.onnx: torch cannot load it: .* weights must fit their architecture",
    ):
        oaks.Engine(tmp_path / "broken", backend="torch", device="cpu")


def test_damaged_checkpoints_are_named(exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "broken")
    (tmp_path / "broken" / "ks.safetensors").write_bytes(b"\x04\0\0\0\0\0\0\0null")
    content = {**exported.description, "networks": dict(exported.description["networks"])}
    content["networks"]["ks"] = {**content["networks"]["ks"], "files": {"torch": "ks.safetensors"}}
    bundle.write(tmp_path / "broken", content)
    with pytest.raises(oaks.BundleError, match=r"ks\.safetensors: torch cannot load it"):
        oaks.Engine(tmp_path / "broken", backend="torch", device="cpu")
