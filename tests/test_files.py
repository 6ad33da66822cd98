"""Atomic writes of files and folders, and bounded reads of external files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from oaks import ArgumentError, files
from oaks.video.sinks import CocoFile


def folder(path, **content):
    path.mkdir()
    for name, text in content.items():
        (path / name).write_text(text)
    return path


def content(path):
    return {file.name: file.read_text() for file in path.iterdir()}


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_folder_replaces_another(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    out = tmp_path / "out"
    for name in ("a", "b"):
        with files.replacing_folder(out) as staged:
            (staged / name).write_text("new")
        assert content(out) == {name: "new"}
    with pytest.raises(FileNotFoundError), files.replacing_folder(out) as staged:
        (staged / "c").write_text((staged / "missing").read_text())
    assert content(out) == {"b": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_replacement_keeps_the_old_folder(tmp_path, monkeypatch):
    out = folder(tmp_path / "out", a="old")
    real = os.replace

    def full(source, target):
        if target == out and not source.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"), files.replacing_folder(out) as staged:
        (staged / "a").write_text("new")
    assert content(out) == {"a": "old"}


SWAPPING = """
import sys
from pathlib import Path
from oaks import files
base = Path(sys.argv[1])
number = 0
while True:
    with files.replacing_folder(base / "out") as staged:
        for name in "ab":
            (staged / name).write_text(str(number))
    number += 1
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="folders change places in one step on Linux only")
def test_a_kill_leaves_a_whole_folder(tmp_path):
    probe = folder(tmp_path / "one"), folder(tmp_path / "other")
    if not files._exchange(*probe):
        pytest.skip("this file system cannot exchange folders")
    for attempt in range(4):
        base = folder(tmp_path / str(attempt))
        with subprocess.Popen([sys.executable, "-c", SWAPPING, base], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.003 * attempt)
            process.send_signal(signal.SIGKILL)
        found = content(base / "out")
        assert set(found) == {"a", "b"}
        assert found["a"] == found["b"] != ""


def test_a_regular_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="at most 4 bytes, got 5"):
        files.read_regular(tmp_path / "a", 4)
    with pytest.raises(OSError, match=r"regular file|directory|Permission"):
        files.read_regular(tmp_path, 4)
    with pytest.raises(FileNotFoundError):
        files.read_regular(tmp_path / "gone", 4)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="must be a regular file"):
        files.read_regular(tmp_path / "link", 4)


HOLDING = """
import sys, time
from pathlib import Path
from oaks import files
from oaks.video.sinks import CocoFile
base = Path(sys.argv[1])
rows = CocoFile(base / "rows.json")
with files.replacing(base / "a.json") as file, files.replacing_folder(base / "folder") as staged:
    file.write(b"half")
    file.flush()
    (staged / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".oaks-"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_files_of_a_killed_process_are_removed_by_the_next_write(tmp_path):
    def write_all():
        files.write_text(tmp_path / "a.json", "whole")
        with files.replacing_folder(tmp_path / "folder") as staged:
            (staged / "whole").write_text("whole")
        rows = CocoFile(tmp_path / "rows.json")
        rows.close()

    with subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        held = hidden(tmp_path)
        assert len(held) == 3
        write_all()
        assert hidden(tmp_path) == held  # its process is alive
        assert content(tmp_path / "folder") == {"whole": "whole"}
        process.kill()
    files.write_text(tmp_path / "b.json", "another path")
    assert hidden(tmp_path) == held
    write_all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "folder", "rows.json"]
    assert (tmp_path / "a.json").read_text() == "whole"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_links_under_the_hidden_names_are_never_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    with files.replacing(tmp_path / "a") as file:
        file.write(b"a")
        (name,) = hidden(tmp_path)
    os.symlink(tmp_path / "victim", tmp_path / name)
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new"
    assert not (tmp_path / "a").is_symlink()


def test_writes_work_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_lock", lambda handle: None)
    for text in ("1", "2", "3", "4", "5", "6"):
        with files.replacing(tmp_path / "a") as first, files.replacing(tmp_path / "a") as second:
            first.write(b"older")
            second.write(text.encode())
        with files.replacing_folder(tmp_path / "folder") as staged:
            (staged / text).write_text(text)
    assert content(tmp_path / "folder") == {"6": "6"}
    assert (tmp_path / "a").read_text() == "older"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_that_appears_meanwhile_is_replaced(tmp_path, monkeypatch, exchange):
    """Two processes find no folder, and both put theirs there."""
    replace = os.replace

    def put_another_first(source, target):
        monkeypatch.setattr(os, "replace", replace)
        folder(tmp_path / "out", old="old")
        replace(source, target)

    monkeypatch.setattr(os, "replace", put_another_first)
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda _one, _other: False)
    with files.replacing_folder(tmp_path / "out") as staged:
        (staged / "new").write_text("new")
    assert content(tmp_path / "out") == {"new": "new"}
    assert hidden(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_folder_is_held_by_one_run_at_a_time(tmp_path, caplog):
    with files.held(tmp_path):
        with (
            pytest.raises(ArgumentError, match=rf"{tmp_path}: another run is writing it; wait until"),
            files.held(tmp_path),
        ):
            pass
        inner = threading.Thread(target=lambda: files.held(tmp_path, wait=True).__enter__())
        inner.start()
        inner.join(0.1)
        assert inner.is_alive()
    inner.join(20)
    assert not inner.is_alive()
    assert "another run is writing it; waiting" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX has forks")
def test_a_fork_holds_no_folder(tmp_path):
    """A loader's worker that outlives a killed training would keep it from being resumed."""
    reading, writing = os.pipe()
    with files.held(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(writing, b"started")
            time.sleep(60)
            os._exit(0)
    assert os.read(reading, 7) == b"started"
    try:
        with files.held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_many_processes_can_write_one_path(tmp_path):
    with contextlib.ExitStack() as stack:
        for number in range(7):
            stack.enter_context(files.replacing(tmp_path / "a")).write(str(number).encode())
        assert len(hidden(tmp_path)) == 7
    assert (tmp_path / "a").read_text() == "0"
    assert hidden(tmp_path) == []
