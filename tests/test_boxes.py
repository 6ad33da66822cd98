"""Where boxes come from: detectors, COCO and MOT files, and the first frame alone."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from oaks import ArgumentError
from oaks.box_files import read_boxes, read_mot
from oaks.boxes import BoxSource, as_box_scores, as_boxes, boxes_from_file, first_boxes, iou, to_xywh, to_xyxy
from oaks.video import open_source
from oaks.video.frames import Frame


def frame(index: int, name: str = "") -> Frame:
    return Frame(np.zeros((80, 80, 3), np.uint8), index, index, Fraction(1, 30), name=name)


def test_a_mot_file_numbers_frames_from_one(tmp_path):
    path = tmp_path / "det.txt"
    path.write_text("1,-1,10,20,30,40,0.9\n\n3,2,1.5,2,3,4,-1,-1,-1,-1\n1,7,0,0,5,5,0,1,1\n3,3,0,0,9,9\n")
    source = boxes_from_file(path)
    assert source.description == "MOT: det.txt"
    boxes, scores = source.find(frame(0))
    np.testing.assert_array_equal(boxes, [[10, 20, 40, 60]])
    np.testing.assert_allclose(scores, [0.9])
    boxes, scores = source.find(frame(2))
    np.testing.assert_array_equal(boxes, [[1.5, 2, 4.5, 6], [0, 0, 9, 9]])
    np.testing.assert_array_equal(scores, [1, 1])
    assert source.find(frame(1))[0].shape == (0, 4)


@pytest.mark.parametrize("white", [0, 4095, 4096, 5000, 1_100_000])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lists_and_objects_are_told_apart_after_any_white_space(tmp_path, white, mark):
    path = tmp_path / "boxes.json"
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    labeled = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}], "annotations": [entry],
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    for content in ([row], labeled):
        path.write_bytes(mark + b" \n" * (white // 2) + b" " * (white % 2) + json.dumps(content).encode())
        assert read_boxes(path).of(1)[0].tolist() == [[1, 2, 4, 6]]


def test_a_mot_file_may_come_from_windows(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(b"\xef\xbb\xbf1,-1,1e1,10,20,40,9e-1\r\n\r\n2,-1,10,10,20,40,-1\r\n")
    people = read_mot(path)
    assert [people.of(frame)[0].tolist() for frame in (1, 2)] == [[[10, 10, 30, 50]]] * 2
    assert [people.of(frame)[1].tolist() for frame in (1, 2)] == [[pytest.approx(0.9)], [1]]


@pytest.mark.parametrize("line", ["1,2,3,4,5", "1,2,3,4,5,x", "frame,id,x,y,w,h"])
def test_invalid_mot_lines_are_refused(tmp_path, line):
    path = tmp_path / "det.txt"
    path.write_text(f"1,1,1,1,1,1\n{line}\n")
    with pytest.raises(ValueError, match=r"det.txt: line 2 must be frame, id, left, top, width, height"):
        read_mot(path)


@pytest.mark.parametrize(
    "line",
    ["1,2,3,4,5,6,37", "1,2,3,4,5,6,-0.3", "1,2,3,4,5,6,inf", "1,2,3,4,5,6,nan", "1,2,nan,4,5,6,1", "1,2,3,4,-5,6,1",
     "1,2,3,4,5,0,1", "0,2,3,4,5,6,1", "1.5,2,3,4,5,6,1", "1e300,2,3,4,5,6,1", "1,2,3,4,3e38,6,1"],
)  # fmt: skip
def test_invalid_mot_numbers_are_refused(tmp_path, line):
    path = tmp_path / "det.txt"
    path.write_text(f"1,1,1,1,1,1,-1\n{line}\n")
    with pytest.raises(ValueError, match=r"det.txt: line 2"):
        read_mot(path)


def test_a_mot_file_whose_boxes_must_all_be_ignored_is_refused(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,1,1,5,5,0,3,1\n2,1,1,1,5,5,0,3,1\n")
    with pytest.raises(ValueError, match=r"gt.txt: scores must not all be 0, .* got 2 of them"):
        read_mot(path)


def test_coco_boxes_are_found_by_file_name_or_frame_number(tmp_path):
    path = tmp_path / "people.json"
    rows = [{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4], "id": 1}]
    images = [{"id": 1, "file_name": "x.png"}, {"id": 2, "file_name": "a.png"}]
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    source = boxes_from_file(path)
    for asked in (frame(1), frame(0, "a.png")):
        np.testing.assert_array_equal(source.find(asked)[0], [[1, 2, 4, 6]])
        assert source.id_in_results(asked) == 2
    assert len(source.find(frame(5))[0]) == 0
    with pytest.raises(ValueError, match=r"b.png: annotated: people.json does not know this picture"):
        source.find(frame(0, "b.png"))


def test_a_source_without_boxes_of_any_frame_says_which_it_has(tmp_path):
    path = tmp_path / "det.txt"
    path.write_text("".join(f"{n},-1,1,2,3,4\n" for n in range(1001, 1021)))
    source = boxes_from_file(path)
    assert len(source.find(frame(0))[0]) == 0
    assert source.unmatched().startswith(
        "MOT: det.txt: none of its boxes belong to the frames that were read; "
    )
    assert source.unmatched().endswith(
        "it has boxes for frames (or image ids) 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, ..."
    )
    assert len(source.find(frame(1000))[0]) == 1
    assert source.unmatched() == first_boxes([]).unmatched() == ""


def test_frames_of_one_name_are_told_apart_by_their_folders(tmp_path):
    images = [{"id": n, "file_name": f"{n}/a.png"} for n in (1, 2)]
    rows = [{"image_id": n, "bbox": [n, 2, 3, 4], "id": n} for n in (1, 2)]
    (tmp_path / "people.json").write_text(json.dumps({"images": images, "annotations": rows}))
    source = boxes_from_file(tmp_path / "people.json")
    for n in (1, 2):
        (tmp_path / f"{n}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{n}" / "a.png")
        (read,) = open_source(tmp_path / f"{n}")
        assert source.find(read)[0].tolist() == [[n, 2, n + 3, 6]]


def test_boxes_are_used_at_every_nth_frame():
    for every, expected in ((1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (None, [0])):
        source = BoxSource("", lambda _frame: None, every)
        assert [n for n in range(5) if source.due(n)] == expected
    for every in (-1, 0, 1.5):
        with pytest.raises(ValueError, match="every must be an integer of at least 1"):
            BoxSource("", lambda _frame: None, every)


def test_first_boxes_are_checked():
    source = first_boxes([[0, 0, 4, 5]], [0.5])
    assert source.every is None
    boxes, scores = source.find(frame(0))
    assert (boxes.tolist(), scores.tolist()) == ([[0, 0, 4, 5]], [0.5])
    with pytest.raises(ValueError, match="boxes must have x1 <= x2"):
        first_boxes([[5, 0, 4, 5]])


def test_boxes_convert_between_xywh_and_xyxy():
    given = [[1, 2, 3, 4], [0.5, -1, 0, 2]]
    corners = to_xyxy(given)
    np.testing.assert_array_equal(corners, [[1, 2, 4, 6], [0.5, -1, 0.5, 1]])
    np.testing.assert_array_equal(to_xywh(corners), given)
    assert to_xyxy([1, 2, 3, 4]).tolist() == [1, 2, 4, 6]


def test_iou_of_every_pair():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 8, (30, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 5, (30, 2))], axis=1)
    found, expected = iou(boxes[:20], boxes[20:]), np.zeros((20, 10))
    for i, a in enumerate(boxes[:20]):
        for j, b in enumerate(boxes[20:]):
            cells = [{(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b)]
            union = len(cells[0] | cells[1])
            expected[i, j] = len(cells[0] & cells[1]) / union if union else 0
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert ((found > 0) & (found < 1)).any()
    assert iou(boxes[:0], boxes).shape == (0, 30)


@pytest.mark.parametrize(("sequence", "expected"), [(True, 1), (False, 42)])
def test_results_without_file_names_match_by_number(tmp_path, sequence, expected):
    path = tmp_path / "boxes.json"
    rows = [{"image_id": n, "category_id": 1, "bbox": [n, 0, 5, 5], "score": 0.5} for n in (1, 42)]
    path.write_text(json.dumps(rows))
    source = boxes_from_file(path, sequence=sequence)
    assert source.detected
    assert source.id_in_results(frame(0, "val/000000000042.jpg")) == expected
    assert source.image_id(frame(0, "val/000000000042.jpg")) == (None if sequence else 42)
    assert source.find(frame(0, "val/000000000042.jpg"))[0].tolist() == [[expected, 0, expected + 5, 5]]
    assert source.id_in_results(frame(0)) == 1
    if not sequence:
        with pytest.raises(ValueError, match=r"holiday.jpg: detected: boxes.json does not know"):
            source.find(frame(0, "holiday.jpg"))


@pytest.mark.parametrize(
    "boxes",
    [
        [[1 + 2j, 2, 3, 4]], [["1", "2", "3", "4"]], np.array([["2020-01-01"] * 4], "M8[D]"), [[True] * 4], [[None] * 4],
        np.ma.array([[1, 2, 3, 4]], mask=[[0, 0, 1, 0]]), np.zeros((3, 0)), np.zeros((0, 3)), [[0, 0, 3e38, 3e38]],
        [[0, 0, 10**400, 1]], [[0, 0, float("nan"), 1]], [[0, 0, 1]], "1 2 3 4", {"a": 1}, object(), 3, [[3, 0, 1, 1]],
    ],
)  # fmt: skip
def test_boxes_that_are_not_real_numbers_are_refused(boxes):
    with pytest.raises(ArgumentError, match="^boxes"):
        as_boxes("boxes", boxes)


@pytest.mark.parametrize(
    "scores", [["0.5"], [True], [1j], np.array(["2020"], "M8[Y]"), [None], np.ma.masked_all(1)]
)
def test_box_scores_that_are_not_real_numbers_are_refused(scores):
    with pytest.raises(ArgumentError, match="^box_scores"):
        as_box_scores("box_scores", scores, 1)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros(0), ()])
def test_empty_boxes_have_four_columns(boxes):
    assert as_boxes("boxes", boxes).shape == (0, 4)
