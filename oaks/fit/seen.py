"""Notice that an estimator was probably trained on the people that a scorer is to be fitted to."""

from __future__ import annotations

import numpy as np

from oaks.errors import ArgumentError
from oaks.fit.people import People
from oaks.val.interval import Interval, resample_images
from oaks.val.oks import similarity_to_own

SIZES = 3
"""Groups of people by size, in each of which those with equally many labeled keypoints are compared."""
RESAMPLES = 500
FEWEST = 5
"""People of a group that both sides must have for it to count."""


def compare_with_reference(people: People, reference: People, seed: int = 0) -> Interval:
    """Mean OKS of people less that of people whom the estimator surely has not seen, of equal size and occlusion.

    An estimator places keypoints better on people of its training set. A scorer fitted to them would promise too much
    for all others. An interval above 0 says that the estimator does better on these people than chance explains.

    Raises:
        ArgumentError: no group of people is on both sides.
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
    # Groups count by how well both sides know them; one that a resample has lost does not count in it.
    weight = 1 / (1 / np.maximum(counts, 1) + 1 / np.maximum(other_counts, 1))
    apart = means - other_means
    weight = np.where(shared & np.isfinite(apart), weight, 0)
    values = (np.nan_to_num(apart) * weight).sum(axis=1) / weight.sum(axis=1)
    return Interval.of(values)


def _groups(people: People) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """OKS, occlusion class, logarithm of the size and image of every annotated person who has a pose."""
    truth, detections, known = people.truth, people.detections, people.known
    own = detections.own[known]
    oks = similarity_to_own(truth, detections.keypoints[known], own)[1]
    return oks, truth.occlusion[own], np.log(truth.areas[own]), detections.image[known]


__all__ = ["compare_with_reference"]
