"""Batches on a real Ray cluster of two nodes: the poses of one process, every picture once whatever dies, resumed runs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pyarrow.parquet as pq
import pytest

import oaks
import oaks.ray
from oaks import predict
from oaks.boxes import whole_image
from oaks.coco_results import read_results
from oaks.ray.cluster import import_ray
from oaks.ray.rows import to_poses

from . import slow_boxes
from .conftest import damage, dots, write_pictures
from .slow_boxes import SlowBoxes, seen

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Ray leaves sockets and files to the garbage collector when it ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
ENGINE = {"backend": "onnxruntime", "workers": 2, "threads": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, Any]]:
    """A cluster, and the second of its two nodes."""
    import_ray()
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(slow_boxes)  # workers do not have the tests
    made = Cluster(initialize_head=True, head_node_args=NODE)
    yield made, made.add_node(**NODE)
    import_ray().shutdown()
    made.shutdown()


@pytest.fixture
def address(cluster) -> str:
    """Of the cluster, to which this process is connected."""
    oaks.ray.connect(cluster[0].address)
    return str(cluster[0].address)


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


def table(out: Path):
    return pq.read_table(out / "parts")


def once(out: Path, paths: list[Path]) -> None:
    """Every picture is there once, with its person."""
    rows = table(out)
    assert sorted(rows["file"].to_pylist()) == sorted(map(str, paths))
    assert rows["error"].null_count == len(rows)


def of_one_process(tiny: Path, paths: list[Path], out: Path) -> list[dict]:
    with oaks.Engine(tiny, "onnxruntime", threads=1) as engine:
        summary = predict.predict(engine, paths, whole_image(), out, annotate=False)
    return read_results(summary.results)[0]


def test_two_nodes_find_the_poses_of_one_process(address, tiny, tmp_path):
    """Batches are composed alike, so the results are the same bits."""
    paths = write_pictures(tmp_path / "photos", 40)
    damage([paths[16]])  # the first of a task, so that the batches of the others stay as they are
    summary = oaks.ray.predict_files(
        [tmp_path / "photos"], tmp_path / "out", tiny, boxes="whole", coco=True, **ENGINE
    )
    expected = of_one_process(tiny, paths[:16] + paths[17:24], tmp_path / "a") + of_one_process(
        tiny, paths[24:], tmp_path / "b"
    )
    ids = [n + 1 for n in range(40) if n != 16]
    rows, header = read_results(summary.results)
    by_id = {row["image_id"]: row for row in rows}
    assert len(by_id) == len(rows) == 39
    assert [by_id[i] for i in ids] == [{**row, "image_id": i} for i, row in zip(ids, expected, strict=True)]
    assert list(summary.errors) == [str(paths[16])]
    assert list(header["skipped"]) == [str(paths[16])]
    assert (summary.pictures, summary.people, summary.unfinished) == (40, 39, [])
    made = Counter(row["task"] for row in _processes(tmp_path / "out"))
    assert sum(made.values()) == 5, "a part for each task of eight pictures"


def _processes(out: Path) -> list[dict]:
    return [{"task": part.name} for part in (out / "parts").iterdir()]


def test_other_batches_give_nearly_the_same_poses(address, tiny, tmp_path):
    paths = write_pictures(tmp_path / "photos", 30)
    oaks.ray.predict_files(paths[::-1], tmp_path / "out", tiny, boxes="whole", **ENGINE)
    found = to_poses(table(tmp_path / "out").sort_by("file"), bundles.RGB, "oaks")
    order = sorted(range(30), key=lambda n: str(paths[n]))
    with oaks.Engine(tiny, "onnxruntime", threads=1) as engine:
        for place, number in enumerate(order):
            alone = engine.infer(dots(number), boxes=[[0, 0, 48, 64]])
            np.testing.assert_allclose(found.keypoints[place], alone.keypoints[0], atol=1e-4)
            np.testing.assert_allclose(found.scores[place], alone.scores[0], atol=1e-5)


def test_an_engine_that_dies_is_started_again(address, tiny, tmp_path, traces):
    """Its process is killed in the middle of a task."""
    paths = write_pictures(tmp_path / "photos", 48)
    killed = []

    def kill(_count: int) -> None:
        if not killed:
            killed.append(seen(traces)[-1][1])
            os.kill(killed[0], signal.SIGKILL)

    summary = oaks.ray.predict_files(
        paths, tmp_path / "out", tiny, boxes=SlowBoxes(str(traces), 0.1), advance=kill, **ENGINE
    )
    once(tmp_path / "out", paths)
    assert summary.unfinished == []
    assert {pid for _, pid in seen(traces)} > set(killed)


def test_a_picture_that_kills_workers_does_not_end_the_run(address, tiny, tmp_path, traces):
    paths = write_pictures(tmp_path / "photos", 32)
    deadly = SlowBoxes(str(traces), 0.0, "11")
    summary = oaks.ray.predict_files(paths, tmp_path / "out", tiny, boxes=deadly, **ENGINE)
    assert summary.unfinished == [str(paths[11])]
    once(tmp_path / "out", paths[:11] + paths[12:])
    assert Counter(name for name, _ in seen(traces))["11"] == 4, "twice in its task and twice alone"
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert (status["complete"], status["tasks_left"]) == (False, 1)

    before = len(seen(traces))
    healed = SlowBoxes(str(traces), 0.0)
    summary = oaks.ray.predict_files(paths, tmp_path / "out", tiny, boxes=healed, coco=True, **ENGINE)
    once(tmp_path / "out", paths)
    assert (summary.resumed, summary.unfinished) == (31, [])
    assert len(seen(traces)) - before == 1, "what is finished is not done again"
    assert len(read_results(summary.results)[0]) == 32


def test_a_run_that_was_stopped_is_resumed(address, tiny, tmp_path, traces):
    paths = write_pictures(tmp_path / "photos", 64)
    slow = SlowBoxes(str(traces), 0.02)

    def stop(_count: int) -> None:
        if len(list((tmp_path / "out" / "parts").glob("part-*"))) >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        oaks.ray.predict_files(paths, tmp_path / "out", tiny, boxes=slow, advance=stop, **ENGINE)
    done = set(table(tmp_path / "out")["file"].to_pylist())
    assert len(done) == 24
    for path in traces.iterdir():
        path.unlink()
    started = []
    summary = oaks.ray.predict_files(
        paths, tmp_path / "out", tiny, boxes=slow, start=lambda *numbers: started.append(numbers), **ENGINE
    )
    once(tmp_path / "out", paths)
    assert started == [(40, 24)]
    assert summary.resumed == 24
    again = {name for name, _ in seen(traces)}
    assert len(again) >= 40
    # What the interrupted run had begun may leave traces after it; what it had committed is not looked at again.
    assert oaks.ray.predict_files(paths, tmp_path / "out", tiny, boxes=slow, **ENGINE).resumed == 64


def test_a_dataset_of_pictures_becomes_one_of_people(address, tiny, tmp_path):
    import ray.data

    paths = write_pictures(tmp_path / "photos", 10)
    damage([paths[3]])
    items = [{"path": str(path), "id": number} for number, path in enumerate(paths)]
    people = oaks.ray.predict(
        ray.data.from_items(items), tiny, boxes="whole", keep=["id"], batch_size=4, **ENGINE
    )
    rows = sorted(people.take_all(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(10))
    assert [row["error"] is None for row in rows] == [number != 3 for number in range(10)]
    people.write_parquet(
        str(tmp_path / "people")
    )  # Engines that reserved every CPU would let this wait forever
    assert pq.read_table(tmp_path / "people").num_rows == len(rows)
    with oaks.Engine(tiny, "onnxruntime", threads=1) as engine:
        for number in (0, 9):
            alone = engine.infer(dots(number), boxes=[[0, 0, 48, 64]])
            np.testing.assert_allclose(np.stack(rows[number]["keypoints"]), alone.keypoints[0], atol=1e-4)
    for wrong, reason in (({"boxes": "whole", "boxes_column": "b"}, "at most one"), ({}, "has no detector")):
        with pytest.raises(oaks.ArgumentError, match=reason):
            oaks.ray.predict(ray.data.from_items(items), tiny, **wrong)


def test_a_worker_that_cannot_start_says_why(address, tiny, tmp_path):
    paths = write_pictures(tmp_path / "photos", 8)
    with pytest.raises(oaks.BackendUnavailable, match="tensorrt"):
        oaks.ray.predict_files(
            paths, tmp_path / "out", tiny, boxes="whole", **{**ENGINE, "backend": "tensorrt"}
        )


@pytest.mark.skipif(sys.platform == "win32", reason="Ray's nodes are killed by signals")
def test_a_dying_node_loses_and_repeats_nothing(cluster, tiny, tmp_path, traces):
    """The last test of the cluster, whose second node is killed once the first task is finished."""
    import_ray().shutdown()
    made, second = cluster
    paths = write_pictures(tmp_path / "photos", 64)
    killed = []

    def kill(_count: int) -> None:
        if not killed:
            killed.append(second)
            made.remove_node(second, allow_graceful=False)

    summary = oaks.ray.predict_files(
        paths, tmp_path / "out", tiny, address=made.address, boxes=SlowBoxes(str(traces), 0.05), advance=kill,
        coco=True, **ENGINE,
    )  # fmt: skip
    once(tmp_path / "out", paths)
    assert killed
    assert len({pid for _, pid in seen(traces)}) >= 2, "both nodes worked"
    assert summary.unfinished == []
    rows = sorted(read_results(summary.results)[0], key=lambda row: row["image_id"])
    assert rows == of_one_process(tiny, paths, tmp_path / "alone")
