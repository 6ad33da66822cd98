"""COCO's files: boxes in, results out, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
from test_poses import make

import oaks
from oaks import coco


def annotations(**changes):
    return {
        "images": [{"id": 7, "file_name": "train/a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 3, "bbox": [10, 20, 30, 40]},
            {"id": 2, "image_id": 9, "category_id": 4, "bbox": [1, 1, 1, 1]},
            {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 500, 500], "iscrowd": 1},
            {"id": 4, "image_id": 9, "category_id": 3, "bbox": [1.5, 2.5, 3, 4], "iscrowd": 0},
        ],
        **changes,
    }


def written(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_annotated_boxes_are_people_and_no_crowds(tmp_path):
    people = coco.read_boxes(written(tmp_path / "a.json", annotations()))
    boxes, scores = people.of(9)
    np.testing.assert_array_equal(boxes, np.float32([[10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]]))
    np.testing.assert_array_equal(scores, np.float32([1, 1]))
    assert people.source == "annotated: a.json"
    assert (people.image_id("x/a.jpg"), people.image_id("b.jpg"), people.image_id("c.jpg")) == (7, 9, None)
    assert people.of(7)[0].shape == (0, 4)


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path):
    images = [{"id": i, "file_name": f"{i}/a.jpg"} for i in (7, 9)]
    people = coco.read_boxes(written(tmp_path / "a.json", annotations(images=images)))
    assert people.image_id("somewhere/7/a.jpg") == 7
    assert people.image_id("9/a.jpg") == 9
    assert people.image_id("a.jpg") is None
    assert people.image_id("8/a.jpg") is None


def test_detected_boxes_keep_their_scores(tmp_path):
    rows = [
        {"image_id": 42, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.75},
        {"image_id": 42, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.9},
    ]
    people = coco.read_boxes(written(tmp_path / "d.json", rows))
    boxes, scores = people.of(people.image_id("val/000000000042.jpg"))
    np.testing.assert_array_equal(boxes, [[1, 2, 4, 6]])
    np.testing.assert_array_equal(scores, [0.75])
    assert people.image_id("COCO_val2014_000000000042.jpg") == 42
    assert people.image_id("holiday.jpg") is None
    assert people.source == "detected: d.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "COCO annotations or a list of results wanted, got dict"),
        (annotations(annotations=[{"id": 5, "image_id": 9, "category_id": 3}]), "row 5: .*bbox"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}], "row 0: "),
        ([3], "row 0: "),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, -3, 4]}], "row 0: .*-3"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, float("nan")]}], "row 0: .*nan"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": float("inf")}], "row 0: .*inf"),
        (annotations(images=[{"id": 1}]), "file_name"),
        (annotations(images=[3]), "images with id and file_name"),
        (annotations(images=[{"id": i, "file_name": "1/a.jpg"} for i in (1, 2)]), "two images"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"bad.json: .*{message}"):
        coco.read_boxes(written(tmp_path / "bad.json", content))


def test_text_that_is_no_json_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        coco.read_boxes(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError):
        coco.read_boxes(tmp_path / "gone.json")


def test_boxes_of_the_category_of_people(tmp_path):
    rows = [{"image_id": 1, "category_id": c, "bbox": [c, 0, 5, 5], "score": 1} for c in (1, 7)]
    assert coco.read_boxes(written(tmp_path / "rows.json", rows), 7).boxes[1].tolist() == [[7, 0, 12, 5]]
    content = annotations(
        categories=[{"id": 7, "name": "human"}],
        images=[{"id": 1, "file_name": "a.jpg"}],
        annotations=rows,
    )
    assert coco.read_boxes(written(tmp_path / "people.json", content)).boxes[1].tolist() == [[7, 0, 12, 5]]


def test_results_come_back_with_their_header(tmp_path):
    rows = make().to_coco([1, 2])
    header = coco.make_header({"bundle": "tiny"}, box_source="whole image", nms=None)
    coco.write_results(tmp_path / "results.json", rows, header)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.header.json", "results.json"]
    assert coco.read_results(tmp_path / "results.json") == (rows, header)
    assert header["versions"]["oaks"] == oaks.__version__
    assert {"bundle", "box_source", "nms", "versions", "system", "date"} <= set(header)


def test_results_without_a_header_have_none(tmp_path):
    coco.write_results(tmp_path / "results.json", [])
    assert coco.read_results(tmp_path / "results.json") == ([], None)
    with pytest.raises(ValueError, match=r"other\.json: a list of results"):
        coco.read_results(written(tmp_path / "other.json", {"a": 1}))


def test_rows_that_would_be_misread_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bbox"):
        coco.write_results(tmp_path / "results.json", [{"image_id": 1, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(ValueError, match="JSON"):
        coco.write_results(tmp_path / "results.json", [{"image_id": 1, "score": float("nan")}])
    assert list(tmp_path.iterdir()) == []


def test_pycocotools_takes_the_results_for_keypoints(tmp_path):
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
    coco.write_results(tmp_path / "results.json", poses.to_coco([5, 6, 7]))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(written(tmp_path / "truth.json", truth)))
        evaluation = COCOeval(reference, reference.loadRes(str(tmp_path / "results.json")), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
