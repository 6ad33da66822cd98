"""The folder of a run: finished tasks are kept whole, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oaks.coco_results import read_results
from oaks.errors import ArgumentError
from oaks.ray.folder import BatchFolder
from oaks.ray.rows import COLUMNS, Found, about, to_table
from oaks.ray.sources import Task
from oaks.skeleton import COCO17

from .test_rows import poses

SETTINGS = {"bundle": "small", "nms": 0.9}


def table(number, found, *, last=True, source=None):
    """What a worker gives for a task."""
    rows = to_table(found)
    ends = [None] * len(rows)
    if last:
        ends[-1] = about(COCO17, "oaks", source=source, nms=None, made={"box_source": "whole image"})
    rows = rows.append_column("task", pa.array([number] * len(rows), pa.int64()))
    return rows.append_column("about", pa.array(ends, pa.string()))


def parts(path):
    return sorted(part.name for part in (path / "parts").iterdir())


def test_a_task_is_committed_with_its_last_rows(tmp_path):
    with BatchFolder(tmp_path, SETTINGS) as folder:
        assert not folder.add(table(3, [Found("a.jpg", poses(2))], last=False))
        assert folder.add(table(4, [Found("c.jpg", error="damaged")]))
        assert folder.done == {"c.jpg"}
        assert folder.add(table(3, [Found("b.jpg", poses(1))]))
        assert folder.done == {"a.jpg", "b.jpg", "c.jpg"}
    assert parts(tmp_path) == ["part-0000000.parquet", "part-0000001.parquet"]
    whole = pq.read_table(tmp_path / "parts")
    assert tuple(whole.column_names) == COLUMNS
    assert sorted(whole["file"].to_pylist()) == ["a.jpg", "a.jpg", "b.jpg", "c.jpg"]


def test_unfinished_tasks_are_discarded_on_resume(tmp_path):
    with BatchFolder(tmp_path, SETTINGS) as folder:
        folder.add(table(0, [Found("a.jpg", poses(2)), Found("b.jpg", error="damaged")]))
        folder.add(table(1, [Found("c.jpg", poses(1))], last=False))
    (tmp_path / "parts" / ".staged-7").write_bytes(b"left by a process that was killed")
    with BatchFolder(tmp_path, SETTINGS) as folder:
        assert folder.done == {"a.jpg", "b.jpg"}
        assert (folder.progress.pictures, folder.progress.people) == (2, 2)
        assert folder.progress.errors == {"b.jpg": "damaged"}
        folder.add(table(0, [Found("c.jpg", poses(1))]))
    assert parts(tmp_path) == ["part-0000000.parquet", "part-0000001.parquet"]


def test_shards_and_videos_are_finished_as_a_whole(tmp_path):
    video, shard = "s3://b/clip 1.mp4", "/data/x.tar"
    with BatchFolder(tmp_path, SETTINGS) as folder:
        folder.add(table(0, [Found(video, poses(1), frame=0, time=0.0)], last=False))
        assert video not in folder.done
        folder.add(table(0, [Found(video, frame=1, time=0.1, poses=poses(0))], source=video))
        folder.add(table(1, [Found(f"tar://1.jpg::{shard}", poses(1))], source=shard))
    assert parts(tmp_path) == ["part-0000000-clip_1.mp4.parquet", "part-0000001-x.tar.parquet"]
    with BatchFolder(tmp_path, SETTINGS) as folder:
        assert folder.progress.sources == {video, shard}
        assert folder.done >= {video, shard}
        assert (folder.progress.pictures, folder.progress.people) == (3, 2)
        folder.tell([Task("tar", "y.tar")], now=True)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["finished"] == sorted([video, shard])
    assert (status["unfinished"], status["tasks_left"], status["complete"]) == (["y.tar"], 1, False)


def test_one_run_at_a_time(tmp_path):
    with BatchFolder(tmp_path, SETTINGS), pytest.raises(ArgumentError, match="no other run"):
        BatchFolder(tmp_path, SETTINGS)
    BatchFolder(tmp_path, SETTINGS).__exit__(None, None, None)


def test_other_settings_need_another_folder(tmp_path):
    with BatchFolder(tmp_path, SETTINGS):
        pass
    for name, value in (("nms", None), ("boxes", "whole")):
        with pytest.raises(ArgumentError, match=f"{name} must be .* pass a new folder"):
            BatchFolder(tmp_path, {**SETTINGS, name: value})
    with BatchFolder(tmp_path, SETTINGS):
        pass


def test_a_damaged_part_is_named(tmp_path):
    with BatchFolder(tmp_path, SETTINGS) as folder:
        folder.add(table(0, [Found("a.jpg", poses(2))]))
    path = tmp_path / "parts" / "part-0000000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArgumentError, match=r"part-0000000.parquet: damaged: .* delete it"):
        BatchFolder(tmp_path, SETTINGS)
    path.unlink()
    with BatchFolder(tmp_path, SETTINGS) as folder:
        assert folder.done == set()


def test_coco_results_are_those_of_the_poses(tmp_path):
    first, second, known = poses(2, 1), poses(1, 2), poses(1, 3)
    with BatchFolder(tmp_path, SETTINGS) as folder:
        folder.add(
            table(0, [Found("b.jpg", second), Found("gone.jpg", error="damaged"), Found("x.jpg", poses(0))])
        )
        folder.add(
            table(
                1, [Found("a.jpg", first), Found("k.jpg", known, image_id=99), Found("strange.jpg", poses(1))]
            )
        )
        path = folder.write_coco({"a.jpg": 1, "b.jpg": 2, "gone.jpg": 3, "x.jpg": 4}.get)
    rows, header = read_results(path)
    assert rows == (
        second.to_coco(2, file_names="b.jpg")
        + first.to_coco(1, file_names="a.jpg")
        + known.to_coco(99, file_names="k.jpg")
    )
    assert header["images"] == {"b.jpg": 2, "x.jpg": 4, "a.jpg": 1, "k.jpg": 99}
    assert header["skipped"] == {"gone.jpg": "damaged"}
    assert (header["box_source"], header["nms"], header["complete"]) == ("whole image", None, True)


def test_coco_results_without_people_are_an_empty_list(tmp_path):
    with BatchFolder(tmp_path, SETTINGS) as folder:
        folder.add(table(0, [Found("a.jpg", poses(0))]))
        assert read_results(folder.write_coco({"a.jpg": 1}.get))[0] == []


def test_coco_results_of_videos_are_refused(tmp_path):
    with BatchFolder(tmp_path, SETTINGS) as folder:
        folder.add(table(0, [Found("v.mp4", poses(1), frame=0, time=0.0)], source="v.mp4"))
        with pytest.raises(ArgumentError, match="coco must be False for videos"):
            folder.write_coco(lambda _name: 1)
    assert np.array_equal([part.suffix for part in (tmp_path / "parts").iterdir()], [".parquet"])
