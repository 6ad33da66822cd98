"""Two numbers each that make predicted visibility and predicted KS mean what they say, fitted on people held out."""

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
"""What bundle.json calls calibration: "visibility" and "similarity", each with "scale" and "bias"."""


def fit_probabilities(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scale and bias of the logits with the least cross entropy to the targets (Platt, 1999).

    KS-net's absolute error asks for medians, a score that is to equal mean OKS for means: targets between 0 and 1
    make cross entropy ask for these.

    Args:
        probabilities: (n,) as predicted.
        targets: (n,) in [0, 1].

    Raises:
        ArgumentError: there is nobody to fit to.
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
        # Keeps both finite where the people do not decide: as one more keypoint would that asks for no change.
        value = value + ((numbers[0] - 1) ** 2 + numbers[1] ** 2) / len(targets)
        value.backward()
        return value

    solver.step(loss)
    scale, bias = numbers.tolist()
    return {"scale": round(scale, 6), "bias": round(bias, 6)}


def fit_calibration(outcome: ValidationResults) -> FittedCalibration:
    """Visibility against whether an annotator placed the keypoint, predicted KS against KS of those placed."""
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
    """The outcome with the Engine's probabilities: sigmoid(scale · logit + bias)."""
    changed: dict[str, Any] = {}
    for name, numbers in calibration.items():
        logits = torch.logit(torch.from_numpy(getattr(outcome, name)), eps=1e-6)
        changed[name] = torch.sigmoid(numbers["scale"] * logits + numbers["bias"]).numpy()
    return replace(outcome, **changed)


__all__ = ["FittedCalibration", "apply_calibration", "fit_calibration", "fit_probabilities"]
