"""The person detector: MobileNetV2, MoveNet's feature pyramid down to stride 8, and heads for centers and boxes.

Sources: Zhou et al., "Objects as Points", 2019 (one peak per object, its box beside it); MoveNet's published graphs, whose
backbone, pyramid and center head this network starts from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oaks.training.networks.mobilenet import MobileNetV2, MobilePyramid, SeparableHead

STRIDE = 8
"""Input pixels per output cell. MoveNet's own stride of 4 costs a tenth more time."""
BIAS = -4.6
"""Logit of a center where nothing is known: probability .01 (Lin et al., "Focal Loss", section 4.1)."""


class PersonDetector(nn.Module):
    """Centers of people and their boxes, at stride 8.

    Args:
        width: of the backbone.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        self.backbone = MobileNetV2(width)
        self.pyramid = MobilePyramid(self.backbone.channels, finest=1)
        self.center = SeparableHead(1, inputs=self.pyramid.outputs)
        self.box = SeparableHead(4, inputs=self.pyramid.outputs)
        nn.init.constant_(self.center.output.bias, BIAS)
        nn.init.constant_(self.box.output.bias, 0.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised pixels (N, 3, H, W), H and W multiples of 32, to centers, sizes and offsets.

        Returns:
            center logits (N, 1, H/8, W/8); width and height (N, 2, H/8, W/8) and the x and y from the middle of the
            cell to that of the box (N, 2, H/8, W/8), all in input pixels.
        """
        features = self.pyramid(self.backbone(pixels))
        box = self.box(features)
        sizes = torch.exp(box[:, :2].clamp(-3, 5)) * (2 * STRIDE)
        return self.center(features), sizes, box[:, 2:] * STRIDE


__all__ = ["STRIDE", "PersonDetector"]
