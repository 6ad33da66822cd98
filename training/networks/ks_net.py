"""KS-net: keypoint similarities from a person's heatmaps (section 4.2, figure 8 of the paper)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.training.networks.resnet import CHANNELS, LAYERS, ResNet, initialize, scaled


class ResNetFeatures(ResNet):
    """A residual network whose forward gives C5 alone."""

    def forward(self, x: Tensor) -> Any:
        """(N, inputs, H, W) to C5."""
        return super().forward(x)[-1]


def two_convolutions(inputs: int, width: float) -> tuple[nn.Module, int]:
    """The paper's shallowest backbone (table 5): two convolutions, each halving the resolution."""
    first, second = scaled(64, width), scaled(128, width)
    layers = nn.Sequential(
        nn.Conv2d(inputs, first, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(second),
        nn.ReLU(inplace=True),
    )
    return layers, second


def alexnet(inputs: int, width: float) -> tuple[nn.Module, int]:
    """AlexNet's five convolutions (Krizhevsky, 2014) with batch norm, and padded pools for small heatmaps."""
    a, b, c, d = (scaled(channels, width) for channels in (64, 192, 384, 256))
    layers: list[nn.Module] = []
    for before, after, kernel, stride, padding, pool in (
        (inputs, a, 11, 4, 5, True),
        (a, b, 5, 1, 2, True),
        (b, c, 3, 1, 1, False),
        (c, d, 3, 1, 1, False),
        (d, d, 3, 1, 1, False),
    ):
        layers += [
            nn.Conv2d(before, after, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
        if pool:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers), d


def vgg19(inputs: int, width: float) -> tuple[nn.Module, int]:
    """VGG-19's sixteen convolutions (Simonyan and Zisserman, 2015) with batch norm; ceiling pools."""
    layers: list[nn.Module] = []
    before = inputs
    for channels, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        after = scaled(channels, width)
        for _ in range(count):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers), before


class Inception(nn.Module):
    """Four parallel paths (Szegedy et al., CVPR 2015): 1×1; 1×1 and 3×3; 1×1 and 5×5; pool and 1×1."""

    def __init__(
        self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int
    ) -> None:
        super().__init__()
        self.outputs = one + three[1] + five[1] + pool
        self.branch1 = unit(inputs, one, 1)
        self.branch2 = nn.Sequential(unit(inputs, three[0], 1), unit(three[0], three[1], 3))
        self.branch3 = nn.Sequential(unit(inputs, five[0], 1), unit(five[0], five[1], 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), unit(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


INCEPTIONS: tuple[tuple[int, tuple[int, int], tuple[int, int], int] | None, ...] = (
    (64, (96, 128), (16, 32), 32),
    (128, (128, 192), (32, 96), 64),
    None,  # a pool
    (192, (96, 208), (16, 48), 64),
    (160, (112, 224), (24, 64), 64),
    (128, (128, 256), (24, 64), 64),
    (112, (144, 288), (32, 64), 64),
    (256, (160, 320), (32, 128), 128),
    None,
    (256, (160, 320), (32, 128), 128),
    (384, (192, 384), (48, 128), 128),
)


def googlenet(inputs: int, width: float) -> tuple[nn.Module, int]:
    """GoogLeNet's nine inception modules with batch norm, without its auxiliary outputs."""
    a, b = scaled(64, width), scaled(192, width)
    layers: list[nn.Module] = [
        unit(inputs, a, 7, 2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        unit(a, a, 1),
        unit(a, b, 3),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    ]
    before = b
    for row in INCEPTIONS:
        if row is None:
            layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
            continue
        one, three, five, pool = row
        reduced, spread = ((scaled(a, width), scaled(b, width)) for a, b in (three, five))
        inception = Inception(before, scaled(one, width), reduced, spread, scaled(pool, width))
        layers.append(inception)
        before = inception.outputs
    return nn.Sequential(*layers), before


SHALLOW = {"conv2": two_convolutions, "alexnet": alexnet, "vgg19": vgg19, "googlenet": googlenet}
BACKBONES = (*LAYERS, *SHALLOW)


class MapFigures(nn.Module):
    """What one would note down about each keypoint's map: six numbers, batch-normalized.

    The highest value; the highest of the other local maxima; the sum of the map; its center (x and y from -1 to 1 over
    the map) and spread in the same unit, weighted by squared values. Negative values count as 0.
    Pooling over all positions, as the backbone does, blurs the first two.
    """

    FIGURES = 6

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(self.FIGURES * keypoints)

    def forward(self, heatmaps: Tensor) -> Tensor:
        """(N, K, h, w) to (N, 6 K)."""
        height, width = heatmaps.shape[-2:]
        maps = functional.relu(heatmaps)
        highest = maps.amax(dim=(2, 3))
        around = functional.max_pool2d(maps, 5, stride=1, padding=2)
        others = torch.where(
            (maps >= around) & (maps < highest[:, :, None, None]), maps, torch.zeros_like(maps)
        )
        weights = maps.square()
        weights = weights / (weights.sum(dim=(2, 3), keepdim=True) + 1e-3)
        across, down = weights.sum(dim=2), weights.sum(dim=3)
        x, y = (torch.linspace(-1, 1, n, device=maps.device, dtype=maps.dtype) for n in (width, height))
        center_x, center_y = (across * x).sum(dim=2), (down * y).sum(dim=2)
        # Squares of distances from the center itself: a difference of squares would cancel in half precision.
        spread = (across * (x - center_x[..., None]).square()).sum(dim=2) + (
            down * (y - center_y[..., None]).square()
        ).sum(dim=2)
        figures = [highest, others.amax(dim=(2, 3)), maps.sum(dim=(2, 3)), center_x, center_y, spread.sqrt()]
        return self.norm(torch.cat(figures, dim=1))


class KSNet(nn.Module):
    """Keypoint similarity logits from flip-averaged heatmaps; predicted KS = sigmoid(logit).

    Args:
        backbone: "resnet18" (the paper), "resnet50" (or another residual network), "conv2", "alexnet",
            "vgg19" or "googlenet" (table 5).
        width: multiplies the backbone's channels.
        channels: a residual backbone's stages before `width`.
        fine: a residual backbone that begins at the heatmaps' own resolution: for small heatmaps, of which the
            published stem leaves a sixteenth.
        figures: the hidden layers see MapFigures beside the backbone's features.
        hidden: units of the two hidden layers (the paper: 1024).
        visibility: with logits of visibility too, for pose networks that give none.
        keypoints: K.

    Raises:
        ArgumentError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet18",
        width: float = 1.0,
        channels: tuple[int, ...] | list[int] = CHANNELS,
        fine: bool = False,
        figures: bool = False,
        hidden: int = 1024,
        visibility: bool = False,
        keypoints: int = 17,
    ) -> None:
        super().__init__()
        check_choice("backbone", backbone, BACKBONES)
        if fine and backbone not in LAYERS:
            raise ArgumentError(f"fine must be False but for residual backbones, got backbone {backbone!r}")
        if backbone in LAYERS:
            self.backbone: nn.Module = ResNetFeatures(
                backbone, width=width, channels=channels, inputs=keypoints, fine=fine
            )
            features = self.backbone.channels[-1]
        else:
            self.backbone, features = SHALLOW[backbone](keypoints, width)
            initialize(self.backbone)
        self.figures = MapFigures(keypoints) if figures else None
        if figures:
            features += MapFigures.FIGURES * keypoints
        self.hidden = nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        self.logits = nn.Linear(hidden, keypoints)
        nn.init.zeros_(self.logits.bias)
        self.visibility = nn.Linear(hidden, keypoints) if visibility else None

    def forward(self, heatmaps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Heatmaps (N, K, h, w) to KS logits (N, K), or to those and the logits of visibility."""
        features = self.backbone(heatmaps).mean(dim=(2, 3))
        if self.figures is not None:
            features = torch.cat([features, self.figures(heatmaps)], dim=1)
        hidden = self.hidden(features)
        similarity = self.logits(hidden)
        return similarity if self.visibility is None else (similarity, self.visibility(hidden))


__all__ = ["BACKBONES", "KSNet", "MapFigures"]
