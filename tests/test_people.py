"""People found by a bundle's detector: white cells of 8 x 8 pixels are people of 16 x 24 pixels around them."""

from __future__ import annotations

from pathlib import Path

import bundles
import numpy as np
import pytest
from bundles import DETECTOR_INPUT as INPUT
from bundles import DETECTOR_STRIDE as STRIDE

import oaks
from oaks.detector_formats import decode_centers
from oaks.inference import detector_beside
from oaks.video import open_source

BOX = bundles.PERSON


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> oaks.Bundle:
    return bundles.write_with_detector(tmp_path_factory.mktemp("people") / "tiny")


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine(request: pytest.FixtureRequest, bundle: oaks.Bundle):
    pytest.importorskip(request.param)
    with oaks.Engine(bundle, request.param, threads=1) as made:
        yield made


def picture(cells: list[tuple[int, int]], size: tuple[int, int] = INPUT) -> np.ndarray:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for x, y in cells:
        image[STRIDE * y : STRIDE * (y + 1), STRIDE * x : STRIDE * (x + 1)] = 255
    return image


def around(cells: list[tuple[int, int]], size: tuple[int, int] = INPUT) -> np.ndarray:
    middles = (np.asarray(cells, np.float32).reshape(-1, 2) + 0.5) * STRIDE
    half = np.float32(BOX) / 2
    return np.clip(np.concatenate([middles - half, middles + half], axis=1), 0, [*size, *size])


def in_order(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.lexsort(boxes.T)]


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [(5, 3)],
        [(0, 0), (11, 0), (0, 7), (11, 7), (5, 0), (0, 4), (11, 4), (5, 7)],
        [(2 * i % 12, 2 * (i // 6)) for i in range(24)],
    ],
    ids=["nobody", "one", "every border", "a crowd"],
)
def test_everybody_is_found_where_they_are(engine, cells):
    boxes, scores = engine.detect(picture(cells))
    assert boxes.shape == (len(cells), 4)
    np.testing.assert_allclose(in_order(boxes), in_order(around(cells)), atol=0.5)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-10)), atol=1e-4)
    poses = engine.infer(picture(cells))
    np.testing.assert_array_equal(poses.boxes, boxes)
    np.testing.assert_array_equal(poses.box_scores, scores)
    assert len(poses) == len(cells)


def test_a_crowd_in_a_large_picture_is_found(engine):
    cells = [(x, y) for y in range(8) for x in range(12) if (x + y) % 2 == 0]
    image = np.repeat(np.repeat(picture(cells), 10, axis=0), 10, axis=1)
    boxes, _ = engine.detect(image)
    assert len(boxes) == 48
    np.testing.assert_allclose(in_order(boxes), in_order(around(cells)) * 10, atol=0.5)


def test_pictures_of_unlike_sizes_in_one_call(engine):
    frames = [
        picture([(5, 3)]),
        picture([]),
        picture([(1, 1), (4, 5)], (48, 56)),
        np.zeros((3, 2, 3), np.uint8),
    ]
    poses = engine.infer(frames)
    assert np.bincount(poses.frame_index, minlength=4).tolist()[:2] == [1, 0]
    for found, frame in zip(engine.detect(frames), frames, strict=True):
        alone = engine.detect(frame)
        np.testing.assert_array_equal(found[0], alone[0])
        assert ((found[0] >= 0) & (found[0] <= np.tile(frame.shape[1::-1], 2))).all()


def test_a_picture_smaller_than_a_cell_is_searched_too(engine):
    for shape in ((1, 1, 3), (2, 7, 3), (300, 1, 3)):
        boxes, scores = engine.detect(np.zeros(shape, np.uint8))
        assert (boxes.shape, scores.shape) == ((0, 4), (0,))
    # White all over: whoever is found lies within the picture.
    boxes, _ = engine.detect(np.full((2, 2, 3), 255, np.uint8))
    assert len(boxes)
    assert ((boxes >= 0) & (boxes <= 2)).all()


def test_rgb_frames_are_searched_in_their_order(bundle):
    colored = bundles.picture({"red": (3, 5), "green": (7, 9)})
    with (
        oaks.Engine(bundle, "onnxruntime", threads=1, color="rgb") as engine,
        oaks.Engine(bundle, "onnxruntime", threads=1) as other,
    ):
        for mine, theirs in zip(engine.detect(colored[..., ::-1].copy()), other.detect(colored), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_given_boxes_do_not_use_the_detector(engine):
    image = picture([(5, 3)])
    assert engine.infer(image, boxes="whole").boxes.tolist() == [[0, 0, *INPUT]]
    given = [[1, 2, 30, 40]]
    assert engine.infer(image, boxes=given).boxes.tolist() == given
    with pytest.raises(ValueError, match=r"boxes must be \(N, 4\).*'whole' or None, got 'all'"):
        engine.infer(image, boxes="all")
    with pytest.raises(ValueError, match="box_scores must come with boxes"):
        engine.infer(image, box_scores=[1])


def test_calling_an_engine_infers(engine):
    image = picture([(5, 3)])
    np.testing.assert_array_equal(engine(image).keypoints, engine.infer(image).keypoints)


def test_without_a_detector_the_error_says_what_to_pass(tmp_path: Path):
    made = bundles.write(tmp_path / "tiny")
    with oaks.Engine(made, "onnxruntime", threads=1) as engine:
        assert not engine.has_detector
        for call in (engine.infer, engine.detect, engine):
            with pytest.raises(
                ValueError,
                match=r"boxes must be given.*no detector, got None; pass boxes.*'whole'.*detector=",
            ):
                call(picture([]))
        assert len(engine.infer([])) == 0
    with pytest.raises(ValueError, match="must have a detector"):
        oaks.Detector(made)


def test_another_detector_replaces_that_of_the_bundle(bundle, tmp_path: Path):
    strict = oaks.Detector(bundle, threshold=0.9999, backend="onnxruntime")
    with oaks.Engine(bundle, "onnxruntime", threads=1, detector=strict) as engine:
        assert len(engine.detect(picture([(5, 3)]))[0]) == 1
        assert len(engine.detect((picture([(5, 3)]) * 0.9).astype(np.uint8))[0]) == 0
        assert engine.describe()["detector"] == strict.description


@pytest.mark.parametrize(
    ("precision", "reason"),
    [
        ("banana", "precision must be .*'auto'.*'bf16'.*, got 'banana'"),
        (
            "int8",
            r"precision must be one that bundle 'tiny' .* has its detector network in, \['fp32'\], got 'int8'",
        ),
        ("fp16", "precision must be one that .*got 'fp16'"),
        ("bf16", "precision must be fp32, fp16 or int8 with backend 'onnxruntime', got 'bf16'"),
    ],
)
def test_an_explicit_precision_of_a_detector_never_falls_back(bundle, precision, reason):
    with pytest.raises(oaks.ArgumentError, match=reason):
        oaks.Detector(bundle, precision=precision, backend="onnxruntime")


def test_a_detector_runs_in_fp32_where_it_lacks_the_precision_of_its_engine(tmp_path: Path):
    both = bundles.write_with_detector(tmp_path / "both", half=True)
    alone = bundles.write(tmp_path / "alone", half=True)
    for bundle, detector in ((both, None), (alone, both), (alone, str(both.path))):
        with oaks.Engine(
            bundle, "onnxruntime", precision="fp16", device="cpu", threads=1, detector=detector
        ) as engine:
            assert engine.describe()["detector"] is None
            assert len(engine.detect(picture([(5, 3)]))[0]) == 1
            assert engine.describe()["detector"].endswith("onnxruntime fp32")


def test_a_detector_without_torch_weights_runs_beside_a_network_on_torch(bundle):
    detector = detector_beside(bundle, backend="torch", device="cpu", precision="fp32", threads=1)
    assert " torch " not in detector.description
    assert len(detector.detect(picture([(5, 3)]))[0]) == 1


@pytest.mark.parametrize("kind", ["bundle", "ONNX file"])
def test_another_detector_gets_the_settings_of_the_engine(bundle, tmp_path, monkeypatch, kind):
    given = []

    class Recorder:
        def __init__(self, source, **settings):
            given.append((source, settings))

    monkeypatch.setattr("oaks.detector.Detector", Recorder)
    source, expected = tmp_path / "d.onnx", {"threads": 2}
    if kind == "bundle":
        source, expected = (
            bundle,
            {**expected, "backend": "onnxruntime", "device": "cpu", "precision": "fp32"},
        )
    with oaks.Engine(bundle, "onnxruntime", threads=2, detector=source) as engine:
        assert engine.detector is engine.detector
    assert given == [(source, expected)]


@pytest.mark.parametrize(
    "name",
    ["flip", "color", "refine", "precision", "backend", "device", "bundle", "score_kind", "gives_oaks", "threads",
     "timings"],
)  # fmt: skip
def test_settings_are_read_only(engine, name):
    before = getattr(engine, name, None)
    with pytest.raises(AttributeError, match=rf"Engine\.{name} must not be set"):
        setattr(engine, name, before)
    assert getattr(engine, name, None) is before


@pytest.mark.parametrize("name", ["max_batch", "size", "boxes", "threshold", "padding"])
def test_a_setting_that_an_engine_does_not_have_is_refused(engine, name):
    with pytest.raises(AttributeError, match=f"Engine has no setting '{name}'"):
        setattr(engine, name, 1)
    assert not hasattr(engine, name)


def test_settings_of_what_an_engine_uses_are_read_only(engine):
    frames = open_source([np.zeros((4, 4, 3), np.uint8)])
    for owner, name in (
        (engine, "detector"), (engine, "has_detector"), (engine.detector, "threshold"), (engine.detector, "overlap"),
        (engine.detector, "size"), (engine.detector, "description"), (engine.detector, "color"),
        (engine.bundle, "box_score_power"), (engine.bundle, "padding"), (engine.bundle.pose, "padding"),
        (engine.bundle.skeleton, "sigmas"), (frames, "live"),
    ):  # fmt: skip
        with pytest.raises(AttributeError):
            setattr(owner, name, None)
    for mapping in (engine.bundle.networks, engine.bundle.files):
        with pytest.raises(TypeError):
            mapping["pose"] = None
    engine.staged = False
    assert not engine.staged


def test_a_subclass_has_attributes_of_its_own(bundle):
    class Named(oaks.Engine):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.label = "mine"

    with Named(bundle, "onnxruntime", threads=1) as engine:
        engine.label = "ours"
        with pytest.raises(AttributeError, match="flip must not be set"):
            engine.flip = False


def test_peaks_are_no_smaller_than_their_neighbors_and_finite():
    logits = np.full((1, 5, 6), -9.0, np.float32)
    logits[0, 2, 2], logits[0, 2, 3], logits[0, 0, 5], logits[0, 4, 0] = 3, 2, 1, -np.inf
    sizes, offsets = np.full((2, 5, 6), 8.0, np.float32), np.zeros((2, 5, 6), np.float32)
    settings = {"stride": 8, "threshold": 0.5, "overlap": 0.5}
    boxes, scores = decode_centers(logits, sizes, offsets, **settings)
    assert boxes.tolist() == [[16, 16, 24, 24], [40, 0, 48, 8]]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-3.0, -1.0])), rtol=1e-6)
    sizes[0, 2, 2] = np.inf
    with pytest.raises(ValueError, match="outputs must be finite"):
        decode_centers(logits, sizes, offsets, **settings)
    sizes[0, 2, 2], sizes[0, 4, 4] = -1, np.nan  # without extent; not at a peak
    boxes, _ = decode_centers(logits, sizes, offsets, **settings)
    assert boxes.tolist() == [[40, 0, 48, 8]]
    # Two equal neighbors are both peaks; NMS leaves the first where their boxes overlap.
    logits[0, 2, 2] = -9
    logits[0, 2, 4] = 2
    sizes[:] = 40
    assert len(decode_centers(logits, sizes, offsets, **settings)[0]) == 2


def test_the_fill_level_is_that_of_the_bundle(bundle, tmp_path: Path):
    """White beside a narrow black picture is full of people, who are cut off with it; gray is not."""
    narrow = np.zeros((64, 14, 3), np.uint8)
    assert len(oaks.Detector(bundle, backend="onnxruntime").detect(narrow)[0]) == 0
    for path in bundle.path.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    described = dict(bundle.description)
    described["networks"]["detector"]["input"]["fill"] = 255
    white = bundles.bundles.write(
        tmp_path, {k: v for k, v in described.items() if k not in ("files", "format")}
    )
    assert len(oaks.Detector(white, backend="onnxruntime").detect(narrow)[0])
