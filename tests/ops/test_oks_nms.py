"""oks_nms against the naive reference, and cases on its decision edges."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, rng, seeds, strided


def people(draw, count, keypoints, groups=3):
    """(count,K,2) poses around a few people, so that many pairs are near the threshold."""
    centers = draw.uniform(0, 400, (groups, keypoints, 2))
    near = draw.choice([0.0, 1.0, 3.0, 6.0, 30.0], size=(count, 1, 1))
    return (centers[draw.integers(0, groups, count)] + draw.normal(size=(count, keypoints, 2)) * near).astype(
        np.float32
    )


def far_from_threshold(points, areas, sigmas, threshold):
    """Whether no pair is too close to the threshold for single precision."""
    count = len(points)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    return all(
        abs(reference.pair_similarity(points, areas, sigmas, i, j) - threshold) > 1e-5 for i, j in pairs
    )


@settings(DRAWN, max_examples=60)
@given(
    count=st.integers(0, 20),
    keypoints=st.sampled_from([1, 3, 17, 133]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    frames=st.integers(0, 3),
    seed=seeds,
)
def test_random_poses_match_the_reference(count, keypoints, threshold, frames, seed):
    draw = rng(seed)
    points = people(draw, count, keypoints)
    scores = draw.choice([0.1, 0.5, 0.5, 0.7, 0.9, -1.0], size=count).astype(np.float32)
    areas = draw.uniform(500, 20000, count).astype(np.float32)
    sigmas = draw.uniform(0.03, 0.1, keypoints).astype(np.float32)
    frame_index = draw.integers(0, frames, count) if frames else None
    arguments = {"areas": areas, "sigmas": sigmas, "threshold": threshold, "frame_index": frame_index}
    kept = ops.oks_nms(points, scores, **arguments)
    assert kept.dtype == np.int64
    expected = reference.oks_nms(points, scores, **arguments)
    if 0 < threshold < 1:
        assert far_from_threshold(points, areas, sigmas, threshold)
        assert kept.tolist() == expected
    else:
        assert set(kept.tolist()) <= set(range(count))
        assert count == 0 or kept[0] == expected[0]


ONE = np.float32([0.05])


def row(*x):
    """Poses of one keypoint at these x: with area 2500 and sigma 0.05, OKS at a distance d is exp(-d^2 / 50)."""
    return np.float32([[[value, 0]] for value in x])


def keep(points, scores, threshold=0.5, areas=None, **arguments):
    areas = np.full(len(points), 2500, np.float32) if areas is None else np.float32(areas)
    return ops.oks_nms(
        points, np.float32(scores), areas=areas, sigmas=ONE, threshold=threshold, **arguments
    ).tolist()


def test_an_oks_of_exactly_the_threshold_does_not_suppress():
    """Equal poses have an OKS of exactly 1."""
    points = row(3, 3)
    assert keep(points, [0.5, 0.6], threshold=1.0) == [1, 0]
    assert keep(points, [0.5, 0.6], threshold=float(np.nextafter(np.float32(1), np.float32(0)))) == [1]


def test_a_threshold_of_0_keeps_poses_with_oks_0():
    assert keep(row(0, 1e5, 20), [0.9, 0.8, 0.7], threshold=0.0) == [0, 1]


def test_the_area_of_a_pair_is_the_mean_of_both():
    """At distance 5 and threshold 0.5, poses are suppressed if their mean area exceeds 1803."""
    points = row(0, 5)
    limit = 25 / (2 * 0.01 * math.log(2))
    assert 1800 < limit < 1810
    for areas, kept in (((100, 3600), [0]), ((3600, 100), [0]), ((100, 3400), [0, 1]), ((3400, 100), [0, 1])):
        assert (sum(areas) / 2 > limit) == (kept == [0])
        assert keep(points, [0.9, 0.8], areas=areas) == kept


def test_poses_of_nan_are_all_kept():
    """They have an OKS of 0 with every pose, so they neither suppress nor are suppressed."""
    points = row(0, 0, 0)
    points[1:] = np.nan
    assert keep(points, [0.5, 0.9, 0.8]) == [1, 2, 0]


def test_no_people():
    kept = keep(np.zeros((0, 1, 2), np.float32), [])
    assert kept == []
    none = np.zeros(0)
    result = ops.oks_nms(
        np.zeros((0, 1, 2), np.float32), none.astype(np.float32), areas=none.astype(np.float32), sigmas=ONE
    )
    assert result.dtype == np.int64
    assert result.shape == (0,)


def test_the_default_threshold_is_nine_tenths():
    """OKS of 0.89 and of 0.91."""
    near, far = math.sqrt(-50 * math.log(0.91)), math.sqrt(-50 * math.log(0.89))
    arguments = {"areas": np.float32([2500, 2500]), "sigmas": ONE}
    scores = np.float32([0.9, 0.8])
    assert ops.oks_nms(row(0, near), scores, **arguments).tolist() == [0]
    assert ops.oks_nms(row(0, far), scores, **arguments).tolist() == [0, 1]


def test_strided_and_read_only_inputs():
    draw = rng(4)
    points = people(draw, 12, 17)
    scores = draw.uniform(size=12).astype(np.float32)
    areas = draw.uniform(500, 20000, 12).astype(np.float32)
    sigmas = draw.uniform(0.03, 0.1, 17).astype(np.float32)
    plain = ops.oks_nms(points, scores, areas=areas, sigmas=sigmas, threshold=0.5)
    again = ops.oks_nms(
        strided(points), strided(scores), areas=strided(areas), sigmas=strided(sigmas), threshold=0.5
    )
    assert 1 < len(plain) < 12
    np.testing.assert_array_equal(plain, again)
