"""Clips on disk: COCO and MOTChallenge agree, and a stop costs no more than a clip."""

from __future__ import annotations

import configparser
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from oaks.cli.main import app
from oaks.training.render import RenderedVideos, write_videos
from oaks.training.render.video import Clip

SETTINGS = {"seed": 2, "size": (96, 64), "frames": 6, "rate": 12.5}


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_clip_is_a_folder_with_frames_and_annotations(tmp_path):
    homes = write_videos(tmp_path, 2, workers=1, progress=False, **SETTINGS)
    assert [home.name for home in homes] == ["000001", "000002"]
    videos = RenderedVideos(**SETTINGS)
    for number, home in enumerate(homes):
        coco = COCO(str(home / "annotations.json"))
        assert coco.dataset["videos"] == [
            {"id": number + 1, "name": home.name, "frames": 6, "rate": 12.5, "width": 96, "height": 64}
        ]
        sequence = configparser.ConfigParser()
        sequence.read(home / "seqinfo.ini")
        assert (sequence["Sequence"]["seqLength"], sequence["Sequence"]["frameRate"]) == ("6", "12.5")
        rows = np.loadtxt(home / "gt" / "gt.txt", delimiter=",", ndmin=2)
        assert len(rows) == len(coco.anns) > 5
        for index in range(6):
            image, people = videos.clip(number).frame(index)
            entry = coco.imgs[index + 1]
            assert (entry["frame_index"], entry["video_id"]) == (index, number + 1)
            assert entry["time"] == pytest.approx(index * 0.08)
            stored = cv2.imread(str(home / "img1" / entry["file_name"]))
            assert np.abs(stored.astype(int) - image).mean() < 8
            found = coco.loadAnns(coco.getAnnIds([index + 1]))
            assert [{**a, "id": 0, "image_id": 0} for a in found] == [
                {**p, "id": 0, "image_id": 0} for p in people
            ]
            own = rows[rows[:, 0] == index + 1]
            assert own[:, 1].tolist() == [person["track_id"] for person in people]
            np.testing.assert_allclose(own[:, 2:6], [person["bbox"] for person in people], atol=0.006)
            seen = [person["keypoints"][2::3].count(2) / 17 for person in people]
            np.testing.assert_allclose(own[:, 8], seen, atol=0.006)


def test_a_stopped_set_is_resumed(tmp_path, monkeypatch):
    write_videos(tmp_path / "whole", 2, workers=2, progress=False, **SETTINGS)
    drawn, frame = [], Clip.frame

    def stopping(self, index):
        if len(drawn) == 9:
            raise KeyboardInterrupt
        drawn.append((self.number, index))
        return frame(self, index)

    monkeypatch.setattr(Clip, "frame", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_videos(tmp_path / "stopped", 2, workers=1, progress=False, **SETTINGS)
    assert not (tmp_path / "stopped" / "000002" / "annotations.json").exists()
    again = []
    monkeypatch.setattr(Clip, "frame", lambda self, index: again.append(self.number) or frame(self, index))
    write_videos(tmp_path / "stopped", 2, workers=1, progress=False, **SETTINGS)
    assert again == [1] * 6  # the first was finished
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_the_command_line_writes_clips_and_a_sheet(tmp_path):
    run = CliRunner().invoke(app, ["render-video", str(tmp_path), "--count", "2", "--frames", "6",
                                   "--size", "64", "48", "--workers", "1", "--shake"])  # fmt: skip
    assert run.exit_code == 0, run.output
    stored = json.loads((tmp_path / "000002" / "annotations.json").read_text())
    assert stored["info"]["settings"]["shake"] is True
    assert len(stored["images"]) == 6
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (2 * 48, 6 * 64, 3)
