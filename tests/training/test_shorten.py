"""Removing the end of a detector's backbone: the fitted convolution approximates the whole network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oaks.errors import ArgumentError
from oaks.training.networks.detector import PersonDetector
from oaks.training.shorten import LATERAL, shorten


@pytest.fixture(scope="module")
def whole() -> PersonDetector:
    torch.manual_seed(0)
    return PersonDetector(width=1.5).eval()


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Return pictures of random colors in coarse squares."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [np.kron(picture, np.ones((24, 24, 1), np.uint8)) for picture in coarse]


def test_the_fit_is_the_best_linear_one_and_other_weights_are_copied(whole):
    pixels = pictures(40, 1)
    state, explained = shorten(dict(whole.state_dict()), pixels)
    cut = PersonDetector(width=1.5, blocks=16).eval()
    cut.load_state_dict(state)
    for name, value in state.items():
        if not name.startswith(LATERAL):
            torch.testing.assert_close(value, whole.state_dict()[name], rtol=0, atol=0)
    x = torch.stack([torch.from_numpy(picture) for picture in pixels]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        features = cut.backbone(x)[3]
        expected = whole.pyramid.lateral["3"](whole.backbone(x)[3]).double()
        given = cut.pyramid.lateral["3"](features).double()
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double().numpy()
    targets = expected.permute(0, 2, 3, 1).reshape(len(rows), -1).numpy()
    best, *_ = np.linalg.lstsq(np.column_stack([rows, np.ones(len(rows))]), targets, rcond=None)
    least = ((np.column_stack([rows, np.ones(len(rows))]) @ best - targets) ** 2).sum()
    spread = ((targets - targets.mean(0)) ** 2).sum()
    residual = (given - expected).square().sum().item()
    assert explained == pytest.approx(1 - residual / spread, abs=1e-3)
    assert residual < spread
    assert residual >= least * (1 - 1e-6)


def test_weights_of_another_network_are_refused(whole):
    state = dict(whole.state_dict())
    del state["size.output.weight"]
    with pytest.raises(
        ArgumentError, match=r"weights must be those of MultiPose, got none of size\.output\.weight"
    ):
        shorten(state, pictures(2, 0))
