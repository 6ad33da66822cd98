"""Which files sources name, and how pictures are read from folders, shards, tables and addresses."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import logging
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oaks import limits
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.ray import sources
from oaks.ray.sources import PARQUET, PICTURES, TAR, VIDEO, Inventory, Task, find_sources

from .conftest import dots, encoded, write_pictures


def test_files_folders_and_globs_name_each_file_once_in_natural_order(tmp_path, caplog):
    write_pictures(tmp_path, 11)
    for name in ("shard.tar", "old.TAR.GZ", "table.parquet", "clip.MP4", "notes.txt", "raw.heic"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    write_pictures(tmp_path / "more", 1)
    with caplog.at_level(logging.WARNING):
        found = find_sources([tmp_path / "10.png", tmp_path, str(tmp_path / "*.png")])
    assert found.pictures == [str(tmp_path / f"{n}.png") for n in (10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert {key.rpartition("/")[2]: kind for key, kind in found.others.items()} == {
        "clip.MP4": VIDEO, "old.TAR.GZ": TAR, "shard.tar": TAR, "table.parquet": PARQUET,
    }  # fmt: skip
    why = "image files of this kind are not read; convert them to JPEG or PNG"
    assert caplog.messages == [f"skipped 1 .heic file in {tmp_path}: {why}: {tmp_path / 'raw.heic'}"]


def test_finished_sources_are_known_without_their_passwords(monkeypatch):
    found = Inventory(["https://me:a@h/1.jpg", "https://me:a@h/2.jpg"], {"https://me:a@h/v.mp4": VIDEO})
    done = {"https://me:***@h/1.jpg", "https://me:***@h/v.mp4"}
    assert found.tasks(done, 8) == [Task(PICTURES, None, ("https://me:a@h/2.jpg",))]
    monkeypatch.setattr(sources, "_listed", lambda source: ([source], True))
    with pytest.raises(
        ArgumentError,
        match=r"more than passwords and .*, got several named https://me:\*\*\*@h/1.jpg; process",
    ):
        find_sources(["https://me:a@h/1.jpg", "https://me:b@h/1.jpg"])
    with pytest.raises(
        ArgumentError, match=r"parameters that may be secret.* named https://h/x\?key=\*\*\*;"
    ):
        find_sources(["https://h/x?key=a.jpg", "https://h/x?key=b.jpg"])
    behind_port = [f"http://minio:9000/img/{name}@2x.jpg" for name in "ab"]
    assert find_sources(behind_port).pictures == behind_port
    with pytest.raises(ArgumentError, match=r"must be a picture, .* got https://me:\*\*\*@h/notes$"):
        find_sources(["https://me:a@h/notes"])


def test_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    (path,) = write_pictures(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    assert find_sources(["photos"]).pictures == [str(path)]


def test_a_file_whose_name_has_glob_characters_is_that_file(tmp_path):
    path = tmp_path / "a[1].png"
    path.write_bytes(encoded(0))
    assert find_sources([path]).pictures == [str(path)]


def test_sources_that_name_nothing_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for source, error, text in (
        (tmp_path, FileNotFoundError, "it holds 1 .txt"), (tmp_path / "gone", FileNotFoundError, "pictures not found"),
        (tmp_path / "*.jpg", FileNotFoundError, "pictures not found"), (tmp_path / "notes.txt", ArgumentError, "must be"),
        ("rtsp://camera/1", ArgumentError, "rtsp"), ("s3://bucket/a.jpg", BackendUnavailable, "s3fs"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            find_sources([source])


def test_tasks_leave_out_what_is_done_and_hold_whole_passes():
    inventory = Inventory([f"{n}.jpg" for n in range(10)], {"a.tar": TAR, "b.mp4": VIDEO})
    tasks = inventory.tasks({"0.jpg", "4.jpg", "a.tar"}, 4)
    assert [task.pictures for task in tasks] == [
        ("1.jpg", "2.jpg", "3.jpg", "5.jpg"), ("6.jpg", "7.jpg", "8.jpg", "9.jpg"), (),
    ]  # fmt: skip
    assert tasks[-1] == Task(VIDEO, "b.mp4")
    assert [task.pictures for task in tasks[0].split()] == [(name,) for name in tasks[0].pictures]
    assert tasks[-1].split() == tasks[0].split()[0].split() == []
    assert inventory.tasks(set(inventory.pictures) | set(inventory.others), 4) == []


def shard(path, entries, mode="w"):
    with tarfile.open(path, mode) as file:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz")])
def test_a_shard_yields_only_its_pictures(tmp_path, name, mode):
    entries = {"0.png": encoded(0), "0.json": b"{}", "in/1.jpg": b"damaged", "2.png": encoded(2)}
    address = shard(tmp_path / name, entries, mode)
    found = dict(sources.tar_pictures(address))
    assert list(found) == [f"tar://{entry}::{address}" for entry in ("0.png", "in/1.jpg", "2.png")]
    assert np.array_equal(found[f"tar://0.png::{address}"](), dots(0))
    assert np.array_equal(found[f"tar://2.png::{address}"](), dots(2))
    with pytest.raises(ArgumentError, match="damaged"):
        found[f"tar://in/1.jpg::{address}"]()


def test_a_shard_that_ends_early_gives_what_it_has_and_then_its_damage(tmp_path):
    address = shard(tmp_path / "a.tar", {f"{n}.png": encoded(n) for n in range(4)})
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 512 * 3 + 100])
    pictures = sources.tar_pictures(address)
    assert next(pictures)[0] == f"tar://0.png::{address}"
    with pytest.raises((ArgumentError, OSError)):
        list(pictures)
    (tmp_path / "b.tar").write_bytes(b"no tar at all")
    with pytest.raises(ArgumentError, match="damaged"):
        list(sources.tar_pictures(str(tmp_path / "b.tar")))


@pytest.mark.parametrize("left", [0, 100, 511])
def test_a_shard_that_ends_in_or_before_a_header_is_damaged(tmp_path, left):
    address = shard(tmp_path / "a.tar", {f"{n}.png": encoded(n) for n in range(3)})
    content = (tmp_path / "a.tar").read_bytes()
    second = content.index(b"1.png")
    for end in (content[: second + left], content[:second] + b"x" * 512 + content[second + 512 :]):
        (tmp_path / "a.tar").write_bytes(end)
        pictures = sources.tar_pictures(address)
        assert next(pictures)[0] == f"tar://0.png::{address}"
        with pytest.raises(ArgumentError, match="damaged: unexpected end of data"):
            list(pictures)


@pytest.mark.parametrize("damage", ["checksum", "length", "no checksum", "more behind it"])
def test_a_compressed_shard_whose_checksum_is_wrong_gives_what_it_has_and_then_its_damage(tmp_path, damage):
    address = shard(tmp_path / "a.tgz", {"0.png": encoded(0), "1.png": encoded(1)}, "w:gz")
    content = bytearray((tmp_path / "a.tgz").read_bytes())
    if damage == "no checksum":
        del content[-6:]
    elif damage == "more behind it":
        content += b"more"
    else:
        content[-8 if damage == "checksum" else -4] ^= 1
    (tmp_path / "a.tgz").write_bytes(content)
    pictures = sources.tar_pictures(address)
    assert [next(pictures)[0] for _ in range(2)] == [f"tar://{n}.png::{address}" for n in range(2)]
    with pytest.raises(ArgumentError, match=r"a\.tgz: damaged: "):
        list(pictures)


def test_a_compressed_shard_may_end_in_zeros_and_be_called_tar(tmp_path):
    address = shard(tmp_path / "a.tar", {"0.png": encoded(0)}, "w:gz")
    with (tmp_path / "a.tar").open("ab") as file:
        file.write(bytes(512))
    assert [name for name, _ in sources.tar_pictures(address)] == [f"tar://0.png::{address}"]


def test_a_broken_link_is_an_unreadable_picture(tmp_path):
    write_pictures(tmp_path, 1)
    (tmp_path / "1.png").symlink_to(tmp_path / "none.png")
    for source in (tmp_path, str(tmp_path / "*.png")):
        found = sources.find_sources([source]).pictures
        assert [Path(name).name for name in found] == ["0.png", "1.png"]
        with pytest.raises(FileNotFoundError):
            sources.picture_reader(found[1])()


def test_a_large_entry_is_refused_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setenv(limits.variable("image_bytes"), "500")
    address = shard(tmp_path / "a.tar", {"0.png": bytes(501), "1.png": encoded(1)})
    found = dict(sources.tar_pictures(address))
    with pytest.raises(limits.LimitError, match="at most 500, got 501"):
        found[f"tar://0.png::{address}"]()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_parquet_column_gives_its_pictures(tmp_path, wrapped):
    values = [encoded(0), None, b"damaged", encoded(3)]
    column = [{"bytes": v, "path": "x"} for v in values] if wrapped else values
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [1, 2, 3, 4], "image": column}), path)
    found = dict(sources.parquet_pictures(str(path), "image"))
    assert list(found) == [f"{path}#row={n}" for n in range(4)]
    assert np.array_equal(found[f"{path}#row=3"](), dots(3))
    with pytest.raises(ArgumentError, match="must be an encoded image, got NoneType"):
        found[f"{path}#row=1"]()
    with pytest.raises(ArgumentError, match="damaged"):
        found[f"{path}#row=2"]()


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [1]}), path)
    with pytest.raises(ArgumentError, match="column 'image' not found; it has label"):
        list(sources.parquet_pictures(str(path), "image"))
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ArgumentError, match="damaged"):
        list(sources.parquet_pictures(str(path), "image"))


@contextlib.contextmanager
def web(folder):
    """A folder behind http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_pictures_are_read_from_addresses(tmp_path, monkeypatch):
    write_pictures(tmp_path, 2)
    shard(tmp_path / "a.tar", {"5.png": encoded(5)})
    monkeypatch.setattr(sources, "time", SimpleNamespace(sleep=lambda _seconds: None))
    with web(tmp_path) as address:
        found = find_sources([f"{address}/0.png", f"{address}/a.tar", f"file://{tmp_path}/1.png"])
        assert found == Inventory([f"{address}/0.png", str(tmp_path / "1.png")], {f"{address}/a.tar": TAR})
        assert np.array_equal(sources.picture_reader(f"{address}/0.png")(), dots(0))
        ((name, read),) = sources.tar_pictures(f"{address}/a.tar")
        assert name == f"tar://5.png::{address}/a.tar"
        assert np.array_equal(read(), dots(5))
        with pytest.raises(FileNotFoundError, match="image not found"):
            sources.read_bytes(f"{address}/gone.png")
        monkeypatch.setenv(limits.variable("image_bytes"), "10")
        with pytest.raises(limits.LimitError):
            sources.read_bytes(f"{address}/0.png")
        with sources.local_copy(f"{address}/1.png") as copy, open(copy, "rb") as file:
            assert file.read() == encoded(1)
    with pytest.raises(OSError, match="could not be read"):
        sources.read_bytes(f"{address}/0.png")


def test_errors_of_addresses_hold_no_passwords(tmp_path, monkeypatch):
    pq.write_table(pa.table({"image": [b"damaged"]}), tmp_path / "a.parquet")
    tar = shard(tmp_path / "a.tar", {"0.png": b"damaged"})
    monkeypatch.setattr(sources, "time", SimpleNamespace(sleep=lambda _seconds: None))

    def opened(address):
        if "gone" in address:
            raise ConnectionError(f"no route to {address}")
        return open({"r": tar, "t": tmp_path / "a.parquet"}.get(address[-1], tar), "rb")

    monkeypatch.setattr(sources, "_opened", opened)
    ((name, in_tar),) = sources.tar_pictures("ftp://me@mail.com:pw@h/a.tar")
    assert name == "tar://0.png::ftp://me@mail.com:***@h/a.tar"
    ((name, in_table),) = sources.parquet_pictures("ftp://me:pw@h/a.parquet", "image")
    assert name == "ftp://me:***@h/a.parquet#row=0"
    calls = [in_tar, in_table, *(sources.picture_reader(f"ftp://me:pw@h/{n}.jpg") for n in ("a", "gone"))]
    for call in calls:
        with pytest.raises((ArgumentError, OSError), match=r"ftp://me(@mail\.com)?:\*\*\*@h") as caught:
            call()
        assert "pw" not in str(caught.value)


def test_a_picture_is_called_by_its_file():
    names = ("/a/b.jpg", "s3://b/c/d.jpg", "tar://in/1.jpg::/a/x.tar", "/a/t.parquet#row=3")
    assert [sources.file_name(name) for name in names] == ["b.jpg", "d.jpg", "1.jpg", "t.parquet#row=3"]


def test_kinds_are_recognized_by_the_suffix():
    assert [sources.kind_of(name) for name in ("s3://b/a.JPEG", "a.tar", "x.tgz", "x.pq", "x.mkv", "x.txt", "x")] == [
        PICTURES, TAR, TAR, PARQUET, VIDEO, None, None,
    ]  # fmt: skip
