"""decode with refine="dark": the Newton step on the log of the blurred map, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, gaussians, maps, rng, seeds

pytestmark = pytest.mark.usefixtures("instruction_set")


def conditioned(heatmaps, sigma):
    """(N,K) bool: whether the Hessian is far enough from singular to compare steps.

    An error of 1e-6 in the log of the blurred map then changes the step by about 1e-4.
    """
    result = np.zeros(heatmaps.shape[:2], bool)
    for n, k in np.ndindex(*result.shape):
        peak = reference.largest(heatmaps[n, k].ravel().tolist())
        y, x = divmod(peak, heatmaps.shape[3])
        _, hessian = reference.taylor(reference.log_blurred(heatmaps[n, k].astype(np.float32), x, y, sigma))
        result[n, k] = abs(np.linalg.eigvalsh(hessian).max()) > 0.02
    return result


@settings(DRAWN, max_examples=60)
@given(
    kind=st.sampled_from(["bumps", "noise", "holes", "few_levels"]),
    height=st.integers(1, 18),
    width=st.integers(1, 25),
    sigma=st.sampled_from([0.3, 0.5, 1.0, 2.0, 2.0, 3.0, 4.7, 64.0]),
    dtype=st.sampled_from([np.float32, np.float16]),
    seed=seeds,
)
def test_random_maps_match_the_reference(kind, height, width, sigma, dtype, seed):
    heatmaps = maps(kind, (2, 3, height, width), seed, dtype)
    heatmaps[..., 0, 0] = 0.5
    points, heat, averaged = reference.decode(heatmaps, refine="dark", blur_sigma=sigma)
    decoded = ops.decode(heatmaps, refine="dark", blur_sigma=sigma)
    np.testing.assert_array_equal(decoded.heat, heat)
    peaks = reference.decode(heatmaps, refine="none")[0]
    assert (np.abs(decoded.points - peaks) <= 1 + 1e-6).all()
    sure = conditioned(averaged, sigma)
    np.testing.assert_allclose(decoded.points[sure], points[sure], atol=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gaussian_targets_match_the_reference(sigma, dtype):
    centers = rng(2).uniform(-0.4, (23.4, 31.4), (8, 17, 2))
    heatmaps = gaussians(centers, (24, 32), 2.0).astype(dtype)
    points, _, averaged = reference.decode(heatmaps, refine="dark", blur_sigma=sigma)
    sure = conditioned(averaged, sigma)
    assert sure.mean() > 0.95, "few of these maps should be edge cases"
    decoded = ops.decode(heatmaps, refine="dark", blur_sigma=sigma)
    np.testing.assert_allclose(decoded.points[sure], points[sure], atol=5e-4)


def test_the_center_of_a_gaussian_is_recovered():
    """The log of a blurred Gaussian is a parabola, so the step is exact except for the blur's cutoff."""
    centers = rng(3).uniform(10, (37, 53), (4, 17, 2))
    heatmaps = gaussians(centers, (48, 64), 2.0).astype(np.float32)
    decoded = ops.decode(heatmaps, refine="dark")
    np.testing.assert_allclose(decoded.points, centers, atol=0.01)
    assert np.abs(ops.decode(heatmaps, refine="none").points - centers).max() > 0.45, (
        "the centers are between cells"
    )


def test_the_default_blur_is_two_cells():
    heatmaps = gaussians(rng(4).uniform(3, (20, 12), (2, 5, 2)), (24, 16), 1.2).astype(np.float32)
    default = ops.decode(heatmaps, refine="dark").points
    np.testing.assert_array_equal(default, ops.decode(heatmaps, refine="dark", blur_sigma=2.0).points)
    assert np.abs(default - ops.decode(heatmaps, refine="dark", blur_sigma=1.0).points).max() > 1e-4


def test_the_peak_is_found_before_the_blur():
    """A single high cell and a broad lower hill, on which the blurred map is largest."""
    heatmaps = np.zeros((1, 1, 17, 33), np.float32)
    heatmaps[0, 0] = 0.8 * gaussians(np.array([[[24.0, 8.0]]]), (33, 17), 3.0)[0, 0]
    heatmaps[0, 0, 8, 5] = 1
    at_cell = reference.log_blurred(heatmaps[0, 0], 5, 8, 2.0)[1, 1]
    at_hill = reference.log_blurred(heatmaps[0, 0], 24, 8, 2.0)[1, 1]
    assert at_hill > at_cell + 1
    decoded = ops.decode(heatmaps, refine="dark")
    np.testing.assert_allclose(decoded.points, [[[5, 8]]], atol=0.1)
    assert decoded.heat[0, 0] == 1


@pytest.mark.parametrize("sigma", [1.0, 2.0, 2.1])
def test_the_blur_ends_at_its_radius(sigma):
    """A large value within the blur radius of a neighbor moves the point; one cell farther it does not."""
    radius = math.ceil(2.5 * sigma)
    moved = []
    for distance in (radius + 1, radius + 2):
        heatmaps = np.zeros((1, 1, 1, 41), np.float32)
        heatmaps[..., 10] = 1
        heatmaps[..., 10 + distance] = 0.999
        heatmaps = np.repeat(heatmaps, 5, axis=2)
        heatmaps[:, :, [0, 1, 3, 4]] *= 0.5
        expected = reference.decode(heatmaps, refine="dark", blur_sigma=sigma)[0]
        decoded = ops.decode(heatmaps, refine="dark", blur_sigma=sigma).points
        np.testing.assert_allclose(decoded, expected, atol=1e-4)
        moved.append(abs(decoded[0, 0, 0] - 10))
    assert moved[0] > 1e-3
    assert moved[1] < 1e-5


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-12])
def test_no_step_where_the_log_is_flat(value):
    """The point is the peak's cell where all values around it are equal or below the floor of the log."""
    heatmaps = np.full((1, 1, 9, 11), value, np.float32)
    heatmaps[0, 0, 4, 6] = value / 2 if value < 0 else value * 2
    assert not reference.taylor(reference.log_blurred(heatmaps[0, 0], 6, 4, 0.4))[0].any()
    decoded = ops.decode(heatmaps, refine="dark", blur_sigma=0.4)
    expected = reference.decode(heatmaps, refine="dark", blur_sigma=0.4)[0]
    np.testing.assert_array_equal(decoded.points, expected)


def test_steps_are_clamped_to_one_pixel():
    """A single high cell four cells from a hill: the unclamped step is longer than a pixel."""
    heatmaps = gaussians(np.array([[[12.0, 8.0]]]), (25, 17), 3.0).astype(np.float32)
    heatmaps[0, 0, 8, 8] = 1.01
    gradient, hessian = reference.taylor(reference.log_blurred(heatmaps[0, 0], 8, 8, 2.0))
    assert -(np.linalg.inv(hessian) @ gradient)[0] > 1.2
    decoded = ops.decode(heatmaps, refine="dark")
    np.testing.assert_allclose(decoded.points, [[[9, 8]]], atol=1e-4)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_peaks_on_the_border_of_the_map(sigma):
    """Every border cell as the peak of a Gaussian; border values are repeated beyond the border."""
    cells = [(x, y) for y in range(7) for x in range(9) if x in (0, 8) or y in (0, 6)]
    centers = np.array(cells, float)[:, None] + rng(6).uniform(-0.4, 0.4, (len(cells), 1, 2))
    heatmaps = gaussians(centers, (9, 7), 1.5).astype(np.float32)
    points, _, averaged = reference.decode(heatmaps, refine="dark", blur_sigma=sigma)
    np.testing.assert_array_equal(reference.decode(heatmaps, refine="none")[0][:, 0], cells)
    decoded = ops.decode(heatmaps, refine="dark", blur_sigma=sigma)
    sure = conditioned(averaged, sigma)
    assert sure.mean() > 0.5
    if sigma == 0.5:
        assert (np.abs(points - np.array(cells)[:, None]) > 0.1).any(axis=2).mean() > 0.5, "most of them step"
    np.testing.assert_allclose(decoded.points[sure], points[sure], atol=1e-3)
