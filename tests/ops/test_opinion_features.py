"""opinion_features against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, rng, seeds


def case(draw, count, keypoints, columns):
    """Poses of the same people by two estimators; some are far apart."""
    low = draw.uniform(0, 300, (count, 2))
    extent = draw.choice([0.0, 0.5, 20.0, 200.0], (count, 2))
    points = (low[:, None] + draw.uniform(size=(count, keypoints, 2)) * 100).astype(np.float32)
    spread = draw.choice([0.1, 3.0, 400.0], (count, keypoints, 1))
    pairs = [(i, i + 1) for i in range(0, keypoints - 1, 3)]
    return {
        "features": draw.normal(size=(count, keypoints, columns)).astype(np.float32) if columns else None,
        "points": points,
        "second_points": (points + draw.normal(size=points.shape) * spread).astype(np.float32),
        "second_heat": draw.uniform(-0.5, 2, (count, keypoints)).astype(np.float32),
        "boxes": np.concatenate([low, low + extent], axis=1).astype(np.float32),
        "sigmas": draw.uniform(0.02, 0.2, keypoints).astype(np.float32).tolist(),
        "flip_pairs": pairs,
    }


def both(arguments):
    keywords = dict(arguments)
    arrays = [keywords.pop(name) for name in ("features", "points", "second_points", "second_heat")]
    return ops.opinion_features(*arrays, **keywords), reference.opinion_features(*arrays, **keywords)


@settings(DRAWN, max_examples=60)
@given(count=st.integers(0, 70), keypoints=st.integers(1, 40), columns=st.integers(0, 9), seed=seeds)
def test_random_opinions_match_the_reference(count, keypoints, columns, seed):
    found, expected = both(case(rng(seed), count, keypoints, columns))
    assert found.shape == (count, keypoints, columns + 5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., :columns], expected[..., :columns])
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-4)


def test_differences_are_clamped():
    """Relative to a box of one pixel all differences are large; those of left keypoints along x change their sign."""
    arguments = case(rng(1), 3, 4, 0) | {"boxes": np.float32([[5, 5, 5, 5]] * 3)}
    arguments["second_points"] = arguments["points"] + np.float32([500, -500])
    found, expected = both(arguments)
    np.testing.assert_allclose(found[..., 0], [[-99, 99, 99, 99]] * 3)
    np.testing.assert_allclose(found[..., 1], -99)
    np.testing.assert_allclose(found[..., 2], np.hypot(99, 99), rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_points_get_the_largest_difference(value):
    arguments = case(rng(2), 2, 5, 3)
    arguments["second_points"][1, 3] = value
    arguments["second_heat"][1, 3] = value
    found, expected = both(arguments)
    assert np.isfinite(found).all()
    assert found[1, 3, 3 + 3] == 0
    assert abs(found[1, 3, 3:5]).tolist() == [99, 99]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-4)


def test_features_may_be_nan():
    """map_features returns NaN on a device for people with non-finite maps."""
    arguments = case(rng(3), 2, 5, 3)
    arguments["features"][1] = np.nan
    found, _ = both(arguments)
    assert np.isnan(found[1, :, :3]).all()
    assert np.isfinite(found[1, :, 3:]).all()
