"""Target heatmaps and the paper's losses, computed where the network runs, from keypoints."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SimilarityLoss = Literal["absolute", "cross_entropy"]
HeatmapLoss = Literal["squared", "cross_entropy"]


def target_heatmaps(
    points: Tensor, visible: Tensor, size: tuple[int, int], *, stride: int, sigma: float
) -> Tensor:
    """Equation 4 in half-pixel alignment: heatmap index j lies at crop index stride·(j + 1/2) - 1/2.

    Args:
        points: (N, K, 2) crop pixel indices.
        visible: (N, K); 0 makes the map all zero.
        size: (width, height) of the heatmaps.
        stride: crop pixels per heatmap pixel.
        sigma: in heatmap pixels.

    Returns:
        (N, K, height, width) float32.
    """
    center = (points + 0.5) / stride - 0.5
    across, down = (
        torch.exp(
            -((torch.arange(count, device=points.device) - center[..., axis, None]) ** 2) / (2 * sigma**2)
        )
        for axis, count in enumerate(size)
    )
    return (visible[..., None] * down)[..., :, None] * across[..., None, :]


class PoseLoss(NamedTuple):
    """The two parts of OA-HPE's loss, each averaged over people."""

    heatmap: Tensor
    visibility: Tensor


def pose_loss(
    heatmaps: Tensor,
    logits: Tensor | None,
    points: Tensor,
    visible: Tensor,
    annotatable: Tensor,
    *,
    stride: int,
    sigma: float,
    kind: HeatmapLoss = "squared",
) -> PoseLoss:
    """Heatmap loss summed over pixels and keypoints; equation 8 summed over keypoints; means over people.

    Args:
        heatmaps: (N, K, h, w); their logits for "cross_entropy".
        logits: (N, K) of visibility, or None: that part is then 0.
        points: (N, K, 2) crop pixel indices.
        visible: (N, K) 0 or 1.
        annotatable: (N, K) 0 or 1: keypoints that count in neither part where 0.
        stride: crop pixels per heatmap pixel.
        sigma: of the targets, in heatmap pixels.
        kind: "squared" error (section 4.1), or "cross_entropy" of each pixel.
    """
    height, width = heatmaps.shape[-2:]
    targets = target_heatmaps(points, visible, (width, height), stride=stride, sigma=sigma)
    if kind == "squared":
        errors = (heatmaps.float() - targets).square()
    else:
        errors = functional.binary_cross_entropy_with_logits(heatmaps.float(), targets, reduction="none")
    heatmap = (errors.sum(dim=(2, 3)) * annotatable).sum(dim=1).mean()
    if logits is None:
        return PoseLoss(heatmap, heatmap.new_zeros(()))
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), visible, reduction="none")
    return PoseLoss(heatmap, (entropy * annotatable).sum(dim=1).mean())


def similarity_loss(
    logits: Tensor, similarity: Tensor, annotated: Tensor, kind: SimilarityLoss = "absolute"
) -> Tensor:
    """What predicted KS is off, summed over annotated keypoints, mean over people.

    Args:
        logits: (N, K); predicted KS is their sigmoid.
        similarity: (N, K) true KS, anything where not annotated.
        annotated: (N, K) 0 or 1.
        kind: "absolute" is equation 9, whose best answer under doubt is the median KS; "cross_entropy" asks for
            its mean, which is what a score that is to equal expected OKS sums up.
    """
    # Before anything is done with them: NaN times 0 is NaN in a gradient.
    known = torch.where(annotated > 0, similarity, 0)
    if kind == "absolute":
        errors = (torch.sigmoid(logits.float()) - known).abs()
    else:
        errors = functional.binary_cross_entropy_with_logits(logits.float(), known, reduction="none")
    return (errors * annotated).sum(dim=1).mean()


class DetectionLoss(NamedTuple):
    """The two parts of the loss of a detector."""

    center: Tensor
    box: Tensor


def detection_loss(
    logits: Tensor, boxes: Tensor, heat: Tensor, weight: Tensor, targets: Tensor, share: Tensor
) -> DetectionLoss:
    """Penalty-reduced focal loss of centers, and 1 - GIoU of boxes; both summed, over the number of people.

    Sources: Zhou et al., "Objects as Points", 2019, equation 1; Rezatofighi et al., "Generalized IoU", CVPR 2019.

    Args:
        logits: (N, 1, h, w) of centers.
        boxes: (N, 4, h, w) xyxy input pixels, of every cell.
        heat: (N, h, w), 1 at centers and less around them.
        weight: (N, h, w) of cells that are no center: 0 where somebody may be.
        targets: (N, 4, h, w) xyxy input pixels.
        share: (N, h, w) weight of each cell's box; sums to 1 over a person's cells.
    """
    logits = logits.float().squeeze(1)
    found, missed = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    centers = heat >= 1
    positive = (missed.exp().square() * found)[centers].sum()
    negative = ((1 - heat).pow(4) * found.exp().square() * missed * weight).sum()
    people = centers.sum().clamp(min=1)
    cells = share > 0
    overlap = _giou(boxes.float().permute(0, 2, 3, 1)[cells], targets.permute(0, 2, 3, 1)[cells])
    return DetectionLoss(-(positive + negative) / people, ((1 - overlap) * share[cells]).sum() / people)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (M, 4) xyxy, pair by pair."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    inner = (high - low).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inner
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp(min=1e-6)
    return inner / union.clamp(min=1e-6) - (hull - union) / hull


__all__ = [
    "DetectionLoss",
    "HeatmapLoss",
    "PoseLoss",
    "SimilarityLoss",
    "detection_loss",
    "pose_loss",
    "similarity_loss",
    "target_heatmaps",
]
