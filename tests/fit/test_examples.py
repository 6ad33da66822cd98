"""The example that writes other libraries' poses as COCO results, on objects like those the libraries return."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from oaks import COCO17
from oaks.coco_results import read_results, write_results

PATH = Path(__file__).parents[2] / "examples" / "other_estimators.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("other_estimators", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def poses():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 200, (2, 17, 2)), rng.random((2, 17))


def check(row, points, heat):
    flat = np.array(row["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(flat[:, :2], points)
    np.testing.assert_allclose(flat[:, 2], heat)


def test_rtmlib(example, poses, tmp_path):
    rows = example.from_rtmlib(7, *poses)
    for n, row in enumerate(rows):
        check(row, poses[0][n], poses[1][n])
        assert row["score"] == pytest.approx(poses[1][n].mean())
        assert "box" not in row
    write_results(tmp_path / "results.json", rows, {"estimator": "rtmpose-m", "decoder": "simcc"})
    assert read_results(tmp_path / "results.json") == (rows, {"estimator": "rtmpose-m", "decoder": "simcc"})
    assert example.from_rtmlib(7, np.zeros((0, 17, 2)), np.zeros((0, 17))) == []


def test_ultralytics(example, poses):
    """Tensors there have cpu(); boxes come with them."""
    data = np.concatenate([poses[0], poses[1][..., None]], axis=2)
    boxes = np.array([[1.0, 2, 11, 22], [3, 4, 33, 44]])
    tensor = lambda array: SimpleNamespace(cpu=lambda: array)  # noqa: E731
    result = SimpleNamespace(
        keypoints=SimpleNamespace(data=tensor(data)),
        boxes=SimpleNamespace(xyxy=tensor(boxes), conf=tensor(np.array([0.5, 0.25]))),
    )
    rows = example.from_ultralytics(3, result)
    for n, row in enumerate(rows):
        check(row, poses[0][n], poses[1][n])
    assert [row["box"] for row in rows] == [[1, 2, 10, 20], [3, 4, 30, 40]]
    assert [row["box_score"] for row in rows] == [0.5, 0.25]
    assert rows[0]["score"] == pytest.approx(0.5 * poses[1][0].mean())
    empty = SimpleNamespace(keypoints=SimpleNamespace(data=np.zeros((0, 17, 3))), boxes=None)
    assert example.from_ultralytics(3, empty) == []


def test_mediapipe(example):
    """Landmark i at (i / 100, i / 50) of a picture of 400 x 200; its order is checked by the names of both."""
    pose = [SimpleNamespace(x=i / 100, y=i / 50, visibility=i / 33) for i in range(33)]
    (row,) = example.from_mediapipe(3, [pose], 400, 200)
    names = {0: "nose", 2: "left_eye", 5: "right_eye", 7: "left_ear", 8: "right_ear", 11: "left_shoulder",
             12: "right_shoulder", 13: "left_elbow", 14: "right_elbow", 15: "left_wrist", 16: "right_wrist",
             23: "left_hip", 24: "right_hip", 25: "left_knee", 26: "right_knee", 27: "left_ankle",
             28: "right_ankle"}  # fmt: skip
    found = np.array(row["keypoints"]).reshape(17, 3)
    for i, name in names.items():
        expected = [i / 100 * 400 - 0.5, i / 50 * 200 - 0.5, i / 33]
        np.testing.assert_allclose(found[COCO17.keypoints.index(name)], expected)
    assert example.from_mediapipe(3, [], 400, 200) == []
    json.dumps(row)
