"""A worker in this process: the same poses as without Ray, and a row for each unreadable input."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import bundles
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import oaks
from oaks import predict
from oaks.boxes import BoxSource, whole_image
from oaks.errors import ArgumentError
from oaks.ray import sources, worker
from oaks.ray.batches import make_settings
from oaks.ray.cluster import Pool
from oaks.ray.rows import to_poses
from oaks.ray.sources import Task
from oaks.ray.worker import FileWorker, RowWorker, WorkerSettings, whole_picture

from .conftest import damage, dots, encoded, write_pictures


@pytest.fixture
def settings(tiny):
    return WorkerSettings(
        str(tiny),
        oaks.Bundle.load(tiny).sha256,
        whole_picture,
        engine={"backend": "onnxruntime", "threads": 1},
    )


def run(files: FileWorker, *tasks: Task) -> list[pa.Table]:
    """The tables of tasks, numbered from 5."""
    batch = pa.table({
        "task": range(5, 5 + len(tasks)), "kind": [task.kind for task in tasks],
        "address": pa.array([task.address for task in tasks], pa.string()),
        "pictures": [list(task.pictures) for task in tasks],
    })  # fmt: skip
    return list(files(batch))


def test_poses_are_those_of_oaks_predict_to_the_last_bit(settings, tmp_path):
    paths = write_pictures(tmp_path / "pictures", 21)
    damage([paths[4]])
    with oaks.Engine(settings.bundle, "onnxruntime", threads=1) as engine:
        summary = predict.predict(engine, paths, whole_image(), tmp_path / "out", annotate=False)
    (table,) = run(FileWorker(settings), Task("pictures", None, tuple(map(str, paths))))
    assert sorted(table["file"].to_pylist()) == sorted(map(str, paths))
    rows = {row["image_id"]: row for row in json.loads(summary.results.read_text())}
    for file, row in _people(table).items():
        assert row == rows[paths.index(Path(file)) + 1]
    assert len(rows) == 20
    failed = table.filter(table["error"].is_valid()).to_pylist()
    assert [row["file"] for row in failed] == [str(paths[4])]
    assert "damaged" in failed[0]["error"]
    assert set(table["task"].to_pylist()) == {5}
    assert [value is not None for value in table["about"].to_pylist()] == [False] * 20 + [True]
    said = json.loads(table["about"][-1].as_py())
    assert said["made"]["bundle_sha256"] == settings.sha256
    assert (said["source"], said["made"]["box_source"]) == (None, "whole image")


def _people(table):
    """file -> row of a COCO results file, of tables with one person in a picture."""
    people = table.filter(table["person"].is_valid())
    files = people["file"].to_pylist()
    assert len(set(files)) == len(files)
    rows = to_poses(people, bundles.RGB, "oaks").to_coco()
    return {
        file: {**row, "image_id": _number(file), "file_name": Path(file).name}
        for file, row in zip(files, rows, strict=True)
    }


def _number(file):
    return int(Path(file).stem) + 1


def test_engines_and_rows_know_addresses_without_their_passwords(settings, monkeypatch):
    def opened(address):
        if not address.startswith("ftp://me:pw@h/"):
            raise ConnectionError(f"wrong password in {address}")
        return io.BytesIO(b"no picture" if "bad" in address else encoded(0))

    monkeypatch.setattr(sources, "_opened", opened)
    known = []

    def people(image):
        known.append(image.name)
        return whole_image().find(image)

    files = FileWorker(dataclasses.replace(settings, boxes=lambda _engine: BoxSource("named", people)))
    names = [f"ftp://me:pw@h/{name}" for name in ("0.png", "bad.png", "bad.tar")]
    pictures, damaged = run(files, Task("pictures", None, tuple(names[:2])), Task("tar", names[2]))
    assert known == ["ftp://me:***@h/0.png"]
    errors = dict(zip(pictures["file"].to_pylist(), pictures["error"].to_pylist(), strict=True))
    assert set(errors) == {"ftp://me:***@h/0.png", "ftp://me:***@h/bad.png"}
    for row in (errors["ftp://me:***@h/bad.png"], *damaged["error"].to_pylist()):
        assert row
        assert "ftp" not in row  # the file has a column of its own
    assert damaged["file"].to_pylist() == ["ftp://me:***@h/bad.tar"]


def test_shards_and_tables_have_a_row_for_each_picture(settings, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, content in {"0.png": encoded(0), "1.png": b"damaged", "2.png": encoded(2)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    pq.write_table(pa.table({"image": [encoded(3), None]}), tmp_path / "a.parquet")
    (tmp_path / "b.tar").write_bytes(b"no tar")
    with tarfile.open(tmp_path / "c.tar", "w"):
        pass
    files = FileWorker(settings)
    addresses = [str(tmp_path / name) for name in ("a.tar", "b.tar", "c.tar", "a.parquet")]
    tables = run(files, *(Task(address.rpartition(".")[2], address) for address in addresses))
    rows = [table.select(["file", "person", "error"]).to_pylist() for table in tables]
    assert sorted((row["file"], row["person"]) for row in rows[0]) == [
        (f"tar://0.png::{addresses[0]}", 0), (f"tar://1.png::{addresses[0]}", None), (f"tar://2.png::{addresses[0]}", 0),
    ]  # fmt: skip
    assert [(row["file"], "damaged" in row["error"]) for row in rows[1]] == [(addresses[1], True)]
    assert [(row["file"], row["error"]) for row in rows[2]] == [(addresses[2], "holds no pictures")]
    assert sorted((row["file"][-1], row["person"]) for row in rows[3]) == [("0", 0), ("1", None)]
    assert [json.loads(table["about"][-1].as_py())["source"] for table in tables] == addresses


def test_rows_of_a_large_shard_leave_in_parts(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_ROWS", 2)
    pq.write_table(pa.table({"image": [encoded(n) for n in range(5)]}), tmp_path / "a.parquet")
    tables = run(FileWorker(settings), Task("parquet", str(tmp_path / "a.parquet")))
    assert [len(table) for table in tables] == [2, 2, 1]
    assert [table["about"].null_count for table in tables] == [2, 2, 0]


def test_a_video_is_tracked(settings, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'oaks[video]'")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 64))
    for _ in range(6):
        writer.write(dots(1))
    writer.release()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    good, bad = run(FileWorker(settings), Task("video", str(path)), Task("video", str(tmp_path / "bad.mp4")))
    assert good["frame"].to_pylist() == list(range(6))
    assert good["time"].to_pylist() == pytest.approx([n / 10 for n in range(6)])
    assert good["track_id"].null_count == 0
    assert set(good["file"].to_pylist()) == {str(path)}
    assert bad["person"].null_count == 1
    assert bad["error"][0].as_py()


def test_boxes_of_a_file_bring_their_image_ids(settings, tmp_path):
    from oaks.cli.options import DetectorOptions, given_boxes

    paths = write_pictures(tmp_path / "pictures", 2)
    content = {
        "images": [{"id": 31, "file_name": "0.png"}], "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 31, "category_id": 1, "bbox": [4, 4, 40, 50]}],
    }  # fmt: skip
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    given = given_boxes(tmp_path / "boxes.json", DetectorOptions(), "tiny")
    import pickle

    from ray import cloudpickle

    own = pickle.loads(
        cloudpickle.dumps(WorkerSettings(settings.bundle, settings.sha256, given, engine=settings.engine))
    )
    (table,) = run(FileWorker(own), Task("pictures", None, tuple(map(str, paths))))
    known, strange = sorted(table.to_pylist(), key=lambda row: row["file"])
    assert (known["image_id"], known["box"], known["person"]) == (31, [4, 4, 44, 54], 0)
    assert "does not know this picture" in strange["error"]


def test_a_detector_runs_on_the_backend_of_the_engine(settings, tmp_path):
    detector = bundles.write_with_detector(tmp_path / "detector").path
    own = make_settings(
        settings.bundle, None, detector, None, Pool(1, 1, 0), {"backend": "onnxruntime", "precision": "fp32"}
    )
    assert "onnxruntime fp32" in FileWorker(own).boxes.description


def test_another_bundle_of_the_same_name_is_refused(settings):
    other = WorkerSettings(settings.bundle, "0" * 64, whole_picture, engine=settings.engine)
    with pytest.raises(ArgumentError, match="must be the same on every machine"):
        FileWorker(other)


@pytest.mark.parametrize("kind", ["path", "bytes", "array"])
def test_rows_of_a_dataset(settings, tmp_path, kind):
    paths = write_pictures(tmp_path, 3)
    pictures = {
        "path": [str(path) for path in paths],
        "bytes": [path.read_bytes() for path in paths],
        "array": [dots(number)[..., ::-1] for number in range(3)],
    }[kind]
    broken = {"path": str(tmp_path / "gone.png"), "bytes": b"damaged", "array": np.zeros((4, 4), np.uint8)}[
        kind
    ]
    column = np.empty(4, object)
    for place, value in enumerate([*pictures, broken]):
        column[place] = value
    table = RowWorker(settings, "picture", None, ("id",))({"picture": column, "id": np.array([7, 8, 9, 10])})
    rows = sorted(table.to_pylist(), key=lambda row: row["id"])
    assert [(row["id"], row["person"]) for row in rows] == [(7, 0), (8, 0), (9, 0), (10, None)]
    assert rows[3]["error"]
    assert [row["file"] for row in rows] == ([*pictures, broken] if kind == "path" else [None] * 4)
    with oaks.Engine(settings.bundle, "onnxruntime", threads=1) as engine:
        expected = engine.infer([dots(n) for n in range(3)], boxes=[[[0, 0, 48, 64]]] * 3)
    assert np.array_equal(np.float32([row["keypoints"] for row in rows[:3]]), expected.keypoints)


def test_boxes_of_a_column(settings):
    boxes = np.empty(3, object)
    boxes[:] = [[[0, 0, 48, 64], [10, 10, 30, 40]], [], None]
    column = np.empty(3, object)
    column[:] = [encoded(0), encoded(1), encoded(2)]
    own = WorkerSettings(settings.bundle, settings.sha256, engine=settings.engine)
    table = RowWorker(own, "picture", "boxes", ())({"picture": column, "boxes": boxes})
    assert table["person"].to_pylist() == [0, 1, None, None]
    assert table["box"].to_pylist()[1] == [10, 10, 30, 40]


def test_an_engine_that_fails_ends_its_process(monkeypatch):
    """Ray starts another; going on with a broken one would make every picture an error."""
    ended = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)

    def broken():
        yield worker.rows.Found("a.jpg", error="damaged")
        raise RuntimeError("the device is lost")

    assert len(list(worker.restarting(broken()))) == 1
    assert ended == [1]


def test_reading_ahead_keeps_order_and_errors():
    from concurrent.futures import ThreadPoolExecutor

    def read(number):
        if number % 3 == 2:
            raise OSError(f"{number} is gone")
        return np.full((1, 1, 3), number, np.uint8)

    started = []

    def pictures():
        for number in range(30):
            started.append(number)
            yield str(number), lambda number=number: read(number)

    with ThreadPoolExecutor(3) as readers:
        for number, (name, result) in enumerate(worker.ahead(pictures(), readers)):
            assert name == str(number)
            assert len(started) <= number + 8
            if number % 3 == 2:
                with pytest.raises(OSError, match="is gone"):
                    result()
            else:
                assert result()[0, 0, 0] == number
    assert started == list(range(30))


def test_a_task_that_kills_its_workers_is_given_up():
    attempts = worker.Attempts()
    assert [attempts.begin(7) for _ in range(4)] == [True, True, False, False]
    assert attempts.begin(8)
    for task in range(1000, 1098):
        assert [attempts.begin(task) for _ in range(3)] == [True, True, False]
    with pytest.raises(oaks.OaksError, match="workers died in more than 100 tasks"):
        attempts.begin(7)
