"""Target heatmaps and losses, computed from keypoints on the network's device."""

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
    """Return the target heatmaps of equation 4, with heatmap index j at crop index stride·(j + 1/2) - 1/2.

    Args:
        points: (N, K, 2) crop pixel indices.
        visible: (N, K); a map with 0 is all zero.
        size: (width, height) of the heatmaps.
        stride: crop pixels per heatmap pixel.
        sigma: standard deviation in heatmap pixels.

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
    """Return the heatmap loss, summed over pixels and keypoints, and equation 8, summed over keypoints; means over people.

    Args:
        heatmaps: (N, K, h, w); logits for "cross_entropy".
        logits: (N, K) visibility logits; None: the visibility loss is 0.
        points: (N, K, 2) crop pixel indices.
        visible: (N, K) 0 or 1.
        annotatable: (N, K) 0 or 1; keypoints with 0 count in neither loss.
        stride: crop pixels per heatmap pixel.
        sigma: standard deviation of target peaks in heatmap pixels.
        kind: "squared" error (section 4.1 of the paper), or "cross_entropy" of each pixel.
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
    """Return the error of predicted KS, summed over annotated keypoints, mean over people.

    Args:
        logits: (N, K); predicted KS is their sigmoid.
        similarity: (N, K) true KS; any value for keypoints without annotation.
        annotated: (N, K) 0 or 1.
        kind: "absolute" (equation 9), minimized by the median KS; or "cross_entropy", minimized by the mean KS, as a score
            that estimates OKS needs it.
    """
    # Replaced first: a mask on the loss would leave NaN in the gradient, because NaN times 0 is NaN.
    known = torch.where(annotated > 0, similarity, 0)
    if kind == "absolute":
        errors = (torch.sigmoid(logits.float()) - known).abs()
    else:
        errors = functional.binary_cross_entropy_with_logits(logits.float(), known, reduction="none")
    return (errors * annotated).sum(dim=1).mean()


class DetectionLoss(NamedTuple):
    """The two parts of a detector's loss."""

    center: Tensor
    box: Tensor


def detection_loss(
    logits: Tensor, boxes: Tensor, heat: Tensor, weight: Tensor, targets: Tensor, share: Tensor
) -> DetectionLoss:
    """Return the penalty-reduced focal loss of centers, and 1 - GIoU of boxes, both divided by the number of people.

    Sources: Zhou et al., "Objects as Points", 2019, equation 1; Rezatofighi et al., "Generalized IoU", CVPR 2019.

    Args:
        logits: (N, 1, h, w) center logits.
        boxes: (N, 4, h, w) predicted box of every cell, xyxy input pixels.
        heat: (N, h, w), 1 at centers and less around them.
        weight: (N, h, w) weight of a cell as background; 0 in ignored regions.
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
    """Return the generalized IoU (M,) of pairs of boxes (M, 4) xyxy."""
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
