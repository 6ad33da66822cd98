"""Pretrained weights: parameters are found under their original names, and errors name the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from oaks.errors import ArgumentError
from oaks.training.networks import ResNet, build
from oaks.training.networks.mobilenet import STAGES, MobileNetV2, divisible_by_eight
from oaks.training.pretrained import folded_mobilenet, freeze, load_weights, read_state_dict
from oaks.training.recipe import InitialWeights

SMALL = {"name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "input": [48, 64], "keypoints": 17}


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A residual network's state dict as in torchvision's checkpoints, which lack the counts of batches."""
    torch.manual_seed(1)
    state = ResNet("resnet18", width=0.125, classes=10).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_a_classifiers_weights_are_loaded_into_the_backbone(classifier: Path) -> None:
    network = build(SMALL)
    head = network.head.final_layer.weight.clone()
    initial = InitialWeights(
        path=classifier, allow_missing=["head.*", "occlusion.*"], allow_unexpected=["fc.*"]
    )
    matched = load_weights(network, initial)
    state = torch.load(classifier)
    assert len(matched.loaded) == len(state) - 2 == 100
    for name, value in network.backbone.state_dict().items():
        if name in state:
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    torch.testing.assert_close(network.head.final_layer.weight, head, rtol=0, atol=0)
    assert matched.unexpected == ["fc.weight", "fc.bias"]
    lines = str(matched).splitlines()
    assert lines[1] == "  * -> backbone.* (100)"
    assert lines[2].startswith("  not in the file (")
    assert "head.final_layer.bias" in lines[2]
    assert lines[3:] == ["  unused (2): fc.weight, fc.bias"]


def test_missing_and_unexpected_entries_are_refused_unless_allowed(classifier: Path) -> None:
    network = build(SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="missing: head.final_layer.weight") as caught:
        load_weights(network, InitialWeights(path=classifier))
    assert "unexpected: fc.bias" in str(caught.value)
    assert "num_batches_tracked" not in str(caught.value)
    with pytest.raises(
        ValueError, match="other shape: conv1.weight .8, 3, 7, 7. for backbone.conv1.weight .16,"
    ):
        load_weights(build({**SMALL, "width": 0.25}), InitialWeights(path=classifier))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("wrapping", ["state_dict", "model"])
def test_weights_of_simple_baselines_are_loaded(tmp_path: Path, wrapping: str) -> None:
    architecture = {**SMALL, "head": "deconv", "head_channels": 16, "visibility": False}
    torch.manual_seed(2)
    source, target = build(architecture), build(architecture)
    renamed = {
        "module." + n.removeprefix("backbone.").removeprefix("head."): v
        for n, v in source.state_dict().items()
    }
    torch.save({wrapping: renamed, "epoch": 3}, tmp_path / "pose_resnet.pth.tar")
    matched = load_weights(target, InitialWeights(path=tmp_path / "pose_resnet.pth.tar"))
    assert ("deconv_layers.0.weight", "head.deconv_layers.0.weight") in matched.loaded
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value, rtol=0, atol=0)


def test_loaded_entries_are_listed_by_module_and_singly_in_incomplete_modules(tmp_path: Path) -> None:
    """A network for another crop size, whose weights that depend on it are not loaded."""
    saved, network = build(SMALL), build({**SMALL, "input": [64, 96]})
    before = network.occlusion.hidden[0].weight.clone()
    torch.save(saved.state_dict(), tmp_path / "saved.pth")
    allowed = ["occlusion.hidden.0.*"]
    matched = load_weights(
        network, InitialWeights(path=tmp_path / "saved.pth", allow_missing=allowed, allow_unexpected=allowed)
    )
    torch.testing.assert_close(network.occlusion.hidden[0].weight, before, rtol=0, atol=0)
    backbone, head = (len(part.state_dict()) for part in (network.backbone, network.head))
    lines = str(matched).splitlines()
    assert lines[1:3] == [f"  backbone.* -> backbone.* ({backbone})", f"  head.* -> head.* ({head})"]
    assert "  occlusion.hidden.0.bias -> occlusion.hidden.0.bias" in lines
    assert "  occlusion.hidden.2.* -> occlusion.hidden.2.* (2)" in lines
    wide, expected = (tuple(module.occlusion.hidden[0].weight.shape) for module in (saved, network))
    assert lines[-2:] == [
        "  not in the file (1): occlusion.hidden.0.weight",
        f"  unused because of their shape (1): occlusion.hidden.0.weight {wide} "
        f"for occlusion.hidden.0.weight {expected}",
    ]
    listed = sum(int(line.rpartition("(")[2][:-1]) if line.endswith(")") else 1 for line in lines[1:-2])
    assert listed == len(matched.loaded)


def test_entries_of_another_shape_are_not_averaged(tmp_path: Path) -> None:
    """Two networks for crops of two sizes, whose subnets for visibility differ."""
    saved, other, network = build(SMALL), build({**SMALL, "input": [64, 96]}), build(SMALL)
    paths = [tmp_path / "saved.safetensors", tmp_path / "other.safetensors"]
    for path, source in zip(paths, (saved, other), strict=True):
        save_file(source.state_dict(), path)
    matched = load_weights(network, InitialWeights(path=paths[0], average_with=paths[1:]))
    first, second = saved.occlusion.hidden[0], other.occlusion.hidden[0]
    torch.testing.assert_close(network.occlusion.hidden[0].weight, first.weight, rtol=0, atol=0)
    torch.testing.assert_close(network.occlusion.hidden[0].bias, (first.bias + second.bias) / 2)
    expected = (saved.backbone.conv1.weight + other.backbone.conv1.weight) / 2
    torch.testing.assert_close(network.backbone.conv1.weight, expected)
    assert str(matched).splitlines()[-2:] == [
        f"  averaged with {paths[1]}",
        "  not averaged (1): occlusion.hidden.0.weight",
    ]
    torch.save({"unlike": torch.zeros(3)}, tmp_path / "unlike.pth")
    with pytest.raises(ValueError, match=r"average_with must be networks like .*saved.*, got .*unlike"):
        load_weights(network, InitialWeights(path=paths[0], average_with=[tmp_path / "unlike.pth"]))


def test_hrnet_and_networks_saved_by_oaks_are_loaded_by_name(tmp_path: Path) -> None:
    source, target = (build({"name": "hrnet", "width": 8}) for _ in range(2))
    save_file(source.state_dict(), tmp_path / "hrnet.safetensors")
    matched = load_weights(target, InitialWeights(path=tmp_path / "hrnet.safetensors"))
    assert not matched.missing
    torch.testing.assert_close(
        target.stage4[2].fuse_layers[0][3][0].weight, source.stage4[2].fuse_layers[0][3][0].weight
    )


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        read_state_dict(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"weights\.pth must be a file of weights"):
        read_state_dict(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="must hold a state dict"):
        read_state_dict(path)


def test_frozen_parameters_are_not_trained() -> None:
    network = build({"name": "mobile_oa_hpe", "width": 0.25, "input": [64, 64]})
    freeze(network, ["backbone.stem.*", "backbone.blocks.1.*"])
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert {"backbone.stem.weight", "backbone.blocks.1.project.bias"} <= frozen
    assert all(name.startswith(("backbone.stem.", "backbone.blocks.1.")) for name in frozen)
    with pytest.raises(ValueError, match=r"initial\.freeze must match parameters .*, got \['backbone\.stam"):
        freeze(network, ["backbone.stam.*"])


def test_flipped_bits_in_weights_are_found(tmp_path):
    """torch.load accepts them."""
    path = tmp_path / "weights.pth"
    torch.save({"a.weight": torch.zeros(64, 64), "a.bias": torch.zeros(3)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a.weight"].count_nonzero() == 1
    with pytest.raises(ArgumentError, match=r"weights.pth must be as it was written, got another checksum"):
        read_state_dict(path)


class _Convolution(nn.Sequential):
    """torchvision's convolution, batch norm and ReLU6, with the padding of our network."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        self.stride, self.padding = stride, kernel // 2
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )

    def forward(self, x: Tensor) -> Tensor:
        before = self.padding if self.stride == 1 else 0
        return super().forward(functional.pad(x, (before, self.padding, before, self.padding)))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [_Convolution(inputs, hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *first,
            _Convolution(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def torchvisions_mobilenet(width: float) -> nn.Module:
    """A classifier with the names of torchvision's MobileNetV2 and random statistics."""
    channels = divisible_by_eight(32 * width)
    layers: list[nn.Module] = [_Convolution(3, channels, 3, 2)]
    for expansion, outputs, count, stride in STAGES:
        outputs = divisible_by_eight(outputs * width)
        for number in range(count):
            layers.append(_Block(channels, outputs, expansion, stride if number == 0 else 1))
            channels = outputs
    network = nn.Module()
    network.features = nn.Sequential(*layers, _Convolution(channels, 1280, 1))
    network.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, 10))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.mark.parametrize("name", ["mobile_oa_hpe", "person_detector"])
def test_torchvisions_mobilenet_gives_the_same_features_without_its_batch_norms(
    tmp_path: Path, name: str
) -> None:
    torch.manual_seed(2)
    theirs = torchvisions_mobilenet(0.25)
    torch.save(theirs.state_dict(), tmp_path / "mobilenet_v2.pth")
    sized = {} if name == "person_detector" else {"input": [32, 64], "keypoints": 17}
    network = build({"name": name, "width": 0.25, **sized})
    fresh = ["pyramid.*", "heatmap.*", "occlusion.*", "center.*", "size.*", "shift.*"]
    matched = load_weights(
        network,
        InitialWeights(
            path=tmp_path / "mobilenet_v2.pth", allow_missing=fresh, allow_unexpected=["classifier.*"]
        ),
    )
    assert isinstance(network.backbone, MobileNetV2)
    assert len(matched.loaded) == 2 * (1 + 2 + 16 * 3 + 1)
    x = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network.backbone(x)[-1], theirs.features(x), rtol=1e-4, atol=1e-4)


def test_a_mobilenet_without_a_batch_norm_is_refused(tmp_path: Path) -> None:
    state = torchvisions_mobilenet(0.25).state_dict()
    torch.save(
        {n: v for n, v in state.items() if not n.startswith("features.3.conv.3.")}, tmp_path / "cut.pth"
    )
    with pytest.raises(
        ArgumentError, match=r"cut\.pth: every convolution of features.3 must have a batch norm, got"
    ):
        load_weights(
            build({"name": "person_detector", "width": 0.25}), InitialWeights(path=tmp_path / "cut.pth")
        )


def test_another_network_with_features_is_not_taken_for_a_mobilenet() -> None:
    state = {"features.0.0.weight": torch.zeros(8, 3, 3, 3), "features.0.1.running_var": torch.ones(8)}
    assert folded_mobilenet(state, "efficientnet.pth") is state
