"""decode against the naive reference: average, peak, refinement, heat, alignment and transforms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings

from oaks import ops

from . import reference
from .cases import (
    ALIGNMENTS,
    DRAWN,
    gap,
    gaussians,
    map_cases,
    maps,
    rng,
    strided,
    swap_pairs,
    with_two_peaks,
)

pytestmark = pytest.mark.usefixtures("instruction_set")

POINTS = 1e-4
"""Tolerance in crop or image pixels, in addition to the rounding of the coordinate to float32."""


def check(heatmaps, mirrored=None, **arguments):
    """Compare decode with the reference: points to POINTS, heat and average bit by bit."""
    if mirrored is not None:
        arguments.setdefault("flip_pairs", ())
    points, heat, averaged = reference.decode(heatmaps, mirrored, **arguments)
    decoded = ops.decode(heatmaps, mirrored, average=True, **arguments)
    assert decoded.points.shape == points.shape
    assert decoded.points.dtype == np.float32
    assert decoded.heat.dtype == np.float32
    assert decoded.heatmaps.dtype == heatmaps.dtype
    np.testing.assert_array_equal(decoded.heat, heat)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(decoded.heatmaps, averaged.astype(heatmaps.dtype))
    np.testing.assert_allclose(decoded.points, points, rtol=2e-7, atol=POINTS)
    without = ops.decode(heatmaps, mirrored, **arguments)
    assert without.heatmaps is None
    np.testing.assert_array_equal(without.points, decoded.points)
    np.testing.assert_array_equal(without.heat, decoded.heat)
    return decoded


@settings(DRAWN, max_examples=150)
@given(map_cases(refinements=("second_peak", "gradient", "none")))
def test_random_maps_match_the_reference(case):
    heatmaps, mirrored, arguments = case
    check(heatmaps, mirrored, **arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["noise", "few_levels", "holes"])
@pytest.mark.parametrize("width", [*range(1, 36), 48, 63, 64, 65, 72])
def test_map_widths(width, kind, dtype):
    shape = (2, 3, 4, width)
    pairs = [(0, 2)]
    check(maps(kind, shape, width, dtype), maps(kind, shape, width + 1, dtype), flip_pairs=pairs)
    check(maps(kind, shape, width, dtype))


@pytest.mark.parametrize("keypoints", [1, 2, 16, 17, 23, 64, 133])
def test_keypoint_counts(keypoints):
    draw = rng(keypoints)
    shape = (2, keypoints, 6, 9)
    pairs = swap_pairs(draw, keypoints)
    assert keypoints < 16 or pairs, "without pairs the exchange of left and right is not tested"
    check(maps("noise", shape, 1), maps("noise", shape, 2), flip_pairs=pairs, crop_size=(36, 24))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64])
@pytest.mark.parametrize("both", [False, True])
def test_person_counts(count, both):
    shape = (count, 3, 8, 6)
    decoded = check(maps("noise", shape, 1), maps("noise", shape, 2) if both else None)
    assert decoded.points.shape == (count, 3, 2)


@pytest.mark.parametrize("refine", ["second_peak", "gradient", "dark", "none"])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 2), (2, 1), (1, 7), (7, 1), (3, 3), (4, 5), (5, 17)]
)
def test_the_two_largest_values_at_every_pair_of_cells(height, width, refine):
    """Peaks on every border and in every corner, with the second-largest value in every direction."""
    if height * width == 1:
        heatmaps = np.full((1, 1, 1, 1), 0.25, np.float32)
        first = np.zeros(1, int)
    else:
        heatmaps, cells = with_two_peaks(height, width)
        if len(heatmaps) > 500:
            heatmaps, cells = heatmaps[::11], cells[::11]
        first = cells[:, 0]
        assert (gap(heatmaps) > 0).all() or height * width == 2
        assert set(first) == set(range(height * width)), "every cell is the peak of some map"
    decoded = check(heatmaps, refine=refine)
    far = np.abs(decoded.points[:, 0] - np.stack([first % width, first // width], axis=1))
    assert (far <= (1.0 if refine == "dark" else 0.25 + 1e-6)).all()
    mirrored = np.ascontiguousarray(heatmaps[..., ::-1])
    again = check(np.zeros_like(heatmaps), mirrored, refine=refine)
    if refine != "dark":
        np.testing.assert_allclose(again.points, decoded.points, atol=1e-6)
    np.testing.assert_array_equal(again.heat, decoded.heat / 2)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_mirrored_maps_averaged_with_zeros(alignment):
    """The peak is where the alignment puts the peak of the mirrored map."""
    mirrored, cells = with_two_peaks(3, 6)
    decoded = check(np.zeros_like(mirrored), mirrored, alignment=alignment, refine="none")
    x, y = cells[:, 0] % 6, cells[:, 0] // 6
    back = 5 - x
    if alignment == "hrnet":
        inside = back < 5
        np.testing.assert_array_equal(decoded.points[inside, 0, 0], np.where(back > 0, back + 1, 0)[inside])
        assert (back == 0).any()
    else:
        np.testing.assert_array_equal(decoded.points[:, 0], np.stack([back, y], axis=1))


def test_ties_go_to_the_lowest_index():
    """Equal maxima from every first cell, with several distances, on a map several vectors wide."""
    cells = 3 * 37
    heatmaps = np.full((cells, cells), -1, np.float32)
    for start in range(cells):
        heatmaps[start, start :: 1 + start % 7] = 4
    heatmaps = heatmaps.reshape(cells, 1, 3, 37)
    ties = (heatmaps == heatmaps.max(axis=(2, 3), keepdims=True)).sum(axis=(2, 3))
    assert (ties[: cells // 2] > 1).all(), "the largest values tie"
    for refine in ("none", "second_peak"):
        decoded = check(heatmaps, refine=refine)
        check(heatmaps, heatmaps, refine=refine)
    exact = ops.decode(heatmaps, refine="none").points[:, 0]
    start = np.arange(cells)
    np.testing.assert_array_equal(exact, np.stack([start % 37, start // 37], axis=1))
    assert (decoded.points[:-1] != exact[:-1, None]).any(axis=2).all(), (
        "the second of the equal cells attracts the point"
    )


def test_a_constant_map_decodes_to_its_first_cells():
    decoded = check(np.full((1, 2, 5, 7), 0.3, np.float32))
    np.testing.assert_array_equal(decoded.points, [[[0.25, 0]] * 2])


def test_negative_and_positive_zero_are_equal():
    heatmaps = np.full((2, 1, 4, 20), -0.0, np.float32)
    heatmaps[0, 0, 2, 5] = 0.0
    heatmaps[1, 0, 0, 0] = 0.0
    decoded = check(heatmaps, refine="none")
    np.testing.assert_array_equal(decoded.points, 0)


def test_negative_maps_have_their_peak_at_the_largest_value():
    heatmaps = maps("negative", (3, 4, 9, 11), 7)
    assert (heatmaps < -1).all()
    assert (gap(heatmaps) > 0).all()
    for refine in ("second_peak", "gradient", "none"):
        assert (check(heatmaps, refine=refine).heat < -1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_never_peaks(hole, dtype):
    """One non-finite value, at every cell in turn."""
    cells = 4 * 19
    heatmaps = np.tile(maps("noise", (1, 1, 4, 19), 3, dtype), (cells, 1, 1, 1)).reshape(cells, -1)
    order = np.argsort(heatmaps[0].astype(np.float64))[::-1]
    heatmaps[np.arange(cells), np.arange(cells)] = hole
    heatmaps = heatmaps.reshape(cells, 1, 4, 19)
    decoded = check(heatmaps, refine="none")
    expected = np.where(np.arange(cells) == order[0], order[1], order[0])
    np.testing.assert_array_equal(decoded.points[:, 0], np.stack([expected % 19, expected // 19], axis=1))
    for refine in ("second_peak", "gradient", "dark"):
        assert np.isfinite(check(heatmaps, refine=refine).points).all()
        check(heatmaps, heatmaps, refine=refine)


@pytest.mark.parametrize("refine", ["second_peak", "gradient", "dark", "none"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 4), (12, 33)])
def test_a_map_without_finite_values_gives_nan_for_its_keypoint_only(shape, refine):
    heatmaps = maps("bumps", (2, 3, *shape), 5)
    heatmaps[0, 1] = rng(1).choice([np.nan, np.inf, -np.inf], size=shape)
    heatmaps[1, 0] = np.nan
    transforms = np.tile(np.float32([[2, 0, 5], [0, 3, 7]]), (2, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = check(heatmaps, refine=refine, crop_size=(40, 40), transforms=transforms)
    lost = np.zeros((2, 3), bool)
    lost[0, 1] = lost[1, 0] = True
    np.testing.assert_array_equal(np.isnan(decoded.heat), lost)
    np.testing.assert_array_equal(np.isnan(decoded.points), np.stack([lost, lost], axis=2))


def test_a_single_finite_value_is_the_peak():
    cells = 3 * 18
    heatmaps = np.full((cells, cells), np.nan, np.float32)
    heatmaps[:, ::2] = np.inf
    heatmaps[:, 1::4] = -np.inf
    heatmaps[np.arange(cells), np.arange(cells)] = -7
    decoded = check(heatmaps.reshape(cells, 1, 3, 18), refine="second_peak")
    np.testing.assert_array_equal(decoded.heat, -7)
    np.testing.assert_array_equal(decoded.points[:, 0], [(i % 18, i // 18) for i in range(cells)])


def test_an_average_that_overflows_is_not_a_peak():
    heatmaps = np.zeros((1, 1, 2, 9), np.float32)
    heatmaps[0, 0, 0, 1] = heatmaps[0, 0, 1, 4] = 1
    heatmaps[0, 0, 0, 3] = 3.4e38
    mirrored = np.ascontiguousarray(heatmaps[..., ::-1])
    with np.errstate(over="ignore"):
        assert np.isinf(heatmaps[0, 0, 0, 3] + heatmaps[0, 0, 0, 3])
    decoded = check(heatmaps, mirrored, refine="none")
    np.testing.assert_array_equal(decoded.points, [[[1, 0]]])


def test_the_peak_of_float16_maps_is_found_before_rounding():
    """Two cells whose averages differ in float32 but are equal in float16; the second is larger."""
    heatmaps = np.zeros((1, 1, 1, 12), np.float16)
    mirrored = np.zeros_like(heatmaps)
    heatmaps[..., 2] = mirrored[..., 11 - 2] = 1
    heatmaps[..., 7], mirrored[..., 11 - 7] = 1, np.nextafter(np.float16(1), np.float16(2))
    averaged = reference.average(heatmaps, mirrored)
    assert averaged[0, 0, 0, 7] > averaged[0, 0, 0, 2]
    assert averaged.astype(np.float16)[0, 0, 0, 7] == averaged.astype(np.float16)[0, 0, 0, 2]
    decoded = check(heatmaps, mirrored, refine="none")
    np.testing.assert_array_equal(decoded.points, [[[7, 0]]])
    assert decoded.heat[0, 0] == averaged.max()


def test_every_float16_value_is_read_exactly():
    """All 65,536 bit patterns, each next to a NaN."""
    values = np.arange(65536, dtype=np.uint16).view(np.float16)
    heatmaps = np.full((len(values) // 16, 16, 1, 2), np.nan, np.float16)
    heatmaps[..., 1] = values.reshape(-1, 16, 1)
    decoded = ops.decode(heatmaps, refine="none", average=True)
    expected = np.where(np.isfinite(values), values, np.float16(np.nan)).astype(np.float32).reshape(-1, 16)
    np.testing.assert_array_equal(decoded.heat, expected)
    twice = ops.decode(
        heatmaps, np.ascontiguousarray(heatmaps[..., ::-1]), flip_pairs=(), refine="none", average=True
    )
    np.testing.assert_array_equal(twice.heat, expected)
    np.testing.assert_array_equal(twice.heatmaps, heatmaps)


def test_float16_averages_round_to_nearest_even():
    draw = rng(4)
    patterns = draw.integers(0, 0x7BFF, size=(2, 64, 8, 3, 22)).astype(np.uint16)
    signs = (draw.integers(0, 2, size=patterns.shape) << 15).astype(np.uint16)
    heatmaps, mirrored = (patterns | signs).view(np.float16)
    check(heatmaps, mirrored, refine="none")
    near = np.nextafter(heatmaps, np.float16(np.inf))
    averaged = reference.average(heatmaps, near[..., ::-1])
    halfway = averaged != averaged.astype(np.float16)
    assert halfway.mean() > 0.9, "nearly every average is a tie between two half-precision values"
    check(heatmaps, np.ascontiguousarray(near[..., ::-1]), refine="none")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_strided_read_only_and_fortran_ordered_inputs(dtype):
    shape = (3, 4, 7, 10)
    heatmaps, mirrored = maps("noise", shape, 1, dtype), maps("noise", shape, 2, dtype)
    transforms = rng(3).normal(size=(3, 2, 3)).astype(np.float32)
    arguments = {"flip_pairs": [(1, 3)], "crop_size": (40, 28), "average": True}
    plain = ops.decode(heatmaps, mirrored, transforms=transforms, **arguments)
    before = heatmaps.copy(), mirrored.copy()
    for other in (strided, np.asfortranarray):
        again = ops.decode(other(heatmaps), other(mirrored), transforms=other(transforms), **arguments)
        for left, right in zip(plain, again, strict=True):
            np.testing.assert_array_equal(left, right)
    turned = ops.decode(
        heatmaps[:, ::-1, ::-1, ::-1][:, ::-1, ::-1, ::-1], mirrored, transforms=transforms, **arguments
    )
    np.testing.assert_array_equal(turned.points, plain.points)
    np.testing.assert_array_equal(heatmaps, before[0])
    np.testing.assert_array_equal(mirrored, before[1])


def test_unaligned_maps():
    values = maps("noise", (2, 3, 5, 9), 1)
    for offset in range(1, 5):
        store = np.zeros(values.size + offset, np.float32)
        store[offset:] = values.ravel()
        check(store[offset:].reshape(values.shape), values)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    ("map_size", "crop_size"), [((48, 64), (192, 256)), ((7, 5), (33, 21)), ((1, 1), (4, 4))]
)
def test_alignments_and_transforms(alignment, map_size, crop_size):
    width, height = map_size
    heatmaps = np.zeros((2, 3, height, width), np.float32)
    for k, (x, y) in enumerate([(0, 0), (width - 1, height - 1), (width // 2, height // 3)]):
        heatmaps[:, k, y, x] = 1
    transforms = np.float32([[[0.5, 0, 100], [0, 2, -7]], [[0.6, -0.8, 3], [0.8, 0.6, 1e4]]])
    check(heatmaps, refine="none", alignment=alignment)
    crop = check(heatmaps, refine="none", alignment=alignment, crop_size=crop_size)
    image = check(heatmaps, refine="none", alignment=alignment, crop_size=crop_size, transforms=transforms)
    columns = np.concatenate([crop.points, np.ones((2, 3, 1))], axis=2)
    np.testing.assert_allclose(
        image.points, np.einsum("nij,nkj->nki", transforms, columns), rtol=1e-6, atol=1e-3
    )
    if alignment == "udp" and width > 1:
        np.testing.assert_allclose(crop.points[0, 1], np.subtract(crop_size, 1), rtol=1e-6)


def test_large_image_coordinates_keep_their_precision():
    """Crops far from the image's origin."""
    maps_ = gaussians(rng(1).uniform(5, 20, (4, 3, 2)), (24, 32), 2.0).astype(np.float32)
    transforms = np.float32([[[1.37, 0, 3000.25], [0, 1.37, 2000.5]]] * 4)
    check(maps_, refine="second_peak", crop_size=(96, 128), transforms=transforms)
