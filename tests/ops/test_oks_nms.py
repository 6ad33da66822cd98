"""nms against the naive reference, and at the edges of its decisions."""

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
    """No pair is so near to the threshold that single precision decides."""
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
def test_any_poses_as_the_reference(count, keypoints, threshold, frames, seed):
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
    """One-keypoint poses on a line: with area 2500 and sigma .05 the similarity is exp(-x^2/50)."""
    return np.float32([[[value, 0]] for value in x])


def keep(points, scores, threshold=0.5, areas=None, **arguments):
    areas = np.full(len(points), 2500, np.float32) if areas is None else np.float32(areas)
    return ops.oks_nms(
        points, np.float32(scores), areas=areas, sigmas=ONE, threshold=threshold, **arguments
    ).tolist()


def test_what_is_suppressed_does_not_suppress():
    """A covers B and B covers C, but A does not cover C: A and C stay."""
    points = row(0, 5, 10)
    assert math.exp(-(5**2) / 50) > 0.5 > math.exp(-(10**2) / 50)
    assert keep(points, [0.9, 0.8, 0.7]) == [0, 2]
    assert keep(points, [0.7, 0.8, 0.9]) == [2, 0]
    assert keep(points, [0.8, 0.9, 0.7]) == [1]


def test_equal_scores_keep_the_lower_index():
    assert keep(row(0, 0, 50, 0, 50), [0.5] * 5) == [0, 2]
    assert keep(row(0, 100, 200, 300), [0.5, 0.9, 0.5, 0.9]) == [1, 3, 0, 2]
    assert keep(row(0, 0), [-0.0, 0.0]) == [0]


def test_the_threshold_itself_does_not_suppress():
    """Equal poses have a similarity of exactly 1."""
    points = row(3, 3)
    assert keep(points, [0.5, 0.6], threshold=1.0) == [1, 0]
    assert keep(points, [0.5, 0.6], threshold=float(np.nextafter(np.float32(1), np.float32(0)))) == [1]


def test_a_threshold_of_zero_keeps_those_with_nothing_in_common():
    assert keep(row(0, 1e5, 20), [0.9, 0.8, 0.7], threshold=0.0) == [0, 1]


def test_the_area_of_a_pair_is_the_mean_of_theirs():
    """At distance 5 and threshold .5 the limit is a mean of 1803, whichever of the two is larger."""
    points = row(0, 5)
    limit = 25 / (2 * 0.01 * math.log(2))
    assert 1800 < limit < 1810
    for areas, kept in (((100, 3600), [0]), ((3600, 100), [0]), ((100, 3400), [0, 1]), ((3400, 100), [0, 1])):
        assert (sum(areas) / 2 > limit) == (kept == [0])
        assert keep(points, [0.9, 0.8], areas=areas) == kept


def test_poses_of_different_frames_do_not_meet():
    points = row(0, 0, 0, 0)
    assert keep(points, [0.1, 0.2, 0.3, 0.4], frame_index=np.array([5, -1, 5, 7])) == [3, 2, 1]
    assert keep(points, [0.1, 0.2, 0.3, 0.4]) == [3]


def test_poses_without_points_survive_beside_each_other():
    """Not a number is similar to nothing: such poses neither suppress nor are suppressed."""
    points = row(0, 0, 0)
    points[1:] = np.nan
    assert keep(points, [0.5, 0.9, 0.8]) == [1, 2, 0]


def test_more_than_twenty_poses_in_a_place_are_all_seen():
    assert keep(row(*[0] * 70), [0.5] * 69 + [0.6]) == [69]
    assert keep(row(*range(0, 7000, 100)), [0.5] * 70) == list(range(70))


def test_infinite_scores_have_their_order():
    assert keep(row(0, 100, 200), [-np.inf, np.inf, 0]) == [1, 2, 0]


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
    """Similarities of .89 and .91 on one line."""
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
