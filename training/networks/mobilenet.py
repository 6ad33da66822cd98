"""MobileNetV2 and MoveNet's feature pyramid to stride 4, and a pose network with both.

Sources: Sandler et al., "MobileNetV2", CVPR 2018, table 2; MoveNet's published TensorFlow.js graphs. Layers, paddings and
channels are the same as there, so that the published weights can be loaded (`oaks.training.pretrained`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from oaks.errors import ArgumentError
from oaks.training.networks.pose import OcclusionSubnet

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion factor, channels at width 1, blocks and first stride of each stage (MobileNetV2, table 2)."""
PYRAMID_BLOCKS = (2, 5, 9)
"""Blocks whose outputs are the pyramid's finer levels, at strides 4, 8 and 16."""
BLOCKS = 17
"""Blocks of the whole backbone."""
DEEPEST = 13
"""The first block at stride 32."""
LAST = 1280
"""Channels of the last convolution, at stride 32, for any width."""
LATERAL = (24, 32, 64, 64)
"""Channels of the pyramid's levels at strides 4, 8, 16 and 32."""
FEATURES = 24
"""Channels of the pyramid's output, at stride 4."""


def divisible_by_eight(channels: float) -> int:
    """Round channels to a multiple of 8, as MobileNetV2's width multiplier does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SameConvolution(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even sizes: at stride 2 only on the right and at the bottom."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride); with stride 2, H and W must be even."""
        return super().forward(functional.pad(input, (0, 1, 0, 1)) if self.stride[0] == 2 else input)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise 3×3, project; batch norm is folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = SameConvolution(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConvolution(hidden, hidden, 3, stride, groups=hidden)
        self.project = SameConvolution(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The backbone.

    Args:
        width: factor on the channels; MoveNet Lightning has 1, MultiPose 1.5, Thunder 1.75.
        blocks: number of blocks, 14 to 17. With fewer than 17 the last convolution is omitted too; this part holds a third
            of the parameters.

    Attributes:
        channels: channels of the features at strides 4, 8, 16 and 32.

    Raises:
        ArgumentError: the number of blocks is not from 14 to 17.
    """

    def __init__(self, width: float = 1.0, *, blocks: int = BLOCKS) -> None:
        super().__init__()
        if not DEEPEST < blocks <= BLOCKS:
            raise ArgumentError(f"blocks must be from {DEEPEST + 1} to {BLOCKS}, got {blocks}")
        channels = divisible_by_eight(32 * width)
        self.stem = SameConvolution(3, channels, 3, 2)
        layers: list[InvertedResidual] = []
        for expansion, outputs, count, stride in STAGES:
            outputs = divisible_by_eight(outputs * width)
            for number in range(count):
                if len(layers) < blocks:
                    layers.append(
                        InvertedResidual(channels, outputs, expansion, stride if number == 0 else 1)
                    )
                    channels = outputs
        self.blocks = nn.ModuleList(layers)
        self.last = SameConvolution(channels, LAST, 1) if blocks == BLOCKS else None
        finer = (layers[block].project.out_channels for block in PYRAMID_BLOCKS)
        self.channels: list[int] = [*finer, channels if self.last is None else LAST]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map pixels (N, 3, H, W), H and W multiples of 32, to features at strides 4, 8, 16 and 32."""
        x, features = functional.relu6(self.stem(x)), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in PYRAMID_BLOCKS:
                features.append(x)
        return [*features, x if self.last is None else functional.relu6(self.last(x))]


class SeparableConvolution(nn.Module):
    """Depthwise 3×3 convolution, pointwise 1×1 convolution, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = SameConvolution(inputs, inputs, 3, groups=inputs, bias=False)
        self.pointwise = SameConvolution(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, outputs, h, w)."""
        return functional.relu(self.pointwise(self.depthwise(x)))


class MobilePyramid(nn.Module):
    """MoveNet's top-down path from features at strides 4 to 32 to one map at stride 4 or 8.

    Args:
        channels: channels of the features.
        finest: last level of the path: 0 is stride 4, 1 is stride 8. Finer features are not used.

    Attributes:
        outputs: channels of the map.
    """

    def __init__(self, channels: list[int], finest: int = 0) -> None:
        super().__init__()
        self.finest = finest
        outputs = (FEATURES, *LATERAL[:2])
        self.outputs = outputs[finest]
        self.lateral = nn.ModuleDict(
            {
                str(level): SameConvolution(channels[level], LATERAL[level], 1)
                for level in range(finest, len(LATERAL))
            }
        )
        self.smooth = nn.ModuleDict(
            {str(level): SeparableConvolution(LATERAL[level], outputs[level]) for level in range(finest, 3)}
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map features at strides 4, 8, 16 and 32 to (N, outputs, H / 4, W / 4), or H / 8 and W / 8."""
        x = self.lateral["3"](features[3])
        for level in range(2, self.finest - 1, -1):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.smooth[str(level)](x + self.lateral[str(level)](features[level]))
        return x


class SeparableHead(nn.Module):
    """A separable convolution to 96 channels and a 1×1 convolution, without activation."""

    def __init__(self, outputs: int, inputs: int = FEATURES, hidden: int = 96) -> None:
        super().__init__()
        self.hidden = SeparableConvolution(inputs, hidden)
        self.output = SameConvolution(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, outputs, h, w)."""
        return self.output(self.hidden(x))


class MobilePoseNetwork(nn.Module):
    """OA-HPE on MobileNetV2: heatmaps from the pyramid, visibility from the features at stride 32.

    The heatmap head outputs logits, as MoveNet's does and cross entropy requires; the network returns their sigmoid. Further
    inputs of the occlusion subnet are the largest logits of each heatmap in each cell of stride 32; their gradients are not
    propagated to the maps.

    Args:
        width: width of the backbone.
        keypoints: K.
        visibility: whether there is an occlusion subnet.
        visibility_channels: channels of its 1×1 convolution.
        visibility_hidden: units of its hidden layers.
        input: (width, height) of the crops, multiples of 32; the occlusion subnet works only for this size.

    Raises:
        ArgumentError: the input is not a multiple of 32.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        keypoints: int = 17,
        visibility: bool = True,
        visibility_channels: int = 48,
        visibility_hidden: int = 256,
        input: tuple[int, int] | list[int] = (192, 256),
    ) -> None:
        super().__init__()
        if input[0] % 32 or input[1] % 32:
            raise ArgumentError(f"input must be multiples of 32 for this network, got {tuple(input)}")
        self.backbone = MobileNetV2(width)
        self.pyramid = MobilePyramid(self.backbone.channels)
        self.heatmap = SeparableHead(keypoints)
        self.occlusion: OcclusionSubnet | None = None
        if visibility:
            cells = (input[0] // 32) * (input[1] // 32)
            self.occlusion = OcclusionSubnet(
                LAST, cells, visibility_channels, visibility_hidden, keypoints, beside=keypoints
            )

    def logits(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map normalized crops (N, 3, H, W) to logits of heatmaps (N, K, H/4, W/4) and of visibility (N, K) or None."""
        features = self.backbone(crops)
        maps = self.heatmap(self.pyramid(features))
        if self.occlusion is None:
            return maps, None
        return maps, self.occlusion(features[3], functional.max_pool2d(maps.detach(), 8))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map normalized crops (N, 3, H, W) to heatmaps (N, K, H/4, W/4) in (0, 1) and visibility logits (N, K) or None."""
        maps, visibility = self.logits(crops)
        return torch.sigmoid(maps), visibility


__all__ = [
    "MobileNetV2",
    "MobilePoseNetwork",
    "MobilePyramid",
    "SameConvolution",
    "SeparableConvolution",
    "SeparableHead",
]
