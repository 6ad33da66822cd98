"""Data sets on disk: what pycocotools takes, complete after any interruption."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.skeleton import COCO17
from oaks.training.render import RenderedPeople, write_dataset
from oaks.training.render.output import dataset

SETTINGS = {"seed": 9, "size": (96, 96), "people": (0.5, 0.5)}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(dataset, "_CHUNK", 4)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "pieces"
    }


def test_pycocotools_loads_a_set(tmp_path, small_chunks, capsys):
    path = write_dataset(tmp_path / "set", 6, workers=1, progress=False, **SETTINGS)
    coco = COCO(str(path))
    assert len(coco.imgs) == 6
    assert coco.getCatIds(["person"]) == [1]
    assert coco.cats[1]["keypoints"] == list(COCO17.keypoints)
    people = RenderedPeople(**SETTINGS)
    for index in range(6):
        image, annotations = people.sample(index)
        entry = coco.imgs[index + 1]
        stored = cv2.imread(str(tmp_path / "set" / "images" / entry["file_name"]))
        assert stored.shape[:2] == (entry["height"], entry["width"]) == (96, 96)
        assert np.abs(stored.astype(int) - image).mean() < 8
        found = coco.loadAnns(coco.getAnnIds([index + 1]))
        assert [a["keypoints"] for a in found] == [a["keypoints"] for a in annotations]
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))


def test_two_processes_write_what_one_does(tmp_path, small_chunks):
    write_dataset(tmp_path / "one", 7, workers=1, progress=False, **SETTINGS)
    write_dataset(tmp_path / "two", 7, workers=2, progress=False, **SETTINGS)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_stopped_set_is_resumed(tmp_path, small_chunks, monkeypatch):
    whole = tmp_path / "whole"
    write_dataset(whole, 10, workers=1, progress=False, **SETTINGS)

    sample, drawn = RenderedPeople.sample, []

    def stopping(self, index):
        if len(drawn) == 6:
            raise KeyboardInterrupt
        drawn.append(index)
        return sample(self, index)

    monkeypatch.setattr(RenderedPeople, "sample", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "stopped", 10, workers=1, progress=False, **SETTINGS)
    assert not (tmp_path / "stopped" / "annotations.json").exists()
    assert drawn == [0, 1, 2, 3, 4, 5]

    again = []

    def counting(self, index):
        again.append(index)
        return sample(self, index)

    monkeypatch.setattr(RenderedPeople, "sample", counting)
    write_dataset(tmp_path / "stopped", 10, workers=1, progress=False, **SETTINGS)
    assert again == [4, 5, 6, 7, 8, 9]  # the first four were finished
    assert content(tmp_path / "stopped") == content(whole)
    again.clear()
    write_dataset(tmp_path / "stopped", 10, workers=1, progress=False, **SETTINGS)
    assert again == []


def test_a_set_can_be_extended(tmp_path, small_chunks):
    write_dataset(tmp_path / "set", 5, workers=1, progress=False, **SETTINGS)
    path = write_dataset(tmp_path / "set", 9, workers=1, progress=False, **SETTINGS)
    write_dataset(tmp_path / "whole", 9, workers=1, progress=False, **SETTINGS)
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert len(json.loads(path.read_text())["images"]) == 9


def test_the_command_line_writes_a_set_and_a_sheet(tmp_path):
    run = CliRunner().invoke(app, ["render", str(tmp_path / "set"), "--count", "8", "--size", "64", "64",
                                   "--classes", "0,0,1,1", "--workers", "1", "--no-occluders"])  # fmt: skip
    assert run.exit_code == 0, run.output
    stored = json.loads((tmp_path / "set" / "annotations.json").read_text())
    assert len(stored["images"]) == 8
    assert stored["info"]["settings"]["classes"] == [0, 0, 0.5, 0.5]
    sheet = cv2.imread(str(tmp_path / "set" / "sheet.jpg"))
    assert sheet.shape == (2 * 64, 6 * 64, 3)
    run = CliRunner().invoke(app, ["render", str(tmp_path / "other"), "--classes", "many"])
    assert run.exit_code == 2
    assert "--classes must be" in run.stderr


def test_progress_stays_off_standard_output(tmp_path, capsys):
    """`make weights` hands on what the trainings print there."""
    write_dataset(tmp_path / "set", 2, workers=1, progress=True, **SETTINGS)
    said = capsys.readouterr()
    assert said.out == ""
