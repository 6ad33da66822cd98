"""Error analysis: errors that lower average precision, by kind, and their correction one kind at a time.

The method is Ronchi and Perona's (Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation, ICCV
2017), at one OKS threshold, for the people of one occlusion level (figures 11 and 12 of the paper).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from oaks.errors import ArgumentError
from oaks.val.assignment import LOCALIZED
from oaks.val.ground_truth import LARGEST, MEDIUM, GroundTruth
from oaks.val.matching import Matches, match, precision_recall
from oaks.val.oks import Pairs, exponents, pairs, similarities

JITTER, GOOD = 0.5, 0.85
"""Similarity from which a keypoint is near its place, and from which it is right."""
SIZES = (MEDIUM, LARGEST)
"""The areas that are analyzed."""
KINDS = ("good", "jitter", "inversion", "swap", "miss")
"""What a labeled keypoint of a matched detection can be; `kind` arrays hold the index, -1 elsewhere."""
GOOD_KIND, JITTER_KIND, INVERSION_KIND, SWAP_KIND, MISS_KIND = range(5)

STAGES = {
    "original": "Original",
    "miss": "without misses",
    "swap": "without swaps",
    "inversion": "without inversions",
    "jitter": "without jitter",
    "score": "optimal scores",
    "background": "without background",
    "negatives": "without false negatives",
}
"""The curves in order, each with all corrections so far."""

Landing = Literal["definition", "released"]
"""Position of a corrected keypoint: at the similarity that the method defines (.85 and .5), or at its fourth root (.96 and
.84), as in the released code, which uses sigma squared in place of OKS's (2 sigma) squared."""


@dataclass(frozen=True)
class KeypointErrors:
    """The keypoints of N detections, by kind of error.

    Attributes:
        person: (N,) index of the person matched to each detection at OKS .1; -1 for none.
        kind: (N,K) index into KINDS; -1 for unlabeled keypoints and detections without a counterpart.
        largest: (N,K) the similarity m that determined the kind.
    """

    person: np.ndarray
    kind: np.ndarray
    largest: np.ndarray


@dataclass(frozen=True)
class ErrorAnalysis:
    """Curves of one occlusion level.

    Attributes:
        precision: by stage, (101,) at matching.RECALLS; NaN if there is nobody to find.
        ap: by stage, their mean.
        counts: keypoints by kind, over detections matched to a person of the class.
    """

    precision: dict[str, np.ndarray]
    ap: dict[str, float]
    counts: dict[str, int]


def analyze(
    truth: GroundTruth,
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    *,
    among: np.ndarray | None = None,
    threshold: float = 0.75,
    landing: Landing = "definition",
    found: Pairs | None = None,
) -> ErrorAnalysis:
    """Compute the eight curves of STAGES for N detections.

    Args:
        truth: the people.
        image: (N,) index of each detection's image, ascending.
        keypoints: (N,K,2) original pixels.
        scores: (N,) the scores that rank the original curve.
        areas: (N,) the detections' areas.
        among: (G,) bool, the people of the benchmark; all others are ignored. Default: all.
        threshold: minimum OKS of a correct detection.
        landing: position of corrected keypoints.
        found: pairs(truth, keypoints, image), if already computed.
    """
    found = pairs(truth, keypoints, image) if found is None else found

    def matched(pairing: Pairs, ranks: np.ndarray, oks: float = threshold) -> Matches:
        return match(
            truth, pairing, image, ranks, areas, thresholds=np.array([oks]), among=among, sizes=SIZES
        )

    localized = matched(found, scores, LOCALIZED)
    errors = classify(truth, keypoints, found, localized)
    corrected = corrected_points(truth, keypoints, errors, landing)
    curves = {"original": matched(found, scores)}
    current = keypoints
    for stage in ("miss", "swap", "inversion", "jitter"):
        of_kind = errors.kind == KINDS.index(stage)
        current = np.where(of_kind[..., None], corrected, current)
        found = _with_points(truth, found, current, of_kind.any(axis=1))
        curves[stage] = matched(found, scores)
    optimal = optimal_scores(truth, image, current, found, curves["original"].expected)
    curves["score"] = matched(found, optimal)
    scored = curves["score"]
    curves["background"] = replace(scored, ignored=scored.ignored | (scored.person < 0))
    curves["negatives"] = _without_false_negatives(truth, curves["background"])

    precision = {stage: precision_recall(curves[stage])[0][0] for stage in STAGES}
    in_class = localized.expected[errors.person] & (errors.person >= 0)
    counts = np.bincount(errors.kind[in_class].ravel() + 1, minlength=len(KINDS) + 1)[1:]
    return ErrorAnalysis(
        precision=precision,
        ap={stage: float(curve.mean()) for stage, curve in precision.items()},
        counts=dict(zip(KINDS, counts.tolist(), strict=True)),
    )


def classify(truth: GroundTruth, keypoints: np.ndarray, found: Pairs, localized: Matches) -> KeypointErrors:
    """Classify every labeled keypoint of every matched detection by the label to which it is most similar.

    On ties its own label wins, then the label of its left-right counterpart, then another person's.
    """
    person = np.full(len(keypoints), -1)
    person[localized.detection] = localized.person[0]
    # Crowds and boxes without keypoints have no pose to compare with.
    person[(person >= 0) & (truth.labeled[person] == 0)] = -1
    kind = np.full(keypoints.shape[:2], -1)
    largest = np.zeros(keypoints.shape[:2])

    used = np.flatnonzero(person[found.detection] >= 0)
    detection, other = found.detection[used], found.person[used]
    same = found.ks[used]
    mirror = truth.skeleton.mirror
    has_side = mirror != np.arange(truth.skeleton.count)
    opposite = np.exp(-exponents(truth, keypoints[detection], other, mirrored=True))
    opposite *= (truth.flags[other][:, mirror] > 0) & has_side
    is_own = other == person[detection]

    matched = detection[is_own]
    own, inverted = same[is_own], opposite[is_own]
    elsewhere = np.where(is_own[:, None], -1.0, np.maximum(same, opposite))
    starts = np.searchsorted(detection, matched)
    swapped = np.maximum.reduceat(elsewhere, starts, axis=0) if len(matched) else elsewhere[:0]

    m = np.maximum(np.maximum(own, inverted), swapped)
    decided = np.select(
        [m < JITTER, (own == m) & (m < GOOD), own == m, inverted == m],
        [MISS_KIND, JITTER_KIND, GOOD_KIND, INVERSION_KIND],
        SWAP_KIND,
    )
    labeled = truth.flags[person[matched]] > 0
    kind[matched] = np.where(labeled, decided, -1)
    largest[matched] = m
    return KeypointErrors(person, kind, largest)


def corrected_points(
    truth: GroundTruth, keypoints: np.ndarray, errors: KeypointErrors, landing: Landing
) -> np.ndarray:
    """Return the corrected positions (N,K,2) of keypoints with an error.

    A corrected keypoint lies to the right of its own person's label, at similarity .85 (jitter), .5 (miss) or the
    similarity that it has at its present position (inversion and swap)."""
    if landing not in ("definition", "released"):
        raise ArgumentError(f"landing must be 'definition' or 'released', got {landing!r}")
    similarity = np.select(
        [errors.kind == JITTER_KIND, errors.kind == MISS_KIND],
        [GOOD, JITTER],
        np.maximum(errors.largest, JITTER),
    )
    width = np.array(truth.skeleton.sigmas) * (2 if landing == "definition" else 1)
    area = truth.areas[errors.person][:, None]
    distance = np.sqrt(-2 * np.log(np.minimum(similarity, 1.0)) * area * width**2)
    target = truth.keypoints[errors.person] + np.stack([distance, np.zeros_like(distance)], axis=-1)
    return np.where((errors.kind > GOOD_KIND)[..., None], target, keypoints)


def _with_points(truth: GroundTruth, found: Pairs, keypoints: np.ndarray, changed: np.ndarray) -> Pairs:
    """Return the pairs with new poses of the detections `changed` (N,)."""
    used = np.flatnonzero(changed[found.detection])
    ks, oks = found.ks.copy(), found.oks.copy()
    ks[used], oks[used] = similarities(truth, keypoints[found.detection[used]], found.person[used])
    return replace(found, ks=ks, oks=oks)


def optimal_scores(
    truth: GroundTruth, image: np.ndarray, keypoints: np.ndarray, found: Pairs, expected: np.ndarray
) -> np.ndarray:
    """Return the optimal scores (N,): the largest OKS of each detection with a person to find in its image, or 0.

    Soft suppression lowers duplicates: in descending order, each detection multiplies those after it by
    exp(-oks^2 / 0.5)."""
    scores = np.zeros(len(keypoints))
    used = expected[found.person]
    np.maximum.at(scores, found.detection[used], found.oks[used])

    images = np.unique(image)
    line = np.searchsorted(images, image)
    column = np.arange(len(image)) - np.searchsorted(image, image)
    table = np.full((len(images), int(column.max(initial=-1)) + 1), -np.inf)
    index = np.full(table.shape, -1)
    table[line, column] = scores
    index[line, column] = np.arange(len(image))
    variances = (2 * np.array(truth.skeleton.sigmas)) ** 2
    areas = np.ptp(keypoints, axis=1).prod(axis=1)
    for _ in range(table.shape[1]):
        best = table.argmax(axis=1)
        rows = np.flatnonzero(table[np.arange(len(images)), best] > -np.inf)
        chosen = index[rows, best[rows]]
        scores[chosen] = table[rows, best[rows]]
        table[rows, best[rows]] = -np.inf
        row, rest = np.nonzero(table[rows] > -np.inf)
        a, b = chosen[row], index[rows[row], rest]
        squared = ((keypoints[a] - keypoints[b]) ** 2).sum(axis=2)
        area = (areas[a] + areas[b]) / 2 + np.spacing(1)
        oks = np.exp(-squared / variances / area[:, None] / 2).mean(axis=1)
        table[rows[row], rest] *= np.exp(-(oks**2) / 0.5)
    return scores


def _without_false_negatives(truth: GroundTruth, matches: Matches) -> Matches:
    found = np.zeros(len(truth.ids), dtype=bool)
    found[matches.person[0][matches.person[0] >= 0]] = True
    expected = matches.expected & found
    return replace(
        matches,
        expected=expected,
        expected_per_image=np.bincount(truth.image[expected], minlength=len(truth.image_ids)),
    )
