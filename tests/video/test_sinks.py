"""Result files: complete after every frame, even on a full disk."""

from __future__ import annotations

import errno
import json
import os
from fractions import Fraction

import numpy as np
import pytest

from oaks.box_files import read_mot
from oaks.coco_results import read_results
from oaks.video import AnnotatedVideo, sinks
from oaks.video.frames import Frame
from oaks.video.sinks import CocoFile, JsonLines, MotFile, mot_lines

from .scenes import people


def frame(index: int, name: str = "") -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), index, index, Fraction(1, 30), name=name)


def test_mot_lines_hold_tracked_poses_only():
    poses = people([(100, 100), (300, 100), (50, 50)], oaks=[0.5, 0.25, 0.9], track_ids=[3, 1, -1])
    lines = list(mot_lines(poses, 7))
    assert [line.split(",")[:2] for line in lines] == [["7", "3"], ["7", "1"]]
    assert lines[0].split(",")[6:] == ["0.5000", "-1", "-1", "-1"]


def test_result_files_are_complete_after_every_frame(tmp_path):
    """They are read while they are written, as after a power cut."""
    written = JsonLines(tmp_path / "p.jsonl"), CocoFile(tmp_path / "r.json"), MotFile(tmp_path / "t.txt")
    rows: list[dict] = []
    assert read_results(tmp_path / "r.json") == ([], None)
    for n, centers in enumerate([[], [(10, 10), (200, 10)], [], [(12, 10)]]):
        poses = people(centers, track_ids=list(range(1, len(centers) + 1)))
        at = frame(n, "b.png" if n == 3 else "")
        for sink in written:
            sink.write(at, poses)
        rows += poses.to_coco(n + 1, file_names=at.name or None)
        assert read_results(tmp_path / "r.json")[0] == rows
        lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
        times = [(line["frame"], line["time"]) for line in lines]
        assert times == [(k, round(k / 30, 6)) for k in range(n + 1)]
        assert [row for line in lines for row in line["poses"]] == rows
        assert sum(len(boxes) for boxes in read_mot(tmp_path / "t.txt").boxes.values()) == len(rows)
    assert lines[3]["name"] == "b.png"
    assert "name" not in lines[0]
    for sink in written:
        sink.close()
        sink.close()
    assert read_results(tmp_path / "r.json")[0] == rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("sink", [JsonLines, MotFile, CocoFile, AnnotatedVideo])
def test_a_fifo_is_refused_instead_of_waiting_for_a_reader(tmp_path, sink):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match=r"must not be a FIFO.*/a'") as caught:
        sink(tmp_path / "a")
    assert caught.value.errno == errno.EINVAL


def test_results_stay_complete_for_a_reader(tmp_path, monkeypatch):
    """A reader that has opened the file reads its content at that time, while more is written."""
    sink = CocoFile(tmp_path / "r.json")
    many = people([(10 * n, 10) for n in range(40)], track_ids=list(range(40)))
    sink.write(frame(0), many)
    with open(tmp_path / "r.json", "rb") as opened:
        half = opened.read(1000)
        for n in range(1, 20):
            sink.write(frame(n), many)
        assert len(json.loads(half + opened.read())) == 40
    rows = json.loads((tmp_path / "r.json").read_bytes())
    assert len(rows) % 40 == 0
    monkeypatch.setattr(sinks.time, "monotonic", lambda: 1e18)  # long after the last copy
    sink.write(frame(20), many)
    assert len(json.loads((tmp_path / "r.json").read_bytes())) == 21 * 40
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_link_to_a_device_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    fifo = tmp_path / "out" / "r.json"
    fifo.symlink_to("/dev/null")
    sink = CocoFile(fifo)
    sink.write(frame(0), people([(10, 10)], track_ids=[1]))
    sink.close()
    assert fifo.is_symlink()
    assert [path.name for path in fifo.parent.iterdir()] == ["r.json"]


def test_the_target_of_a_link_is_replaced_and_the_link_is_kept(tmp_path):
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "r.json", tmp_path / "there" / "r.json"
    link.symlink_to(file)
    for centers in ([(10, 10)], [(10, 10), (200, 10)]):  # first without the file, then with it
        sink = CocoFile(link)
        sink.write(frame(0), people(centers, track_ids=list(range(len(centers)))))
        sink.close()
        assert link.is_symlink()
        assert len(json.loads(file.read_bytes())) == len(centers)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["r.json", "r.json", "there"]


def test_every_frame_survives_a_kill(tmp_path):
    """Files are read before they are closed, as after SIGKILL, and before the next copy is due."""
    coco, lines = CocoFile(tmp_path / "r.json"), JsonLines(tmp_path / "p.jsonl")
    many, rows = people([(10 * n, 10) for n in range(40)], track_ids=list(range(40))), []
    for n in range(20):
        for sink in (coco, lines):
            sink.write(frame(n), many)
        rows += many.to_coco(n + 1)
        coco._next = 1e18
    copied = read_results(tmp_path / "r.json")[0]
    assert copied == rows[: len(copied)]
    assert 0 < len(copied) < len(rows)
    (staged,) = tmp_path.glob(".oaks-*")
    assert read_results(staged)[0] == rows
    written = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row for line in written for row in line["poses"]] == rows
    for sink in (coco, lines):
        sink.close()


class FullDisk:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def write(self, content) -> int:
        room = self._room - self._file.tell()
        if room <= 0:
            raise OSError(28, "No space left on device")
        return self._file.write(content[:room])

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [1000, 1500, 2000, 2500, 3000, 3001, 3002])
def test_a_full_disk_leaves_complete_frames(tmp_path, room):
    coco, lines = CocoFile(tmp_path / "r.json"), JsonLines(tmp_path / "p.jsonl")
    poses, counts = people([(10, 10)], track_ids=[1]), []

    def write_on(sink) -> None:
        for n in range(100):
            counts.append(n)
            sink.write(frame(n), poses)

    for sink in (coco, lines):
        sink._file._file = FullDisk(sink._file._file, room)
        with pytest.raises(OSError, match="No space left"):
            write_on(sink)
        sink.close()
    rows, _ = read_results(tmp_path / "r.json")
    assert [row["image_id"] for row in rows] == list(range(1, len(rows) + 1))
    written = [json.loads(line)["frame"] for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert written == list(range(len(written)))
    assert len(rows) + len(written) + 2 == len(counts), "all but the frame that failed"
    assert (tmp_path / "r.json").stat().st_size <= room
