"""Two runs that write the same output: each file is one run's or the other's, whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from durability.verbs import prepare, unreadable
from oaks import ArgumentError
from oaks.val.resumable import run_over_images


@pytest.fixture(scope="module")
def verbs(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("durability"), ("predict", "track", "val detect"))


@pytest.mark.parametrize("name", ["predict", "track", "val detect"])
def test_two_at_once_leave_whole_files(verbs, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "oaks", *verbs[name].arguments(out)], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=280)[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes[0] == 0, said
    if codes[1]:
        assert codes[1] == 2
        assert any("another run is writing" in text for text in said), said
    assert unreadable(out) == []


def test_a_second_run_over_images_is_refused_and_the_first_goes_on(tmp_path):
    out = tmp_path / "out.json"

    def estimate(batch):
        with pytest.raises(ArgumentError, match=r"out\.json\.partial: another run is writing it; wait"):
            run_over_images({1: 1}, lambda _: [(1, [])], out, {})
        yield from ((image, [{"image_id": image}]) for image in batch)

    run_over_images({1: 1, 2: 1}, estimate, out, {})
    assert json.loads(out.read_text()) == [{"image_id": 1}, {"image_id": 2}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.header.json", "out.json"]


def test_progress_that_another_run_has_removed_does_not_fail_a_whole_one(tmp_path, monkeypatch):
    """Without locks, two runs share the file."""
    monkeypatch.setattr("oaks.files._lock", lambda *_arguments, **_named: None)
    out = tmp_path / "out.json"

    def estimate(batch):
        run_over_images({1: 1}, lambda _: [(1, [{"image_id": 1}])], out, {})
        yield from ((image, [{"image_id": image}]) for image in batch)

    assert run_over_images({1: 1}, estimate, out, {}) == out
    assert json.loads(out.read_text()) == [{"image_id": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.header.json", "out.json"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": []}], "bbox"),
        (["a"], "rows must be objects, got 'a'"),
    ],
)
def test_rows_that_cannot_be_written_are_refused_with_the_first_image(tmp_path, rows, message):
    """Not after all of them: they may have taken hours."""
    asked: list[int] = []

    def estimate(batch):
        asked.extend(batch)
        return [(image, rows) for image in batch]

    with pytest.raises(ArgumentError, match=message):
        run_over_images(dict.fromkeys(range(100), 32), estimate, tmp_path / "out.json", {})
    assert asked == [0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b'{"header": 3}\n', "header must be an object"), (b"[1]\n", "must hold an object"), (b'{"a"\n', "not valid JSON"),
        (b'{"header": {}}\n{"image": "1", "rows": []}\n', "image must be int"),
        (b'{"header": {}}\n{"image": 7, "rows": []}\n', "it has image 7"),
        (b'{"header": {}}\n{"image": 1, "rows": [3]}\n', "rows must be objects"),
        (b'{"header": {}}\n{"image": 1, "rows": ' + b"[" * 100_000 + b"\n", "levels deep"),
    ],
)  # fmt: skip
def test_what_no_stopped_run_left_is_refused_by_name(tmp_path, lines, message):
    (tmp_path / "out.json.partial").write_bytes(lines)
    with pytest.raises(
        ArgumentError, match=rf"out\.json\.partial is not the progress of a stopped run.*{message}"
    ):
        run_over_images({1: 1}, lambda batch: [(1, [])], tmp_path / "out.json", {})
