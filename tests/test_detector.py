"""Detectors: made of constants, so that what they find is known, in every form of output."""

from __future__ import annotations

from pathlib import Path

import bundles
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from oaks import detector_formats
from oaks.detector import Detector, read_settings

SIZE = (64, 64)  # the network's input
CELLS = [(s, x, y) for s in (8, 16, 32) for y in range(64 // s) for x in range(64 // s)]


def write(
    path: Path, outputs: dict[str, np.ndarray], *, size=SIZE, probe: bool = False, shape=None, half: bool = False,
    **metadata: str,
) -> Path:  # fmt: skip
    """A network that gives constants; with `probe`, also the mean of each input channel as scores."""
    element = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    shape = shape or ([1, 3, size[1], size[0]] if size else [1, 3, "H", "W"])
    pixels = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [helper.make_node("Identity", [f"{name}_constant"], [name]) for name in outputs]
    constants = [numpy_helper.from_array(value, f"{name}_constant") for name, value in outputs.items()]
    given = [
        helper.make_tensor_value_info(name, element[value.dtype.kind], value.shape)
        for name, value in outputs.items()
    ]
    if probe:
        nodes = [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Div", ["pooled", "most"], ["share"]),
            helper.make_node("Reshape", ["share", "flat"], ["scores"]),
            *(node for node in nodes if node.output[0] != "scores"),
        ]
        constants += [
            numpy_helper.from_array(np.float32([255]), "most"),
            numpy_helper.from_array(np.int64([3]), "flat"),
        ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", pixels, shape)],
        given,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def yolox(
    people: list[tuple[int, int, int, tuple[float, float, float, float], float, float]], classes: int = 3
):
    """Raw rows: (stride, x, y) of the cell, the box (cx, cy, w, h) in input pixels, objectness, class 0."""
    rows = np.zeros((len(CELLS), 5 + classes), np.float32)
    for stride, x, y, (cx, cy, w, h), objectness, probability in people:
        row = rows[CELLS.index((stride, x, y))]
        row[:5] = cx / stride - x, cy / stride - y, np.log(w / stride), np.log(h / stride), objectness
        row[5] = probability
        row[6] = 1
    return {"output": rows[None]}


def test_raw_outputs_are_decoded_on_their_grid(tmp_path):
    rows = yolox([
        (8, 2, 5, (20, 44, 16, 30), 0.9, 0.8),
        (32, 1, 0, (44, 20, 36, 38), 1.0, 0.95),
        (16, 0, 3, (8, 56, 8, 8), 0.5, 0.5),
    ])  # fmt: skip
    detector = Detector(write(tmp_path / "d.onnx", rows), threshold=0.3)
    boxes, scores = detector.detect(np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_allclose(scores, [0.95, 0.72], rtol=1e-6)
    np.testing.assert_allclose(boxes, [[26, 1, 62, 39], [12, 29, 28, 59]], atol=1e-3)
    assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)


def test_boxes_return_through_the_letterbox(tmp_path):
    detector = Detector(write(tmp_path / "d.onnx", yolox([(8, 2, 3, (20, 24, 16, 16), 1.0, 0.9)])))
    boxes, _ = detector.detect(np.zeros((120, 160, 3), np.uint8))  # 160 x 120 becomes 64 x 48
    np.testing.assert_allclose(boxes, [[30, 40, 70, 80]], atol=1e-3)
    boxes, _ = detector.detect(np.zeros((128, 32, 3), np.uint8))  # 32 x 128 becomes 16 x 64
    np.testing.assert_allclose(boxes, [[24, 32, 32, 64]], atol=1e-3)  # cut off at the picture's edge


def test_overlapping_boxes_are_suppressed(tmp_path):
    rows = yolox([
        (8, 2, 2, (20, 20, 20, 20), 1.0, 0.8),
        (8, 3, 2, (21, 20, 20, 20), 1.0, 0.9),
        (8, 5, 5, (44, 44, 20, 20), 1.0, 0.7),
        (16, 3, 3, (52, 44, 20, 20), 1.0, 0.6),
    ])  # fmt: skip
    path = write(tmp_path / "d.onnx", rows)
    picture = np.zeros((64, 64, 3), np.uint8)
    # Overlaps: 19 of 21 columns, and 12 of 28, cut off at the edge only afterwards.
    np.testing.assert_allclose(Detector(path).detect(picture)[1], [0.9, 0.7, 0.6], rtol=1e-6)
    np.testing.assert_allclose(Detector(path, overlap=0.4).detect(picture)[1], [0.9, 0.7], rtol=1e-6)
    np.testing.assert_allclose(
        Detector(path, overlap=0.95).detect(picture)[1], [0.9, 0.8, 0.7, 0.6], rtol=1e-6
    )


def test_only_the_class_of_people_is_detected(tmp_path):
    rows = yolox([(8, 2, 2, (20, 20, 20, 20), 1.0, 0.1)])
    path = write(tmp_path / "d.onnx", rows)
    assert len(Detector(path).detect(np.zeros((64, 64, 3), np.uint8))[0]) == 0
    assert len(Detector(path, person=1).detect(np.zeros((64, 64, 3), np.uint8))[0]) == 1


BOXES = np.float32([[2, 3, 30, 40], [10, 10, 20, 20], [5, 5, 60, 50], [0, 0, 9, 9]])
SCORES = np.float32([0.5, 0.9, 0.8, 0.2])
LABELS = np.int64([0, 7, 0, 0])
ENDS = {
    "three": {"boxes": BOXES, "scores": SCORES, "labels": LABELS},
    "three, in another order": {"labels": LABELS, "boxes": BOXES, "scores": SCORES},
    "three in a batch": {"boxes": BOXES[None], "scores": SCORES[None], "labels": LABELS[None]},
    "boxes with scores": {"dets": np.column_stack([BOXES, SCORES])[None], "labels": LABELS[None]},
    "rows": {"rows": np.column_stack([BOXES, SCORES, LABELS]).astype(np.float32)[None]},
}


@pytest.mark.parametrize("form", ENDS)
def test_end_to_end_exports_are_read(tmp_path, form):
    detector = Detector(write(tmp_path / "d.onnx", ENDS[form]))
    boxes, scores = detector.detect(np.zeros((128, 128, 3), np.uint8))
    np.testing.assert_allclose(scores, [0.8, 0.5])
    np.testing.assert_allclose(boxes, 2 * BOXES[[2, 0]])


def test_one_or_no_detection_has_the_usual_shape(tmp_path):
    one = {"boxes": BOXES[:1], "scores": SCORES[:1], "labels": LABELS[:1]}
    boxes, scores = Detector(write(tmp_path / "one.onnx", one)).detect(np.zeros((64, 64, 3), np.uint8))
    assert (boxes.shape, scores.shape) == ((1, 4), (1,))
    none = Detector(write(tmp_path / "none.onnx", yolox([])))
    boxes, scores = none.detect(np.zeros((64, 64, 3), np.uint8))
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))


def test_an_empty_box_is_left_out(tmp_path):
    outside = {
        "boxes": np.float32([[70, 70, 90, 90], [3, 3, 3, 9]]),
        "scores": SCORES[:2],
        "labels": LABELS[:1].repeat(2),
    }
    boxes, _ = Detector(write(tmp_path / "d.onnx", outside)).detect(np.zeros((64, 64, 3), np.uint8))
    assert len(boxes) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["scores", "boxes"])
@pytest.mark.parametrize("form", [*ENDS, "yolox", "centers"])
def test_numbers_that_are_not_finite_are_not_nobody(tmp_path, monkeypatch, form, place, value):
    """A network that gives NaN for one picture; for that with which it is loaded it does not."""
    if form == "centers":
        detector = Detector(bundles.write_with_detector(tmp_path / "d"))
        maps, output = detector._model._found, {"scores": "centers", "boxes": "sizes"}[place]
        decode = "oaks.detector.decode_centers"
        decoded = detector_formats.decode_centers

        def spoilt(*arrays, **settings):
            maps[output][...] = value
            return decoded(*arrays, **settings)

        monkeypatch.setattr(decode, spoilt)
    else:
        outputs = yolox([(8, 2, 5, (20, 44, 16, 30), 0.9, 0.8)]) if form == "yolox" else ENDS[form]
        detector = Detector(write(tmp_path / "d.onnx", outputs))
        names = [output.name for output in detector._model._session.get_outputs()]
        bad = [np.array(array) for array in detector._model._run()]
        for name, array in zip(names, bad, strict=True):
            if name == place:
                array[...] = value
            elif name in ("dets", "rows", "output"):  # four numbers of the box, then the score
                array[..., 4 if place == "scores" else slice(0, 4)] = value
        monkeypatch.setattr(detector._model, "_run", lambda: bad)
    with pytest.raises(ValueError, match="the network's outputs must be finite|scores must be from 0 to 1"):
        detector.detect(np.full((64, 64, 3), 255, np.uint8))


@pytest.mark.parametrize(("color", "expected"), [("bgr", [10, 20, 30]), ("rgb", [30, 20, 10])])
def test_pixels_reach_the_network_in_its_order(tmp_path, color, expected):
    """Scores are the means of the input's channels, on a picture that fills the input."""
    outputs = {"boxes": BOXES[:3], "scores": SCORES[:3], "labels": np.zeros(3, np.int64)}
    path = write(tmp_path / "d.onnx", outputs, probe=True)
    picture = np.full((32, 32, 3), (10, 20, 30), np.uint8)
    boxes, scores = Detector(path, threshold=0, color=color).detect(picture)
    order = [int(np.flatnonzero((BOXES[:3] / 2 == box).all(axis=1))[0]) for box in boxes]
    np.testing.assert_allclose(scores[np.argsort(order)], np.array(expected) / 255, rtol=1e-5)
    _, scaled = Detector(path, threshold=0, color=color, mean=expected, std=(2, 2, 2)).detect(picture)
    np.testing.assert_allclose(scaled, 0, atol=1e-6)


def test_the_border_of_a_narrow_picture_is_gray(tmp_path):
    outputs = {"boxes": BOXES[:3], "scores": SCORES[:3], "labels": np.zeros(3, np.int64)}
    detector = Detector(write(tmp_path / "d.onnx", outputs, probe=True), threshold=0)
    _, scores = detector.detect(np.full((64, 16, 3), 200, np.uint8))
    np.testing.assert_allclose(scores, (0.25 * 200 + 0.75 * 114) / 255, rtol=1e-5)


def test_an_input_of_any_size_uses_the_given_size(tmp_path):
    path = write(tmp_path / "d.onnx", ENDS["three"], size=None)
    assert Detector(path, size=(128, 96)).size == (128, 96)
    assert Detector(write(tmp_path / "e.onnx", ENDS["three"]), size=(128, 96)).size == SIZE


def test_invalid_files_and_images_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx"):
        Detector(tmp_path / "gone.onnx")
    path = write(tmp_path / "d.onnx", ENDS["three"])
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"detector: .*cut\.onnx must be an ONNX file"):
        Detector(tmp_path / "cut.onnx")
    with pytest.raises(ValueError, match=r"image must be .*got \(9, 9\)"):
        Detector(path).detect(np.zeros((9, 9), np.uint8))
    strange = write(tmp_path / "s.onnx", {"maps": np.zeros((1, 4, 8, 8), np.float32)})
    with pytest.raises(
        ValueError, match=r"s\.onnx: .*must be YOLOX's, YOLOv5's, Ultralytics' or boxes, scores and labels"
    ):
        Detector(strange)


def test_detector_settings_are_parsed_from_texts(tmp_path):
    texts = ["color=rgb", "mean=123.7,116,103.5", "std=58,57,57", "size=128,96", "overlap=0.5"]
    settings = read_settings(texts)
    assert settings == {
        "color": "rgb", "mean": (123.7, 116, 103.5), "std": (58, 57, 57), "size": (128, 96), "overlap": 0.5,
    }  # fmt: skip
    detector = Detector(write(tmp_path / "d.onnx", ENDS["three"], size=None), **settings)
    assert detector.description == (
        "detector: d.onnx, boxes after NMS, threshold 0.3, overlap 0.5, class 0, 128x96, "
        "rgb with mean 123.7, 116, 103.5 and std 58, 57, 57"
    )
    with pytest.raises(
        ValueError, match=r"--detector-set must be NAME=VALUE with NAME one of color, mean, .*'a=1'"
    ):
        read_settings(["a=1"])


def test_a_network_of_another_kind_is_named(tmp_path):
    made = bundles.write(tmp_path / "tiny", skeleton=bundles.COCO17)
    with pytest.raises(ValueError, match=r"ks\.fp32\.onnx must have one float32 or float16 input"):
        Detector(made.path / "ks.fp32.onnx")


def ultralytics(
    people: list[tuple[tuple[float, float, float, float], float]], classes: int = 80
) -> np.ndarray:
    """(4 + classes, cells) of boxes (cx, cy, w, h) and the score of class 0."""
    rows = np.zeros((len(CELLS), 4 + classes), np.float32)
    for row, (box, score) in zip(rows, people, strict=False):
        row[:4], row[4] = box, score
    return rows.T


PEOPLE = [((20, 24, 16, 20), 0.9), ((21, 24, 16, 20), 0.8), ((48, 40, 10, 30), 0.6)]


def anchored(people) -> np.ndarray:
    """(3 cells, 85) rows of YOLOv5: the score is objectness times the probability of the class."""
    rows = np.zeros((3 * len(CELLS), 8), np.float32)
    for row, (box, score) in zip(rows, people, strict=False):
        row[:4], row[4], row[5] = box, 1, score
    return rows


def test_ultralytics_and_yolov5_exports_are_recognized_by_their_shapes(tmp_path):
    expected = [[12, 14, 28, 34], [43, 25, 53, 55]]
    for name, output in (("v8", ultralytics(PEOPLE)), ("v5", anchored(PEOPLE))):
        detector = Detector(write(tmp_path / f"{name}.onnx", {"output0": output[None]}))
        boxes, scores = detector.detect(np.zeros((64, 64, 3), np.uint8))
        np.testing.assert_allclose(scores, [0.9, 0.6], rtol=1e-6)
        np.testing.assert_allclose(boxes, expected, atol=1e-4)
        # 128 x 64 fills 64 x 32, in the middle of the input.
        boxes, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))
        np.testing.assert_allclose(boxes, [[24, 0, 56, 36], [86, 18, 106, 64]], atol=1e-4)
        assert "rgb with mean 0, 0, 0 and std 255, 255, 255" in detector.description


WIDE = (160, 96)  # its 315 cells are no number of values
FOUND = [[12, 14, 28, 34]]


def one_person(boxes: int, classes: int, *, objectness: bool, person: int = 0) -> np.ndarray:
    """(boxes, 4 or 5 + classes) with one person, centered at (20, 24)."""
    rows = np.zeros((boxes, 4 + objectness + classes), np.float32)
    rows[0, :4] = 20, 24, 16, 20
    rows[0, 4] = 1
    rows[0, 4 + objectness + person] = 0.9
    return rows


def detect_wide(path: Path, **settings) -> np.ndarray:
    boxes, scores = Detector(path, **settings).detect(np.zeros((96, 160, 3), np.uint8))
    np.testing.assert_allclose(scores, [0.9] * len(scores), rtol=1e-3)
    return boxes


@pytest.mark.parametrize(
    ("boxes", "classes", "objectness", "layout"),
    [
        (315, 80, False, "Ultralytics"), (315, 1, False, "Ultralytics"), (945, 80, True, "YOLOv5"),
        (945, 1, True, "YOLOv5"), (945, 7, True, "YOLOv5"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("batch", [True, False])
def test_either_order_of_axes_is_read(tmp_path, boxes, classes, objectness, layout, turned, batch):
    rows = one_person(boxes, classes, objectness=objectness)
    rows = np.ascontiguousarray(rows.T) if turned else rows
    path = write(tmp_path / "d.onnx", {"output0": rows[None] if batch else rows}, size=WIDE)
    np.testing.assert_allclose(detect_wide(path), FOUND)
    order = "values, boxes" if turned else "boxes, values"
    assert f"{layout} ({order})" in Detector(path).description


def test_values_that_two_families_may_give_are_no_silent_guess(tmp_path, caplog):
    rows = one_person(315, 80, objectness=True)
    with pytest.raises(
        ValueError,
        match=r"85 values per box: 4 and 81 classes must be named .*, 5 and 80 classes must be on the",
    ):
        Detector(write(tmp_path / "turned.onnx", {"output0": rows.T[None].copy()}, size=WIDE))
    turned = one_person(315, 2, objectness=False)[None]  # as one class of YOLOX
    Detector(write(tmp_path / "two.onnx", {"output0": turned}, size=WIDE))
    assert "which do not tell what pixels it takes" in caplog.text
    caplog.clear()
    path = write(tmp_path / "named.onnx", {"output0": turned}, size=WIDE, names="{0: 'person', 1: 'car'}")
    np.testing.assert_allclose(detect_wide(path), FOUND)
    assert not caplog.text


def test_pixels_of_decoded_boxes_with_objectness_are_no_silent_guess(tmp_path, caplog):
    """YOLOX takes BGR from 0 to 255; YOLOv6, whose decoded exports have the same outputs, takes RGB from 0 to 1."""
    rows = one_person(315, 80, objectness=True)[None]
    path = write(tmp_path / "d.onnx", {"outputs": rows}, size=WIDE)
    np.testing.assert_allclose(detect_wide(path), FOUND)
    assert "which do not tell what pixels it takes" in caplog.text
    caplog.clear()
    Detector(path, color="rgb")
    assert not caplog.text


@pytest.mark.parametrize(
    "names", ["{0: 'car', 1: 'person'}", '["car", "Person"]', '{"1": "person", "0": "car"}']
)
@pytest.mark.parametrize("form", ["v8", "turned", "end"])
def test_the_class_of_people_is_that_of_its_name(tmp_path, names, form):
    rows = one_person(315, 2, objectness=False, person=1)
    if form == "end":
        rows = np.zeros((300, 6), np.float32)
        rows[0] = *FOUND[0], 0.9, 1
        rows[1] = 50, 50, 70, 70, 0.8, 0
    output = np.ascontiguousarray(rows.T) if form == "turned" else rows
    stated = {"names": names, "author": "Ultralytics", "task": "detect", "stride": "32"}
    path = write(tmp_path / "d.onnx", {"output0": output[None]}, size=WIDE, **stated)
    np.testing.assert_allclose(detect_wide(path), FOUND)
    assert "class 1" in Detector(path).description
    assert "class 0" in Detector(path, person=0).description


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{0: 'car', 1: 'dog'}", "classes must include person, got 0 car, 1 dog; pass the index as person"),
        ("['person', 'car', 'dog']", "as its metadata name, 3, got 6 values per box"),
        ("{0:", "metadata's names must be a list of class names, got '{0:'"),
        ("{'a': 'person'}", "metadata's names must be"), ("7", "metadata's names must be"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(tmp_path, names, message):
    rows = one_person(315, 2, objectness=False).T[None].copy()
    path = write(tmp_path / "d.onnx", {"output0": rows}, size=WIDE, names=names)
    with pytest.raises(ValueError, match=rf"d\.onnx: .*{message}"):
        Detector(path)


@pytest.mark.parametrize(
    ("key", "value"), [("color", "bgr"), ("channel_order", " BGR"), ("Image.BitmapPixelFormat", "Bgr8")]
)
def test_a_stated_channel_order_replaces_that_of_the_family(tmp_path, key, value):
    rows = {"output0": one_person(315, 80, objectness=False).T[None].copy()}
    path = write(tmp_path / "d.onnx", rows, size=WIDE, **{key: value})
    assert "bgr with mean 0, 0, 0 and std 255, 255, 255" in Detector(path).description
    assert "rgb with mean" in Detector(path, color="rgb").description
    with pytest.raises(ValueError, match=rf"g\.onnx: the metadata's {key} must be RGB or BGR, got 'Gray8'"):
        Detector(write(tmp_path / "g.onnx", rows, size=WIDE, **{key: "Gray8"}))


def test_boxes_in_shares_of_the_picture_are_refused(tmp_path):
    """All people would be found in the corner of the picture."""
    rows = one_person(315, 80, objectness=False)
    rows[:, :4] /= 160
    path = write(tmp_path / "d.onnx", {"output0": rows.T[None].copy()}, size=WIDE)
    with pytest.raises(
        ValueError, match=r"d\.onnx: the network's boxes must be in pixels of its input, got .*0\.15"
    ):
        Detector(path)


def test_rows_that_fill_an_output_up_are_no_boxes(tmp_path):
    rows = np.zeros((300, 6), np.float32)
    rows[0] = *FOUND[0], 0.9, 0
    path = write(tmp_path / "d.onnx", {"output0": rows[None]}, size=WIDE)
    boxes, scores = Detector(path, threshold=0).detect(np.zeros((96, 160, 3), np.uint8))
    np.testing.assert_allclose(boxes[scores > 0], FOUND)
    write(tmp_path / "nobody.onnx", {"output0": np.zeros((1, 300, 6), np.float32)}, size=WIDE)
    Detector(tmp_path / "nobody.onnx", threshold=0)


def test_half_precision_is_read(tmp_path):
    outputs = {"boxes": BOXES[:3], "scores": SCORES[:3], "labels": np.zeros(3, np.int64)}
    _, scores = Detector(write(tmp_path / "d.onnx", outputs, half=True)).detect(
        np.zeros((64, 64, 3), np.uint8)
    )
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.5])
    rows = one_person(315, 80, objectness=False).T[None].astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["constant"], ["output0"])],
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT16, [1, 3, 96, 160])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT16, rows.shape)],
        [numpy_helper.from_array(rows, "constant")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "half.onnx")
    np.testing.assert_allclose(detect_wide(tmp_path / "half.onnx"), FOUND)


def test_open_axes_have_the_size_of_the_export(tmp_path):
    rows = {"output0": one_person(315, 80, objectness=False).T[None].copy()}
    for shape in (
        ["batch", 3, "height", "width"],
        [None, 3, None, None],
        [1, 3, 96, "width"],
        [1, 3, "height", 160],
    ):
        path = write(tmp_path / "d.onnx", rows, shape=shape, imgsz="[96, 160]")
        assert Detector(path).size == WIDE
        np.testing.assert_allclose(
            detect_wide(write(tmp_path / "e.onnx", rows, shape=shape), size=WIDE), FOUND
        )
    with pytest.raises(ValueError, match=r"b\.onnx must have one float32 or float16 input \(1, 3, H, W\)"):
        Detector(write(tmp_path / "b.onnx", rows, shape=[4, 3, 96, 160]))


def test_300_rows_of_six_are_an_end_to_end_export_of_ultralytics(tmp_path):
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = 2, 3, 30, 40, 0.9, 0
    rows[0, 1] = 2, 3, 30, 40, 0.8, 5
    detector = Detector(write(tmp_path / "d.onnx", {"output0": rows}))
    boxes, scores = detector.detect(np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[2, 3, 30, 40]])
    np.testing.assert_allclose(scores, [0.9], rtol=1e-6)
    assert "Ultralytics end-to-end" in detector.description


def test_decoded_yolox_is_distinguished_from_raw_yolox(tmp_path):
    rows = yolox([(8, 2, 5, (20, 44, 16, 30), 0.9, 0.8)])["output"]
    for row, (stride, x, y) in zip(rows[0], CELLS, strict=True):
        row[:2] = (row[:2] + np.float32([x, y])) * stride
        row[2:4] = np.exp(row[2:4]) * stride
    detector = Detector(write(tmp_path / "d.onnx", {"output": rows}))
    boxes, _ = detector.detect(np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[12, 29, 28, 59]], atol=1e-3)
    assert "YOLOX, decoded" in detector.description


def test_unknown_preprocessing_causes_a_warning(tmp_path, caplog):
    path = write(tmp_path / "d.onnx", ENDS["three"])
    Detector(path)
    assert "BGR from 0 to 255 is assumed" in caplog.text
    caplog.clear()
    Detector(path, color="rgb")
    assert not caplog.text


@pytest.mark.parametrize("shape", [(1, 80, 100), (1, 100, 87), (1, 5), (1, 3, 3, 2)])
def test_unknown_shapes_are_refused_by_name(tmp_path, shape):
    path = write(tmp_path / "d.onnx", {"output0": np.zeros(shape, np.float32)})
    with pytest.raises(ValueError, match=r"d\.onnx: the network's outputs must be .*float32"):
        Detector(path)


def test_a_task_other_than_detection_is_refused(tmp_path):
    path = write(tmp_path / "d.onnx", {"output0": ultralytics(PEOPLE)[None]})
    model = onnx.load(path)
    helper.set_model_props(model, {"author": "Ultralytics", "task": "segment"})
    onnx.save(model, path)
    with pytest.raises(ValueError, match="for the task 'segment'"):
        Detector(path)


def test_a_class_that_the_network_lacks_is_refused(tmp_path):
    path = write(tmp_path / "d.onnx", {"output0": ultralytics(PEOPLE, classes=1)[None]})
    with pytest.raises(ValueError, match="person must be below the network's 1 classes, got 1"):
        Detector(path, person=1)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"person": -1}, "person"), ({"person": 2.0}, "person"), ({"person": True}, "person"), ({"person": 2**40}, "person"),
        ({"mean": (float("nan"), 0, 0)}, "mean"), ({"mean": (float("inf"), 0, 0)}, "mean"),
        ({"mean": ("1", "2", "3")}, "mean"),
        ({"std": (0, 1, 1)}, "std"), ({"std": (1e-30, 1, 1)}, "std"), ({"std": (float("inf"), 1, 1)}, "std"),
        ({"size": (10**6, 64)}, "size"), ({"size": (64.5, 64)}, "size"), ({"threads": 0}, "threads"),
        ({"threads": 10**6}, "threads"), ({"threshold": "0.5"}, "threshold"), ({"overlap": float("nan")}, "overlap"),
        ({"threshold": 2}, "threshold"), ({"overlap": -1}, "overlap"), ({"mean": (1, 2)}, "mean"),
        ({"size": (640,)}, "size"), ({"size": (0, 640)}, "size"),
        ({"color": "gray"}, "color"), ({"color": np.array(["bgr", "rgb"])}, "color"), ({"color": 3}, "color"),
        ({"color": ["bgr"]}, "color"), ({"color": b"bgr"}, "color"),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused(tmp_path, settings, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        Detector(tmp_path / "missing.onnx", **settings)


@pytest.mark.parametrize(
    ("name", "value"), [("backend", "openvino"), ("precision", "fp32"), ("device", "cuda")]
)
def test_settings_without_effect_on_an_onnx_file_are_refused(tmp_path, name, value):
    message = f"{name} must be left out for an ONNX file, .*CPU provider, got '{value}'"
    with pytest.raises(ValueError, match=message):
        Detector(tmp_path / "missing.onnx", **{name: value})


def test_a_huge_input_size_is_refused(tmp_path):
    path = write(tmp_path / "d.onnx", yolox([(8, 2, 5, (20, 44, 16, 30), 0.9, 0.8)]), size=(100_000, 64))
    with pytest.raises(ValueError, match="sides of its input must be from 1 to 4096, got 100000x64"):
        Detector(path)
