"""Crop a pixel of an image, draw a target where the crop shows it, decode the target: the result is the pixel."""

from __future__ import annotations

import numpy as np
import pytest

from oaks import ops

from . import reference
from .cases import ALIGNMENTS, gaussians, rng

SIZE, CELLS = (96, 128), (24, 32)
"""Crop and heatmap, (width, height): stride 4."""
BOX = np.float32([[31.3, 17.8, 58.9, 55.2]])
PIXELS = [(40, 30), (35, 45), (55, 22), (45, 36)]


def lit(frame_shape, x, y):
    """A black frame with one white pixel."""
    frame = np.zeros((*frame_shape, 3), np.uint8)
    frame[y, x] = 255
    return frame


def centroid(image):
    """(x, y): the intensity-weighted mean position."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()


def cropped(x, y, box=BOX, mirrored=False):
    """Position of the image's pixel (x, y) in each crop, and the crop's transform."""
    crops = ops.crop(lit((80, 90), x, y), box, size=SIZE, mean=[0] * 3, std=[1] * 3, mirrored=mirrored)
    return [centroid(image[0].astype(np.float64)) for image in crops.pixels], crops.transforms


def target(crop_point, alignment, sigma=2.0):
    """(1,1,h,w) float32: the map with its peak where the alignment puts a crop pixel."""
    center = [reference.to_heatmap(crop_point[i], CELLS[i], SIZE[i], alignment) for i in (0, 1)]
    return gaussians(np.reshape(center, (1, 1, 2)), CELLS, sigma).astype(np.float32)


@pytest.mark.parametrize(("x", "y"), PIXELS)
def test_the_transform_maps_crop_pixels_to_image_pixels(x, y):
    """To 0.02 image pixel: one pixel is sampled at about three crop pixels per axis."""
    (seen,), transforms = cropped(x, y)
    np.testing.assert_allclose(transforms[0].astype(np.float64) @ (*seen, 1), (x, y), atol=0.02)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(("x", "y"), PIXELS)
def test_crop_target_and_decode_recover_a_pixel(x, y, alignment):
    (seen,), transforms = cropped(x, y)
    decoded = ops.decode(
        target(seen, alignment), refine="dark", alignment=alignment, crop_size=SIZE, transforms=transforms
    )
    np.testing.assert_allclose(decoded.points[0, 0], (x, y), atol=0.03)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("refine", ["none", "gradient", "second_peak"])
def test_the_error_of_other_refinements_is_bounded(refine, alignment):
    """By half a heatmap pixel per axis with none and second_peak, and by a quarter with gradient."""
    reach = {"none": 0.5, "gradient": 0.25, "second_peak": 0.5}[refine]
    for x, y in PIXELS:
        (seen,), transforms = cropped(x, y)
        decoded = ops.decode(
            target(seen, alignment), refine=refine, alignment=alignment, crop_size=SIZE, transforms=transforms
        )
        cell = transforms[0, 0, 0] * 4.05, transforms[0, 1, 1] * 4.05
        assert (np.abs(decoded.points[0, 0] - (x, y)) <= np.multiply(cell, reach) + 0.02).all()


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("towards", [(0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25)])
def test_second_peak_is_exact_a_quarter_of_a_cell_off(alignment, towards):
    """The neighbor in the direction of the offset has the second-largest value."""
    center = np.array([9.0, 14.0]) + towards
    heatmap = gaussians(center.reshape(1, 1, 2), CELLS, 2.0).astype(np.float32)
    crop = [reference.to_crop(center[i], CELLS[i], SIZE[i], alignment) for i in (0, 1)]
    transforms = np.float32([[[0.3, 0, 31], [0, 0.3, 18]]])
    decoded = ops.decode(heatmap, alignment=alignment, crop_size=SIZE, transforms=transforms)
    np.testing.assert_allclose(decoded.points[0, 0], transforms[0] @ (*crop, 1), atol=1e-4)


@pytest.mark.parametrize("alignment", ["half_pixel", "udp"])
@pytest.mark.parametrize(("x", "y"), PIXELS)
def test_crop_target_and_decode_with_the_mirrored_crop_recover_a_pixel(x, y, alignment):
    """The mirrored target is drawn where the mirrored crop shows the pixel."""
    (seen, seen_mirrored), transforms = cropped(x, y, mirrored=True)
    np.testing.assert_allclose(seen_mirrored, (SIZE[0] - 1 - seen[0], seen[1]), atol=1e-6)
    decoded = ops.decode(
        target(seen, alignment),
        target(seen_mirrored, alignment),
        flip_pairs=[],
        refine="dark",
        alignment=alignment,
        crop_size=SIZE,
        transforms=transforms,
    )
    np.testing.assert_allclose(decoded.points[0, 0], (x, y), atol=0.03)


def test_a_crop_of_the_whole_image_keeps_pixel_coordinates():
    """A box around the whole image with padding 1: crop pixels are image pixels."""
    draw = rng(1)
    image = draw.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    box = np.float32([[0, 0, *SIZE]])
    crops = ops.crop(image, box, size=SIZE, padding=1, mean=[0] * 3, std=[1] * 3, color="rgb")
    np.testing.assert_array_equal(crops.pixels[0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(crops.transforms, [[[1, 0, 0], [0, 1, 0]]])
