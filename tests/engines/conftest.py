"""Small networks with the statistics of trained ones, and checkpoints of the real architectures, for exports."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from oaks import COCO17
from oaks.engines.export import export as exporting

SIZE = (48, 64)
INPUT = {
    "size": list(SIZE),
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "color": "bgr",
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, even if a shell started the tests in the background and so ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Small(nn.Module):
    """Convolutions with batch norm, a residual sum, a deconvolution, an upsampling; a logit per keypoint."""

    def __init__(self, keypoints: int = 5, *, upsample: str = "nearest") -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.deconvolution = nn.ConvTranspose2d(16, 16, 4, 2, 1, bias=False)
        self.upsample = upsample
        self.after = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.heatmaps = nn.Conv2d(16, keypoints, 1)
        self.visibility = nn.Sequential(
            nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, keypoints)
        )

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        c = self.stem(crops)
        c = torch.relu(c + self.block(c))
        x = torch.relu(self.deconvolution(nn.functional.max_pool2d(c, 2)))
        corners = False if self.upsample == "bilinear" else None
        x = nn.functional.interpolate(
            x, size=[2 * s for s in c.shape[2:]], mode=self.upsample, align_corners=corners
        )
        return self.heatmaps(self.after(x)), self.visibility(c.mean((2, 3)))


def settle(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Set batch norm statistics by an example, so that activations have ordinary sizes; return it in eval mode."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None
    network.train()
    with torch.no_grad():
        network(example)
    return network.eval()


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Return (count, *shape) float32, smooth like pictures."""
    rough = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32))
    return (2 * nn.functional.avg_pool2d(rough, 3, 1, 1)).numpy()


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    return settle(Small(), torch.from_numpy(noise(16, 3, SIZE[1], SIZE[0])))


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace networks with the same weights only once, which takes torch seconds."""
    real = exporting.to_onnx

    def remembered(network: nn.Module, example: torch.Tensor, **names: object) -> onnx.ModelProto:
        weights = hashlib.sha256(b"".join(v.numpy().tobytes() for v in network.state_dict().values()))
        key = (weights.hexdigest(), tuple(example.shape), str(names))
        if key not in _traced:
            _traced[key] = real(network, example, **names)
        return onnx.ModelProto.FromString(_traced[key].SerializeToString())

    monkeypatch.setattr(exporting, "to_onnx", remembered)


_traced: dict[tuple, onnx.ModelProto] = {}

POSE = {"name": "oa_hpe", "backbone": "resnet18", "channels": [8, 16, 16, 16],
        "head": "upsample", "head_channels": 16,
        "visibility_channels": 4, "visibility_hidden": 16, "input": list(SIZE)}  # fmt: skip
KS = {"name": "ks_net", "backbone": "conv2", "width": 0.125, "hidden": 16}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pose network's and a KS network's checkpoint."""
    from oaks.training.checkpoint import save_network
    from oaks.training.networks import build

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("checkpoints")
    common = {
        "skeleton": COCO17.to_dict(), "input": INPUT, "stride": 4, "license": "CC0-1.0", "padding": 1.25,
        "trained_on": ["noise"], "metrics": {"AP": 0.1}, "alignment": "half_pixel",
    }  # fmt: skip
    pose = build(POSE)
    nn.init.normal_(pose.head.final_layer.weight, std=0.2)
    settle(pose, torch.from_numpy(noise(16, 3, SIZE[1], SIZE[0])))
    ks = settle(build(KS), torch.from_numpy(noise(16, 17, SIZE[1] // 4, SIZE[0] // 4)))
    for kind, network, architecture, calibration in (
        ("pose", pose, POSE, {"visibility": {"scale": 0.5, "bias": 0.1}}),
        ("ks", ks, KS, {"similarity": {"scale": 2.0, "bias": 0.0}}),
    ):
        described = {"kind": kind, "architecture": architecture, **common, "calibration": calibration}
        save_network(folder / f"{kind}.safetensors", network, described)
    return folder / "pose.safetensors", folder / "ks.safetensors"


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """(24, 80, 60, 3) uint8 crops of smooth noise."""
    smooth = np.moveaxis(noise(24, 3, 80, 60, seed=5), 1, -1)
    return np.clip(120 + 60 * smooth, 0, 255).astype(np.uint8)
