"""The command line of oaks val."""

from __future__ import annotations

import json

import bundles
import numpy as np
import pytest
from typer.testing import CliRunner
from val import synthetic

from oaks import COCO17
from oaks.cli.main import app, main
from oaks.coco_results import write_results
from oaks.files import write_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with people.json, its pictures in people/, two results files and a bundle."""
    folder = tmp_path_factory.mktemp("data")
    content = synthetic.annotations(12, images=6)
    synthetic.write_images(content, folder / "people")
    write_json(folder / "people.json", content)
    for name, noise in (("good", 0.02), ("poor", 0.2)):
        rows = synthetic.detections(content, 12, noise=noise)
        write_results(folder / f"{name}.json", rows, {"box_source": "annotated: people.json"})
    bundles.write(folder / "bundle", skeleton=COCO17)
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, ["val", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_one_command_from_a_bundle_to_the_report(data, tmp_path):
    output = run(
        data / "bundle", data / "people.json", "--out", tmp_path, "--resamples", 5, "--backend",
        "onnxruntime", "--threads", 1, "--against", "paper",
    )  # fmt: skip
    assert str(tmp_path / "report.html") in output
    files = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "report.json", "report.md", "ground-truth-boxes.json", "detected-boxes.json",
            "detector-like-boxes.json"} <= files  # fmt: skip
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["title"] == "tiny on people.json"
    groups = {group["title"]: group["entries"] for group in content["head"]}
    assert groups["Results: detected boxes"]["Box source"] == "detected: detector-like-boxes.json"
    assert groups["Results: ground-truth boxes"]["Decoder"] == "second_peak"
    assert "cases" in [section["key"] for section in content["sections"]]


def test_boxes_and_detections_are_written_separately(data, tmp_path):
    run("boxes", data / "people.json", "--out", tmp_path / "boxes.json", "--seed", 3)
    run(
        "detect", data / "bundle", data / "people.json", "--out", tmp_path / "found.json", "--boxes",
        tmp_path / "boxes.json", "--backend", "onnxruntime", "--threads", 1, "--nms", 0,
    )  # fmt: skip
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    assert len(json.loads((tmp_path / "found.json").read_text())) == len(boxes)


def test_results_files_are_evaluated_in_a_report(data, tmp_path):
    output = run(
        "report", data / "good.json", data / "poor.json", "--annotations", data / "people.json", "--out",
        tmp_path, "--resamples", 5, "--landing", "released", "--judge", "faster-coco-eval",
    )  # fmt: skip
    assert "good, ground-truth boxes: average precision and recall" in output
    text = (tmp_path / "report.md").read_text()
    assert "released" in text
    assert "faster-coco-eval" in text
    assert "Comparison" in text


def test_results_are_compared_in_the_terminal_and_in_a_report(data, tmp_path):
    arguments = (
        "compare", data / "good.json", data / "poor.json", "--annotations", data / "people.json",
        "--resamples", 20,
    )  # fmt: skip
    output = run(*arguments, "--score", "conventional")
    assert "Conventional (mean heat)" in output
    assert "AP75 almost (own)" in output
    run(*arguments, "--add-to", tmp_path / "report")
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    table = content["sections"][0]["items"][0]
    assert table["key"] == "side-by-side"
    assert table["rows"][0][0] == "AP"
    assert table["rows"][0][3]["value"] < 0


def test_trainings_are_compared_in_the_terminal_and_in_a_report(data, tmp_path):
    arguments = ("trainings", data / "good.json", data / "poor.json", "--annotations", data / "people.json")
    assert "Heat, true visibility" in run(*arguments)
    over = ("--over", data / "poor.json", "--over", data / "good.json", "--over-score", "oaks")
    output = run(*arguments, *over, "--score", "oaks", "--add-to", tmp_path)
    assert "First" in output
    table = json.loads((tmp_path / "report.json").read_text())["sections"][0]["items"][0]
    ap = table["rows"][0]
    assert ap[1] == pytest.approx(ap[3])
    assert ap[7] == "no"


def test_a_new_evaluation_keeps_sections_of_other_commands(data, tmp_path):
    files = (data / "good.json", "--annotations", data / "people.json")
    run("trainings", *files, "--add-to", tmp_path)
    run("report", *files, "--out", tmp_path, "--resamples", 5)
    content = json.loads((tmp_path / "report.json").read_text())
    keys = [section["key"] for section in content["sections"]]
    assert keys == ["ranking", "occlusion", "calibration", "visibility", "cases", "trainings"]


def test_other_estimators_are_scored_and_added_to_a_report(data, tmp_path):
    arguments = (
        "others", data / "good.json", data / "poor.json", "--annotations", data / "people.json", "--out",
        tmp_path,
    )  # fmt: skip
    assert "paper, first estimator" in run(*arguments, "--against", "paper")
    rescored = run(*arguments, "--bundle", data / "bundle", "--backend", "onnxruntime", "--threads", 1)
    assert "good" in rescored
    assert {"good-oaks.json", "poor-oaks.json"} <= {path.name for path in tmp_path.iterdir()}
    content = json.loads((tmp_path / "report.json").read_text())
    assert [section["key"] for section in content["sections"]] == ["other-estimators"]
    assert len(content["sections"][0]["items"][0]["rows"]) == 6  # own score, OAKS and oracle of both


def test_exchanged_track_ids_are_counted(tmp_path):
    """Two people in five frames, found exactly; from the fourth frame on, their ids are exchanged."""
    images, people, rows = [], [], []
    common = {"category_id": 1, "num_keypoints": 17, "area": 6000.0, "iscrowd": 0}
    for frame in range(1, 6):
        images.append({"id": frame, "width": 640, "height": 480, "file_name": f"{frame}.jpg"})
        for person in (0, 1):
            points = synthetic.STANDING + np.array([100 + 300 * person + frame, 50])
            flat = np.column_stack([points, np.full(17, 2)]).ravel().tolist()
            box = [100.0 + 300 * person + frame, 50.0, 100.0, 125.0]
            own = {"id": len(people) + 1, "image_id": frame, "track_id": person + 1}
            people.append({**common, **own, "keypoints": flat, "bbox": box})
            track = person + 1 if frame < 4 else 2 - person
            rows.append(
                {"image_id": frame, "category_id": 1, "keypoints": flat, "score": 0.9, "track_id": track}
            )
    write_results(tmp_path / "results.json", rows)
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}]
    write_json(tmp_path / "people.json", {"images": images, "annotations": people, "categories": categories})
    output = run("tracks", tmp_path / "results.json", tmp_path / "people.json", "--json")
    found = json.loads(output)
    assert (found["people"], found["poses"], found["misses"], found["switches"]) == (10, 10, 0, 2)
    assert found["mota"] == pytest.approx(0.8)
    assert found["idf1"] == pytest.approx(0.6)
    assert found["motp"] == pytest.approx(1)
    assert found["error"] == pytest.approx(0)
    assert "idf1" in run("tracks", tmp_path / "results.json", tmp_path / "people.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "good.json", "--annotations", "people.json", "--against", "me"], "--against must be"),
        (["report", "good.json", "--annotations", "people.json", "--landing", "moon"], "landing must be"),
        (["report", "good.json", "--annotations", "none.json"], "none.json"),
        (["compare", "good.json", "--annotations", "people.json"], "two files or more"),
        (
            ["compare", "good.json", "poor.json", "--annotations", "people.json", "--score", "luck"],
            "got 'luck'",
        ),
        (["bundle", "people.json", "--images", "nowhere"], "nowhere"),
        (["tracks", "good.json", "people.json"], "track_id"),
    ],
)
def test_errors_are_one_line(data, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(data)
    with pytest.raises(SystemExit) as stop:
        main(["val", *arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("oaks: ")
    assert words in message
    assert len(message.splitlines()) == 1
