"""Trees kept and recalibrated: against scipy's optimizer, and exact in the forest that is written."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from oaks import ops
from oaks.fit.boosting import Examples, fit_forests
from oaks.fit.recalibration import fit_scale_and_bias, recalibrated, scaled

from .frozen import QUICK

pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(8)
    features = rng.normal(size=(150, 4, 5)).astype(np.float32)
    similarity = expit(features[..., 0] * 2 + rng.normal(size=(150, 4)))
    labeled = rng.random((150, 4)) < expit(features[..., 1])
    return Examples(features, similarity * labeled, labeled, np.arange(150) // 2, np.ones(150, bool))


@pytest.mark.parametrize(("scale", "bias", "count"), [(0.4, 1.5, 500), (3.0, -2.0, 500), (1.0, 0.0, 3)])
def test_scale_and_bias_are_where_the_loss_is_least(scale, bias, count):
    rng = np.random.default_rng(count)
    logits = rng.normal(size=count) * 2
    targets = expit(scale * logits + bias + rng.normal(size=count))

    def loss(numbers):
        p = expit(numbers[0] * logits + numbers[1])
        entropy = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum()
        return entropy + (numbers[0] - 1) ** 2 + numbers[1] ** 2

    expected = minimize(loss, [1, 0], method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(fit_scale_and_bias(logits, targets), expected, atol=1e-5)


def test_scale_and_bias_stay_finite_without_evidence():
    for targets in (np.ones(4), np.zeros(4)):
        scale, bias = fit_scale_and_bias(np.array([-30.0, -30, 30, 30]), targets)
        assert np.isfinite([scale, bias]).all()
    assert fit_scale_and_bias(np.zeros(0), np.zeros(0)) == pytest.approx((1, 0))


def test_a_scaled_forest_has_scaled_logits(examples):
    forest, _ = fit_forests(examples, QUICK)
    before = logit(ops.forest(examples.features, forest).astype(float))
    after = logit(ops.forest(examples.features, scaled(forest, 0.7, -0.3)).astype(float))
    assert np.ptp(before) > 1
    np.testing.assert_allclose(after, 0.7 * before - 0.3, atol=1e-5)


def test_forests_are_recalibrated_on_the_chosen_people_alone(examples):
    forests = fit_forests(examples, QUICK)
    rows = np.arange(150) < 60
    ours = recalibrated(forests, examples, rows)
    expected = []
    for forest, targets, counted in zip(
        forests, (examples.similarity, examples.labeled.astype(float)), (examples.labeled, np.ones((150, 4), bool)),
        strict=True,
    ):  # fmt: skip
        chosen = counted & rows[:, None]
        logits = logit(ops.forest(examples.features, forest)[chosen].astype(float))
        expected.append(scaled(forest, *fit_scale_and_bias(logits, targets[chosen])))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one.leaves, other.leaves, rtol=1e-4)
