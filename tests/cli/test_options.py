"""Options that several verbs share."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner
from val import synthetic

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
    assert given == [("d.onnx", 3)]
