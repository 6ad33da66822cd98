"""The Engine on CPU runtimes, against the naive float64 operations around the same networks in NumPy."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import bundles
import numpy as np
import onnx
import pytest
from ops import reference
from PIL import Image

import oaks
from oaks import BundleError

PAIRED = oaks.Skeleton("paired", ("a", "b", "c"), (0.1, 0.1, 0.1), pairs=((1, 2),))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", half=True)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def engine(request, tiny):
    with oaks.Engine(tiny, backend=request.param) as made:
        yield made


def frame(seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def expected(frames, boxes, index, *, skeleton=bundles.RGB, flip=True, padding=1.25, color="bgr", **decoder):
    """What the Engine should give, step by step: points, heat, visibility, similarity, in float64."""
    pixels, transforms = reference.crop(
        frames, boxes, size=bundles.SIZE, frame_index=index, padding=padding,
        mean=(0, 0, 0), std=(255, 255, 255), color=color, mirrored=flip,
    )  # fmt: skip
    count, keypoints = len(boxes), skeleton.count
    maps = bundles.expected_maps(pixels, keypoints)
    visible = bundles.VISIBILITY[0] * maps.max(axis=(2, 3)) + bundles.VISIBILITY[1]
    mirrored = maps[count:] if flip else None
    if flip:
        visible = (visible[:count] + visible[count:][:, skeleton.mirror]) / 2
    points, heat, averaged = reference.decode(
        maps[:count].astype(np.float32), None if mirrored is None else mirrored.astype(np.float32),
        flip_pairs=skeleton.pairs, crop_size=bundles.SIZE, transforms=transforms, **decoder,
    )  # fmt: skip
    top = np.sort(averaged.reshape(count, keypoints, -1), axis=2)
    assert (np.diff(top[..., -3:], axis=2) > 1e-5).all(), "the peaks of this input are too close to call"
    similar = bundles.SIMILARITY[0] * averaged.max(axis=(2, 3)) + bundles.SIMILARITY[1]
    return points, heat, sigmoid(visible), sigmoid(similar)


def assert_agrees(poses, frames, boxes, index, *, box_scores=None, **settings):
    points, heat, visibility, similarity = expected(frames, boxes, index, **settings)
    np.testing.assert_allclose(poses.keypoints, points, atol=1e-3)
    np.testing.assert_allclose(poses.heat, heat, atol=1e-5)
    np.testing.assert_allclose(poses.visibility, visibility, atol=1e-5)
    np.testing.assert_allclose(poses.similarity, similarity, atol=1e-5)
    oaks_scores = reference.score(similarity, visibility)
    np.testing.assert_allclose(poses.oaks_scores, oaks_scores, atol=1e-5)
    np.testing.assert_allclose(poses.conventional_scores, heat.mean(axis=1), atol=1e-5)
    given = np.ones(len(boxes)) if box_scores is None else np.asarray(box_scores)
    np.testing.assert_allclose(poses.scores, oaks_scores * given, atol=1e-5)
    np.testing.assert_array_equal(poses.box_scores, np.float32(given))
    np.testing.assert_array_equal(poses.boxes, np.float32(boxes))
    np.testing.assert_array_equal(poses.frame_index, index)


BOXES = [[10, 5, 60, 80], [0, 0, 120, 90], [-20, 30.5, 40, 100], [70.25, 8.5, 90, 60]]


def test_a_frame_with_boxes(engine):
    poses = engine.infer(frame(), boxes=BOXES, box_scores=[0.9, 1, 0.25, 0.5])
    assert_agrees(poses, [frame()], BOXES, [0] * 4, box_scores=[0.9, 1, 0.25, 0.5])
    assert (engine.score_kind, poses.score_kind, poses.skeleton) == ("oaks", "oaks", bundles.RGB)


@pytest.mark.parametrize("power", [0, 0.25, 1])
def test_box_scores_are_raised_to_the_power_of_the_bundle(tmp_path, power):
    """In the OAKS score alone: the conventional score is multiplied by the box score, as COCO's results are."""
    given = np.float32([0.9, 1, 0, 0.5])
    bundle = bundles.write(tmp_path / "oaks", box_score_power=power)
    with oaks.Engine(bundle, "onnxruntime", threads=1) as engine:
        assert engine.describe()["box_score_power"] == power
        poses = engine.infer(frame(), boxes=BOXES, box_scores=given)
        without = engine.infer(frame(), boxes=BOXES)
    np.testing.assert_allclose(poses.scores, poses.oaks_scores * given.astype(float) ** power, rtol=1e-6)
    np.testing.assert_array_equal(without.scores, without.oaks_scores)
    np.testing.assert_array_equal(poses.oaks_scores, without.oaks_scores)
    plain = bundles.write(tmp_path / "conventional", score="conventional", box_score_power=power)
    with oaks.Engine(plain, "onnxruntime", threads=1) as engine:
        poses = engine.infer(frame(), boxes=BOXES, box_scores=given)
    np.testing.assert_allclose(poses.scores, poses.conventional_scores * given, rtol=1e-6)


def test_frames_of_different_sizes(engine):
    frames = [frame(1), frame(2, 64, 48), frame(3, 200, 30)]
    boxes = [BOXES[:2], [], [[0, 0, 30, 60], [3, 90, 28, 190]]]
    scores = [[0.5, 0.75], [], [1, 0.125]]
    poses = engine.infer(frames, boxes=boxes, box_scores=scores)
    assert_agrees(poses, frames, boxes[0] + boxes[2], [0, 0, 2, 2], box_scores=scores[0] + scores[2])


def test_many_frames_with_few_people_each(engine):
    """Passes cut across frames anywhere, and frames without anybody stand between."""
    counts = [0, 3, 1, 0, 0, 6, 1, 1, 1, 9, 0, 2]
    frames = [frame(30 + i, 60 + i, 80 - i) for i in range(len(counts))]
    boxes = [np.float32([[2 + k, 3, 40 + k, 50] for k in range(count)]).reshape(-1, 4) for count in counts]
    together = engine.infer(frames, boxes=boxes)
    apart = oaks.Poses.concatenate([
        engine.infer(picture, boxes=own) for picture, own in zip(frames, boxes, strict=True)
    ])  # fmt: skip
    np.testing.assert_array_equal(together.keypoints, apart.keypoints)
    np.testing.assert_array_equal(together.boxes, apart.boxes)
    np.testing.assert_array_equal(together.frame_index, np.repeat(range(len(counts)), counts))


def test_a_crop_without_boxes_is_one_box_without_padding(engine):
    crops = [frame(4, 70, 50), frame(5, 64, 48), frame(6, 30, 90)]
    whole = [[0, 0, crop.shape[1], crop.shape[0]] for crop in crops]
    assert_agrees(engine.infer(crops, boxes="whole"), crops, whole, [0, 1, 2], padding=1.0)
    assert_agrees(engine.infer(crops[0], boxes="whole"), crops[:1], whole[:1], [0], padding=1.0)
    stacked = np.stack([frame(7, 64, 48), frame(8, 64, 48)])
    poses = engine.infer(stacked, box_scores=[0.5, 0.25], boxes="whole")
    assert_agrees(poses, list(stacked), [[0, 0, 48, 64]] * 2, [0, 1], padding=1.0, box_scores=[0.5, 0.25])


@pytest.mark.parametrize(
    ("pictures", "scores", "expected"),
    [
        (1, [0.5], [0.5]),
        (1, np.float32([0.5]), [0.5]),
        (1, 0.5, [0.5]),
        (2, [[0.5], [0.25]], [0.5, 0.25]),
        (2, [np.float32([0.5]), [0.25]], [0.5, 0.25]),
        (2, np.float32([0.5, 0.25]), [0.5, 0.25]),
        (2, (0.5, 0.25), [0.5, 0.25]),
    ],
)
def test_a_crop_without_boxes_may_have_its_score_in_either_form(engine, pictures, scores, expected):
    crops = [frame(4, 70, 50), frame(5, 64, 48)]
    plain = engine.infer(crops[:pictures], boxes="whole")
    poses = engine.infer(crops if pictures == 2 else crops[0], box_scores=scores, boxes="whole")
    np.testing.assert_array_equal(poses.box_scores, np.float32(expected))
    np.testing.assert_allclose(poses.scores, plain.scores * np.float32(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("pictures", "scores"),
    [(1, [0.5, 0.25]), (1, [[0.5]]), (1, []), (2, 0.5), (2, [0.5]), (2, [[0.5, 0.25]]), (2, [[0.5], []])],
)
def test_wrong_scores_of_crops_without_boxes_are_named(engine, pictures, scores):
    crops = [frame(4, 70, 50), frame(5, 64, 48)]
    with pytest.raises(ValueError, match=f"box_scores must be {pictures} .*numbers, one for each box"):
        engine.infer(crops if pictures == 2 else crops[0], box_scores=scores, boxes="whole")


@pytest.mark.parametrize("flip", [True, False])
def test_flip_and_pairs(tmp_path, flip):
    made = bundles.write(tmp_path / "paired", skeleton=PAIRED)
    with oaks.Engine(made, backend="onnxruntime", flip=flip) as engine:
        poses = engine.infer(frame(9), boxes=BOXES)
    assert_agrees(poses, [frame(9)], BOXES, [0] * 4, skeleton=PAIRED, flip=flip)


@pytest.mark.parametrize(
    "decoder",
    [
        {"refine": "gradient"},
        {"refine": "none"},
        {"refine": "dark", "blur_sigma": 1.5},
        {"alignment": "hrnet"},
    ],
)
def test_the_bundles_decoder_is_used(tmp_path, decoder):
    made = bundles.write(tmp_path / "tiny", decoder=decoder)
    with oaks.Engine(made, backend="onnxruntime") as engine:
        assert_agrees(engine.infer(frame(10), boxes=BOXES), [frame(10)], BOXES, [0] * 4, **decoder)


def test_another_decoder_may_be_asked_for(tiny):
    with oaks.Engine(tiny, backend="onnxruntime", refine="none") as engine:
        assert_agrees(engine.infer(frame(10), boxes=BOXES), [frame(10)], BOXES, [0] * 4, refine="none")
        assert engine.describe()["decoder"] == "none"


def test_another_decoder_than_dark_leaves_its_blur_alone(tmp_path):
    dark = bundles.write(tmp_path / "dark", decoder={"refine": "dark", "blur_sigma": 1.5})
    with oaks.Engine(dark, "onnxruntime", refine="second_peak") as engine:
        poses = engine.infer(frame(), boxes=BOXES)
    assert_agrees(poses, [frame()], BOXES, [0] * 4)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23])
def test_people_of_a_batch_get_the_same_poses_as_alone(engine, count):
    boxes = np.random.default_rng(count).uniform(0, 50, (count, 4)) + np.array([0, 0, 50, 40])
    together = engine.infer(frame(11), boxes=boxes)
    for i in (0, count // 2, count - 1):
        alone = engine.infer(frame(11), boxes=boxes[i : i + 1])
        np.testing.assert_array_equal(together.keypoints[i], alone.keypoints[0])
        np.testing.assert_allclose(together.scores[i], alone.scores[0], atol=1e-6)


def test_max_batch_does_not_change_poses(tiny, engine):
    expected = engine.infer(frame(12), boxes=BOXES)
    for largest in (1, 3, 100):
        with oaks.Engine(tiny, backend=engine.backend, max_batch=largest) as other:
            np.testing.assert_array_equal(other.infer(frame(12), boxes=BOXES).keypoints, expected.keypoints)


def test_large_batches_have_few_sizes(tiny, engine):
    """Each that has been used keeps memory, and is a pass that warmup runs."""
    with oaks.Engine(tiny, backend=engine.backend, max_batch=np.int64(100)) as other:
        assert other.describe()["batches"] == [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 100]
    assert engine.describe()["batches"] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_poses_keep_box_scores_that_the_caller_changes(engine):
    given = np.full(1, 0.5, np.float32)
    poses = engine.infer([frame(12)], box_scores=given, boxes="whole")
    given[:] = 0
    assert poses.box_scores == [0.5]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("held", "expected"), [("fp16", "fp32"), ("int8", "int8")])
def test_auto_uses_an_available_precision(tmp_path, backend, held, expected):
    """What is called int8 here holds float16: the tiny networks know nothing smaller."""
    made = bundles.write(tmp_path / "tiny", half=True)
    for role in ("pose", "ks"):
        (made.path / f"{role}.fp32.onnx").unlink()
        (made.path / f"{role}.fp16.onnx").rename(made.path / f"{role}.{held}.onnx")
    made = bundles.rewrite(made.path)
    with oaks.Engine(made, backend=backend) as other:
        assert other.precision == expected
        assert len(other.infer(frame(12), boxes=BOXES)) == len(BOXES)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_engine_describes_the_bundle_that_it_has_loaded(tmp_path, backend):
    made = bundles.write(tmp_path / "tiny")
    with oaks.Engine(made.path, backend=backend) as other:
        made.path.rename(tmp_path / "elsewhere")
        assert other.describe()["bundle_sha256"] == made.sha256


def test_paths_pil_images_and_arrays_are_the_same(engine, tmp_path):
    picture = frame(13)
    path = tmp_path / "bild ä.png"
    Image.fromarray(picture[..., ::-1]).save(path)
    expected = engine.infer(picture, boxes=BOXES)
    for given in (path, str(path), Image.fromarray(picture[..., ::-1]), Image.open(path)):
        np.testing.assert_array_equal(engine.infer(given, boxes=BOXES).keypoints, expected.keypoints)
    mixed = engine.infer([path, picture], boxes=[BOXES[:2], BOXES[2:]])
    np.testing.assert_array_equal(mixed.keypoints, expected.keypoints)


def test_rgb_arrays_are_taken_where_they_are_declared(tiny, tmp_path):
    picture = frame(14)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    with oaks.Engine(tiny, backend="onnxruntime", color="rgb") as engine:
        poses = engine.infer(picture, boxes=BOXES)
        assert_agrees(poses, [picture], BOXES, [0] * 4, color="rgb")
        for given in (tmp_path / "picture.png", Image.fromarray(picture)):
            np.testing.assert_array_equal(engine.infer(given, boxes=BOXES).keypoints, poses.keypoints)


def test_views_of_larger_arrays(engine):
    large = frame(15, 200, 300)
    view = large[20:110, 30:150]
    copy = np.ascontiguousarray(view)
    np.testing.assert_array_equal(
        engine.infer(view, boxes=BOXES).keypoints, engine.infer(copy, boxes=BOXES).keypoints
    )
    mirrored = engine.infer(copy[:, ::-1], boxes=BOXES)
    np.testing.assert_array_equal(
        mirrored.keypoints, engine.infer(copy[:, ::-1].copy(), boxes=BOXES).keypoints
    )


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0, 4), np.float32)])
def test_no_boxes_give_no_poses(engine, boxes):
    poses = engine.infer(frame(), boxes=boxes)
    assert (len(poses), poses.skeleton, poses.score_kind) == (0, bundles.RGB, "oaks")
    assert len(engine.infer([frame(), frame()], boxes=[boxes, boxes])) == 0
    assert len(engine.infer([])) == 0
    assert len(engine.infer([], boxes=[])) == 0


@pytest.mark.parametrize(("visibility", "ks"), [(True, False), (False, True), (False, False)])
def test_without_visibility_or_ks_the_score_is_conventional(tmp_path, visibility, ks):
    made = bundles.write(tmp_path / "part", visibility=visibility, ks=ks)
    with oaks.Engine(made, backend="onnxruntime") as engine:
        poses = engine.infer(frame(16), boxes=BOXES, box_scores=[0.5] * 4)
        assert engine.score_kind == poses.score_kind == engine.describe()["score"] == "conventional"
    points, heat, seen, similar = expected([frame(16)], BOXES, [0] * 4)
    np.testing.assert_allclose(poses.keypoints, points, atol=1e-3)
    np.testing.assert_allclose(poses.scores, 0.5 * heat.mean(axis=1), atol=1e-5)
    assert np.isnan(poses.oaks_scores).all()
    np.testing.assert_allclose(
        poses.visibility, seen if visibility else np.full_like(seen, np.nan), atol=1e-5
    )
    np.testing.assert_allclose(poses.similarity, similar if ks else np.full_like(similar, np.nan), atol=1e-5)


def test_a_bundle_can_choose_the_conventional_score(tmp_path):
    made = bundles.write(tmp_path / "told", score="conventional")
    with oaks.Engine(made, backend="onnxruntime") as engine:
        poses = engine.infer(frame(16), boxes=BOXES, box_scores=[0.5] * 4)
        assert engine.score_kind == poses.score_kind == engine.describe()["score"] == "conventional"
        assert engine.gives_oaks
        assert engine.infer(frame(), boxes=[]).score_kind == "conventional"
    _, heat, seen, similar = expected([frame(16)], BOXES, [0] * 4)
    np.testing.assert_allclose(poses.scores, 0.5 * heat.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(poses.keypoint_scores, heat, atol=1e-5)
    np.testing.assert_allclose(poses.oaks_scores, reference.score(similar, seen), atol=1e-5)
    assert np.abs(poses.oaks_scores - poses.conventional_scores).min() > 0.01


def test_score_oaks_without_visibility_is_refused(tmp_path):
    assert oaks.Engine(bundles.write(tmp_path / "full", score="oaks"), "onnxruntime").score_kind == "oaks"
    blind = bundles.write(tmp_path / "blind", visibility=False, score="oaks")
    with pytest.raises(BundleError, match=r"bundle\.json: score 'oaks' .*'onnxruntime' give no visibility"):
        oaks.Engine(blind, backend="onnxruntime")
    with pytest.raises(BundleError, match="score must be 'conventional' in a bundle without a scorer"):
        bundles.write(tmp_path / "no ks", ks=False, score="oaks")


def test_calibration_is_applied_to_the_logits(tmp_path):
    calibration = {
        "visibility": {"scale": [0.5, 1, 2], "bias": -1},
        "similarity": {"scale": 3, "bias": [0, 1, 2]},
    }
    made = bundles.write(tmp_path / "calibrated", calibration=calibration)
    with oaks.Engine(made, backend="onnxruntime") as engine:
        poses = engine.infer(frame(17), boxes=BOXES)
    _, _, seen, similar = expected([frame(17)], BOXES, [0] * 4)
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    np.testing.assert_allclose(poses.visibility, sigmoid(np.array([0.5, 1, 2]) * logit(seen) - 1), atol=1e-5)
    np.testing.assert_allclose(poses.similarity, sigmoid(3 * logit(similar) + np.array([0, 1, 2])), atol=1e-5)


def test_huge_logits_give_0_or_1(tmp_path):
    calibration = {"visibility": {"scale": 1e6}, "similarity": {"scale": -1e6}}
    made = bundles.write(tmp_path / "sure", calibration=calibration)
    with oaks.Engine(made, backend="onnxruntime") as engine:
        poses = engine.infer(bundles.picture({"red": (3, 5), "green": (7, 9), "blue": (2, 2)}), boxes="whole")
    assert poses.visibility.tolist() == [[1, 1, 1]]
    assert poses.similarity.tolist() == [[0, 0, 0]]


def test_float16_networks_give_nearly_the_same(tiny, engine):
    poses = engine.infer(frame(18), boxes=BOXES)
    with oaks.Engine(tiny, backend="onnxruntime", precision="fp16") as half:
        rounded = half.infer(frame(18), boxes=BOXES)
        assert half.describe()["networks"]["pose"]["file"] == "pose.fp16.onnx"
    np.testing.assert_allclose(rounded.heat, poses.heat, atol=2e-3)
    np.testing.assert_allclose(rounded.scores, poses.scores, atol=5e-3)
    assert not np.array_equal(rounded.heat, poses.heat)


WRONG = {
    "float image": (lambda: (frame().astype(np.float32), BOXES), r"frames must be .*\(H, W, 3\) of uint8.*float32"),
    "gray image": (lambda: (frame()[..., 0], BOXES), r"frames must be .*got \(90, 120\) of uint8"),
    "four channels": (lambda: (np.zeros((9, 9, 4), np.uint8), BOXES), r"got \(9, 9, 4\)"),
    "empty image": (lambda: (np.zeros((0, 9, 3), np.uint8), BOXES), r"got \(0, 9, 3\)"),
    "second image": (lambda: ([frame(), frame()[..., 0]], [BOXES, BOXES]), r"frames\[1\] must be "),
    "text": (lambda: ([3], None), r"frames\[0\] must be .*got \(\)"),
    "what cv2.imread gives": (lambda: (None, BOXES), r"frames must be an image, got None \(cv2\.imread"),
    "one of those": (lambda: ([frame(), None], [BOXES, BOXES]), r"frames\[1\] must be an image, got None"),
    "a number": (lambda: (3, BOXES), r"frames must be .*got \(\)"),
    "a dictionary": (lambda: ({"image": frame()}, BOXES), r"frames must be .*got \(\) of object"),
    "nan box": (lambda: (frame(), [[0, 0, 9, 9], [0, np.nan, 9, 9]]), r"boxes must have finite .*nan.* in row 1"),
    "infinite box": (lambda: (frame(), [[0, 0, np.inf, 9]]), r"boxes must have finite .*inf.* in row 0"),
    "inverted box": (lambda: (frame(), [[9, 0, 3, 9]]), r"boxes must have x1 <= x2 and y1 <= y2.*row 0"),
    "flat boxes": (lambda: (frame(), [0, 0, 9, 9]), r"boxes must have shape \(N, 4\).*got \(4,\)"),
    "five columns": (lambda: (frame(), [[0, 0, 9, 9, 1]]), r"boxes must have .*got \(1, 5\)"),
    "words": (lambda: (frame(), [["a"] * 4]), r"boxes must be \(N, 4\) numbers"),
    "boxes of one": (lambda: ([frame(), frame()], [BOXES]), r"boxes must have one entry for each of the 2 frames"),
    "box of the second": (lambda: ([frame()] * 2, [BOXES, [[0, 0, np.nan, 1]]]), r"boxes\[1\] must have finite"),
    "bare boxes": (lambda: ([frame()] * 2, 3), r"boxes must have one entry for each of the 2 frames.*int"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named(engine, case):
    given, message = WRONG[case]
    frames, boxes = given()
    with pytest.raises(ValueError, match=message):
        engine.infer(frames, boxes=boxes)


@pytest.mark.parametrize("scores", [[1, 2], [1, 2, 3, np.nan], "abcd", 1.0])
def test_wrong_box_scores_are_named(engine, scores):
    with pytest.raises(ValueError, match="box_scores must be 4 "):
        engine.infer(frame(), boxes=BOXES, box_scores=scores)


def test_pictures_that_cannot_be_read_are_named(engine, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        engine.infer(tmp_path / "gone.png", boxes="whole")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_text("")
    for name in ("text.jpg", "empty.jpg"):
        with pytest.raises(ValueError, match=rf"{name}: damaged"):
            engine.infer(tmp_path / name, boxes="whole")


def test_device_arrays_are_refused_on_the_cpu(engine):
    class OnDevice:
        shape = (9, 9, 3)
        __cuda_array_interface__ = {"typestr": "|u1"}  # noqa: RUF012

    with pytest.raises(ValueError, match="must be a host array for an Engine on the CPU"):
        engine.infer(OnDevice(), boxes="whole")


def test_after_a_wrong_argument_the_engine_works(engine):
    expected = engine.infer(frame(), boxes=BOXES)
    with pytest.raises(ValueError, match="boxes"):
        engine.infer(frame(), boxes=[[0, 0, np.nan, 1]])
    np.testing.assert_array_equal(engine.infer(frame(), boxes=BOXES).keypoints, expected.keypoints)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "caffe"}, "backend must be one of 'auto', .*, got 'caffe'"),
        ({"precision": "fp8"}, "precision must be one of .*, got 'fp8'"),
        ({"precision": "int8"}, "precision must be one that bundle .*, got 'int8'"),
        ({"color": "hsv"}, "color must be one of"),
        ({"refine": "best"}, "refine must be one of"),
        ({"max_batch": 10**6}, "max_batch must be at most 4096, got 1000000; set OAKS_LIMIT_BATCH"),
        ({"max_batch": 0}, "max_batch must be an integer of at least 1"),
        ({"threads": 1.5}, "threads must be an integer"),
    ],
)
def test_a_wrong_setting_is_named(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        oaks.Engine(tiny, **{"backend": "onnxruntime", **settings})


@pytest.mark.parametrize("visibility", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_the_visibility_of_a_ks_network_takes_precedence(tmp_path, visibility, flip):
    folder = tmp_path / "ks"
    bundles.write(folder, visibility=visibility)
    (folder / "ks.fp32.onnx").write_bytes(bundles.ks_network(3, bundles.SIZE, visibility=(5.0, -2.0)))
    made = bundles.rewrite(folder, calibration={"visibility": {"scale": 2, "bias": [0, 1, -1]}})
    with oaks.Engine(made, backend="onnxruntime", flip=flip) as engine:
        assert engine.gives_oaks
        poses = engine.infer(frame(16), boxes=BOXES)
    # Both networks' logits are linear in the maximum of the averaged map, which is the heat.
    logits = 2 * (5 * poses.heat - 2) + np.array([0, 1, -1])
    np.testing.assert_allclose(poses.visibility, sigmoid(logits), atol=1e-5)
    np.testing.assert_allclose(
        poses.oaks_scores, reference.score(poses.similarity, poses.visibility), atol=1e-5
    )


def test_networks_that_contradict_bundle_json_are_refused(tmp_path):
    """The files are whole and their checksums right, but they are not the networks that bundle.json says."""
    for role, content, message in (
        ("pose", bundles.pose_network(5, bundles.SIZE, visibility=True), r"pose\.fp32\.onnx: .*got .*5"),
        ("pose", bundles.pose_network(3, (64, 64), visibility=True), r"pose\.fp32\.onnx: .*\(3, 64, 64\)"),
        ("pose", bundles.ks_network(3, bundles.SIZE), r"pose\.fp32\.onnx: .*similarity"),
        (
            "ks",
            bundles.ks_network(3, bundles.SIZE, half=True),
            r"ks\.fp32\.onnx must take heatmaps of .*float16",
        ),
    ):
        broken = tmp_path / f"broken {role} {len(content)}"
        bundles.write(broken)
        (broken / f"{role}.fp32.onnx").write_bytes(content)
        bundles.rewrite(broken)
        with pytest.raises(BundleError, match=message):
            oaks.Engine(broken, backend="onnxruntime")


def with_changed_pose_network(folder, change):
    """A tiny bundle after `change` of its pose network's ONNX graph."""
    bundles.write(folder)
    model = onnx.load(folder / "pose.fp32.onnx")
    change(model.graph)
    onnx.save(model, folder / "pose.fp32.onnx")
    return bundles.rewrite(folder)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_fixed_batch_is_refused(tmp_path, backend):
    def fix(graph):
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    made = with_changed_pose_network(tmp_path / "tiny", fix)
    with pytest.raises(
        BundleError, match=r"pose\.fp32\.onnx: 'crops' must have a batch of any size, .* got \[4, 3, 64, 48\]"
    ):
        oaks.Engine(made, backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_output_without_a_batch_is_refused(tmp_path, backend):
    def add_a_scalar(graph):
        graph.node.append(onnx.helper.make_node("ReduceSum", ["heatmaps"], ["loss"], keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, ()))

    made = with_changed_pose_network(tmp_path / "tiny", add_a_scalar)
    with pytest.raises(
        BundleError, match=r"pose\.fp32\.onnx: 'loss' must have a batch of any size, .* got \[\]"
    ):
        oaks.Engine(made, backend=backend)


def test_a_closed_engine_says_so(tiny):
    engine = oaks.Engine(tiny, backend="onnxruntime")
    with engine:
        engine.infer(frame(), boxes=BOXES)
    for use in (
        lambda: engine.infer(frame(), boxes="whole"),
        engine.warmup,
        engine.describe,
        engine.__enter__,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    engine.close()


def test_two_engines_do_not_disturb_each_other(tiny, tmp_path):
    paired = bundles.write(tmp_path / "paired", skeleton=PAIRED)
    with (
        oaks.Engine(tiny, backend="onnxruntime") as one,
        oaks.Engine(paired, backend="openvino", flip=False) as two,
    ):
        for _ in range(2):
            assert_agrees(one.infer(frame(19), boxes=BOXES), [frame(19)], BOXES, [0] * 4)
            assert_agrees(
                two.infer(frame(20), boxes=BOXES), [frame(20)], BOXES, [0] * 4, skeleton=PAIRED, flip=False
            )


def test_threads_share_an_engine(engine):
    expected = [engine.infer(frame(seed), boxes=BOXES).keypoints for seed in range(4)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(10):
            if not np.array_equal(engine.infer(frame(seed), boxes=BOXES).keypoints, expected[seed]):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_call_can_still_close(tiny):
    """The child has the lock as the call of another thread holds it, and nobody who will let it go."""
    engine = oaks.Engine(tiny, backend="onnxruntime")
    inside, leave = threading.Event(), threading.Event()
    run = engine._pipeline.start

    def slow(*arguments, **settings):
        inside.set()
        leave.wait(60)
        return run(*arguments, **settings)

    engine._pipeline.start = slow
    caller = threading.Thread(target=engine.infer, args=(frame(), BOXES))
    caller.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that waits for ever
        for use in (engine.warmup, lambda: engine.infer(frame(), boxes=BOXES)):
            with contextlib.suppress(RuntimeError):
                use()
        engine.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    leave.set()
    caller.join()
    engine.close()
    assert status == 0


def test_timings_count_stages_calls_and_people(engine):
    engine.warmup()
    engine.timings.reset()
    for _ in range(3):
        engine.infer(frame(), boxes=BOXES)
    timings = engine.timings
    assert (timings.calls, timings.persons) == (3, 12)
    assert set(timings.seconds) == {"read", "crop", "pose", "decode", "ks", "score"}
    assert all(value > 0 for value in timings.seconds.values())
    assert sum(timings.milliseconds.values()) == pytest.approx(1000 * timings.total / 3)
    assert 0 < timings.networks_share < 1
    timings.reset()
    assert (timings.calls, timings.persons, timings.seconds) == (0, 0, {})


def test_describe_says_how_poses_are_made(engine):
    import json

    described = json.loads(json.dumps(engine.describe()))
    assert described["bundle"] == "tiny"
    assert described["bundle_sha256"] == engine.bundle.sha256
    assert (described["backend"], described["device"], described["precision"]) == (
        engine.backend,
        "cpu",
        "fp32",
    )
    assert (described["flip"], described["decoder"], described["score"]) == (True, "second_peak", "oaks")
    assert described["networks"]["pose"]["file"] == "pose.fp32.onnx"


def test_a_bundle_in_a_zip_gives_the_same(tiny, engine, tmp_path):
    import shutil

    path = shutil.make_archive(str(tmp_path / "tiny"), "zip", tiny.path)
    with oaks.Engine(path, backend=engine.backend) as packed:
        np.testing.assert_array_equal(
            packed.infer(frame(), boxes=BOXES).scores, engine.infer(frame(), boxes=BOXES).scores
        )


LEAK = """
import os, sys
import numpy as np
import oaks
from oaks import ops

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

ops.set_threads(1)
picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
with oaks.Engine(sys.argv[1], backend="onnxruntime", threads=1) as engine:
    for call in range(4200):
        if call == 200:
            before = resident()
        engine.infer(picture, boxes=[[10, 5, 60, 80], [0, 0, 120, 90], [-20, 30.5, 40, 100]])
    print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow(tiny):
    """A leak of one small buffer per call would show: 4,000 calls of it are far above the allowance.

    In a process of its own, in which nothing else comes and goes.
    """
    done = subprocess.run(
        [sys.executable, "-c", LEAK, str(tiny.path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 4 << 20


def test_a_stream_iterates_frames_once(engine):
    """Asking may open a camera."""
    asked = []

    class Camera:
        def __iter__(self):
            asked.append(1)
            return iter([np.zeros((40, 30, 3), np.uint8)] * 2)

    assert len(list(engine.infer_stream(Camera(), "whole"))) == 2
    assert len(asked) == 1

    class Boxes:
        def __iter__(self):
            asked.append(2)
            return iter([np.array([[0, 0, 30, 40]], np.float32)] * 2)

    assert len(list(engine.infer_stream(Camera(), Boxes()))) == 2
    assert asked == [1, 1, 2]
