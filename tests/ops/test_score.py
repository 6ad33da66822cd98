"""score and conventional_score against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, rng, seeds, strided


@settings(DRAWN, max_examples=60)
@given(count=st.integers(0, 40), keypoints=st.integers(1, 133), boxes=st.booleans(), seed=seeds)
def test_random_scores_match_the_reference(count, keypoints, boxes, seed):
    draw = rng(seed)
    similarity = draw.uniform(size=(count, keypoints)).astype(np.float32)
    visibility = draw.uniform(size=(count, keypoints)).astype(np.float32)
    visibility[draw.uniform(size=visibility.shape) < 0.3] = 0
    visibility[draw.uniform(size=count) < 0.2] *= np.float32(1e-9)
    box_scores = draw.uniform(size=count).astype(np.float32) if boxes else None
    scores = ops.score(similarity, visibility, box_scores)
    assert scores.shape == (count,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(
        scores, reference.score(similarity, visibility, box_scores), rtol=3e-6, atol=1e-7
    )
    heat = similarity * 3 - 1
    conventional = ops.conventional_score(heat, box_scores)
    np.testing.assert_allclose(
        conventional, reference.conventional_score(heat, box_scores), rtol=1e-5, atol=1e-6
    )


def test_hand_computed_scores():
    similarity = np.float32([[0.5, 1.0, 0.25], [0.2, 0.4, 0.6]])
    visibility = np.float32([[1, 0, 1], [0.5, 0.5, 0]])
    np.testing.assert_allclose(ops.score(similarity, visibility), [0.375, 0.3], rtol=1e-6)
    np.testing.assert_allclose(
        ops.score(similarity, visibility, np.float32([0.5, 0])), [0.1875, 0], rtol=1e-6
    )
    np.testing.assert_allclose(ops.conventional_score(similarity), [1.75 / 3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(
        ops.conventional_score(similarity, np.float32([2, 0.5])), [3.5 / 3, 0.2], rtol=1e-6
    )


def test_visibilities_that_sum_to_less_than_1e_6_score_0():
    """Only one keypoint is visible, with a visibility on either side of the limit."""
    visibility = np.zeros((4, 17), np.float32)
    visibility[:, 5] = [0, 0.9e-6, 1.1e-6, 1e-3]
    similarity = np.full((4, 17), 0.75, np.float32)
    np.testing.assert_allclose(ops.score(similarity, visibility), [0, 0, 0.75, 0.75], rtol=1e-5)


def test_many_small_visibilities_add_up():
    visibility = np.full((2, 100), 0.9e-8, np.float32)
    visibility[1] = 1.1e-8
    similarity = np.full((2, 100), 0.5, np.float32)
    np.testing.assert_allclose(ops.score(similarity, visibility), [0, 0.5], rtol=1e-5)


def test_nan_affects_only_its_own_pose():
    """decode returns NaN as the heat of a map without finite values."""
    heat = np.ones((3, 4), np.float32)
    heat[1, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(ops.conventional_score(heat)), [False, True, False])
    np.testing.assert_array_equal(np.isnan(ops.score(heat, np.ones_like(heat))), [False, True, False])


@pytest.mark.parametrize("boxes", [False, True])
def test_no_people(boxes):
    none = np.zeros((0, 17), np.float32)
    box_scores = np.zeros(0, np.float32) if boxes else None
    assert ops.score(none, none, box_scores).shape == (0,)
    assert ops.conventional_score(none, box_scores).shape == (0,)


def test_strided_and_read_only_inputs():
    draw = rng(1)
    similarity, visibility = draw.uniform(size=(2, 9, 17)).astype(np.float32)
    box_scores = draw.uniform(size=9).astype(np.float32)
    plain = ops.score(similarity, visibility, box_scores)
    again = ops.score(strided(similarity), strided(visibility), strided(box_scores))
    np.testing.assert_array_equal(plain, again)
    again = ops.conventional_score(strided(similarity), strided(box_scores))
    np.testing.assert_array_equal(ops.conventional_score(similarity, box_scores), again)
