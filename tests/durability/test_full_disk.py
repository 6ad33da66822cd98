"""On a full disk every verb says which file could not be written, in one line, and leaves whole files."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durability.verbs import prepare, unreadable
from oaks import files

VERBS = ("predict", "track", "val detect", "render", "pack", "train")


@pytest.fixture(scope="module")
def verbs(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("durability"), VERBS)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder on a file system of 160 kB."""
    folder, mount = tmp_path / "disk", shutil.which("mount")
    folder.mkdir()
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@pytest.mark.parametrize("name", VERBS)
def test_a_full_disk_is_one_line_that_names_a_file(verbs, small_disk, name):
    (small_disk / "filler").write_bytes(b"0" * (150 << 10))
    out = small_disk / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "oaks", *verbs[name].arguments(out)], capture_output=True, text=True, timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("oaks: ")]
    assert done.returncode == 3, done.stderr
    assert len(said) == 1, done.stderr
    assert "No space left on device" in said[0]
    assert str(small_disk) in said[0]
    assert "Traceback" not in done.stderr
    assert unreadable(out) == []
    assert [path.name for path in out.rglob(".oaks-*")] == []


@pytest.mark.parametrize("write", [files.write_json, files.write_text])
def test_a_failed_write_names_its_file_and_leaves_the_old_one(tmp_path, monkeypatch, write):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.json"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
