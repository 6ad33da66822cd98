"""Boxes that a bundle's detector finds in a data set."""

from __future__ import annotations

import json

import bundles
import cv2
import numpy as np
import pytest
from bundles import DETECTOR_INPUT, DETECTOR_STRIDE, PERSON

import oaks
from oaks import COCO17
from oaks.box_files import read_boxes
from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.val.evaluate import Settings, evaluate_bundle
from oaks.val.find_people import find_people
from oaks.val.ground_truth import GroundTruth

CELLS = {11: [(5, 3)], 12: [], 13: [(1, 1), (8, 4)]}
"""Image id -> cells where somebody stands."""


def box_of(cell: tuple[int, int]) -> list[float]:
    """x, y, width, height within the picture."""
    middle = (np.array(cell) + 0.5) * DETECTOR_STRIDE
    low = np.maximum(middle - np.array(PERSON) / 2, 0)
    high = np.minimum(middle + np.array(PERSON) / 2, DETECTOR_INPUT)
    return [*low, *(high - low)]


@pytest.fixture
def data(tmp_path):
    """Annotations, and pictures with a white cell for each person; one person in the last picture has no annotation."""
    (tmp_path / "people").mkdir()
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}],
    }
    width, height = DETECTOR_INPUT
    for number, cells in CELLS.items():
        picture = np.zeros((*DETECTOR_INPUT[::-1], 3), np.uint8)
        for x, y in cells:
            picture[DETECTOR_STRIDE * y :, DETECTOR_STRIDE * x :][:DETECTOR_STRIDE, :DETECTOR_STRIDE] = 255
        cv2.imwrite(str(tmp_path / "people" / f"{number}.png"), picture)
        content["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        )
        for cell in cells[:1]:
            box = box_of(cell)
            places = np.random.default_rng(number).random((17, 2)) * box[2:] + box[:2]
            keypoints = np.column_stack([places, np.full(17, 2)])
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box,
                "area": box[2] * box[3] / 2, "keypoints": keypoints.ravel().tolist(), "num_keypoints": 17,
            })  # fmt: skip
    write_json(tmp_path / "people.json", content)
    return tmp_path


@pytest.fixture
def engine(tmp_path):
    bundle = bundles.write_with_detector(tmp_path / "bundle", skeleton=COCO17)
    with oaks.Engine(bundle, "onnxruntime", threads=1) as made:
        yield made


def test_people_are_found_in_every_image_annotated_or_not(data, engine):
    truth = GroundTruth.load(data / "people.json")
    path = find_people(engine, truth, data / "people", data / "boxes.json")
    rows = json.loads(path.read_text())
    assert {row["category_id"] for row in rows} == {1}
    for number, cells in CELLS.items():
        own = sorted(row["bbox"] for row in rows if row["image_id"] == number)
        np.testing.assert_allclose(
            np.reshape(own, (-1, 4)), np.reshape(sorted(map(box_of, cells)), (-1, 4)), atol=0.5
        )
    assert {image: len(found) for image, found in read_boxes(path).boxes.items()} == {11: 1, 13: 2}


def test_a_complete_run_is_kept_and_another_threshold_is_refused(data, engine):
    truth = GroundTruth.load(data / "people.json")
    path = find_people(engine, truth, data / "people", data / "boxes.json")
    written = path.stat().st_mtime_ns
    assert find_people(engine, truth, data / "people", path).stat().st_mtime_ns == written
    other = oaks.Detector(engine.bundle, threshold=0.3, backend="onnxruntime", threads=1)
    with (
        oaks.Engine(engine.bundle, "onnxruntime", threads=1, detector=other) as second,
        pytest.raises(ArgumentError, match=r"threshold 0\.5, now it is 0\.3"),
    ):
        find_people(second, truth, data / "people", path)


def test_a_stopped_run_is_resumed(data, engine, monkeypatch):
    truth = GroundTruth.load(data / "people.json")
    whole = find_people(engine, truth, data / "people", data / "whole.json").read_bytes()
    monkeypatch.setattr("oaks.val.resumable.PEOPLE_AT_ONCE", 1)
    detect, calls = type(engine).detect, []

    def twice(self, frames):
        calls.append(frames)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return detect(self, frames)

    monkeypatch.setattr(type(engine), "detect", twice)
    with pytest.raises(KeyboardInterrupt):
        find_people(engine, truth, data / "people", data / "boxes.json")
    assert find_people(engine, truth, data / "people", data / "boxes.json").read_bytes() == whole
    assert len(calls) == 4


def test_the_evaluation_uses_the_detector_of_the_bundle(data, engine):
    truth = GroundTruth.load(data / "people.json")
    report = evaluate_bundle(engine, truth, data / "people", data / "report", settings=Settings(resamples=2))
    groups = {title: dict(entries) for title, entries in report.head}
    assert groups["Results: detected boxes"]["Box source"] == "detected: people-boxes.json"
    assert len(json.loads((data / "report" / "detected-boxes.json").read_text())) == 3
    assert not (data / "report" / "detector-like-boxes.json").exists()
