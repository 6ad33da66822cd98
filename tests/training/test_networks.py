"""Networks: published sizes, parameter names of public checkpoints, shapes, and wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oaks.training.networks import KSNet, ResNet, build
from oaks.training.networks.ks_net import BACKBONES, MapFigures
from oaks.training.networks.summary import describe, measure

# Parameters, and multiply-accumulates at 224×224, as torchvision's model page prints them (in 1e9, two decimals).
PUBLISHED = {
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_residual_networks_have_the_published_size(name: str) -> None:
    with torch.device("meta"):
        network = ResNet(name, classes=1000)
        size = measure(network, (3, 224, 224))
    assert size.parameters == PUBLISHED[name][0]
    assert size.macs / 1e9 == pytest.approx(PUBLISHED[name][1], abs=0.005)


def test_hrnet_has_the_published_parameters() -> None:
    """28.5 and 63.6 million for keypoints (Sun et al., table 1)."""
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build({"name": "hrnet", "width": w}).parameters()) for w in (32, 48)]
    assert [round(count / 1e6, 1) for count in counts] == [28.5, 63.6]


def test_names_are_those_of_public_checkpoints() -> None:
    deconv = {"name": "oa_hpe", "backbone": "resnet50", "head": "deconv", "visibility": False}
    with torch.device("meta"):
        names = set(ResNet("resnet50", classes=1000).state_dict())
        hrnet, simple = (set(build(network).state_dict()) for network in ({"name": "hrnet"}, deconv))
    assert len(names) == 320
    assert {"conv1.weight", "layer1.0.downsample.1.running_var", "layer4.2.bn3.bias", "fc.bias"} <= names
    assert {
        "layer1.0.downsample.0.weight", "transition1.1.0.0.weight", "stage2.0.branches.1.3.bn2.weight",
        "stage3.3.fuse_layers.2.0.0.0.weight", "stage4.2.fuse_layers.0.3.1.bias", "final_layer.bias",
    } <= hrnet  # fmt: skip
    assert not any(name.startswith("stage4.2.fuse_layers.1") for name in hrnet)
    assert {
        "head.deconv_layers.0.weight", "head.deconv_layers.7.running_mean", "head.final_layer.weight",
    } <= simple  # fmt: skip


SMALL = {"name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "head_channels": 8, "input": [96, 128]}


@pytest.mark.parametrize(
    ("network", "visibility"),
    [
        *((SMALL | {"head": head, "visibility": v}, v) for head in ("fpn", "deconv", "upsample") for v in (True, False)),
        ({"name": "hrnet", "width": 8}, False),
    ],
)  # fmt: skip
def test_pose_networks_output_heatmaps_at_stride_four_and_visibility(network: dict, visibility: bool) -> None:
    heatmaps, logits = build({**network, "keypoints": 5}).eval()(torch.rand(2, 3, 128, 96))
    assert heatmaps.shape == (2, 5, 32, 24)
    assert (logits is not None) == visibility
    if logits is not None:
        assert logits.shape == (2, 5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_of_table_5_takes_heatmaps(backbone: str) -> None:
    network = KSNet(backbone=backbone, width=0.125, hidden=16, keypoints=4).eval()
    for shape in ((64, 48), (32, 24)):
        assert network(torch.rand(2, 4, *shape)).shape == (2, 4)


def test_a_fine_backbone_starts_at_the_heatmaps_resolution() -> None:
    """The published stem halves the resolution twice, so all stages of the fine backbone are four times as large."""
    maps = torch.zeros(1, 17, 32, 24)
    fine, published = (ResNet("resnet18", width=0.125, inputs=17, fine=f).eval()(maps) for f in (True, False))
    assert [tuple(x.shape[2:]) for x in fine] == [(32, 24), (16, 12), (8, 6), (4, 3)]
    assert [tuple(x.shape[2:]) for x in published] == [(8, 6), (4, 3), (2, 2), (1, 1)]
    with pytest.raises(ValueError, match="fine must be False for backbone 'conv2', got True"):
        build({"name": "ks_net", "backbone": "conv2", "fine": True, "keypoints": 17})


def blob(center: tuple[int, int], height: float, sigma: float = 1.5) -> np.ndarray:
    """Return a Gaussian on a map of 24 x 32 cells."""
    y, x = np.mgrid[:32, :24]
    return height * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))


def test_map_figures_follow_their_definitions() -> None:
    maps = np.stack(
        [blob((5, 20), 0.8), np.maximum(blob((5, 20), 0.8), blob((15, 6), 0.3)), np.zeros((32, 24))]
    )
    layer = MapFigures(3).eval()
    layer.norm.eps = 0.0
    found = layer(torch.from_numpy(maps[None].astype(np.float32))).reshape(6, 3).detach().numpy()
    highest, second, total, center_x, center_y, spread = found
    np.testing.assert_allclose(highest, [0.8, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(second, [0, 0.3, 0], atol=1e-6)
    np.testing.assert_allclose(total, maps.sum(axis=(1, 2)), rtol=1e-5)
    y, x = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 24), indexing="ij")
    weights = maps**2 / ((maps**2).sum(axis=(1, 2), keepdims=True) + 1e-3)
    expected_x, expected_y = (weights * x).sum(axis=(1, 2)), (weights * y).sum(axis=(1, 2))
    np.testing.assert_allclose(center_x, expected_x, atol=1e-5)
    np.testing.assert_allclose(center_y, expected_y, atol=1e-5)
    away = (x - expected_x[:, None, None]) ** 2 + (y - expected_y[:, None, None]) ** 2
    np.testing.assert_allclose(spread, np.sqrt((weights * away).sum(axis=(1, 2))), atol=1e-5)
    assert spread[1] > spread[0] > spread[2] == 0


def test_width_scales_every_channel() -> None:
    half, whole = (
        describe({"name": "oa_hpe", "backbone": "resnet18", "width": w}, (288, 384)) for w in (0.5, 1)
    )
    assert half.parameters == pytest.approx(whole.parameters / 4, rel=0.05)
    assert half.macs == pytest.approx(whole.macs / 4, rel=0.1)


def test_hidden_layers_have_the_papers_1024_units() -> None:
    with torch.device("meta"):
        pose, ks = build({"name": "oa_hpe"}), build({"name": "ks_net"})
    layers = (*pose.occlusion.hidden, *ks.hidden)
    assert [layer.out_features for layer in layers if hasattr(layer, "out_features")] == [1024] * 4


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"name": "openpose"}, "name must be one of"),
        ({}, "name must be one of"),
        ({"name": "oa_hpe", "depth": 50}, r"arguments must be some of .* for oa_hpe, got \['depth'\]"),
        ({"name": "oa_hpe", "backbone": "resnet20"}, "backbone must be one of"),
        ({"name": "oa_hpe", "head": "linear"}, "head must be one of"),
        ({"name": "oa_hpe", "head": "deconv", "head_layers": 2}, "head_layers"),
        ({"name": "ks_net", "backbone": "conv3"}, "backbone must be one of"),
        ({"name": "oa_hpe", "channels": [8, 8]}, "channels must be those of four stages"),
    ],
)
def test_wrong_architectures_are_refused(architecture: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(architecture)
