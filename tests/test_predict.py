"""oaks predict: pictures, boxes, output files, and pictures that cannot be read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import bundles
import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import oaks
from oaks import box_files, coco_results, predict
from oaks.boxes import BoxSource, iou, to_xyxy, whole_image
from oaks.cli.main import app, main
from oaks.detector import Detector
from oaks.files import held
from oaks.images import find_images


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", skeleton=oaks.COCO17)


@pytest.fixture
def pictures(tmp_path):
    """Three pictures: "a.jpg" and "b.png" at the top, and another "a.jpg" in a folder."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "more/a.jpg"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / name), pixels)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def boxes(tmp_path):
    """Annotations for a.jpg (two people) and b.png (nobody)."""
    content = {
        "images": [{"id": 11, "file_name": "a.jpg"}, {"id": 12, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 1, "bbox": [5, 6, 30, 60]},
            {"id": 2, "image_id": 11, "category_id": 1, "bbox": [50, 10, 40, 65]},
        ],
    }
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def run(tiny, tmp_path):
    """Run `oaks predict` with these arguments, the tests' bundle, and the folder `out`: exit code, and lines."""

    def call(*arguments: object) -> tuple[int, list[str]]:
        words = [*arguments, "--bundle", tiny.path, "--out", tmp_path / "out", "--backend", "onnxruntime"]
        result = CliRunner().invoke(app, ["predict", *map(str, words)])
        return result.exit_code, result.output.splitlines()

    return call


def test_videos_are_sent_to_track(tmp_path):
    (tmp_path / "clip.MP4").write_bytes(b"")
    for source in (tmp_path / "clip.MP4", str(tmp_path / "*.MP4"), "rtsp://camera/1"):
        with pytest.raises(oaks.ArgumentError, match="use oaks track"):
            find_images([source])


def test_a_picture_that_cannot_be_written_does_not_end_the_run(run, tmp_path):
    """JPEG holds at most 65,535 rows; BMP holds more."""
    tall, small = tmp_path / "a.bmp", tmp_path / "b.bmp"
    assert cv2.imwrite(str(tall), np.zeros((65_600, 8, 3), np.uint8))
    assert cv2.imwrite(str(small), np.zeros((80, 60, 3), np.uint8))
    code, lines = run(tall, small, "--boxes", "whole")
    assert code == 1
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["b.jpg"]
    assert len(coco_results.read_results(tmp_path / "out" / "results.json")[0]) == 2
    assert any(line.startswith(f"{tall}: annotated picture not written") for line in lines)


def test_a_copy_in_whose_place_is_a_folder_does_not_end_the_run(run, pictures, tmp_path):
    (tmp_path / "out" / "pictures" / "a.jpg").mkdir(parents=True)
    code, lines = run(pictures, "--boxes", "whole")
    assert code == 1
    assert (tmp_path / "out" / "pictures" / "b.png").is_file()
    assert len(coco_results.read_results(tmp_path / "out" / "results.json")[0]) == 2
    assert any(
        line.startswith(f"{pictures / 'a.jpg'}: annotated picture not written: must be a regular file")
        for line in lines
    )


def test_rgb_engines_get_rgb_pictures(tiny, pictures, tmp_path):
    found = []
    for color in ("bgr", "rgb"):
        with oaks.Engine(tiny, backend="onnxruntime", color=color) as engine:
            predict.predict(
                engine, [pictures / "a.jpg"], whole_image(), tmp_path / color, annotate=False,
            )  # fmt: skip
        found.append(coco_results.read_results(tmp_path / color / "results.json")[0])
    assert found[0] == found[1]


def test_boxes_from_a_file(run, tiny, pictures, boxes, tmp_path):
    out = tmp_path / "out"
    code, lines = run(pictures, "--boxes", boxes)
    assert code == 0
    rows, header = coco_results.read_results(out / "results.json")
    assert [row["image_id"] for row in rows] == [11, 11]
    np.testing.assert_allclose([row["box"] for row in rows], [[5, 6, 30, 60], [50, 10, 40, 65]])
    with oaks.Engine(tiny, backend="onnxruntime") as engine:
        poses = engine.infer(pictures / "a.jpg", boxes=[[5, 6, 35, 66], [50, 10, 90, 75]])
    assert rows == poses.to_coco(11, file_names="a.jpg")
    assert header["box_source"] == "annotated: people.json"
    assert (header["complete"], header["skipped"], header["flip"]) == (True, {}, True)
    assert header["images"] == {str(pictures / "a.jpg"): 11, str(pictures / "b.png"): 12}
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["a.jpg", "b.png"]
    np.testing.assert_array_equal(
        cv2.imread(str(out / "pictures" / "b.png")), cv2.imread(str(pictures / "b.png"))
    )
    assert [line for line in lines if line.startswith(("a.jpg: 2 people, oaks scores 0.", "b.png: 0 people"))]
    assert any(line.startswith("2 people in 2 pictures") for line in lines)


def test_whole_pictures_can_be_people(run, pictures, tmp_path):
    code, lines = run(pictures / "b.png", "--boxes", "whole", "--no-flip")
    rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
    assert code == 0
    assert [row["box"] for row in rows] == [[0, 0, 100, 80]]
    assert (header["box_source"], header["flip"]) == ("whole image", False)
    assert any(line.startswith("b.png: 1 person, ") for line in lines)


def test_boxes_from_a_detector(run, pictures, tmp_path):
    from test_detector import ENDS, write

    path = write(tmp_path / "detector.onnx", ENDS["three"])
    code, _ = run(pictures / "b.png", "--detector", path, "--detector-threshold", 0.6)
    rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
    expected, scores = Detector(path, threshold=0.6).detect(cv2.imread(str(pictures / "b.png")))
    assert code == 0
    assert [row["box_score"] for row in rows] == pytest.approx(scores.tolist())
    assert rows[0]["box"] == pytest.approx([*expected[0, :2], *(expected[0, 2:] - expected[0, :2])], abs=1e-3)
    assert rows[0]["score"] == pytest.approx(rows[0]["oaks_score"] * rows[0]["box_score"], abs=1e-6)
    assert header["box_source"] == (
        "detector: detector.onnx, boxes after NMS, threshold 0.6, overlap 0.65, class 0, 64x64, "
        "bgr with mean 0, 0, 0 and std 1, 1, 1"
    )


def test_a_detector_gets_the_pixels_that_it_was_told_to(run, tmp_path):
    """Its scores are the means of its input's channels."""
    from test_detector import BOXES, write

    outputs = {"boxes": BOXES[:3], "scores": np.zeros(3, np.float32), "labels": np.zeros(3, np.int64)}
    path = write(tmp_path / "detector.onnx", outputs, probe=True)
    assert cv2.imwrite(str(tmp_path / "plain.png"), np.full((64, 64, 3), (10, 20, 230), np.uint8))
    found = {}
    for name, told in (("as is", []), ("told", ["color=rgb", "mean=30,20,0", "std=2,1,1"])):
        changes = [part for text in told for part in ("--detector-set", text)]
        code, _ = run(tmp_path / "plain.png", "--detector", path, "--detector-threshold", 0, *changes)
        assert code == 0
        rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
        found[name] = sorted(255 * row["box_score"] for row in rows)
    assert found["as is"] == pytest.approx([10, 20, 230], abs=1e-3)
    assert found["told"] == pytest.approx([0, 10, 100], abs=1e-3)
    assert header["box_source"].endswith("rgb with mean 30, 20, 0 and std 2, 1, 1")


def test_a_detector_with_unknown_outputs_stops_it_at_once(run, pictures, tmp_path):
    from test_detector import write

    strange = write(tmp_path / "s.onnx", {"maps": np.zeros((1, 4, 8, 8), np.float32)})
    code, lines = run(pictures, "--detector", strange)
    assert code == 2
    assert "s.onnx: the network's outputs must be" in lines[-1]
    assert not (tmp_path / "out").exists()


def test_a_picture_that_a_source_refuses_is_named(tiny, pictures, tmp_path):
    found = []

    def find(picture):
        raise ValueError("nobody knows why")

    with oaks.Engine(tiny, backend="onnxruntime") as engine:
        source = BoxSource("a source", find)
        summary = predict.predict(engine, [pictures / "a.jpg"], source, tmp_path / "out", done=found.append)
    assert found == [predict.Prediction(pictures / "a.jpg", problem="nobody knows why")]
    assert summary.skipped == {pictures / "a.jpg": "nobody knows why"}


def test_two_pictures_cannot_have_the_boxes_of_one_image(run, pictures, boxes, tmp_path):
    code, lines = run(pictures, pictures / "more", "--boxes", boxes)
    assert code == 1
    assert len(coco_results.read_results(tmp_path / "out" / "results.json")[0]) == 2
    first, second = pictures / "a.jpg", pictures / "more" / "a.jpg"
    assert f"skipped {second}: has the boxes of image 11, as {first} has" in lines


def test_box_results_of_other_images_are_refused(run, pictures, tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 4711, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]')
    code, lines = run(pictures, "--boxes", path)
    assert code == 2
    assert "must have boxes of the pictures, got boxes of image ids 4711;" in lines[-1]
    assert lines[-1].endswith("a.jpg")


def test_what_cannot_be_read_is_named_and_skipped(run, pictures, boxes, tmp_path):
    content = (pictures / "b.png").read_bytes()
    (pictures / "cut.png").write_bytes(content[:30])
    (pictures / "stranger.png").write_bytes(content)
    code, lines = run(pictures, "--boxes", boxes)
    rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
    assert code == 1
    assert len(rows) == 2
    assert set(header["skipped"]) == {str(pictures / "cut.png"), str(pictures / "stranger.png")}
    assert "damaged" in header["skipped"][str(pictures / "cut.png")]
    assert "does not know this picture" in header["skipped"][str(pictures / "stranger.png")]
    assert "skipped 2: cut.png, stranger.png" in lines
    for name in ("cut.png", "stranger.png"):
        assert [line.count(name) for line in lines if line.startswith(f"skipped {pictures / name}: ")] == [1]


def test_labels_for_the_unturned_pixels_are_refused_by_name(run, tmp_path):
    """A photograph of 100×80 pixels that is shown as 80×100, labeled before it was turned."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (100, 80), "red").save(tmp_path / "a.jpg", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 30, 60]}],
    }
    people, out = tmp_path / "people.json", tmp_path / "out"
    people.write_text(json.dumps(content))
    code, _ = run(tmp_path / "a.jpg", "--boxes", people)
    reason = coco_results.read_results(out / "results.json")[1]["skipped"][str(tmp_path / "a.jpg")]
    assert code == 1
    assert "must be that of its labels, 100×80, got 80×100" in reason
    content["images"][0] |= {"width": 80, "height": 100}
    people.write_text(json.dumps(content))
    assert run(tmp_path / "a.jpg", "--boxes", people)[0] == 0


def test_pictures_of_one_name_stay_apart(run, pictures, tmp_path):
    run(pictures / "a.jpg", pictures / "more", "--boxes", "whole")
    assert sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir()) == ["a.jpg", "a_2.jpg"]
    rows, _ = coco_results.read_results(tmp_path / "out" / "results.json")
    assert [row["image_id"] for row in rows] == [1, 2]


def test_duplicate_poses_are_removed(run, pictures, tmp_path):
    content = json.loads(
        json.dumps([
            {"image_id": 1, "category_id": 1, "bbox": [5, 6, 30, 60], "score": score} for score in (0.5, 0.9)
        ])
    )  # fmt: skip
    content += [{"image_id": 1, "category_id": 1, "bbox": [60, 6, 30, 60], "score": 0.4}]
    (tmp_path / "twice.json").write_text(json.dumps(content))
    picture = (pictures / "b.png").rename(pictures / "1.png")
    for nms, expected in ((0.9, [0.9, 0.4]), (0, [0.5, 0.9, 0.4])):
        run(picture, "--boxes", tmp_path / "twice.json", "--nms", nms)
        rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
        assert [row["box_score"] for row in rows] == pytest.approx(expected)
        assert header["nms"] == (nms or None)


def test_a_pose_without_a_score_ranks_last(tiny):
    boxes = np.float32([[5, 6, 35, 66], [5, 6, 35, 66]])
    with oaks.Engine(tiny, backend="onnxruntime") as engine:
        poses = engine.infer(np.full((80, 60, 3), 9, np.uint8), boxes=boxes)
    lost = dataclasses.replace(poses, scores=np.float32([np.nan, 0.1]))
    np.testing.assert_array_equal(lost.without_duplicates(0.9).scores, np.float32([0.1]))


def test_a_folder_that_another_run_writes_is_refused(run, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out"):
        code, said = run(pictures, "--boxes", "whole")
    assert code == 2
    assert said[-1] == (
        f"oaks: {tmp_path / 'out'}: another run is writing it; wait until it has ended, or write elsewhere"
    )
    assert not (tmp_path / "out" / "results.json").exists()
    assert run(pictures, "--boxes", "whole")[0] == 0


def test_without_pictures_none_are_written(run, pictures, tmp_path):
    run(pictures, "--boxes", "whole", "--no-pictures")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "results.header.json",
        "results.json",
    ]


def test_a_stopped_run_keeps_its_results(tiny, pictures, tmp_path):
    def stop(prediction: predict.Prediction) -> None:
        if prediction.path.name == "b.png":
            raise KeyboardInterrupt

    with oaks.Engine(tiny, backend="onnxruntime") as engine, pytest.raises(KeyboardInterrupt):
        predict.predict(
            engine, find_images([pictures, pictures / "more"]), whole_image(),
            tmp_path / "out", done=stop,
        )  # fmt: skip
    rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
    assert [row["image_id"] for row in rows] == [1, 2]
    assert header["complete"] is False


def test_a_wrong_argument_is_one_line(tiny, pictures, tmp_path, monkeypatch, capsys):
    both = ["--boxes", "x.json", "--detector", "y.onnx"]
    for arguments, message in (
        ([str(pictures), *both], "oaks: pass at most one of --boxes, --detector"),
        ([str(pictures), "--bundle", "nowhere"], "oaks: bundle must be a folder, a zip file"),
        ([str(pictures), "--detector-set", "color=rgb"], "oaks: --detector-set must be left out without --detector"),
        ([str(tmp_path / "none.jpg")], "oaks: images not found"),
        ([str(pictures), "--bundle", str(tiny.path), "--nms", "3"], "oaks: Invalid value for '--nms'"),
        ([str(pictures), "--bundle", str(tiny.path), "--device", "cuda"], "oaks: backend 'onnxruntime' on"),
    ):  # fmt: skip
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as caught:
            main(["predict", *arguments, "--backend", "onnxruntime"])
        assert caught.value.code == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith(message)
        assert "\n" not in error


def test_the_demonstration_runs_on_the_pictures_of_the_package(tiny, tmp_path):
    result = CliRunner().invoke(app, ["demo", "--bundle", str(tiny.path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    rows, header = coco_results.read_results(tmp_path / "out" / "results.json")
    people = box_files.read_boxes(predict.DEMO / "people.json")
    assert len(rows) == sum(len(boxes) for boxes in people.boxes.values()) > 0
    assert len(header["images"]) == len(list((tmp_path / "out" / "pictures").iterdir())) == 6


def test_the_shipped_bundle_poses_the_people_of_the_demonstration(tmp_path):
    """Rendered people that it has not been trained on, against their labels; a wrong person has OKS near 0."""
    pictures = sorted(str(path) for path in predict.DEMO.glob("*.jpg"))
    boxes = str(predict.DEMO / "people.json")
    result = CliRunner().invoke(
        app, ["predict", *pictures, "--boxes", boxes, "--out", str(tmp_path), "--bundle", "small"]
    )
    assert result.exit_code == 0, result.output
    people = json.loads((predict.DEMO / "people.json").read_text())["annotations"]
    rows, _ = coco_results.read_results(tmp_path / "results.json")
    points, labels = (np.array([r["keypoints"] for r in part]).reshape(-1, 17, 3) for part in (rows, people))
    distance = np.square(points[..., :2] - labels[..., :2]).sum(axis=2)
    area = np.array([person["area"] for person in people])[:, None]
    ks = np.exp(-distance / (2 * area * (2 * np.array(oaks.COCO17.sigmas)) ** 2))
    labeled = labels[..., 2] > 0
    oks = (ks * labeled).sum(axis=1) / labeled.sum(axis=1)
    assert len(rows) == len(people)
    assert np.median(oks) > 0.5
    assert np.corrcoef(oks, [row["score"] for row in rows])[0, 1] > 0.5


@pytest.mark.parametrize("bundle", ["small", "tiny"])
def test_the_shipped_bundles_find_people_without_boxes(tmp_path, bundle):
    """Two thirds of the demonstration's people, who are rendered, and hardly anything else."""
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--bundle", bundle])
    assert result.exit_code == 0, result.output
    people = box_files.read_boxes(predict.DEMO / "people.json")
    rows, header = coco_results.read_results(tmp_path / "results.json")
    assert "bundle detector" in header["box_source"]
    ids = {Path(name).name: number for name, number in header["images"].items()}
    hits = found = 0
    for name, number in people.image_ids.items():
        boxes, _ = people.of(number)
        own = to_xyxy([row["box"] for row in rows if row["image_id"] == ids[Path(name).name]])
        best = iou(boxes, own).max(axis=1, initial=0) if len(own) else np.zeros(len(boxes))
        hits, found = hits + int((best > 0.5).sum()), found + len(own)
    assert hits >= 0.6 * sum(len(boxes) for boxes in people.boxes.values())
    assert found <= hits + 3
