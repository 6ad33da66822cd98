"""The person detector: MobileNetV2, MoveNet's feature pyramid to stride 4, and heads for centers and boxes.

Sources: Zhou et al., "Objects as Points", 2019 (one peak per object, its box beside it); MoveNet MultiPose's published
graph, whose backbone, pyramid and heads this network starts from.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from oaks.training.networks.mobilenet import BLOCKS, MobileNetV2, MobilePyramid, SeparableHead

STRIDE = 4
"""Input pixels per output cell."""
BIAS = -4.6
"""Logit of a center where nothing is known: probability .01 (Lin et al., "Focal Loss", section 4.1)."""


class PersonDetector(nn.Module):
    """Centers of people and their boxes, at stride 4.

    Args:
        width: of the backbone.
        blocks: of the backbone; 16 leave out its heaviest end.
    """

    def __init__(self, *, width: float = 1.5, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.backbone = MobileNetV2(width, blocks=blocks)
        self.pyramid = MobilePyramid(self.backbone.channels)
        self.center = SeparableHead(1)
        self.size = SeparableHead(2)
        self.shift = SeparableHead(2)
        assert self.center.output.bias is not None
        nn.init.constant_(self.center.output.bias, BIAS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalized pixels (N, 3, H, W), H and W multiples of 32, to centers, sizes and offsets.

        Returns:
            center logits (N, 1, H/4, W/4); width and height (N, 2, H/4, W/4) and the x and y from the middle of the
            cell to that of the box (N, 2, H/4, W/4), all in input pixels.
        """
        features = self.pyramid(self.backbone(pixels))
        # Published heads give sizes in cells, without a bound: softplus keeps large ones as they are, and all above 0.
        sizes = functional.softplus(self.size(features)) * STRIDE
        return self.center(features), sizes, self.shift(features) * STRIDE


__all__ = ["STRIDE", "PersonDetector"]
