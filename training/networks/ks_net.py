"""KS-net: keypoint similarities from a person's heatmaps (section 4.2, figure 8 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.training.networks.resnet import CHANNELS, LAYERS, ResNet, conv_norm_relu, initialize, scaled


def two_convolutions(inputs: int, width: float) -> tuple[nn.Module, int]:
    """Return the paper's shallowest backbone (table 5), two convolutions of stride 2, and its output channels."""
    first, second = scaled(64, width), scaled(128, width)
    layers = (*conv_norm_relu(inputs, first, 3, 2), *conv_norm_relu(first, second, 3, 2))
    return nn.Sequential(*layers), second


def alexnet(inputs: int, width: float) -> tuple[nn.Module, int]:
    """Return AlexNet's five convolutions (Krizhevsky, 2014) with batch norm and padded pools, and the output channels."""
    a, b, c, d = (scaled(channels, width) for channels in (64, 192, 384, 256))

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, padding=1)

    layers = (
        *conv_norm_relu(inputs, a, 11, 4), pool(), *conv_norm_relu(a, b, 5), pool(),
        *conv_norm_relu(b, c), *conv_norm_relu(c, d), *conv_norm_relu(d, d),
    )  # fmt: skip
    return nn.Sequential(*layers), d


def vgg19(inputs: int, width: float) -> tuple[nn.Module, int]:
    """Return VGG-19's convolutions (Simonyan and Zisserman, 2015) with batch norm, and the output channels."""
    layers: list[nn.Module] = []
    before = inputs
    for channels, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        after = scaled(channels, width)
        for _ in range(count):
            layers += conv_norm_relu(before, after)
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
        self.branch1 = conv_norm_relu(inputs, one, 1)
        self.branch2 = nn.Sequential(
            conv_norm_relu(inputs, three[0], 1), conv_norm_relu(three[0], three[1], 3)
        )
        self.branch3 = nn.Sequential(conv_norm_relu(inputs, five[0], 1), conv_norm_relu(five[0], five[1], 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_norm_relu(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


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
    """Return GoogLeNet without auxiliary outputs, with batch norm, and its output channels."""
    a, b = scaled(64, width), scaled(192, width)
    layers: list[nn.Module] = [
        conv_norm_relu(inputs, a, 7, 2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        conv_norm_relu(a, a, 1),
        conv_norm_relu(a, b, 3),
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
    """Six batch-normalized numbers of each keypoint's map, some of which the backbone's global pooling would blur.

    The highest value; the highest of the other local maxima; the sum of the map; its center (x and y from -1 to 1 over
    the map) and spread in the same unit, weighted by squared values. Negative values count as 0.
    """

    FIGURES = 6

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(self.FIGURES * keypoints)

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Map heatmaps (N, K, h, w) to (N, 6 K)."""
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
        # Not as a difference of squares, which would cancel in half precision.
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
        width: factor on the backbone's channels.
        channels: channels of a residual backbone's stages before `width`.
        fine: whether a residual backbone starts at the heatmaps' resolution; for small heatmaps, whose area the published
            stem reduces to a sixteenth.
        figures: whether MapFigures are further inputs of the hidden layers.
        hidden: units of the two hidden layers (the paper: 1024).
        visibility: whether to predict visibility logits too, for pose networks without visibility.
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
            raise ArgumentError(f"fine must be False for backbone {backbone!r}, got True")
        self.backbone: nn.Module
        if backbone in LAYERS:
            residual = ResNet(backbone, width=width, channels=channels, inputs=keypoints, fine=fine)
            self.backbone, features = residual, residual.channels[-1]
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
        """Map heatmaps (N, K, h, w) to KS logits (N, K), or to those and visibility logits (N, K)."""
        maps = self.backbone(heatmaps)
        features = (maps[-1] if isinstance(self.backbone, ResNet) else maps).mean(dim=(2, 3))
        if self.figures is not None:
            features = torch.cat([features, self.figures(heatmaps)], dim=1)
        hidden = self.hidden(features)
        similarity = self.logits(hidden)
        return similarity if self.visibility is None else (similarity, self.visibility(hidden))


__all__ = ["BACKBONES", "KSNet", "MapFigures"]
