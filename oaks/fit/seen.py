"""Detects that an estimator was probably trained on the people that a scorer is to be fitted to."""

from __future__ import annotations

import numpy as np

from oaks.errors import ArgumentError
from oaks.fit.people import People
from oaks.val.interval import Interval, resample_images
from oaks.val.oks import similarity_to_own

SIZES = 3
"""Number of groups by size, within which people of equal occlusion level are compared."""
RESAMPLES = 500
FEWEST = 5
"""Minimum number of people of a group on both sides."""


def compare_with_reference(people: People, reference: People, seed: int = 0) -> Interval:
    """Return the mean OKS of people minus that of certainly unseen people of equal size and occlusion.

    An estimator places keypoints better on people of its training set. A scorer fitted to them would overestimate all
    others. An interval above 0 means that the estimator does significantly better on these people.

    Raises:
        ArgumentError: no group has people on both sides.
    """
    sides = [_groups(people), _groups(reference)]
    edges = np.quantile(np.concatenate([side[2] for side in sides]), np.linspace(0, 1, SIZES + 1)[1:-1])
    tables = []
    rng = np.random.default_rng(seed)
    for oks, labeled, size, image in sides:
        group = np.searchsorted(edges, size) * 4 + labeled
        _, image = np.unique(image, return_inverse=True)
        weights = resample_images(image.max() + 1, RESAMPLES, rng)[:, image].astype(float)
        cells = np.eye(4 * SIZES)[group]
        counts = weights @ cells
        with np.errstate(invalid="ignore"):
            tables.append((counts, (weights * oks) @ cells / counts))
    (counts, means), (other_counts, other_means) = tables
    shared = (counts[0] >= FEWEST) & (other_counts[0] >= FEWEST)
    if not shared.any():
        raise ArgumentError(
            "reference must have people of the sizes and occlusion of those to fit to, got none"
        )
    # Groups are weighted by their people on both sides; a group missing from a resample has no weight in it.
    weight = 1 / (1 / np.maximum(counts, 1) + 1 / np.maximum(other_counts, 1))
    apart = means - other_means
    weight = np.where(shared & np.isfinite(apart), weight, 0)
    values = (np.nan_to_num(apart) * weight).sum(axis=1) / weight.sum(axis=1)
    return Interval.of(values)


def _groups(people: People) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return OKS, occlusion level, logarithm of the size, and image of every annotated person with a pose."""
    truth, detections, known = people.truth, people.detections, people.known
    own = detections.own[known]
    oks = similarity_to_own(truth, detections.keypoints[known], own)[1]
    return oks, truth.occlusion[own], np.log(truth.areas[own]), detections.image[known]


__all__ = ["compare_with_reference"]
