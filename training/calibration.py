"""Calibration of predicted visibility and predicted KS: scale and bias of the logits, fitted on held-out people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from oaks.errors import ArgumentError
from oaks.training.validation import ValidationResults

FittedCalibration = dict[str, dict[str, float]]
"""`calibration` of bundle.json: "visibility" and "similarity", each with "scale" and "bias"."""


def fit_probabilities(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the scale and bias of the logits with the least cross entropy to the targets (Platt, 1999).

    KS-net's absolute error is minimized by medians, but a score that estimates OKS needs means, which minimize cross
    entropy.

    Args:
        probabilities: (n,) predicted.
        targets: (n,) in [0, 1].

    Raises:
        ArgumentError: there are no targets.
    """
    if not len(targets):
        raise ArgumentError("people must have labeled keypoints to calibrate on, got none")
    logits = torch.logit(torch.from_numpy(probabilities).double(), eps=1e-6)
    labels = torch.from_numpy(targets).double()
    numbers = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.binary_cross_entropy_with_logits(numbers[0] * logits + numbers[1], labels)
        # Keeps both finite if the targets are separable; it weighs as much as one more keypoint.
        value = value + ((numbers[0] - 1) ** 2 + numbers[1] ** 2) / len(targets)
        value.backward()
        return value

    solver.step(loss)
    scale, bias = numbers.tolist()
    return {"scale": round(scale, 6), "bias": round(bias, 6)}


def fit_calibration(outcome: ValidationResults) -> FittedCalibration:
    """Fit visibility to whether the keypoint is labeled, and predicted KS to the KS of labeled keypoints."""
    labeled = outcome.keypoints[..., 2] > 0
    calibration: FittedCalibration = {}
    if outcome.visibility is not None:
        known = outcome.annotatable
        calibration["visibility"] = fit_probabilities(outcome.visibility[known], labeled[known].astype(float))
    if outcome.similarity is not None:
        ks, _ = outcome.true_similarity()
        calibration["similarity"] = fit_probabilities(outcome.similarity[labeled], ks[labeled])
    return calibration


def apply_calibration(outcome: ValidationResults, calibration: FittedCalibration) -> ValidationResults:
    """Return the results with the Engine's probabilities: sigmoid(scale · logit + bias)."""
    changed: dict[str, Any] = {}
    for name, numbers in calibration.items():
        logits = torch.logit(torch.from_numpy(getattr(outcome, name)), eps=1e-6)
        changed[name] = torch.sigmoid(numbers["scale"] * logits + numbers["bias"]).numpy()
    return replace(outcome, **changed)


__all__ = ["FittedCalibration", "apply_calibration", "fit_calibration", "fit_probabilities"]
