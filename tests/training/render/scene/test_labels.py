"""Labels from hand-made pictures of codes, in which it is obvious what an annotator sees."""

from __future__ import annotations

import numpy as np
import pytest

from oaks.skeleton import COCO17
from oaks.training.render.body.parts import Part
from oaks.training.render.scene.labels import (
    CLASS_EDGES,
    CLASS_RANGES,
    OCCLUDER,
    PERSON_CODES,
    Subject,
    annotation,
    visibility,
)

SIZE = 200
INDEX = {name: index for index, name in enumerate(COCO17.keypoints)}


def scene(number=0):
    """Return a left arm that hangs straight down in an empty picture: upper arm, forearm, hand, 12 pixels wide."""
    points = np.full((17, 2), -50.0)
    points[INDEX["left_shoulder"]] = (100, 40)
    points[INDEX["left_elbow"]] = (100, 90)
    points[INDEX["left_wrist"]] = (100, 140)
    codes = np.zeros((SIZE, SIZE), np.uint16)
    first = number * PERSON_CODES + 1
    codes[34:90, 94:107] = first + Part.LEFT_UPPER_ARM
    codes[90:140, 94:107] = first + Part.LEFT_FOREARM
    codes[140:156, 94:107] = first + Part.LEFT_HAND
    distances = np.full((SIZE, SIZE), 4.95, np.float32)
    subject = Subject(number, points, np.full(17, 5.0), np.full(5, -1.0), 1.75, 170.0)
    return subject, codes, distances


def flags(subject, codes, distances, **options):
    found = visibility(subject, codes, distances, **options)
    return tuple(int(found[INDEX[name]]) for name in ("left_shoulder", "left_elbow", "left_wrist"))


def test_visible_keypoints_are_seen():
    assert flags(*scene()) == (2, 2, 2)


def test_parts_of_other_people_do_not_count():
    subject, codes, distances = scene(number=3)
    assert flags(subject, codes, distances) == (2, 2, 2)
    codes[:] = np.where(codes > 0, codes - PERSON_CODES, 0)
    assert flags(subject, codes, distances) == (0, 0, 0)


def test_a_small_occluder_leaves_a_keypoint_guessable_and_a_large_one_does_not():
    subject, codes, distances = scene()
    codes[82:99, 80:120] = OCCLUDER
    assert flags(subject, codes, distances) == (2, 1, 2)
    codes[55:125, 80:120] = OCCLUDER
    assert flags(subject, codes, distances) == (2, 0, 2)


def test_outside_the_frame_is_unlabeled_from_half_a_pixel_beyond_its_last_center():
    subject, codes, distances = scene()
    frame = (-0.5, -0.5, SIZE - 0.5, 139.5)
    assert flags(subject, codes, distances, frame=frame) == (2, 2, 0)
    assert flags(subject, codes, distances, frame=(-0.5, -0.5, SIZE - 0.5, 140.5)) == (2, 2, 2)


def test_a_joint_far_behind_the_surface_is_hidden_by_the_person_itself():
    subject, codes, distances = scene()
    codes[34:140, 94:107] = 1 + Part.CHEST
    subject.distance[INDEX["left_shoulder"]] = 5.3
    assert flags(subject, codes, distances)[0] == 1
    subject.distance[INDEX["left_shoulder"]] = 5.0
    assert flags(subject, codes, distances)[0] == 2


def test_faces_that_look_away_are_unlabeled():
    subject, codes, distances = scene()
    codes[:] = 1 + Part.HEAD
    subject.points[:5] = np.array([[100, 60], [104, 55], [96, 55], [112, 58], [88, 58]])
    assert (visibility(subject, codes, distances)[:5] == 0).all()
    subject.facing[:] = 0.9
    assert (visibility(subject, codes, distances)[:3] == 2).all()
    # The far side of a face seen sideways: its eye and ear are beyond guessing.
    subject.facing[2], subject.facing[4] = -0.3, -0.9
    assert visibility(subject, codes, distances)[[2, 4]].tolist() == [0, 0]


@pytest.mark.parametrize("oversampling", [1, 1.5, 2])
def test_annotations_measure_the_mask(oversampling):
    subject, codes, distances = scene()
    found = visibility(subject, codes, distances)
    mask = (codes > 0)[20:180, 60:150]
    entry = annotation(subject, found, mask, (60, 20), oversampling)
    n = oversampling
    assert entry["bbox"] == pytest.approx([94 / n, 34 / n, 13 / n, 122 / n])
    assert entry["area"] == pytest.approx(13 * 122 / n**2)
    assert entry["num_keypoints"] == 3
    assert entry["iscrowd"] == 0
    keypoints = np.array(entry["keypoints"]).reshape(17, 3)
    assert (keypoints[found == 0] == 0).all()
    # Pixel 0's centre is half a pixel from the edge in both: (x + 1/2) scales.
    assert keypoints[INDEX["left_elbow"], 0] == pytest.approx((100 + 0.5) / n - 0.5, abs=0.006)
    assert annotation(subject, found, mask & False, (60, 20), oversampling) is None


def test_classes_are_the_papers():
    assert CLASS_RANGES == ((1, 5), (6, 10), (11, 15), (16, 17))
    assert np.digitize([1, 5, 6, 10, 11, 15, 16, 17], CLASS_EDGES).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
