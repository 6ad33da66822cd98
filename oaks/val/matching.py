"""COCO's matching of detections with people, and the resulting precision and recall, for all images at once.

Average precision in reports comes from pycocotools (coco_eval.py). This file computes by the same rules what pycocotools
does not offer or computes slowly: which detection matched whom, any choice of people to ignore, curves after a
correction, thousands of resamples. Tests require both to be equal to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.val.ground_truth import LARGEST, GroundTruth
from oaks.val.oks import Pairs

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's ten OKS thresholds."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which precision is read."""
LIMIT = 20
"""Number of detections per image that COCO's keypoint evaluation uses."""
ALL_SIZES = (0.0, LARGEST)


@dataclass(frozen=True)
class Matches:
    """Matches of M detections, the best LIMIT of each image, at T thresholds.

    Attributes:
        detection: (M,) index of the detection; sorted by image, then by descending score.
        image: (M,) index of its image.
        score: (M,) its score.
        person: (T,M) index of the matched person, -1 for none.
        ignored: (T,M) bool: counts neither as correct nor as false.
        expected: (G,) bool: people to find.
        expected_per_image: (I,) the number of people to find in each image.
    """

    detection: np.ndarray
    image: np.ndarray
    score: np.ndarray
    person: np.ndarray
    ignored: np.ndarray
    expected: np.ndarray
    expected_per_image: np.ndarray


def match(
    truth: GroundTruth,
    found: Pairs,
    image: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    *,
    thresholds: np.ndarray = THRESHOLDS,
    among: np.ndarray | None = None,
    sizes: tuple[float, float] = ALL_SIZES,
    kept: np.ndarray | None = None,
) -> Matches:
    """Match detections greedily, best score first, each with the unmatched person of the largest OKS.

    People to find come before people to ignore; on ties the later person wins; a crowd can be matched any number of
    times. Unmatched detections whose area lies outside `sizes` are ignored.

    Args:
        truth: the people.
        found: all pairs of the N detections with the people of their images.
        image, scores, areas: (N,) image, score and area of each detection, sorted by image.
        thresholds: (T,) minimum OKS of a match.
        among: (G,) bool, people to find; all others are ignored. Default: all.
        sizes: smallest and largest area; people outside are ignored.
        kept: (N,) bool, detections to use. Default: all.
    """
    expected = truth.counted & (truth.areas >= sizes[0]) & (truth.areas <= sizes[1])
    if among is not None:
        expected &= among
    order = np.lexsort((-scores, image))
    order = order if kept is None else order[kept[order]]
    rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    order, rank = order[rank < LIMIT], rank[rank < LIMIT]
    person = _greedy(truth, found, image, order, rank, np.minimum(thresholds, 1 - 1e-10), expected)

    matched = person >= 0
    outside = (areas[order] < sizes[0]) | (areas[order] > sizes[1])
    ignored = np.where(matched, ~expected[person], outside)
    return Matches(
        detection=order,
        image=image[order],
        score=scores[order],
        person=person,
        ignored=ignored,
        expected=expected,
        expected_per_image=np.bincount(truth.image[expected], minlength=len(truth.image_ids)),
    )


def _greedy(
    truth: GroundTruth,
    found: Pairs,
    image: np.ndarray,
    order: np.ndarray,
    rank: np.ndarray,
    thresholds: np.ndarray,
    expected: np.ndarray,
) -> np.ndarray:
    """Return (T,M) matched people or -1. Step r matches the detection of rank r in every image that has one."""
    result = np.full((len(thresholds), len(order)), -1)
    if not len(order) or not len(truth.ids):
        return result
    # Images with many detections come first, so that step r uses the leading rows of the tables.
    counts = np.bincount(image[order], minlength=len(truth.image_ids))
    by_count = np.argsort(-counts, kind="stable")
    line = np.empty_like(by_count)
    line[by_count] = np.arange(len(by_count))

    first = np.searchsorted(truth.image, truth.image)
    column = np.arange(len(truth.ids)) - first
    width = int(column.max()) + 1
    at = (line[truth.image], column)
    free = np.zeros((len(thresholds), len(counts), width), dtype=bool)
    free[:, at[0], at[1]] = True
    index = np.zeros((len(counts), width), dtype=np.int64)
    index[at] = np.arange(len(truth.ids))
    table = np.zeros((2, len(counts), width), dtype=bool)
    table[0][at], table[1][at] = expected, truth.crowd
    sought, crowd = table

    place = np.full(len(image), -1)
    place[order] = np.arange(len(order))
    used = np.flatnonzero(place[found.detection] >= 0)
    step = rank[place[found.detection[used]]]
    by_step = used[np.argsort(step, kind="stable")]
    bounds = np.searchsorted(np.sort(step), np.arange(step.max() + 2 if len(step) else 1))
    for r in range(len(bounds) - 1):
        here = by_step[bounds[r] : bounds[r + 1]]
        rows = int(np.count_nonzero(counts > r))
        oks = np.full((rows, width), -1.0)
        oks[line[image[found.detection[here]]], column[found.person[here]]] = found.oks[here]
        fits = (oks >= thresholds[:, None, None]) & (free[:, :rows] | crowd[:rows])
        better = fits & sought[:rows]
        fits = np.where(better.any(axis=2, keepdims=True), better, fits)
        value = np.where(fits, oks, -1.0)
        last_largest = width - 1 - value[..., ::-1].argmax(axis=2)
        t, row = np.nonzero(fits.any(axis=2))
        chosen = last_largest[t, row]
        free[t, row, chosen] = False
        member = np.full(rows, -1)
        of_rank = np.flatnonzero(rank == r)
        member[line[image[order[of_rank]]]] = of_rank
        result[t, member[row]] = index[row, chosen]
    return result


def precision_recall(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Return interpolated precision (T,101) at RECALLS and the largest recall (T,); NaN if there is nobody to find."""
    once = np.ones((1, len(matches.expected_per_image)), np.uint16)
    curves = [resampled_curves(matches, once, t) for t in range(len(matches.person))]
    return np.concatenate([precision for precision, _ in curves]), np.concatenate(
        [recall for _, recall in curves]
    )


def resampled_curves(matches: Matches, draws: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision (B,101) at RECALLS and the largest recall (B,) of every resample, without matching again.

    An image drawn twice appears twice in the ranking. As its copies have equal scores, this equals counting its
    detections and people twice. With every image drawn once, the figures equal those of pycocotools.

    Args:
        matches: the matched detections.
        draws: (B,I) how often each image is drawn.
        t: index of the OKS threshold.
    """
    order = np.argsort(-matches.score, kind="stable")
    order = order[~matches.ignored[t, order]]
    weights = draws[:, matches.image[order]]
    people = draws @ matches.expected_per_image.astype(float)
    # Only true positives are evaluated: recall grows and precision peaks nowhere else.
    at = np.flatnonzero(matches.person[t, order] >= 0)
    true = np.cumsum(weights[:, at], axis=1, dtype=np.int64)
    total = np.cumsum(weights, axis=1, dtype=np.int32)[:, at]
    with np.errstate(invalid="ignore"):
        recalls = true / people[:, None]
    envelope = np.maximum.accumulate((true / (total + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    precision = np.where(people > 0, 0.0, np.nan)[:, None].repeat(len(RECALLS), axis=1)
    for b in np.flatnonzero(people > 0):
        reached = np.searchsorted(recalls[b], RECALLS, side="left")
        inside = reached < len(at)
        precision[b, inside] = envelope[b, reached[inside]]
    return precision, recalls[:, -1] if len(at) else precision[:, 0]
