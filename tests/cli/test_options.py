"""Options that several verbs share."""

from __future__ import annotations

import json
from pathlib import Path

import bundles
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner
from val import synthetic

import oaks
from oaks import ArgumentError
from oaks.cli.main import app
from oaks.files import write_json


@pytest.mark.parametrize("verb", ["predict", "track", "val run"])
def test_threads_are_also_those_of_the_detector(tiny, tmp_path, monkeypatch, verb):
    given = []

    def detector(source, **settings):
        given.append((source, settings["threads"]))
        raise ArgumentError("that is enough")

    monkeypatch.setattr("oaks.detector.Detector", detector)
    content = synthetic.annotations(1, images=1)
    synthetic.write_images(content, tmp_path / "people")
    write_json(tmp_path / "people.json", content)
    data = [tmp_path / "people", "--bundle", tiny.path]
    if verb == "val run":
        data = [tiny.path, tmp_path / "people.json"]
    words = [*verb.split(), *data, "--out", tmp_path / "out", "--detector", "d.onnx", "--threads", 3]
    result = CliRunner().invoke(app, [*map(str, words), "--backend", "onnxruntime"])
    assert "that is enough" in result.output
    assert given == [(Path("d.onnx"), 3)]


@pytest.fixture
def one_person(tmp_path):
    """A bundle with a detector, and a picture of one person whose box scores less than 1."""
    bundle = bundles.write_with_detector(tmp_path / "tiny").path
    image = np.zeros((*bundles.DETECTOR_INPUT[::-1], 3), np.uint8)
    cell = bundles.DETECTOR_STRIDE
    image[3 * cell : 4 * cell, 5 * cell : 6 * cell] = 160
    cv2.imwrite(str(tmp_path / "picture.png"), image)
    return bundle, tmp_path / "picture.png"


def people_found(*words: object) -> int:
    result = CliRunner().invoke(app, [*map(str, words), "--json", "--backend", "onnxruntime"])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return sum(line["people"] for line in lines if "image" in line)


def test_a_threshold_alone_is_that_of_the_bundles_detector(one_person, tmp_path):
    bundle, picture = one_person
    score = oaks.Detector(bundle, backend="onnxruntime").detect(cv2.imread(str(picture)))[1].item()
    words = ["predict", picture, "--bundle", bundle, "--out", tmp_path / "out", "--no-pictures"]
    assert people_found(*words, "--detector-threshold", score - 0.001) == 1
    assert people_found(*words, "--detector-threshold", score + 0.001) == 0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--detector-person", 3], "--detector-person must be left out without --detector, got 3"),
        (
            ["--detector-set", "color=rgb"],
            "--detector-set must be left out without --detector, got color=rgb",
        ),
        (
            ["--detector-threshold", 0, "--boxes", "whole"],
            "--detector-threshold must be left out with --boxes, got 0",
        ),
        (["--detector", "d.onnx", "--boxes", "whole"], "pass at most one of --boxes, --detector"),
    ],
)
def test_options_of_a_detector_that_would_have_no_effect_are_refused(one_person, tmp_path, given, problem):
    bundle, picture = one_person
    words = ["predict", picture, "--bundle", bundle, "--out", tmp_path / "out", *given]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2
    assert problem in result.output


def test_another_bundles_detector_runs_on_the_chosen_backend(one_person, tmp_path, monkeypatch):
    bundle, picture = one_person
    given = []

    def detector(source, **settings):
        given.append(settings["backend"])
        raise ArgumentError("that is enough")

    monkeypatch.setattr("oaks.detector.Detector", detector)
    words = ["predict", picture, "--bundle", bundle, "--out", tmp_path / "out", "--detector", bundle]
    CliRunner().invoke(app, [*map(str, words), "--backend", "onnxruntime"])
    assert given == ["onnxruntime"]


@pytest.mark.parametrize("verb", ["predict", "predict --ray auto", "track", "serve", "demo", "val run"])
def test_a_threshold_for_a_bundle_without_a_detector_is_refused(tiny, tmp_path, verb):
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((40, 30, 3), np.uint8))
    write_json(tmp_path / "people.json", synthetic.annotations(1, images=1))
    (tmp_path / "people").mkdir()
    places = {
        "predict": [tmp_path / "picture.png"],
        "track": [tmp_path / "picture.png"],
        "serve": [tiny.path],
        "demo": [],
    }
    words = [*places.get(verb.split()[0], [tiny.path, tmp_path / "people.json"]), "--detector-threshold", 0.5]
    if verb not in ("serve", "val run"):
        words += ["--bundle", tiny.path]
    result = CliRunner().invoke(app, [*verb.split(), *map(str, words)])
    assert result.exit_code == 2, result.output
    assert "detector" in result.output
    assert f"bundle {tiny.name!r}" in result.output


def test_a_detector_beside_ground_truth_boxes_alone_is_refused(tiny, tmp_path):
    write_json(tmp_path / "people.json", synthetic.annotations(1, images=1))
    (tmp_path / "people").mkdir()
    words = ["val", "run", tiny.path, tmp_path / "people.json", "--ground-truth-only", "--detector", "d.onnx"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2
    assert "--detector must be left out with --ground-truth-only, got d.onnx" in result.output
