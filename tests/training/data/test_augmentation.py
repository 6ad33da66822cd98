"""Augmentation: the pixels drawn at a keypoint are at the sample's keypoint, for any rotation, scale and mirroring."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops
from oaks.skeleton import COCO17
from oaks.training.data.augmentation import Sample, augment, vary
from oaks.training.data.geometry import crop_to_image, image_to_crop, warp, window_of
from oaks.training.data.people import Person
from oaks.training.recipe import Augmentation

SIZE = (96, 128)
PLAIN = Augmentation()
BLACK = np.zeros((200, 160, 3), np.uint8)


def person(points: np.ndarray, box: tuple[float, ...] = (30, 20, 130, 150), v: int = 2) -> Person:
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[: len(points), :2], keypoints[: len(points), 2] = points, v
    return Person(keypoints, np.array(box, np.float32), 1.0, np.ones(17, bool), 1, 1, np.array([1, 1, 0, 0]))


def blob_center(crop: np.ndarray) -> np.ndarray:
    """Return the center of mass of a bright blob in pixel indices."""
    weights = crop.astype(float).sum(axis=2)
    y, x = np.indices(weights.shape)
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


def cut(
    someone: Person,
    settings: Augmentation = PLAIN,
    image: np.ndarray = BLACK,
    seed: int = 0,
    padding: float = 1.25,
) -> Sample:
    """Return an augmented sample."""
    rng = np.random.default_rng(seed)
    return augment(image, someone, rng, settings, size=SIZE, padding=padding, skeleton=COCO17)


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(60, 100), y=st.floats(60, 110), rotation=st.floats(-180, 180), scale=st.floats(0.65, 1.35),
    mirrored=st.booleans(),
)  # fmt: skip
def test_a_drawn_keypoint_is_where_the_transform_maps_it(
    x: float, y: float, rotation: float, scale: float, mirrored: bool
) -> None:
    image = np.zeros((170, 160, 3), np.uint8)
    rows, columns = np.indices(image.shape[:2])
    image[:] = (255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)).astype(np.uint8)[..., None]
    center, extent = window_of(np.array([30, 20, 130, 150]), SIZE, 1.25)
    affine = crop_to_image(center, extent, SIZE, scale=scale, rotation=rotation, mirrored=mirrored)
    expected = image_to_crop(np.array([[x, y]]), affine)[0]
    found = blob_center(warp(image, affine, SIZE))
    np.testing.assert_allclose(found, expected, atol=0.15)


@pytest.mark.parametrize("rotation", [0, 45])
@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("scale", [0.65, 1, 1.35])
def test_pixels_and_keypoints_are_transformed_alike(rotation: float, flip: float, scale: float) -> None:
    """The left wrist is drawn; in a mirrored sample it is the right wrist."""
    left, right = COCO17.keypoints.index("left_wrist"), COCO17.keypoints.index("right_wrist")
    for seed in range(8):
        spot = np.random.default_rng(seed).uniform((60, 60), (100, 110))
        image = np.zeros((170, 160, 3), np.uint8)
        cv2.circle(
            image, tuple(round(float(v) * 16) for v in spot), 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4
        )
        someone = person(np.zeros((0, 2)))
        someone.keypoints[left] = (*spot, 2)
        settings = Augmentation(rotation=rotation, flip=flip, scale=(scale, scale))
        sample = cut(someone, settings, image, seed)
        joint = right if flip else left
        assert np.flatnonzero(sample.visible).tolist() == [joint]
        np.testing.assert_allclose(blob_center(sample.crop), sample.points[joint], atol=0.3)


def test_an_unaugmented_crop_is_that_of_oaks_ops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        image = cv2.resize(rng.integers(0, 256, (20, 24, 3), np.uint8), (240, 200))
        low = rng.uniform(-10, 80, 2)
        box = np.concatenate([low, low + rng.uniform(40, 130, 2)]).astype(np.float32)
        points = rng.uniform(30, 150, (17, 2))
        sample = cut(person(points, tuple(box)), image=image)
        reference = ops.crop(image, box[None], size=SIZE, padding=1.25, mean=(0, 0, 0), std=(1, 1, 1))
        difference = np.abs(sample.crop.transpose(2, 0, 1) - reference.pixels[0])
        # OpenCV rounds to whole gray levels.
        assert np.percentile(difference, 99) <= 2
        back = sample.points @ reference.transforms[0][:, :2].T + reference.transforms[0][:, 2]
        inside = sample.visible > 0
        assert inside.any()
        np.testing.assert_allclose(back[inside], points[inside], atol=1e-3)


def test_crops_are_rgb() -> None:
    image = np.full((60, 60, 3), (250, 0, 0), np.uint8)  # blue in BGR
    sample = cut(person(np.array([[30, 30]]), (10, 10, 50, 50)), image=image, padding=0.5)
    assert sample.crop[60, 40].tolist() == [0, 0, 250]


def test_keypoints_outside_the_crop_are_not_visible() -> None:
    sample = cut(person(np.array([[80, 80], [80, 300], [500, 80], [-90, 80]])))
    assert sample.visible[:4].tolist() == [1, 0, 0, 0]


def test_annotatable_flags_are_mirrored_with_the_keypoints() -> None:
    someone = person(np.full((17, 2), 80.0))
    someone.annotatable[COCO17.keypoints.index("left_ear")] = False
    sample = cut(someone, Augmentation(flip=1))
    assert np.flatnonzero(sample.annotatable == 0).tolist() == [COCO17.keypoints.index("right_ear")]


def test_half_bodies_show_one_half() -> None:
    points = np.array([(60 + 3 * k, 30 + 7 * k) for k in range(17)], float)  # from nose to ankles, downwards
    seen = set()
    for seed in range(12):
        sample = cut(person(points), Augmentation(half_body=1), seed=seed, padding=1)
        seen.add((bool(sample.visible[0]), bool(sample.visible[16])))
    assert seen == {(True, False), (False, True)}


def test_samples_depend_only_on_the_random_generator() -> None:
    image = np.random.default_rng(1).integers(0, 256, (170, 160, 3), np.uint8)
    strong = Augmentation(rotation=45, scale=(0.65, 1.35), flip=0.5, half_body=0.5, occluders=1, color=1, gray=0.3,
                          blur=1, noise=1, shift=0.1)  # fmt: skip
    someone = person(np.random.default_rng(2).uniform(40, 140, (17, 2)))
    crops = [cut(someone, strong, image, seed).crop for seed in range(20)]
    for seed, crop in enumerate(crops):
        assert crop.shape == (128, 96, 3)
        assert crop.dtype == np.uint8
        np.testing.assert_array_equal(crop, cut(someone, strong, image, seed).crop)
    assert (crops[0] != crops[1]).any()


def test_vary_does_not_change_labels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (170, 160, 3), np.uint8)
    before, someone = image.copy(), person(np.full((17, 2), 80.0))
    settings = Augmentation(scale=(0.8, 1.2), shift=0.1, occluders=1, color=1)
    varied, other = vary(image, someone, np.random.default_rng(0), settings)
    np.testing.assert_array_equal(image, before)  # it is shared by all people of the picture
    assert (varied != image).any()
    assert (other.box != someone.box).any()
    np.testing.assert_array_equal(other.keypoints, someone.keypoints)
