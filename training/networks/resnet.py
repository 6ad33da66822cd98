"""Residual networks (He et al., CVPR 2016) of any width, with torchvision's parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oaks.arguments import check_choice
from oaks.errors import ArgumentError

LAYERS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
CHANNELS = (64, 128, 256, 512)


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`, rounded to a multiple of 8 (a vector register), at least 8."""
    return max(8, round(channels * width / 8) * 8)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without bias, for a batch norm that follows."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a 1×1 convolution and batch norm, the shortcut of a block whose output has another shape."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    expansion = 1

    def __init__(
        self, inputs: int, channels: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, channels, stride), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv3x3(channels, channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, channels, H / stride, W / stride)."""
        kept = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + kept)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a shortcut; the 3×3 has the stride, as in torchvision."""

    expansion = 4

    def __init__(
        self, inputs: int, channels: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv3x3(channels, channels, stride), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, 4 channels, H / stride, W / stride)."""
        kept = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + kept)


class ResNet(nn.Module):
    """ResNet-18/34/50/101/152 as a feature extractor: forward returns C2, C3, C4, C5 at strides 4, 8, 16, 32.

    Args:
        name: a key of LAYERS.
        width: factor on all channels.
        channels: channels of the four stages before `width`; default: the published ones.
        inputs: channels of the input: 3, or K for a KS-net on heatmaps.
        fine: whether the stem is a 3×3 convolution of stride 1 without pooling, for inputs of low resolution; C2 to C5 are
            then at strides 1, 2, 4 and 8.
        classes: number of logits of `classify`, as in the published network; None: no classification layer.
    """

    def __init__(
        self,
        name: str = "resnet18",
        *,
        width: float = 1.0,
        channels: tuple[int, ...] | list[int] = CHANNELS,
        inputs: int = 3,
        fine: bool = False,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("backbone", name, LAYERS)
        if len(channels) != 4:
            raise ArgumentError(f"channels must be those of four stages, got {channels}")
        block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
        stem = scaled(64, width)
        self.conv1 = conv3x3(inputs, stem) if fine else nn.Conv2d(inputs, stem, 7, 2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if fine else nn.MaxPool2d(3, stride=2, padding=1)
        self.channels: list[int] = []
        before = stem
        for stage, count in enumerate(LAYERS[name]):
            own, stride = scaled(channels[stage], width), 1 if stage == 0 else 2
            after = own * block.expansion
            shortcut = projection(before, after, stride) if stride != 1 or before != after else None
            blocks = [block(before, own, stride, shortcut)] + [block(after, own) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels.append(after)
            before = after
        self.fc: nn.Linear | None = nn.Linear(before, classes) if classes else None
        initialize(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, inputs, H, W) to the maps of the four stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        return features

    def classify(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to logits (N, classes).

        Raises:
            ArgumentError: the network was built without classes.
        """
        if self.fc is None:
            raise ArgumentError("classes must be given to the network for classify, got None")
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(self.forward(x)[-1], 1), 1))


def initialize(network: nn.Module) -> None:
    """Initialize convolutions with Kaiming-normal weights (fan out), as residual networks are trained from."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


__all__ = [
    "CHANNELS", "LAYERS", "BasicBlock", "Bottleneck", "ResNet", "conv3x3", "conv_norm_relu", "initialize", "scaled",
]  # fmt: skip
