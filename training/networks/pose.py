"""OA-HPE: heatmaps and visibility from one backbone (section 4.1, figure 7 of the paper)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.training.networks.resnet import CHANNELS, ResNet, conv_norm_relu, scaled


def heatmap_layer(inputs: int, keypoints: int) -> nn.Conv2d:
    """Return the last 1×1 convolution. Its outputs start near zero, the value of most target pixels."""
    layer = nn.Conv2d(inputs, keypoints, 1)
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer


class FeaturePyramid(nn.Module):
    """Feature pyramid top-down path (Lin et al., CVPR 2017) to stride 4, then the heatmap subnet.

    Args:
        stages: channels of C2 to C5.
        channels: channels of the pyramid.
        layers: 3×3 convolutions between the finest level and the heatmaps.
        keypoints: K.
    """

    def __init__(self, stages: list[int], channels: int, layers: int, keypoints: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in stages)
        self.subnet = nn.Sequential(*(conv_norm_relu(channels, channels) for _ in range(layers)))
        self.final_layer = heatmap_layer(channels, keypoints)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map C2 to C5 to heatmaps (N, K, H / 4, W / 4)."""
        x = self.lateral[3](features[3])
        for level in (2, 1, 0):
            finer = self.lateral[level](features[level])
            x = finer + functional.interpolate(x, size=finer.shape[-2:], mode="nearest")
        return self.final_layer(self.subnet(x))


class Deconvolution(nn.Module):
    """Three 4×4 deconvolutions on C5, with the parameter names of Simple Baselines (Xiao et al., ECCV 2018)."""

    def __init__(self, stages: list[int], channels: int, layers: int, keypoints: int) -> None:  # noqa: ARG002
        super().__init__()
        modules: list[nn.Module] = []
        for inputs in (stages[3], channels, channels):
            layer = nn.ConvTranspose2d(inputs, channels, 4, stride=2, padding=1, bias=False)
            nn.init.normal_(layer.weight, std=0.001)
            modules += [layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.deconv_layers = nn.Sequential(*modules)
        self.final_layer = heatmap_layer(channels, keypoints)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map C2 to C5, of which only C5 is used, to heatmaps (N, K, H / 4, W / 4)."""
        return self.final_layer(self.deconv_layers(features[3]))


class Upsampling(nn.Module):
    """Three times nearest-neighbor upsampling and a 3×3 convolution; easy to quantize, as it has no lateral sums."""

    def __init__(self, stages: list[int], channels: int, layers: int, keypoints: int) -> None:  # noqa: ARG002
        super().__init__()
        self.convolutions = nn.ModuleList(
            conv_norm_relu(inputs, channels) for inputs in (stages[3], channels, channels)
        )
        self.final_layer = heatmap_layer(channels, keypoints)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map C5 to heatmaps (N, K, H / 4, W / 4); of C2 to C4 only the sizes are used."""
        x = features[3]
        for level, layer in zip((2, 1, 0), self.convolutions, strict=True):
            x = layer(functional.interpolate(x, size=features[level].shape[-2:], mode="nearest"))
        return self.final_layer(x)


HEADS = {"fpn": FeaturePyramid, "deconv": Deconvolution, "upsample": Upsampling}


class OcclusionSubnet(nn.Module):
    """Visibility logits from C5: a 1×1 convolution and two hidden fully connected layers (section 4.1 of the paper).

    Visibility depends on the positions on C5, so its cells are concatenated and not averaged. The subnet therefore works
    for one input size only.

    Args:
        inputs: channels of C5.
        cells: height times width of C5.
        channels: outputs of the 1×1 convolution.
        hidden: units of the two hidden layers (the paper: 1024).
        keypoints: K.
        beside: channels of a further input of the hidden layers, at C5's resolution.
    """

    def __init__(
        self, inputs: int, cells: int, channels: int, hidden: int, keypoints: int, beside: int = 0
    ) -> None:
        super().__init__()
        self.reduce = conv_norm_relu(inputs, channels, 1)
        self.hidden = nn.Sequential(
            nn.Linear((channels + beside) * cells, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        self.logits = nn.Linear(hidden, keypoints)
        nn.init.zeros_(self.logits.bias)

    def forward(self, c5: Tensor, beside: Tensor | None = None) -> Tensor:
        """Map C5 (N, inputs, h, w), and the further channels (N, beside, h, w) if any, to logits (N, K)."""
        cells = self.reduce(c5)
        if beside is not None:
            cells = torch.cat([cells, beside.to(cells.dtype)], dim=1)
        return self.logits(self.hidden(torch.flatten(cells, 1)))


class PoseNetwork(nn.Module):
    """OA-HPE, or HPE without the occlusion subnet.

    Args:
        backbone: "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152".
        width: factor on the backbone's channels.
        channels: channels of the backbone's stages before `width`; default: the published ones.
        head: "fpn" (the paper), "deconv" (Simple Baselines) or "upsample".
        head_channels: channels of the head; default: 256 times `width`.
        head_layers: convolutions of the head; default: 2 for "fpn", 3 for the others, which allow no other number.
        keypoints: K.
        visibility: whether there is an occlusion subnet.
        visibility_channels: channels of its 1×1 convolution; default: 64 times `width`.
        visibility_hidden: units of its hidden layers; default: 1024 times `width`.
        input: (width, height) of the crops; the occlusion subnet works only for this size.

    Raises:
        ArgumentError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet101",
        width: float = 1.0,
        channels: tuple[int, ...] | list[int] = CHANNELS,
        head: str = "fpn",
        head_channels: int | None = None,
        head_layers: int | None = None,
        keypoints: int = 17,
        visibility: bool = True,
        visibility_channels: int | None = None,
        visibility_hidden: int | None = None,
        input: tuple[int, int] | list[int] = (288, 384),
    ) -> None:
        super().__init__()
        check_choice("head", head, HEADS)
        self.backbone = ResNet(backbone, width=width, channels=channels)
        stages = self.backbone.channels
        layers = head_layers if head_layers is not None else (2 if head == "fpn" else 3)
        if head != "fpn" and layers != 3:
            raise ArgumentError(f"head_layers must be 3 for head {head!r}, got {layers}")
        self.head = HEADS[head](stages, head_channels or scaled(256, width), layers, keypoints)
        self.occlusion: OcclusionSubnet | None = None
        if visibility:
            self.occlusion = OcclusionSubnet(
                stages[3],
                math.ceil(input[0] / 32) * math.ceil(input[1] / 32),
                visibility_channels or scaled(64, width),
                visibility_hidden or scaled(1024, width),
                keypoints,
            )

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map normalized crops (N, 3, H, W) to heatmaps (N, K, H/4, W/4) and visibility logits (N, K) or None."""
        features = self.backbone(crops)
        visibility = None if self.occlusion is None else self.occlusion(features[3])
        return self.head(features), visibility


__all__ = ["HEADS", "OcclusionSubnet", "PoseNetwork", "heatmap_layer"]
