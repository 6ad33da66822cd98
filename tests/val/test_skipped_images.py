"""Missing, damaged and too large images do not end an evaluation: they are skipped, counted and named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import bundles
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import oaks
from oaks.cli.main import app
from oaks.coco_results import read_results, write_results
from oaks.detector_formats import decode_centers
from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.images import read_image, read_size
from oaks.skipping import SkippedItems
from oaks.val import resumable
from oaks.val.detect import ReadableImages, detect
from oaks.val.detections import Detections
from oaks.val.evaluate import evaluate_bundle
from oaks.val.find_people import find_people
from oaks.val.ground_truth import GroundTruth
from oaks.val.report import cases
from oaks.val.report.document import Report
from oaks.val.report.head import header_entries
from oaks.val.scores import ScoredDetections

from . import synthetic
from .stopping import interrupt_after


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with people.json, seven pictures in people/, results of another estimator, and a bundle."""
    folder = tmp_path_factory.mktemp("whole")
    content = synthetic.annotations(9, images=7)
    synthetic.write_images(content, folder / "people")
    write_json(folder / "people.json", content)
    rows = synthetic.detections(content, 9)
    write_results(folder / "other.json", rows, {"box_source": "annotated: people.json"})
    bundles.write_with_detector(folder / "bundle", skeleton=oaks.COCO17)
    return folder


@pytest.fixture
def spoiled(whole, tmp_path):
    """The same with a missing, a damaged, an empty and a too large picture, and their names."""
    folder = tmp_path / "spoiled"
    shutil.copytree(whole, folder)
    names = [image["file_name"] for image in json.loads((folder / "people.json").read_text())["images"]]
    missing, damaged, empty, large = names[1:5]
    (folder / "people" / missing).unlink()
    content = (folder / "people" / damaged).read_bytes()
    (folder / "people" / damaged).write_bytes(content[: len(content) // 2])
    (folder / "people" / empty).write_bytes(b"")
    write_large(folder / "people" / large)
    return folder, {missing, damaged, empty, large}


def write_large(path: Path) -> None:
    """A picture of more pixels than the limit; its file is small."""
    cv2.imwrite(str(path.with_suffix(".png")), np.zeros((2000, 2000), np.uint8))
    path.with_suffix(".png").replace(path)


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setenv("OAKS_LIMIT_IMAGE_PIXELS", "1000000")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


def named(output: str) -> set[str]:
    """Return the skipped items that the output names."""
    line = next(line for line in output.splitlines() if line.startswith("skipped ") and ": " in line
                and line.split(" ")[1].rstrip(":").isdigit())  # fmt: skip
    count, names = line.removeprefix("skipped ").split(": ", 1)
    listed = names.split(", ")
    assert int(count) == len(listed)
    return set(listed)


COMMON = ("--backend", "onnxruntime", "--threads", 1)


def test_an_evaluation_skips_unreadable_images(spoiled, tmp_path, monkeypatch):
    folder, bad = spoiled
    measured = []

    def evaluate(_truth, results, _settings):
        measured.append(results)
        return Report("")

    monkeypatch.setattr("oaks.val.evaluate.evaluate", evaluate)
    monkeypatch.setattr("oaks.val.evaluate.save_evaluation", lambda _report, out: out)
    command = ("val", folder / "bundle", folder / "people.json", "--out", tmp_path / "report", *COMMON)
    code, output = run(*command)
    assert code == 1, output
    assert named(output) == bad
    for file in ("ground-truth-boxes.json", "people-boxes.json", "detected-boxes.json"):
        rows, header = read_results(tmp_path / "report" / file)
        assert set(header["skipped"]) == bad
        assert not {row.get("file_name") for row in rows} & bad
    again, output = run(*command)  # from the existing files
    assert again == 1
    assert named(output) == bad
    assert len(measured) == 2
    entries = header_entries(measured[0][0].header)
    assert entries["Skipped images"].startswith("4, their people count as missed: ")


def test_people_in_skipped_images_count_as_missed(spoiled, whole, tmp_path):
    folder, bad = spoiled
    truth = GroundTruth.load(folder / "people.json")
    with oaks.Engine(folder / "bundle", "onnxruntime", threads=1) as engine:
        part = read_results(detect(engine, truth, folder / "people", tmp_path / "part.json"))[0]
        every = read_results(detect(engine, truth, whole / "people", tmp_path / "every.json"))[0]
    kept = [row for row in every if row["file_name"] not in bad]
    assert len(kept) < len(every)
    assert [row["annotation_id"] for row in part] == [row["annotation_id"] for row in kept]
    for one, other in zip(part, kept, strict=True):
        assert one["keypoints"] == pytest.approx(other["keypoints"], abs=1e-3)


def test_a_resumed_run_names_skipped_images(spoiled, tmp_path, monkeypatch):
    folder, bad = spoiled
    truth = GroundTruth.load(folder / "people.json")
    monkeypatch.setattr(resumable, "PEOPLE_AT_ONCE", 1)
    with oaks.Engine(folder / "bundle", "onnxruntime", threads=1) as engine:
        infer = engine.infer
        interrupt_after(monkeypatch, engine, 2)
        with pytest.raises(KeyboardInterrupt):
            detect(engine, truth, folder / "people", tmp_path / "r.json")
        monkeypatch.setattr(engine, "infer", infer)
        _, header = read_results(detect(engine, truth, folder / "people", tmp_path / "r.json"))
        assert set(header["skipped"]) == bad


@pytest.mark.parametrize(
    "arguments",
    [
        ("val", "detect", "{bundle}", "{people}", "--out", "{out}/a.json", *COMMON),
        ("val", "others", "{other}", "--annotations", "{people}", "--bundle", "{bundle}", "--out", "{out}/others",
         "--resamples", 2, *COMMON),
        ("benchmark", "{bundle}", "--annotations", "{people}", "--backend", "onnxruntime", "--precision", "fp32",
         "--turns", 1, "--batch", 1, "--threads", 1),
    ],
    ids=["detect", "others", "benchmark"],
)  # fmt: skip
def test_verbs_that_read_a_data_set_skip_unreadable_images(spoiled, tmp_path, arguments, monkeypatch):
    monkeypatch.setattr("oaks.benchmark._TURN_SECONDS", 0.0)
    folder, bad = spoiled
    places = {"bundle": folder / "bundle", "people": folder / "people.json", "other": folder / "other.json",
              "out": tmp_path}  # fmt: skip
    code, output = run(*(str(argument).format(**places) for argument in arguments))
    assert code == 1, output
    assert named(output) == bad


def test_detector_like_boxes_read_sizes_from_images(spoiled, tmp_path):
    folder, bad = spoiled
    content = json.loads((folder / "people.json").read_text())
    for image in content["images"]:
        del image["width"], image["height"]
    write_json(folder / "people.json", content)
    code, output = run(
        "val", "boxes", folder / "people.json", "--images", folder / "people", "--out", tmp_path / "b.json"
    )
    assert code == 1, output
    # The header of a truncated file still states the size.
    damaged = content["images"][2]["file_name"]
    assert named(output) == bad - {damaged}
    ids = {row["image_id"] for row in json.loads((tmp_path / "b.json").read_text())}
    assert not ids & {image["id"] for image in content["images"] if image["file_name"] in bad - {damaged}}


def test_cases_of_a_report_skip_unreadable_images(spoiled):
    folder, bad = spoiled
    truth = GroundTruth.load(folder / "people.json")
    measured = ScoredDetections.of(truth, Detections.load(folder / "other.json", truth))
    with SkippedItems() as skipped:
        assert cases.section(measured, folder / "people") is not None
    assert skipped.items
    assert set(skipped.items) <= bad


def test_json_has_an_object_for_each_skipped_image(spoiled, tmp_path):
    folder, bad = spoiled
    command = (
        "val",
        "detect",
        folder / "bundle",
        folder / "people.json",
        "--out",
        tmp_path / "a.json",
        "--json",
    )
    result = CliRunner().invoke(app, [*map(str, (*command, *COMMON))])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["item"] for line in lines if "skipped" in line} == bad
    assert result.exit_code == 1


def failing(function, call: int, error: Exception):
    """Return the function, changed to fail at one call, counted from 1."""
    calls = []

    def failing(*arguments, **named):
        calls.append(arguments)
        if len(calls) == call:
            raise error
        return function(*arguments, **named)

    return failing


@pytest.mark.parametrize("place", ["read", "network"])
@pytest.mark.parametrize("verb", ["infer", "detect"])
def test_a_temporary_failure_ends_the_run_and_the_next_run_has_every_image(
    whole, tmp_path, monkeypatch, verb, place
):
    monkeypatch.setattr(resumable, "PEOPLE_AT_ONCE", 1)
    truth, out = GroundTruth.load(whole / "people.json"), tmp_path / "r.json"
    call = detect if verb == "infer" else find_people
    with oaks.Engine(whole / "bundle", "onnxruntime", threads=1) as engine:
        with monkeypatch.context() as patch:
            if place == "read":
                error: Exception = PermissionError(13, "Permission denied")
                patch.setattr("oaks.val.detect.read_image", failing(read_image, 3, error))
            else:
                error = RuntimeError("out of memory")
                patch.setattr(engine, verb, failing(getattr(engine, verb), 3, error))
            with pytest.raises(type(error)):
                call(engine, truth, whole / "people", out)
        assert not out.exists()
        call(engine, truth, whole / "people", out)
        call(engine, truth, whole / "people", tmp_path / "undisturbed.json")
    rows, header = read_results(out)
    assert "skipped" not in header
    assert rows == read_results(tmp_path / "undisturbed.json")[0]


def test_an_image_for_which_the_detector_gives_nan_is_skipped_and_named(whole, tmp_path, monkeypatch):
    truth, out = GroundTruth.load(whole / "people.json"), tmp_path / "r.json"

    def spoiled(centers, *maps, **settings):
        calls.append(centers)
        return decode_centers(
            np.full_like(centers, np.nan) if len(calls) == 3 else centers, *maps, **settings
        )

    calls: list = []
    monkeypatch.setattr("oaks.detector.decode_centers", spoiled)
    with oaks.Engine(whole / "bundle", "onnxruntime", threads=1) as engine, SkippedItems() as skipped:
        find_people(engine, truth, whole / "people", out)
    assert set(skipped.items) == {truth.file_names[2]}
    assert "must be finite" in read_results(out)[1]["skipped"][truth.file_names[2]]


def test_a_detector_that_no_image_suits_ends_the_run(whole, tmp_path, monkeypatch):
    truth = GroundTruth.load(whole / "people.json")
    with oaks.Engine(whole / "bundle", "onnxruntime", threads=1) as engine:
        monkeypatch.setattr(
            engine, "detect", failing(engine.detect, 1, ArgumentError("export with a sigmoid"))
        )
        with pytest.raises(ArgumentError, match="export with a sigmoid"):
            find_people(engine, truth, whole / "people", tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


def test_a_detector_without_a_box_of_the_minimum_score_is_measured(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "oaks.val.evaluate.evaluate", lambda _truth, results, _settings: Report(repr(results[1].count))
    )
    truth = GroundTruth.load(whole / "people.json")
    with oaks.Engine(whole / "bundle", "onnxruntime", threads=1) as engine:
        evaluate_bundle(engine, truth, whole / "people", tmp_path / "report", min_box_score=1.0)
        rows = [{"image_id": int(truth.image_ids[0]), "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}]
        write_results(tmp_path / "boxes.json", rows)
        with pytest.raises(ArgumentError, match="min_box_score must leave some boxes"):
            detect(
                engine,
                truth,
                whole / "people",
                tmp_path / "r.json",
                boxes=tmp_path / "boxes.json",
                min_box_score=0.9,
            )
    assert read_results(tmp_path / "report" / "detected-boxes.json")[0] == []


def test_an_image_without_read_permission_ends_the_run_at_the_start(whole, monkeypatch):
    truth = GroundTruth.load(whole / "people.json")
    monkeypatch.setattr(
        "oaks.val.detect.read_size", failing(read_size, 2, PermissionError(13, "Permission denied"))
    )
    with pytest.raises(PermissionError):
        ReadableImages(truth, whole / "people", range(len(truth.image_ids)))


def test_an_image_with_an_unscored_pose_is_skipped_and_named_by_a_resumed_run(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "PEOPLE_AT_ONCE", 1)
    truth, out = GroundTruth.load(whole / "people.json"), tmp_path / "r.json"
    name = next(row["file_name"] for row in json.loads((whole / "people.json").read_text())["images"])
    picture = cv2.imread(str(whole / "people" / name))
    with oaks.Engine(whole / "bundle", "onnxruntime", threads=1) as engine:
        infer = engine.infer

        def spoiled(frames, **arguments):
            poses = infer(frames, **arguments)
            if not np.array_equal(frames[0], picture):
                return poses
            scores, similarity = poses.scores.copy(), poses.similarity.copy()
            scores[0] = similarity[0] = np.nan
            return replace(poses, scores=scores, similarity=similarity)

        monkeypatch.setattr(engine, "infer", failing(spoiled, 3, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            detect(engine, truth, whole / "people", out)
        monkeypatch.setattr(engine, "infer", spoiled)
        with SkippedItems() as skipped:
            detect(engine, truth, whole / "people", out)
    assert set(skipped.items) == {name}
    rows, header = read_results(out)
    assert "poses without a finite score: 1 of " in header["skipped"][name]
    others = {truth.file_names[image] for image in truth.image[truth.counted]} - {name}
    assert {row["file_name"] for row in rows} == others
    assert Detections.load(out, truth).count == len(rows)


def test_images_skipped_by_the_run_that_made_the_boxes_are_named(whole, tmp_path):
    truth, boxes = GroundTruth.load(whole / "people.json"), tmp_path / "boxes.json"
    with oaks.Engine(whole / "bundle", "onnxruntime", threads=1) as engine:
        image_id, name = int(truth.image_ids[0]), truth.file_names[0]
        row = {"category_id": truth.category_id, "bbox": [10, 10, 60, 90], "score": 0.5}
        rows = [row | {"image_id": int(i)} for i in truth.image_ids if i != image_id]
        write_results(boxes, rows, {"skipped": {name: "damaged", "of another data set.jpg": "damaged"}})
        with SkippedItems() as skipped:
            out = detect(engine, truth, whole / "people", tmp_path / "r.json", boxes=boxes)
        assert skipped.items == {name: "damaged"}
        assert read_results(out)[1]["skipped"] == {name: "damaged"}
        for foreign in (3, ["a.jpg"], {"a.jpg": 3}):
            write_results(boxes, rows, {"skipped": foreign})
            with pytest.raises(
                ArgumentError, match=r"boxes\.header\.json: skipped must be an object with a reason"
            ):
                detect(engine, truth, whole / "people", tmp_path / "s.json", boxes=boxes)
    assert header_entries({"skipped": 3}) == {"Skipped": "3"}


def test_labels_of_another_image_size_are_refused_before_the_run(spoiled, tmp_path):
    folder, _ = spoiled
    content = json.loads((folder / "people.json").read_text())
    content["images"][0] |= {"width": 384, "height": 512}
    write_json(folder / "people.json", content)
    code, output = run(
        "val", "detect", folder / "bundle", folder / "people.json", "--out", tmp_path / "a.json", *COMMON
    )
    assert code == 2
    assert "384×512" in output
