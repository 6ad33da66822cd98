"""The person detector: MobileNetV2, MoveNet's feature pyramid to stride 4, and heads for centers and boxes.

Sources: Zhou et al., "Objects as Points", 2019 (one peak per object, with its box); MoveNet MultiPose's published graph,
which has the same backbone, pyramid and heads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from oaks.training.networks.mobilenet import BLOCKS, MobileNetV2, MobilePyramid, SeparableHead

STRIDE = 4
"""Input pixels per output cell."""
BIAS = -4.6
"""Initial logit of centers: probability .01 (Lin et al., "Focal Loss", section 4.1)."""


class PersonDetector(nn.Module):
    """Centers of people and their boxes, at stride 4.

    Args:
        width: width of the backbone.
        blocks: number of blocks of the backbone; 16 omit its largest part.
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
        """Map normalized pixels (N, 3, H, W), H and W multiples of 32, to centers, sizes and offsets.

        Returns:
            Center logits (N, 1, H/4, W/4); width and height (N, 2, H/4, W/4) of the box, and x and y (N, 2, H/4, W/4) of its
            center relative to the cell's center, all in input pixels.
        """
        features = self.pyramid(self.backbone(pixels))
        # The published heads output sizes in cells. Softplus makes them positive and hardly changes large ones.
        sizes = functional.softplus(self.size(features)) * STRIDE
        return self.center(features), sizes, self.shift(features) * STRIDE


__all__ = ["STRIDE", "PersonDetector"]
