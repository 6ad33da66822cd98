"""COCO's files of results: written, read back, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
from test_poses import make

import oaks
from oaks import coco_results


def written(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_results_come_back_with_their_header(tmp_path):
    rows = make().to_coco([1, 2])
    header = coco_results.make_header({"bundle": "tiny"}, box_source="whole image", nms=None)
    coco_results.write_results(tmp_path / "results.json", rows, header)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.header.json", "results.json"]
    assert coco_results.read_results(tmp_path / "results.json") == (rows, header)
    assert header["versions"]["oaks"] == oaks.__version__
    assert {"bundle", "box_source", "nms", "versions", "system", "date"} <= set(header)


def test_results_without_a_header_have_none(tmp_path):
    coco_results.write_results(tmp_path / "results.json", [])
    assert coco_results.read_results(tmp_path / "results.json") == ([], None)
    with pytest.raises(ValueError, match=r"other\.json: must hold a list"):
        coco_results.read_results(written(tmp_path / "other.json", {"a": 1}))
    with pytest.raises(
        ValueError, match=r"rows\.json: a results file must be a list of objects .*, got another row 1"
    ):
        coco_results.read_results(written(tmp_path / "rows.json", [{"image_id": 1}, {"a": 1}]))


def test_rows_that_would_be_misread_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bbox"):
        coco_results.write_results(
            tmp_path / "results.json", [{"image_id": 1, "keypoints": [], "bbox": [0, 0, 1, 1]}]
        )
    with pytest.raises(ValueError, match="JSON"):
        coco_results.write_results(tmp_path / "results.json", [{"image_id": 1, "score": float("nan")}])
    assert list(tmp_path.iterdir()) == []


def test_pycocotools_reads_the_results_as_keypoints(tmp_path):
    """A perfect answer has an average precision of 1, which needs ids, areas and points read as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(3)
    count = 6
    corners = random.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(60, 200, (count, 2))], axis=1)
    points = boxes[:, None, :2] + random.uniform(0, 1, (count, 17, 2)) * (
        boxes[:, None, 2:] - boxes[:, None, :2]
    )
    ones = np.ones((count, 17))
    poses = oaks.Poses(
        keypoints=points, visibility=ones, similarity=ones, heat=ones, oaks_scores=np.ones(count),
        conventional_scores=np.ones(count), scores=np.linspace(1, 0.5, count), boxes=boxes,
        box_scores=np.ones(count), frame_index=np.arange(count) // 2,
    )  # fmt: skip
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in (5, 6, 7)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(oaks.COCO17.keypoints), "skeleton": []}],
        "annotations": [
            {
                "id": i + 1, "image_id": 5 + i // 2, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
                "bbox": [*box[:2], *(box[2:] - box[:2])], "area": float(np.prod(box[2:] - box[:2])),
                "keypoints": np.concatenate([own, np.full((17, 1), 2)], axis=1).ravel().tolist(),
            }
            for i, (box, own) in enumerate(zip(boxes, points, strict=True))
        ],
    }  # fmt: skip
    coco_results.write_results(tmp_path / "results.json", poses.to_coco([5, 6, 7]))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(written(tmp_path / "truth.json", truth)))
        evaluation = COCOeval(reference, reference.loadRes(str(tmp_path / "results.json")), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_rows_of_a_generator_are_all_written(tmp_path):
    rows = make().to_coco()
    coco_results.write_results(tmp_path / "r.json", (row for row in rows))
    assert coco_results.read_results(tmp_path / "r.json")[0] == rows
