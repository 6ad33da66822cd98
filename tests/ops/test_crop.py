"""crop against bilinear sampling in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops

from . import reference
from .cases import DRAWN, rng, seeds, strided

pytestmark = pytest.mark.usefixtures("instruction_set")

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
GRAY = {"float32": 0.002, "float16": 0.06}
"""Largest difference from the reference, in gray levels (0 to 255), near the image's origin."""
GRAY_PER_PIXEL = 3e-5
"""Rounding error of single precision per pixel of distance from the origin, in gray levels."""


def as_list(frames):
    if isinstance(frames, list | tuple):
        return list(frames)
    return [frames] if frames.ndim == 3 else list(frames)


def check(frames, boxes, size, dtype="float32", **arguments):
    """Compare crop with the reference: pixels to GRAY, transforms to 1e-4 image pixel."""
    pixels, transforms = reference.crop(as_list(frames), boxes, size=size, mean=MEAN, std=STD, **arguments)
    crops = ops.crop(frames, boxes, size=size, mean=MEAN, std=STD, dtype=dtype, **arguments)
    assert crops.pixels.dtype == np.dtype(dtype)
    assert crops.pixels.shape == pixels.shape
    assert crops.pixels.flags.c_contiguous
    assert crops.transforms.shape == transforms.shape
    gray = np.abs(crops.pixels.astype(np.float64) - pixels) * STD[:, None, None]
    farthest = max(max(frame.shape) for frame in as_list(frames))
    assert gray.max(initial=0) <= GRAY[dtype] + GRAY_PER_PIXEL * farthest
    np.testing.assert_allclose(crops.transforms, transforms, rtol=1e-6, atol=1e-4)
    if arguments.get("mirrored"):
        count = len(boxes)
        np.testing.assert_array_equal(crops.pixels[count:], crops.pixels[:count, ..., ::-1])
        alone = ops.crop(
            frames, boxes, size=size, mean=MEAN, std=STD, dtype=dtype, **{**arguments, "mirrored": False}
        )
        np.testing.assert_array_equal(crops.pixels[:count], alone.pixels)
    return crops


def noise(height, width, seed=0):
    """A frame of independent random pixels."""
    return rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@st.composite
def crop_cases(draw):
    seed = draw(seeds)
    rand = rng(seed)
    frames = [
        noise(draw(st.integers(1, 24)), draw(st.integers(1, 40)), seed + i)
        for i in range(draw(st.integers(1, 3)))
    ]
    count = draw(st.integers(0, 4))
    center, extent = rand.uniform(-15, 50, (count, 2)), rand.uniform(0, 60, (count, 2))
    extent *= rand.choice([0, 0.05, 1, 1, 1, 1], size=(count, 2))
    boxes = np.concatenate([center - extent / 2, center + extent / 2], axis=1).astype(np.float32)
    arguments = {
        "size": (draw(st.integers(1, 40)), draw(st.integers(1, 24))),
        "frame_index": rand.integers(0, len(frames), count),
        "padding": draw(st.sampled_from([1.0, 1.25, 0.5, 3.0])),
        "color": draw(st.sampled_from(["bgr", "rgb"])),
        "mirrored": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["float32", "float16"])),
    }
    return frames, boxes, arguments


@settings(DRAWN, max_examples=80)
@given(crop_cases())
def test_random_boxes_match_the_reference(case):
    frames, boxes, arguments = case
    check(frames, boxes, **arguments)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 192])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_crop_widths(width, dtype):
    check(
        noise(30, 41), np.float32([[3.3, 2.1, 29.7, 27.9], [-20, 5, 60, 9]]), (width, 5), dtype, mirrored=True
    )


@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_output_channels_are_rgb(color):
    frame = np.zeros((6, 6, 3), np.uint8)
    frame[:] = (10, 100, 200)
    crops = ops.crop(
        frame, np.float32([[1, 1, 5, 5]]), size=(4, 4), padding=1, mean=[1, 2, 3], std=[2, 4, 8], color=color
    )
    rgb = (200, 100, 10) if color == "bgr" else (10, 100, 200)
    expected = [(rgb[0] - 1) / 2, (rgb[1] - 2) / 4, (rgb[2] - 3) / 8]
    np.testing.assert_allclose(
        crops.pixels, np.broadcast_to(np.reshape(expected, (1, 3, 1, 1)), (1, 3, 4, 4)), rtol=1e-6
    )


def test_a_crop_without_scaling_copies_pixels():
    """Box edges are pixel borders: the box (2, 3, 10, 9) covers columns 2 to 9 and rows 3 to 8."""
    frame = noise(12, 14)
    crops = ops.crop(
        frame, np.float32([[2, 3, 10, 9]]), size=(8, 6), padding=1, mean=[0] * 3, std=[1] * 3, color="rgb"
    )
    np.testing.assert_array_equal(crops.pixels[0], frame[3:9, 2:10].transpose(2, 0, 1))
    np.testing.assert_array_equal(crops.transforms, [[[1, 0, 2], [0, 1, 3]]])


def test_boxes_are_grown_to_the_aspect_ratio_and_then_padded():
    crops = ops.crop(
        noise(9, 9), np.float32([[10, 20, 30, 30], [10, 20, 20, 60]]), size=(60, 80), mean=MEAN, std=STD
    )
    first = 20 * 1.25 / 60, 20 - 0.5 - 59 / 2 * 20 * 1.25 / 60
    np.testing.assert_allclose(crops.transforms[0, 0], [first[0], 0, first[1]], rtol=1e-6)
    np.testing.assert_allclose(crops.transforms[0, 1, 1], 20 * 80 / 60 * 1.25 / 80, rtol=1e-6)
    np.testing.assert_allclose(crops.transforms[1, 1, 1], 40 * 1.25 / 80, rtol=1e-6)
    np.testing.assert_allclose(crops.transforms[1, 0, 0], 30 * 1.25 / 60, rtol=1e-6)


@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, -40, -30),
        (100, 3, 130, 20),
        (3, -80, 9, -60),
        (-1e6, 4, -9.9e5, 9),
        (1e7, 1e7, 1.1e7, 1.1e7),
    ],
)
def test_pixels_outside_the_image_are_black_before_normalization(box):
    crops = check(noise(20, 30), np.float32([box]), (12, 16), mirrored=True)
    expected = np.broadcast_to((-MEAN / STD)[None, :, None, None], crops.pixels.shape)
    np.testing.assert_allclose(crops.pixels, expected, rtol=1e-5)


def test_the_image_border_fades_to_black_over_one_pixel():
    """Half a pixel beyond the outermost pixel center half of the value remains; in the corner a quarter."""
    frame = np.full((5, 5, 3), 200, np.uint8)
    boxes = np.float32([[-0.5, 2, 0.5, 3], [-0.5, -0.5, 0.5, 0.5], [4.5, 4.5, 5.5, 5.5]])
    crops = ops.crop(frame, boxes, size=(1, 1), padding=1, mean=[0] * 3, std=[1] * 3)
    np.testing.assert_allclose(crops.pixels[:, 0, 0, 0], [100, 50, 50], atol=0.05)


@pytest.mark.parametrize("box", [(7, 8, 7, 8), (7, 8, 9, 8), (7, 8, 7, 12), (0, 0, 0, 0), (-9, -9, -9, -9)])
def test_zero_area_boxes(box):
    """A point gives a crop of one color, a line the crop of the grown box; neither gives NaN."""
    crops = check(noise(20, 30), np.float32([box]), (8, 6))
    assert np.isfinite(crops.pixels).all()
    assert np.isfinite(crops.transforms).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_tiny_frames(shape):
    check(
        noise(*shape), np.float32([[0, 0, 1, 1], [-3, -3, 4, 4], [0.2, 0.3, 0.4, 0.5]]), (9, 7), mirrored=True
    )


def test_frames_of_different_sizes():
    frames = [noise(10, 20, 1), noise(1, 1, 2), noise(33, 7, 3)]
    boxes = np.float32([[0, 0, 6, 9], [0, 0, 1, 1], [2, 2, 18, 9], [1, 5, 6, 30], [0, 0, 20, 10]])
    index = np.array([2, 1, 0, 2, 0])
    crops = check(frames, boxes, (12, 10), frame_index=index)
    for n, which in enumerate(index):
        alone = ops.crop(frames[which], boxes[n : n + 1], size=(12, 10), mean=MEAN, std=STD)
        np.testing.assert_array_equal(alone.pixels[0], crops.pixels[n])


def test_a_batch_gives_the_same_crops_as_a_list():
    batch = np.stack([noise(10, 12, 1), noise(10, 12, 2)])
    boxes = np.float32([[1, 1, 9, 8], [0, 0, 12, 10], [4, 4, 9, 9]])
    index = np.array([1, 0, 1])
    together = check(batch, boxes, (8, 8), frame_index=index)
    listed = ops.crop(list(batch), boxes, size=(8, 8), frame_index=index, mean=MEAN, std=STD)
    np.testing.assert_array_equal(together.pixels, listed.pixels)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_boxes(mirrored, dtype):
    crops = check(noise(9, 9), np.zeros((0, 4), np.float32), (8, 6), dtype, mirrored=mirrored)
    assert crops.pixels.shape == (0, 3, 6, 8)
    assert crops.transforms.shape == (0, 2, 3)


def test_views_as_batches():
    """Every other frame, a window of each frame, one frame repeated, reversed order."""
    store = rng(1).integers(0, 256, (5, 24, 30, 3), np.uint8)
    boxes = np.float32([[1, 1, 9, 8], [0, 0, 12, 10], [4, 4, 9, 9]])
    index = np.array([2, 0, 1])
    for batch in (
        store[::2],
        store[:3, 3:20, 5:25],
        np.broadcast_to(store[0], (3, 24, 30, 3)),
        store[::-1][:3],
    ):
        assert not batch.flags.c_contiguous
        plain = ops.crop(batch.copy(), boxes, size=(8, 8), frame_index=index, mean=MEAN, std=STD)
        view = ops.crop(batch, boxes, size=(8, 8), frame_index=index, mean=MEAN, std=STD)
        np.testing.assert_array_equal(view.pixels, plain.pixels)


def test_strided_and_read_only_frames():
    frame = noise(20, 30)
    boxes = np.float32([[3, 2, 20, 18], [-4, -4, 40, 30]])
    plain = ops.crop(frame, boxes, size=(16, 12), mean=MEAN, std=STD)
    big = noise(40, 90, 9)
    big[5:25, 7:37] = frame
    inside = big[5:25, 7:37]
    inside.flags.writeable = False
    assert not inside.flags.c_contiguous
    upside_down = frame[::-1].copy()[::-1]
    for other in (
        strided(frame),
        inside,
        upside_down,
        np.asfortranarray(frame),
        frame[..., ::-1].copy()[..., ::-1],
    ):
        again = ops.crop(other, strided(boxes), size=(16, 12), mean=MEAN, std=STD)
        np.testing.assert_array_equal(again.pixels, plain.pixels)
        np.testing.assert_array_equal(again.transforms, plain.transforms)


def test_crops_far_from_the_origin():
    """Single precision has few bits left for fractions of a pixel there."""
    frame = noise(64, 4096)
    check(frame, np.float32([[4000.3, 3.1, 4060.9, 60.2], [3900, -10, 4100, 80]]), (96, 32), mirrored=True)


def test_float64_boxes_are_not_rounded_to_float32_first():
    frame = noise(8, 5000)
    box = np.array([[4980.123456789, 1.2, 4988.98765, 7.7]])
    expected = reference.transform(box[0], (16, 12))
    crops = ops.crop(frame, box, size=(16, 12), mean=MEAN, std=STD)
    np.testing.assert_allclose(crops.transforms[0], expected, rtol=1e-6, atol=5e-4)
