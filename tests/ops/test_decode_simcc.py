"""decode_simcc against the naive reference, and cases on its decision edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import COCO17, ops

from . import reference
from .cases import DRAWN, MAP_KINDS, maps, rng, seeds, strided, swap_pairs


def vectors(kind, shape, seed, dtype=np.float32):
    """(N,K,bins) of one of MAP_KINDS."""
    return maps(kind, (*shape[:2], 1, shape[2]), seed, dtype)[:, :, 0]


@settings(DRAWN, max_examples=80)
@given(
    count=st.integers(0, 4),
    keypoints=st.sampled_from([1, 2, 5, 17, 133]),
    x_bins=st.sampled_from([1, 2, 7, 8, 15, 16, 17, 33, 96]),
    y_bins=st.sampled_from([1, 3, 4, 9, 31, 32, 40]),
    kind=st.sampled_from(MAP_KINDS),
    half=st.booleans(),
    mirror=st.booleans(),
    image=st.booleans(),
    split=st.sampled_from([1.0, 2.0, 1.5, 3.0]),
    seed=seeds,
)
def test_random_vectors_match_the_reference(
    count, keypoints, x_bins, y_bins, kind, half, mirror, image, split, seed
):
    dtype = np.float16 if half else np.float32
    pairs = swap_pairs(rng(seed), keypoints)
    x, y = (
        vectors(kind, (count, keypoints, x_bins), seed, dtype),
        vectors(kind, (count, keypoints, y_bins), seed + 1, dtype),
    )
    arguments = {"split": split, "flip_pairs": pairs}
    if mirror:
        arguments["mirrored"] = (
            vectors(kind, x.shape, seed + 2, dtype),
            vectors(kind, y.shape, seed + 3, dtype),
        )
    if image:
        arguments["transforms"] = rng(seed).normal(size=(count, 2, 3)).astype(np.float32)
    decoded = ops.decode_simcc(x, y, **arguments)
    points, heat = reference.decode_simcc(x, y, **arguments)
    np.testing.assert_array_equal(decoded.heat, heat)
    np.testing.assert_allclose(decoded.points, points, rtol=1e-6, atol=1e-4)


def one(x, y, **arguments):
    """x, y and heat of a single keypoint."""
    decoded = ops.decode_simcc(np.float32([[x]]), np.float32([[y]]), **arguments)
    return (*decoded.points[0, 0].tolist(), float(decoded.heat[0, 0]))


def test_coordinates_are_bin_indices_over_the_split():
    x, y = [0, 0, 0, 0.75, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0.5]
    assert one(x, y) == (1.5, 3.5, 0.5)
    assert one(x, y, split=1) == (3, 7, 0.5)
    assert one(x, y, transforms=np.float32([[[2, 0, 10], [0, 4, 20]]])) == (13, 34, 0.5)


def test_the_heat_is_the_smaller_of_the_two_largest_values():
    assert one([0.2, 0.9], [0.3, 0.1])[2] == np.float32(0.3)
    assert one([0.2, 0.1], [0.3, 0.9])[2] == np.float32(0.2)
    assert one([-5, -2], [-3, -4]) == (0.5, 0, -3)


def test_ties_go_to_the_lowest_bin():
    assert one([0, 1, 1, 0, 1], [2] * 40)[:2] == (0.5, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_bins_are_never_the_largest(value):
    assert one([value, 0.5, value], [0.25, value]) == (0.5, 0, 0.25)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_without_finite_values_gives_nan_for_its_keypoint_only(axis):
    axes = [vectors("noise", (3, 4, 20), seed) for seed in (1, 2)]
    expected = ops.decode_simcc(*axes)
    axes[axis][1, 2] = np.nan
    decoded = ops.decode_simcc(*axes)
    assert np.isnan(decoded.points[1, 2]).all()
    assert np.isnan(decoded.heat[1, 2])
    others = np.ones((3, 4), bool)
    others[1, 2] = False
    np.testing.assert_array_equal(decoded.points[others], expected.points[others])


def test_mirrored_bins_are_half_a_pixel_off_at_a_split_of_2():
    """A keypoint at crop pixel p is at w - 1 - p in the mirrored crop, one bin from where reversing the bins puts it.

    The averaged vector then has two equal maxima, and the lower bin wins.
    """
    width, split, place = 12, 2, 5
    own, back, y = np.zeros((3, 1, 1, width * split), np.float32)
    own[0, 0, place * split] = back[0, 0, (width - 1 - place) * split] = y[0, 0, 0] = 1
    found = ops.decode_simcc(own, y, mirrored=(back, y), flip_pairs=(), split=split)
    assert found.points[0, 0, 0] == place
    assert found.heat[0, 0] == 0.5
    assert ops.decode_simcc(own * 0, y, mirrored=(back, y), flip_pairs=()).points[0, 0, 0] == place + 0.5


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("bins", [1, 7, 8, 15, 16, 17, 48, 385])
def test_instruction_sets_match_the_reference(bins):
    x, y = vectors("few_levels", (2, 17, bins), 1), vectors("holes", (2, 17, 2 * bins), 2)
    arguments = {"mirrored": (vectors("few_levels", x.shape, 3), y), "flip_pairs": COCO17.pairs}
    decoded = ops.decode_simcc(x, y, **arguments)
    points, heat = reference.decode_simcc(x, y, **arguments)
    np.testing.assert_array_equal(decoded.heat, heat)
    np.testing.assert_array_equal(decoded.points, points.astype(np.float32))


@pytest.mark.usefixtures("threads")
def test_threads_and_strides_do_not_change_results():
    x, y = vectors("noise", (9, 17, 40), 1), vectors("noise", (9, 17, 50), 2)
    ops.set_threads(1)
    alone = ops.decode_simcc(x, y)
    ops.set_threads(5)
    for decoded in (ops.decode_simcc(x, y), ops.decode_simcc(strided(x), strided(y))):
        np.testing.assert_array_equal(decoded.points, alone.points)
        np.testing.assert_array_equal(decoded.heat, alone.heat)
