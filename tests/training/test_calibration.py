"""Calibration: known parameters are found, means are correct, and the Engine applies the same function."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from oaks.bundle import Calibration
from oaks.inference import _half, _probability
from oaks.training.calibration import apply_calibration, fit_calibration, fit_probabilities
from tests.training.test_validation import evaluate


def test_known_parameters_are_found() -> None:
    z = np.random.default_rng(0).normal(0.3, 1.5, 20_000)
    assert fit_probabilities(expit(z), expit(0.6 * z - 0.8)) == pytest.approx(
        {"scale": 0.6, "bias": -0.8}, abs=2e-3
    )


def test_the_cross_entropy_is_minimal_and_the_mean_is_correct() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, 3000)
    targets = (rng.random(3000) < expit(0.5 * z + 1)) * rng.random(3000)

    def loss(numbers: np.ndarray) -> float:
        p = expit(numbers[0] * z + numbers[1])
        entropy = -(targets * np.log(p) + (1 - targets) * np.log1p(-p)).mean()
        return entropy + ((numbers[0] - 1) ** 2 + numbers[1] ** 2) / 3000

    found = fit_probabilities(expit(z), targets)
    expected = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x
    assert list(found.values()) == pytest.approx(expected, abs=1e-4)
    assert expit(found["scale"] * z + found["bias"]).mean() == pytest.approx(targets.mean(), abs=2e-3)


@pytest.mark.parametrize("targets", [np.ones(8), np.r_[np.zeros(4), np.ones(4)]])
def test_the_parameters_of_separable_targets_are_finite(targets: np.ndarray) -> None:
    found = fit_probabilities(np.r_[np.full(4, 0.2), np.full(4, 0.9)], targets)
    assert all(abs(number) < 20 for number in found.values())
    assert found["scale"] > 0


def test_calibration_without_people_is_refused() -> None:
    with pytest.raises(ValueError, match="people must have labeled keypoints to calibrate on, got none"):
        fit_probabilities(np.zeros(0), np.zeros(0))


def test_the_engine_applies_the_fitted_calibration(people) -> None:
    outcome = evaluate(people)
    rng = np.random.default_rng(2)
    outcome.visibility = rng.uniform(0.05, 0.95, outcome.visibility.shape).astype(np.float32)
    outcome.similarity = rng.uniform(0.05, 0.95, outcome.visibility.shape).astype(np.float32)
    calibration = fit_calibration(outcome)
    changed = apply_calibration(outcome, calibration)
    ks, _ = outcome.true_similarity()
    labeled = outcome.keypoints[..., 2] > 0
    assert calibration["similarity"] == fit_probabilities(outcome.similarity[labeled], ks[labeled])
    assert calibration["visibility"] == fit_probabilities(outcome.visibility.ravel(), labeled.ravel() * 1.0)
    for name in ("visibility", "similarity"):
        numbers = tuple(np.float32(value) for value in calibration[name].values())
        engine = _probability(logit(getattr(outcome, name)), *_half(Calibration(*numbers), 1))
        np.testing.assert_allclose(getattr(changed, name), engine, atol=1e-5)
