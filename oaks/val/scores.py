"""All scores of a pose: those that a network can compute, and those that need the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks.arguments import is_number
from oaks.errors import ArgumentError
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import Pairs, pairs, similarity_to_own


@dataclass(frozen=True)
class Score:
    """One score of N poses.

    Attributes:
        key: short name, the same in every table and file.
        values: (N,) without the factor of the box scores.
        ranks: (N,) the values that rank poses: `values` times the box scores if boxes are detected; for scores of predicted
            similarity, times the power of the box scores that the results' header states as box_score_power (default 1).
    """

    key: str
    values: np.ndarray
    ranks: np.ndarray


TITLES = {
    "own": "Score in the file",
    "conventional": "Conventional (mean heat)",
    "oaks": "OAKS",
    "heat_predicted_visibility": "Heat, predicted visibility",
    "oaks_all_visible": "Predicted KS, visibility ignored",
    "heat_true_visibility": "Heat, true visibility",
    "oaks_true_visibility": "Predicted KS, true visibility",
    "true_ks_all_visible": "True KS, visibility ignored",
    "true_ks_predicted_visibility": "True KS, predicted visibility",
    "oracle": "Oracle (true KS, true visibility)",
}
OF_PREDICTED_SIMILARITY = ("oaks", "oaks_all_visible")


@dataclass(frozen=True)
class ScoredDetections:
    """Detections paired with the ground truth, from which all tables are computed.

    Attributes:
        truth, detections: the people and the detections.
        found: all pairs of the two.
        own_ks: (N,K) true keypoint similarity to the pose's own person; 0 for unlabeled keypoints and for poses without
            a person.
        own_oks: (N,) true OKS with the pose's own person; 0 for poses without a person.
        scores: every Score that the results allow, by key, in the order of TITLES.
    """

    truth: GroundTruth
    detections: Detections
    found: Pairs
    own_ks: np.ndarray
    own_oks: np.ndarray
    scores: dict[str, Score]

    @classmethod
    def of(cls, truth: GroundTruth, detections: Detections) -> ScoredDetections:
        """Pair the detections with people and score them."""
        ks, oks = similarity_to_own(truth, detections.keypoints, detections.own)
        ks, oks = np.nan_to_num(ks), np.nan_to_num(oks)
        found = pairs(truth, detections.keypoints, detections.image)
        return cls(truth, detections, found, ks, oks, scores_of(truth, detections, ks))

    @property
    def name(self) -> str:
        """The name of the results in tables."""
        return self.detections.name

    @property
    def best(self) -> Score:
        """The main score: OAKS, else the file's own, else the conventional score."""
        return next(self.scores[key] for key in ("oaks", "own", "conventional") if key in self.scores)

    def ranked_by(self, key: str) -> Score:
        """Return the score with a key.

        Raises:
            ArgumentError: the results do not allow it; the message names the file and the scores that they allow.
        """
        if key not in self.scores:
            raise ArgumentError(
                f"score must be one of {', '.join(self.scores)} for {self.detections.path}, got {key!r}"
            )
        return self.scores[key]

    @property
    def flags(self) -> np.ndarray:
        """(N,K) visibility flags of the pose's own person; -1 for poses without a person."""
        own = self.detections.own
        return np.where((own >= 0)[:, None], self.truth.flags[own], -1)

    @property
    def occlusion(self) -> np.ndarray:
        """(N,) occlusion level of the pose's own person; -1 for poses without a person."""
        own = self.detections.own
        return np.where(own >= 0, self.truth.occlusion[own], -1)


def scores_of(truth: GroundTruth, detections: Detections, own_ks: np.ndarray) -> dict[str, Score]:
    """Return all scores that the results allow, by key, in the order of TITLES.

    `own` exists if the file is ranked by another score than the conventional one or OAKS. Scores that need the ground
    truth take it from the person whose box was cropped, and therefore exist only with ground-truth boxes. The true KS
    of an unlabeled keypoint is 0, which is why "visibility ignored" is costly for occluded people (table 3).
    """
    heat, similarity, visibility = detections.heat, detections.similarity, detections.visibility
    everywhere = np.ones((detections.count, truth.skeleton.count))
    values: dict[str, np.ndarray] = {}
    if heat is not None:
        values["conventional"] = weighted_mean(heat, everywhere)
        if visibility is not None:
            values["heat_predicted_visibility"] = weighted_mean(heat, visibility)
    if similarity is not None:
        values["oaks_all_visible"] = weighted_mean(similarity, everywhere)
        if visibility is not None:
            values["oaks"] = weighted_mean(similarity, visibility)
    if detections.box_source == "ground truth":
        labeled = (truth.flags[detections.own] > 0) & (detections.own >= 0)[:, None]
        values["oracle"] = weighted_mean(own_ks, labeled)
        values["true_ks_all_visible"] = weighted_mean(own_ks, everywhere)
        if visibility is not None:
            values["true_ks_predicted_visibility"] = weighted_mean(own_ks, visibility)
        if heat is not None:
            values["heat_true_visibility"] = weighted_mean(heat, labeled)
        if similarity is not None:
            values["oaks_true_visibility"] = weighted_mean(similarity, labeled)

    boxes, power = np.ones(detections.count), 1.0
    if detections.box_source == "detected" and detections.box_scores is not None:
        boxes = detections.box_scores
        power = box_score_power(detections.path, detections.header, boxes)
    ranks = {
        key: value * (boxes**power if key in OF_PREDICTED_SIMILARITY else boxes)
        for key, value in values.items()
    }
    # The file's own score keeps the file's digits, so that other evaluations of the file give the same figures.
    for key in ("oaks", "conventional"):
        if key in ranks and np.allclose(ranks[key], detections.scores, rtol=0, atol=1e-5):
            ranks[key] = detections.scores
            break
    else:
        values["own"] = ranks["own"] = detections.scores
    return {key: Score(key, values[key], ranks[key]) for key in TITLES if key in values}


def box_score_power(path: str | Path, header: Mapping[str, Any], box_scores: np.ndarray) -> float:
    """Return the power of the box scores (N,) in the scores of a results file, as its header states it; default 1.

    Raises:
        ArgumentError: the header states something else than a number from 0 to 1, or a box score is below 0.
    """
    power = header.get("box_score_power", 1.0)
    if not is_number(power) or not 0 <= power <= 1:
        raise ArgumentError(
            f"{path}: box_score_power of the header must be a number from 0 to 1, got {power!r}"
        )
    if power != 1 and (box_scores < 0).any():
        least = box_scores.min()
        raise ArgumentError(f"{path}: box_score must be at least 0 with box_score_power, got {least:g}")
    return float(power)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of `values` (N,K) weighted by `weights` (N,K); 0 if the weights sum to less than 1e-6.

    This is equation 10, and, with other values or weights, equations 1, 3 and 7. In float64, since the last digit
    decides ties in a ranking.
    """
    total = weights.sum(axis=1)
    return np.where(total < 1e-6, 0.0, (values * weights).sum(axis=1) / np.maximum(total, 1e-6))
