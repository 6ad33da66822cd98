"""Validation: perfect heatmaps have perfect figures, and figures agree with their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from oaks.skeleton import COCO17
from oaks.training.data.shards import read_shards, write_shards
from oaks.training.losses import target_heatmaps
from oaks.training.validation import (
    CropDataset,
    CropSettings,
    Estimate,
    ResultCollector,
    ValidationResults,
    estimate,
    ordered_loader,
)

VIEW = CropSettings((96, 128), 1.25, (0, 0, 0), (1, 1, 1), "half_pixel", "second_peak", COCO17)


class Perfect(nn.Module):
    """A network that returns the target heatmaps and visibilities of people whose crops it gets in order."""

    def __init__(self, people) -> None:
        super().__init__()
        self.people, self.next = people, 0

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(crops) // 2
        points, visible = [], []
        for place in range(self.next, self.next + count):
            item = CropDataset([self.people], VIEW)[place]
            transform = item["transform"]
            points.append((item["keypoints"][:, :2] - transform[:, 2]) / transform[[0, 1], [0, 1]])
            visible.append(item["keypoints"][:, 2] > 0)
        self.next += count
        points, visible = torch.tensor(np.array(points)), torch.tensor(np.array(visible)).float()
        mirror = torch.from_numpy(COCO17.mirror)
        mirrored = points[:, mirror].clone()
        mirrored[..., 0] = VIEW.size[0] - 1 - mirrored[..., 0]
        points, visible = torch.cat([points, mirrored]), torch.cat([visible, visible[:, mirror]])
        return target_heatmaps(points, visible, (24, 32), stride=4, sigma=2), (visible - 0.5) * 20


def evaluate(people) -> ValidationResults:
    """Return the results of the perfect network."""
    network, collector = Perfect(people), ResultCollector(COCO17)
    for batch in ordered_loader(CropDataset([people], VIEW), batch=5, workers=0):
        collector.add(batch, estimate(network, batch["crop"], batch["transform"].numpy(), VIEW))
    return collector.outcome()


def test_a_perfect_network_has_perfect_figures(people, tmp_path: Path) -> None:
    outcome = evaluate(people)
    figures = outcome.metrics()
    assert figures["people"] == 12
    assert figures["OKS"] > 0.7  # not 1 because of the decoder's own error on people of 40 pixels
    assert figures["visibility accuracy"] == 1
    assert figures["visibility accuracy left_knee"] == 1
    assert 0.5 <= figures["majority accuracy"] < 1
    np.testing.assert_allclose(
        outcome.visibility, 1 / (1 + np.exp(-10 * (2 * (people.keypoints[..., 2] > 0) - 1.0))), rtol=1e-4
    )
    write_shards("people", (people.sample(i) for i in range(12)), tmp_path, size=VIEW.size)
    from_shards = evaluate(read_shards(tmp_path))
    np.testing.assert_allclose(from_shards.points, outcome.points, atol=0.02)
    np.testing.assert_allclose(from_shards.boxes, outcome.boxes, atol=0.02)
    assert from_shards.metrics()["oracle AP"] == pytest.approx(figures["oracle AP"], abs=1e-6)


def test_similarity_is_equation_2_and_figures_follow_their_definitions(people) -> None:
    rng = np.random.default_rng(0)
    outcome = evaluate(people)
    outcome.points = outcome.points + rng.normal(0, 4, outcome.points.shape)
    outcome.heat, outcome.similarity = rng.random((2, 12, 17)).astype(np.float32)
    outcome.visibility = rng.random((12, 17)).astype(np.float32)
    labeled = people.keypoints[..., 2] > 0
    distance = ((outcome.points - people.keypoints[..., :2]) ** 2).sum(-1)
    ks = np.exp(-distance / (2 * people.areas[:, None] * (2 * np.array(COCO17.sigmas)) ** 2)) * labeled
    oks = ks.sum(1) / labeled.sum(1)
    found = outcome.true_similarity()
    np.testing.assert_allclose(found[0], ks, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found[1], oks, rtol=1e-4)
    figures = outcome.metrics()
    assert figures["KS error"] == pytest.approx(np.abs(outcome.similarity - ks)[labeled].mean(), rel=1e-4)
    score = (outcome.similarity * outcome.visibility).sum(1) / outcome.visibility.sum(1)
    assert figures["OAKS Pearson with OKS"] == pytest.approx(np.corrcoef(score, oks)[0, 1], rel=1e-4)
    assert figures["heat Pearson with KS"] == pytest.approx(
        np.corrcoef(outcome.heat[labeled], ks[labeled])[0, 1], rel=1e-4
    )
    right = (outcome.visibility > 0.5) == labeled
    assert figures["visibility accuracy"] == pytest.approx(right.mean(), rel=1e-6)
    majority = np.maximum(labeled.mean(0), 1 - labeled.mean(0)).mean()
    assert figures["majority accuracy"] == pytest.approx(majority, rel=1e-6)
    assert figures["oracle AP"] >= figures["conventional AP"]


def test_keypoints_that_are_not_annotatable_count_in_no_accuracy(people) -> None:
    outcome = evaluate(people)
    outcome.visibility[:, :5] = 1 - outcome.visibility[:, :5]
    outcome.annotatable[:, :5] = False
    figures = outcome.metrics()
    assert figures["visibility accuracy right_ankle"] == 1
    assert figures["visibility accuracy"] == 1
    labeled = (outcome.keypoints[:, 5:, 2] > 0).mean(0)
    assert figures["majority accuracy"] == pytest.approx(np.maximum(labeled, 1 - labeled).mean())
    assert "visibility accuracy nose" not in figures


def test_the_order_of_processes_does_not_matter(people) -> None:
    collectors = [ResultCollector(COCO17), ResultCollector(COCO17)]
    found = Estimate(np.zeros((4, 17, 2)), np.zeros((4, 17)), np.zeros((4, 17, 2, 2)), None, None)
    for rank, collector in enumerate(collectors):
        places = range(rank, 8, 2)
        for batch in ordered_loader(CropDataset([people], VIEW), batch=4, workers=0, places=places):
            collector.add(batch, found)
    joined = ResultCollector(COCO17)
    joined.rows = collectors[1].rows + collectors[0].rows
    outcome: ValidationResults = joined.outcome()
    np.testing.assert_allclose(outcome.boxes, people.boxes[:8], atol=1e-4)


def test_damaged_images_are_skipped(people, people_folder: Path) -> None:
    (people_folder / "images" / "3.jpg").write_bytes(b"no picture")
    batches = [b for b in ordered_loader(CropDataset([people], VIEW), batch=2, workers=0) if b is not None]
    assert [p for batch in batches for p in batch["person_id"].tolist()] == [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]


def test_a_validation_without_readable_images_is_refused() -> None:
    with pytest.raises(ValueError, match="validation must have images that can be read, got none"):
        ResultCollector(COCO17).outcome()


def test_visibility_is_the_mean_of_both_logits() -> None:
    class Logits(nn.Module):
        def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.rand(4, 17, 8, 6), torch.arange(4 * 17.0).reshape(4, 17) / 20 - 1

    transforms = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    view = CropSettings((24, 32), 1.25, (0, 0, 0), (1, 1, 1), "half_pixel", "second_peak", COCO17)
    found = estimate(Logits(), torch.zeros(2, 3, 32, 24), transforms, view)
    logits = (np.arange(68) / 20 - 1).reshape(4, 17)
    swapped = logits[2:].copy()
    for left, right in COCO17.pairs:
        swapped[:, [left, right]] = swapped[:, [right, left]]
    np.testing.assert_allclose(found.visibility, 1 / (1 + np.exp(-(logits[:2] + swapped) / 2)), rtol=1e-5)
    assert found.similarity is None
