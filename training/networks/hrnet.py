"""HRNet (Sun et al., CVPR 2019) for poses, with the parameter names of the public checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from oaks.training.networks.pose import heatmap_layer
from oaks.training.networks.resnet import (
    BasicBlock,
    Bottleneck,
    conv3x3,
    conv_norm_relu,
    initialize,
    projection,
)

BLOCKS_PER_BRANCH = 4
MODULES = (1, 4, 3)  # of stages 2, 3 and 4


def blocks(
    kind: type[BasicBlock] | type[Bottleneck], inputs: int, channels: int, count: int
) -> nn.Sequential:
    """Return `count` residual blocks; the first projects its shortcut if the number of channels changes."""
    outputs = channels * kind.expansion
    shortcut = projection(inputs, outputs, 1) if inputs != outputs else None
    return nn.Sequential(
        kind(inputs, channels, 1, shortcut), *(kind(outputs, channels) for _ in range(count - 1))
    )


def fusion(branches: list[int], target: int, source: int) -> nn.Module | None:
    """Return layers from the resolution and channels of branch `source` to those of `target`; None for the same branch."""
    if source == target:
        return None
    if source > target:
        upsampling = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*projection(branches[source], branches[target], 1), upsampling)
    steps = [conv_norm_relu(branches[source], branches[source], 3, 2) for _ in range(target - source - 1)]
    # Without ReLU, which follows after the sum of the branches.
    return nn.Sequential(*steps, conv_norm_relu(branches[source], branches[target], 3, 2)[:-1])


def optional(layers: Sequence[nn.Module | None]) -> nn.ModuleList:
    """Return a list of layers and None. torch accepts None, but its type annotations do not."""
    found: Any = layers
    return nn.ModuleList(found)


class HighResolutionModule(nn.Module):
    """Parallel branches of residual blocks, and their fusion: each output is the sum of all branches."""

    def __init__(self, channels: list[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(blocks(BasicBlock, c, c, BLOCKS_PER_BRANCH) for c in channels)
        self.fuse_layers = nn.ModuleList(
            optional([fusion(channels, target, source) for source in range(len(channels))])
            for target in range(outputs)
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """Map one feature map per branch to one per output."""
        maps = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            assert isinstance(layers, nn.ModuleList)
            parts = [x if layer is None else layer(x) for layer, x in zip(layers, maps, strict=True)]
            fused.append(functional.relu(reduce(torch.add, parts)))
        return fused


class HRNet(nn.Module):
    """HRNet-W32, HRNet-W48 or another width.

    Args:
        width: channels of the finest branch (32 or 48 in the public checkpoints).
        keypoints: K.
    """

    def __init__(self, *, width: int = 32, keypoints: int = 17) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, 64, 2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv3x3(64, 64, 2), nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = blocks(Bottleneck, 64, 64, 4)
        before = [256]
        for stage, modules in enumerate(MODULES, start=2):
            channels = [width * 2**branch for branch in range(stage)]
            self.add_module(f"transition{stage - 1}", self._transition(before, channels))
            # Only the finest output of the last module is used.
            outputs = [1 if stage == 4 and m == modules - 1 else stage for m in range(modules)]
            self.add_module(
                f"stage{stage}", nn.ModuleList(HighResolutionModule(channels, count) for count in outputs)
            )
            before = channels
        initialize(self)
        self.final_layer = heatmap_layer(width, keypoints)

    @staticmethod
    def _transition(before: list[int], after: list[int]) -> nn.ModuleList:
        layers: list[nn.Module | None] = []
        for branch, channels in enumerate(after):
            if branch < len(before):
                same = before[branch] == channels
                layers.append(None if same else conv_norm_relu(before[branch], channels))
            else:
                layers.append(nn.Sequential(conv_norm_relu(before[-1], channels, 3, 2)))
        return optional(layers)

    def forward(self, crops: Tensor) -> tuple[Tensor, None]:
        """Map normalized crops (N, 3, H, W), sides multiples of 32, to heatmaps (N, K, H / 4, W / 4) and None."""
        x = self.relu(self.bn1(self.conv1(crops)))
        x = self.layer1(self.relu(self.bn2(self.conv2(x))))
        maps = [x]
        for stage in (2, 3, 4):
            sources = [*maps, maps[-1]]  # the new branch starts from the coarsest map
            transition = getattr(self, f"transition{stage - 1}")
            maps = [x if layer is None else layer(x) for layer, x in zip(transition, sources, strict=True)]
            for module in getattr(self, f"stage{stage}"):
                maps = module(maps)
        return self.final_layer(maps[0]), None


__all__ = ["HRNet"]
