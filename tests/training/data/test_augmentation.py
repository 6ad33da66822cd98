"""Geometry: what is drawn at a keypoint is found where the sample says, however the crop is turned."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks import ops
from oaks.skeleton import COCO17
from oaks.training.data.augmentation import augment, vary
from oaks.training.data.geometry import crop_to_image, image_to_crop, warp, window_of
from oaks.training.data.people import Person
from oaks.training.recipe import Augmentation

SIZE = (96, 128)
PLAIN = Augmentation()


def person(points: np.ndarray, box: tuple[float, ...] = (30, 20, 130, 150), v: int = 2) -> Person:
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[: len(points), :2], keypoints[: len(points), 2] = points, v
    return Person(keypoints, np.array(box, np.float32), 1.0, np.ones(17, bool), 1, 1, np.array([1, 1, 0, 0]))


def blob_center(crop: np.ndarray) -> np.ndarray:
    """Centre of mass of a bright blob, pixel indices."""
    weights = crop.astype(float).sum(axis=2)
    y, x = np.indices(weights.shape)
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(60, 100), y=st.floats(60, 110), rotation=st.floats(-180, 180), scale=st.floats(0.65, 1.35),
    mirrored=st.booleans(),
)  # fmt: skip
def test_a_drawn_keypoint_lands_where_the_transform_says(
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
def test_samples_carry_the_picture_and_its_keypoints_alike(
    rotation: float, flip: float, scale: float
) -> None:
    """Through `augment` itself: the left wrist is drawn; a mirrored sample has it as its right wrist."""
    left, right = COCO17.keypoints.index("left_wrist"), COCO17.keypoints.index("right_wrist")
    for seed in range(8):
        spot = np.random.default_rng(seed).uniform((60, 60), (100, 110))
        image = np.zeros((170, 160, 3), np.uint8)
        cv2.circle(
            image, tuple(round(float(v) * 16) for v in spot), 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4
        )
        someone = person(np.zeros((0, 2)))
        someone.keypoints[left] = (*spot, 2)
        sample = augment(
            image, someone, np.random.default_rng(seed), Augmentation(rotation=rotation, flip=flip, scale=(scale, scale)),
            size=SIZE, padding=1.25, skeleton=COCO17,
        )  # fmt: skip
        joint = right if flip else left
        assert np.flatnonzero(sample.visible).tolist() == [joint]
        np.testing.assert_allclose(blob_center(sample.crop), sample.points[joint], atol=0.3)


def test_an_unaugmented_crop_is_the_one_of_oaks_ops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        image = cv2.resize(rng.integers(0, 256, (20, 24, 3), np.uint8), (240, 200))
        low = rng.uniform(-10, 80, 2)
        box = np.concatenate([low, low + rng.uniform(40, 130, 2)]).astype(np.float32)
        points = rng.uniform(30, 150, (17, 2))
        sample = augment(
            image, person(points, tuple(box)), rng, PLAIN, size=SIZE, padding=1.25, skeleton=COCO17
        )
        reference = ops.crop(image, box[None], size=SIZE, padding=1.25, mean=(0, 0, 0), std=(1, 1, 1))
        difference = np.abs(sample.crop.transpose(2, 0, 1) - reference.pixels[0])
        # OpenCV rounds to whole grey levels, and at the picture's border it blends with black as oaks does.
        assert np.percentile(difference, 99) <= 2
        back = sample.points @ reference.transforms[0][:, :2].T + reference.transforms[0][:, 2]
        inside = sample.visible > 0
        assert inside.any()
        np.testing.assert_allclose(back[inside], points[inside], atol=1e-3)


def test_channels_leave_as_rgb() -> None:
    image = np.full((60, 60, 3), (250, 0, 0), np.uint8)  # blue in BGR
    sample = augment(image, person(np.array([[30, 30]]), (10, 10, 50, 50)), np.random.default_rng(0), PLAIN,
                     size=SIZE, padding=0.5, skeleton=COCO17)  # fmt: skip
    assert sample.crop[60, 40].tolist() == [0, 0, 250]


def test_keypoints_outside_the_crop_are_not_visible() -> None:
    points = np.array([[80, 80], [80, 300], [500, 80], [-90, 80]])
    sample = augment(np.zeros((170, 160, 3), np.uint8), person(points), np.random.default_rng(0), PLAIN,
                     size=SIZE, padding=1.25, skeleton=COCO17)  # fmt: skip
    assert sample.visible[:4].tolist() == [1, 0, 0, 0]


def test_what_is_not_annotatable_mirrors_with_the_keypoints() -> None:
    someone = person(np.full((17, 2), 80.0))
    someone.annotatable[COCO17.keypoints.index("left_ear")] = False
    sample = augment(np.zeros((170, 160, 3), np.uint8), someone, np.random.default_rng(0), Augmentation(flip=1),
                     size=SIZE, padding=1.25, skeleton=COCO17)  # fmt: skip
    assert np.flatnonzero(sample.annotatable == 0).tolist() == [COCO17.keypoints.index("right_ear")]


def test_half_bodies_show_one_half() -> None:
    points = np.array(
        [(60 + 3 * k, 30 + 7 * k) for k in range(17)], float
    )  # from the nose down to the ankles
    seen = set()
    for seed in range(12):
        sample = augment(np.zeros((200, 160, 3), np.uint8), person(points), np.random.default_rng(seed),
                         Augmentation(half_body=1), size=SIZE, padding=1, skeleton=COCO17)  # fmt: skip
        seen.add((bool(sample.visible[0]), bool(sample.visible[16])))
    assert seen == {(True, False), (False, True)}


def test_everything_follows_from_the_generator() -> None:
    image = np.random.default_rng(1).integers(0, 256, (170, 160, 3), np.uint8)
    strong = Augmentation(rotation=45, scale=(0.65, 1.35), flip=0.5, half_body=0.5, occluders=1, color=1, gray=0.3,
                          blur=1, noise=1, shift=0.1)  # fmt: skip
    someone = person(np.random.default_rng(2).uniform(40, 140, (17, 2)))

    def cut(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return augment(image, someone, rng, strong, size=SIZE, padding=1.25, skeleton=COCO17).crop

    for seed in range(20):
        crop = cut(seed)
        assert crop.shape == (128, 96, 3)
        assert crop.dtype == np.uint8
        np.testing.assert_array_equal(crop, cut(seed))
    assert (cut(0) != cut(1)).any()


def test_varied_people_keep_their_labels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (170, 160, 3), np.uint8)
    before, someone = image.copy(), person(np.full((17, 2), 80.0))
    settings = Augmentation(scale=(0.8, 1.2), shift=0.1, occluders=1, color=1)
    varied, other = vary(image, someone, np.random.default_rng(0), settings)
    np.testing.assert_array_equal(image, before)  # other people of the picture still need it
    assert (varied != image).any()
    assert (other.box != someone.box).any()
    np.testing.assert_array_equal(other.keypoints, someone.keypoints)
