"""Hostile fields of COCO files and results: refused by name, wherever they are read, and before the work."""

from __future__ import annotations

import copy
import json

import bundles
import numpy as np
import pytest

from oaks import COCO17, ArgumentError
from oaks.box_files import read_boxes
from oaks.cli.main import main
from oaks.coco import check_annotations, read_annotations
from oaks.val import synthetic_boxes
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import resample_images
from oaks.val.report.drawing import check_drawing
from oaks.val.tracking import evaluate_tracks
from tests.training.conftest import write_people


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"), images=2)


def rows_of(content):
    return [
        {
            "image_id": a["image_id"],
            "category_id": 1,
            "keypoints": a["keypoints"],
            "score": 0.5,
            "track_id": a["id"],
        }
        for a in content["annotations"]
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("iscrowd", "0", "iscrowd must be 0 or 1, got '0'"), ("iscrowd", [0], "iscrowd must be 0 or 1, got an array"),
        ("iscrowd", 2, "iscrowd must be 0 or 1, got 2"), ("iscrowd", -1, "iscrowd must"), ("iscrowd", 0.5, "iscrowd must"),
        ("bbox", [1e300, 0, 1e300, 5], "bbox must lie within 1e"),
        ("bbox", [-1e9, 0, 4, 5], "bbox must lie within 1e"),
    ],
)  # fmt: skip
def test_annotations(content, field, value, message):
    changed = copy.deepcopy(content)
    changed["annotations"][0][field] = value
    with pytest.raises(ArgumentError, match=f"annotation 1: {message}"):
        check_annotations(changed, skeleton=COCO17)


@pytest.mark.parametrize("value", [None, 0, 1, True, False, 0.0, 1.0])
def test_every_usual_form_of_iscrowd_is_read(content, value):
    changed = copy.deepcopy(content)
    changed["annotations"][0]["iscrowd"] = value
    assert check_annotations(changed, skeleton=COCO17).crowd[0] == bool(value)


def test_images_and_categories(content):
    changed = copy.deepcopy(content)
    changed["images"][0]["width"] = 10**10
    with pytest.raises(ArgumentError, match=r"image 1: width must be below 1e\+09, got 10000000000"):
        check_annotations(changed, skeleton=COCO17)
    changed = copy.deepcopy(content)
    changed["annotations"][0]["keypoints"][0] = 1e308
    with pytest.raises(ArgumentError, match=r"annotation 1: keypoints must lie within 1e\+09 pixels"):
        check_annotations(changed, skeleton=COCO17)
    changed = copy.deepcopy(content)
    changed["categories"][0]["keypoints"] = [*COCO17.keypoints, "Left Eye"]
    with pytest.raises(ArgumentError, match="category 1: keypoints must differ, got 'left_eye' twice"):
        check_annotations(changed, skeleton=COCO17)


def test_a_field_that_occurs_twice_is_refused(content, tmp_path):
    text = json.dumps(content)[:-1] + ', "annotations": []}'
    (tmp_path / "a.json").write_text(text)
    for read in (read_annotations, read_boxes):
        with pytest.raises(
            ArgumentError, match=r"a\.json is not valid JSON: field 'annotations' occurs twice"
        ):
            read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [("category_id", "1"), ("category_id", True), ("image_id", True), ("image_id", "1"), ("image_id", 1.5),
     ("annotation_id", "1"), ("annotation_id", True), ("category_id", 10**30)],
)  # fmt: skip
def test_rows_of_results_with_ids_of_another_type_are_not_left_out_silently(content, field, value):
    rows = rows_of(content)
    rows[1][field] = value
    with pytest.raises(ArgumentError, match=f"row 1: {field} must be an integer, got "):
        Detections.from_rows(rows, GroundTruth.from_coco(content))


@pytest.mark.parametrize("value", ["1", 1.5, True, 10**30, None, -7])
def test_track_ids(content, tmp_path, value):
    tracked = copy.deepcopy(content)
    for person in tracked["annotations"]:
        person["track_id"] = person["id"]
    rows = rows_of(content)
    for name, changed, written in (
        ("rows.json", rows, rows),
        ("people.json", tracked["annotations"], tracked),
    ):
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        (tmp_path / "people.json").write_text(json.dumps(tracked))
        before, changed[0]["track_id"] = changed[0]["track_id"], value
        (tmp_path / name).write_text(json.dumps(written))
        with pytest.raises(ArgumentError, match=rf"{name}.*track_id"):
            evaluate_tracks(tmp_path / "rows.json", tmp_path / "people.json")
        changed[0]["track_id"] = before


@pytest.mark.parametrize(
    "box", ["abc", [1, 2, 3], {"x": 1}, [1, 2, float("nan"), 4], [[1, 2], [3, 4]], [1, 2, -3, 4], True]
)
def test_boxes_of_rows(content, box):
    from oaks.fit.people import people_of
    from oaks.val.rescore import _boxes

    truth, rows = GroundTruth.from_coco(content), rows_of(content)
    for n, row in enumerate(rows):
        row["keypoints"] = [v + (n / 9 if k % 3 == 2 else 0) for k, v in enumerate(row["keypoints"])]
        row["box"] = [1, 2, 3, 4]
    rows[1]["box"] = box
    with pytest.raises(ArgumentError, match="row 1.*: box must"):
        people_of(rows, [{}], truth, "rows", "detected")
    found = Detections.from_rows(rows, truth)
    with pytest.raises(ArgumentError, match="row 1.*: box must"):
        _boxes(truth, found, [rows[i] for i in found.rows])


@pytest.mark.parametrize("seed", [-1, 2**40, 0.5, True, None])
def test_seeds(content, seed):
    people = check_annotations(content, skeleton=COCO17)
    with pytest.raises(ArgumentError, match=r"seed must be an integer from 0"):
        synthetic_boxes.detector_like(people, seed=seed)
    with pytest.raises(ArgumentError, match=r"seed must be an integer from 0"):
        resample_images(3, 5, seed)
    for resamples in (0, 10**12, 0.5):
        with pytest.raises(ArgumentError, match=r"resamples must be an integer from 1 to 100000"):
            resample_images(3, resamples, 0)


@pytest.mark.parametrize(
    "body",
    [
        "<script/>", '<a href="#x"/>', "<style>@import 'x'</style>", "<style>*{fill:url(http://x)}</style>",
        '<image href="http://x/a.png"/>', '<use href="java&#115;cript:1"/>', "<!--><svg/onload=alert(1)>-->",
        "<?a ><svg/onload=alert(1)>?>", "<![CDATA[<img src=x onerror=1>]]>", '<set attributeName="onload"/>',
        '<g onclick="1"/>', '<g xmlns="http://www.w3.org/1999/xhtml"/>', "<g", "&a;",
    ],
)  # fmt: skip
def test_drawings_with_active_content(body):
    drawing = '<svg xmlns="http://www.w3.org/2000/svg">{}</svg>'
    check_drawing(drawing.format('<!-- a --><path d="M 0 0" style="clip-path:url(#a)"/>'), "a")
    with pytest.raises(ArgumentError, match="a must be a"):
        check_drawing(drawing.format(body), "a")


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_invalid_arguments_are_refused_before_inference(content, tmp_path, capsys, monkeypatch):
    bundle = bundles.write(tmp_path / "bundle", skeleton=COCO17).path
    write_people(tmp_path, images=2)
    annotations, out = tmp_path / "annotations.json", tmp_path / "out"

    def never(*arguments, **named):
        raise AssertionError("the networks ran")

    monkeypatch.setattr("oaks.inference.Engine.infer", never)
    (tmp_path / "rows.json").write_text(json.dumps(rows_of(content)))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "rows.json").write_text(json.dumps(rows_of(content)))
    onnx = ["--backend", "onnxruntime"]
    same = refusal(
        capsys, "val", "others", tmp_path / "rows.json", tmp_path / "b" / "rows.json", "--annotations", annotations,
        "--bundle", bundle, "--out", out, *onnx,
    )  # fmt: skip
    assert "results must have different file names" in same
    (tmp_path / "boxes.json").write_text(
        json.dumps([{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}])
    )
    found = refusal(
        capsys, "val", "run", bundle, annotations, "--boxes", tmp_path / "boxes.json", "--out", out, *onnx
    )
    assert "has no image 99" in found
    out.mkdir(exist_ok=True)
    (out / "report.json").write_text("{}")
    others = ["val", "others", tmp_path / "rows.json", "--annotations", annotations, "--bundle", bundle]
    for words in (["val", "run", bundle, annotations], others):
        assert "report.json is not a report" in refusal(capsys, *words, "--out", out, *onnx)
    assert np.array_equal(sorted(path.name for path in out.iterdir()), ["report.json"])
