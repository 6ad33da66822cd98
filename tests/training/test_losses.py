"""Targets and losses, compared with loops in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from oaks import ops
from oaks.training.losses import pose_loss, similarity_loss, target_heatmaps


def naive_target(x: float, y: float, width: int, height: int, stride: int, sigma: float) -> np.ndarray:
    target = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            dx = (stride * (column + 0.5) - 0.5 - x) / stride
            dy = (stride * (row + 0.5) - 0.5 - y) / stride
            target[row, column] = math.exp(-(dx * dx + dy * dy) / (2 * sigma**2))
    return target


def test_targets_are_equation_4_in_half_pixel_alignment() -> None:
    points = torch.tensor([[[13.2, 20.9], [0.0, 63.0], [5.0, 5.0]]])
    visible = torch.tensor([[1.0, 1.0, 0.0]])
    targets = target_heatmaps(points, visible, (12, 16), stride=4, sigma=1.5)
    assert targets.shape == (1, 3, 16, 12)
    for k in range(2):
        x, y = points[0, k].tolist()
        np.testing.assert_allclose(targets[0, k], naive_target(x, y, 12, 16, 4, 1.5), atol=1e-6)
    assert not targets[0, 2].any()  # an invisible keypoint has a map of zeros


def test_targets_decode_to_their_keypoints() -> None:
    """With the decoder of the Engine, whose own error is at most half a heatmap pixel per axis."""
    rng = np.random.default_rng(0)
    points = rng.uniform((8, 8), (88, 120), (5, 17, 2)).astype(np.float32)
    targets = target_heatmaps(torch.from_numpy(points), torch.ones(5, 17), (24, 32), stride=4, sigma=2)
    found = ops.decode(targets.numpy(), crop_size=(96, 128)).points
    assert np.abs(found - points).max() <= 4 * 0.5
    assert np.abs((found - points).mean()) < 0.1  # no shift on average


def test_the_loss_starts_near_53_and_12_for_a_whole_person() -> None:
    """For σ = 1 and 17 visible keypoints the paper's losses are 17π and 17 ln 2."""
    points = torch.full((2, 17, 2), 100.0)
    loss = pose_loss(torch.zeros(2, 17, 96, 72), torch.zeros(2, 17), points, torch.ones(2, 17), torch.ones(2, 17),
                     stride=4, sigma=1.0)  # fmt: skip
    assert loss.heatmap.item() == pytest.approx(17 * math.pi, rel=1e-3)
    assert loss.visibility.item() == pytest.approx(17 * math.log(2), rel=1e-5)


def test_losses_against_loops() -> None:
    rng = np.random.default_rng(0)
    heatmaps, logits = rng.normal(size=(3, 4, 8, 6)), rng.normal(size=(3, 4))
    points = rng.uniform(0, 24, (3, 4, 2))
    visible, annotatable = rng.integers(0, 2, (3, 4)), rng.integers(0, 2, (3, 4))
    squares = entropy = 0.0
    for n in range(3):
        for k in range(4):
            if not annotatable[n, k]:
                continue
            target = naive_target(*points[n, k], 6, 8, 4, 1.0) * visible[n, k]
            squares += ((heatmaps[n, k] - target) ** 2).sum()
            p = 1 / (1 + math.exp(-logits[n, k]))
            entropy -= math.log(p if visible[n, k] else 1 - p)
    arrays = (torch.tensor(a, dtype=torch.float32) for a in (heatmaps, logits, points, visible, annotatable))
    loss = pose_loss(*arrays, stride=4, sigma=1.0)
    assert loss.heatmap.item() == pytest.approx(squares / 3, rel=1e-5)
    assert loss.visibility.item() == pytest.approx(entropy / 3, rel=1e-5)


def test_keypoints_that_are_not_annotatable_have_no_gradient() -> None:
    heatmaps = torch.rand(2, 17, 8, 6, requires_grad=True)
    logits = torch.rand(2, 17, requires_grad=True)
    annotatable = torch.ones(2, 17)
    annotatable[:, :5] = 0
    loss = pose_loss(
        heatmaps, logits, torch.zeros(2, 17, 2), torch.ones(2, 17), annotatable, stride=4, sigma=1
    )
    sum(loss).backward()
    for gradient in (heatmaps.grad, logits.grad):
        assert not gradient[:, :5].any()
        assert gradient[:, 5:].abs().sum(dim=tuple(range(1, gradient.ndim))).all()


def test_without_occlusion_subnet_there_is_no_visibility_loss() -> None:
    loss = pose_loss(torch.zeros(1, 2, 8, 6), None, torch.zeros(1, 2, 2), torch.ones(1, 2), torch.ones(1, 2),
                     stride=4, sigma=1)  # fmt: skip
    assert loss.visibility.item() == 0


def test_similarity_loss_counts_only_annotated_keypoints() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [3.0, 0.0, 0.0]], requires_grad=True)
    similarity = torch.tensor([[0.9, float("nan"), 0.1], [0.2, 0.6, float("nan")]])
    annotated = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    sigmoid = [1 / (1 + math.exp(-v)) for v in (0.0, -1.0, 3.0, 0.0)]
    expected = (
        abs(sigmoid[0] - 0.9) + abs(sigmoid[1] - 0.1) + abs(sigmoid[2] - 0.2) + abs(sigmoid[3] - 0.6)
    ) / 2
    loss = similarity_loss(logits, similarity, annotated)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert (logits.grad != 0).tolist() == [[True, False, True], [True, True, False]]
    assert logits.grad.isfinite().all()


def test_the_absolute_error_is_minimized_by_the_median_and_cross_entropy_by_the_mean() -> None:
    """For KS 0, 0 and 0.9 the median is 0 and the mean 0.3."""
    similarity, annotated = torch.tensor([[0.0], [0.0], [0.9]]), torch.ones(3, 1)
    answers = torch.linspace(-8, 4, 4801)
    best = {}
    for kind in ("absolute", "cross_entropy"):
        losses = torch.stack([similarity_loss(a.repeat(3, 1), similarity, annotated, kind) for a in answers])
        best[kind] = torch.sigmoid(answers[losses.argmin()]).item()
    assert best["absolute"] < 1e-3
    assert best["cross_entropy"] == pytest.approx(0.3, abs=1e-3)
