"""Detector-like boxes."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from oaks.box_files import read_boxes
from oaks.coco import check_annotations
from oaks.files import write_json
from oaks.skeleton import COCO17
from oaks.val.synthetic_boxes import DetectorLike, detector_like

from . import synthetic


def detector_like_of(content, **settings):
    return detector_like(check_annotations(content, skeleton=COCO17), **settings)


@pytest.fixture(scope="module")
def content():
    return synthetic.annotations(2, images=200)


def overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(np.add(a[:2], a[2:]), np.add(b[:2], b[2:]))
    shared = np.clip(high - low, 0, None).prod()
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def best_overlap(row, content):
    people = [p for p in content["annotations"] if p["image_id"] == row["image_id"] and not p["iscrowd"]]
    return max((overlap(np.array(row["bbox"]), np.array(p["bbox"])) for p in people), default=0.0)


def test_boxes_depend_on_the_seed(content):
    assert detector_like_of(content, seed=3) == detector_like_of(content, seed=3)
    assert detector_like_of(content, seed=3) != detector_like_of(content, seed=4)


def test_the_boxes_of_an_image_do_not_depend_on_the_others(content):
    alone = dict(content, images=content["images"][7:8])
    image = content["images"][7]["id"]
    assert detector_like_of(alone) == [row for row in detector_like_of(content) if row["image_id"] == image]


def test_a_detector_without_errors_finds_everybody_exactly(content):
    rows = detector_like_of(content, detector=DetectorLike(0, 0, 0, 0))
    people = [p for p in content["annotations"] if not p["iscrowd"]]
    assert len(rows) == len(people)
    for person in people:
        x, y, w, h = person["bbox"]
        clipped = [x, y, min(x + w, 512) - x, min(y + h, 384) - y]
        own = [row["bbox"] for row in rows if row["image_id"] == person["image_id"]]
        assert any(np.allclose(box, clipped, atol=0.011) for box in own)


def test_only_people_are_found_whatever_the_name_of_their_category(content):
    expected, content = detector_like_of(content), copy.deepcopy(content)
    for annotation in content["annotations"]:
        annotation["category_id"] = 7
    content["categories"][0].update(id=7, name="human")
    assert detector_like_of(content) == [row | {"category_id": 7} for row in expected]
    content["categories"][0]["name"] = "person"
    content["categories"].insert(0, {"id": 1, "name": "dog"})
    dogs = [dict(person, category_id=1, id=person["id"] + 1000) for person in content["annotations"]]
    both = dict(content, annotations=content["annotations"] + dogs)
    assert detector_like_of(both) == [row | {"category_id": 7} for row in expected]


def test_boxes_lie_in_their_image_and_scores_between_0_and_1(content):
    for row in detector_like_of(content, detector=DetectorLike(jitter=0.5, background=3)):
        x, y, w, h = row["bbox"]
        assert x >= 0
        assert y >= 0
        assert w >= 1
        assert h >= 1
        assert x + w <= 512.01
        assert y + h <= 384.01
        assert 0 <= row["score"] <= 1


def test_misses_duplicates_and_false_boxes_have_the_given_rates(content):
    people = [p for p in content["annotations"] if not p["iscrowd"]]
    missed = detector_like_of(content, detector=DetectorLike(misses=0.1, duplicates=0, background=0))
    assert 0.1 < 1 - len(missed) / len(people) < 0.8
    assert detector_like_of(content, detector=DetectorLike(misses=1, duplicates=0, background=0)) == []
    twice = detector_like_of(content, detector=DetectorLike(misses=0, duplicates=1, background=0))
    assert len(twice) == 2 * len(people)
    background = detector_like_of(content, detector=DetectorLike(misses=1, duplicates=0, background=2))
    assert len(background) / len(content["images"]) == pytest.approx(2, abs=0.35)


def test_scores_separate_people_from_background_imperfectly(content):
    rows = detector_like_of(content)
    near = np.array([best_overlap(row, content) for row in rows])
    scores = np.array([row["score"] for row in rows])
    assert scores[near > 0.7].mean() > scores[near < 0.2].mean() + 0.3
    assert scores[near < 0.2].max() > scores[near > 0.7].min()


def test_detector_like_boxes_are_read_as_detected_boxes(content, tmp_path):
    write_json(tmp_path / "boxes.json", detector_like_of(content))
    found = read_boxes(tmp_path / "boxes.json")
    assert found.source == "detected: boxes.json"
    assert sum(len(boxes) for boxes in found.boxes.values()) == len(detector_like_of(content))
