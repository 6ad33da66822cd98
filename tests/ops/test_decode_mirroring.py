"""Mirrored crops: which points their maps decode to, for each alignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, REFINEMENTS, gap, gaussians, maps, rng, seeds

pytestmark = pytest.mark.usefixtures("instruction_set")

PAIRS = [(1, 2), (4, 3)]
ORDER = [0, 2, 1, 4, 3]
SYMMETRIC = ("half_pixel", "udp")


def mirror(heatmaps):
    """The maps of the mirrored crop: columns reversed, left and right exchanged."""
    return np.ascontiguousarray(heatmaps[:, ORDER, :, ::-1])


@st.composite
def unique_maps(draw):
    """(2,5,h,w) maps whose two largest values are unique."""
    shape = (2, 5, draw(st.integers(1, 12)), draw(st.integers(3, 19)))
    heatmaps = maps(draw(st.sampled_from(["noise", "bumps", "negative"])), shape, draw(seeds))
    assert (gap(heatmaps) > 0).all()
    return heatmaps


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("alignment", SYMMETRIC)
@settings(DRAWN, max_examples=25)
@given(heatmaps=unique_maps(), crop_width=st.sampled_from([48, 96, 191, 288]))
def test_mirrored_maps_decode_to_mirrored_points(refine, alignment, heatmaps, crop_width):
    """To 1e-4 crop pixel; dark to 5e-3, because a cell of these maps is up to 96 crop pixels wide."""
    size = (crop_width, 64)
    there = ops.decode(heatmaps, refine=refine, alignment=alignment, crop_size=size).points
    back = ops.decode(mirror(heatmaps), refine=refine, alignment=alignment, crop_size=size).points[:, ORDER]
    back = np.stack([crop_width - 1 - back[..., 0], back[..., 1]], axis=2)
    trusted = np.ones(heatmaps.shape[:2], bool)
    if refine == "dark":
        trusted = well_conditioned(heatmaps)
    np.testing.assert_allclose(back[trusted], there[trusted], atol=1e-4 if refine != "dark" else 5e-3)


def well_conditioned(heatmaps):
    """(N,K) bool: whether the log of the blurred map has a clear maximum at the peak."""
    result = np.zeros(heatmaps.shape[:2], bool)
    for n, k in np.ndindex(*result.shape):
        y, x = divmod(reference.largest(heatmaps[n, k].ravel().tolist()), heatmaps.shape[3])
        _, hessian = reference.taylor(reference.log_blurred(heatmaps[n, k], x, y, 2.0))
        result[n, k] = np.linalg.eigvalsh(hessian).max() < -0.05
    return result


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("alignment", SYMMETRIC)
@settings(DRAWN, max_examples=25)
@given(heatmaps=unique_maps())
def test_averaging_with_a_perfect_mirror_image_changes_nothing(refine, alignment, heatmaps):
    arguments = {"refine": refine, "alignment": alignment, "crop_size": (96, 64)}
    alone = ops.decode(heatmaps, **arguments)
    both = ops.decode(heatmaps, mirror(heatmaps), flip_pairs=PAIRS, average=True, **arguments)
    np.testing.assert_array_equal(both.heatmaps, heatmaps)
    np.testing.assert_array_equal(both.heat, alone.heat)
    np.testing.assert_array_equal(both.points, alone.points)


def test_mirrored_targets_decode_with_dark_to_mirrored_points():
    centers = rng(5).uniform(6, (41, 57), (4, 5, 2))
    heatmaps = gaussians(centers, (48, 64), 2.0).astype(np.float32)
    for alignment in SYMMETRIC:
        arguments = {"refine": "dark", "alignment": alignment, "crop_size": (192, 256)}
        there = ops.decode(heatmaps, **arguments).points
        back = ops.decode(mirror(heatmaps), **arguments).points[:, ORDER]
        np.testing.assert_allclose(191 - back[..., 0], there[..., 0], atol=1e-4)
        np.testing.assert_allclose(back[..., 1], there[..., 1], atol=1e-4)


@pytest.mark.parametrize("alignment", SYMMETRIC)
@pytest.mark.parametrize(("size", "cells"), [((192, 256), (48, 64)), ((288, 384), (72, 96))])
def test_targets_of_a_mirrored_crop_are_the_mirrored_targets(alignment, size, cells):
    """Targets of mirrored keypoints equal the mirrored targets, without a shift."""
    crop = rng(6).uniform(20, np.subtract(size, 20), (3, 5, 2))
    mirrored_crop = np.stack([size[0] - 1 - crop[..., 0], crop[..., 1]], axis=2)[:, ORDER]
    there = gaussians(on_heatmap(crop, cells, size, alignment), cells, 2.0)
    back = gaussians(on_heatmap(mirrored_crop, cells, size, alignment), cells, 2.0)
    np.testing.assert_allclose(mirror(back), there, atol=1e-9)


def on_heatmap(points, cells, size, alignment):
    """Crop pixels (N,K,2) as heatmap pixels."""
    return np.stack(
        [reference.to_heatmap(points[..., i], cells[i], size[i], alignment) for i in (0, 1)], axis=2
    )


def test_hrnet_alignment_is_off_by_a_quarter_of_a_heatmap_pixel():
    """With targets at crop / 4, the mirrored-back output is a quarter of a heatmap pixel too far right.

    The average of both is then off by an eighth: half a crop pixel at stride 4.
    """
    cells, size, stride = (48, 64), (192, 256), 4
    crop = rng(7).uniform(40, np.subtract(size, 40), (4, 5, 2))
    mirrored_crop = np.stack([size[0] - 1 - crop[..., 0], crop[..., 1]], axis=2)[:, ORDER]
    there = gaussians(on_heatmap(crop, cells, size, "hrnet"), cells, 2.0).astype(np.float32)
    back = gaussians(on_heatmap(mirrored_crop, cells, size, "hrnet"), cells, 2.0).astype(np.float32)
    arguments = {"flip_pairs": PAIRS, "refine": "dark", "alignment": "hrnet", "crop_size": size}

    mirrored_alone = ops.decode(np.zeros_like(there), back, **arguments).points
    np.testing.assert_allclose(mirrored_alone[..., 0] - crop[..., 0], stride / 4, atol=0.05)
    np.testing.assert_allclose(mirrored_alone[..., 1], crop[..., 1], atol=0.05)

    both = ops.decode(there, back, **arguments).points
    np.testing.assert_allclose(both[..., 0] - crop[..., 0], stride / 8, atol=0.05)

    alone = ops.decode(there, refine="dark", alignment="hrnet", crop_size=size).points
    np.testing.assert_allclose(alone, crop, atol=0.05)


def test_hrnet_keeps_column_zero():
    heatmaps = np.zeros((1, 1, 2, 5), np.float32)
    mirrored = np.float32([[[[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]]])
    decoded = ops.decode(heatmaps, mirrored, flip_pairs=(), alignment="hrnet", average=True)
    np.testing.assert_array_equal(decoded.heatmaps * 2, [[[[5, 5, 4, 3, 2], [10, 10, 9, 8, 7]]]])
