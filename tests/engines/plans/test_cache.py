"""The cache of plans: keys, plans of bundles, damaged plans, timings, full disks, and simultaneous builds."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import bundles
import pycuda_stand_in
import pytest
import tensorrt_listings as listings
import tensorrt_stand_in
from tensorrt_world import MAGIC, World

from oaks import BackendUnavailable, BundleError
from oaks.bundle import Bundle
from oaks.bundle import write as write_bundle
from oaks.engines.plans import cache
from oaks.engines.plans.cache import default_folder, load_plan, plan_key
from oaks.engines.plans.library import TensorRTError, library
from oaks.engines.plans.plan import BuildSettings, profiles_for
from oaks.executors import pycuda

BATCHES = [1, 2, 4, 8]


@pytest.fixture
def world(monkeypatch):
    made = World()
    tensorrt_stand_in.install(monkeypatch, "11.4", made)
    return made


@pytest.fixture
def gpu(monkeypatch):
    pycuda_stand_in.install(monkeypatch, devices=2)
    return pycuda.device(0)


@pytest.fixture
def tiny(tmp_path) -> Bundle:
    return bundles.write(tmp_path / "tiny", half=True)


@pytest.fixture
def load(world, gpu, tiny, tmp_path):
    def load(network=None, where=None, **settings):
        settings = {"batches": BATCHES, "folder": tmp_path / "plans", "show": False, **settings}
        return load_plan(network or tiny.network("pose"), where or gpu, **settings)

    return load


def files(folder: Path, *endings: str) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(endings or ""))


# ---- built once and loaded again


@pytest.mark.parametrize("version", listings.VERSIONS)
def test_a_plan_is_built_once_and_then_loaded(load, world, gpu, monkeypatch, version):
    monkeypatch.setattr(gpu, "compute_capability", "89")
    tensorrt_stand_in.install(monkeypatch, version, world)
    flavor = listings.flavor(version)
    first, second = load(flavor=flavor), load(flavor=flavor)
    assert (world.built, world.deserialized) == (1, 2)
    assert first.path == second.path
    assert first.profiles == profiles_for(BATCHES)
    assert first.engine is not second.engine


def test_the_note_of_a_plan_has_everything_that_it_depends_on(load, tiny, world, gpu):
    path = load().path
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["plan_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert note["onnx"].endswith("tiny/pose.fp32.onnx")
    assert note["key"] == {
        "schema": cache.SCHEMA,
        "flavor": "tensorrt",
        "version": world.trt.__version__,
        "cuda": 13,
        "system": note["key"]["system"],
        "device": {"name": "Stand-In 9000", "compute_capability": "90", "multiprocessors": 132},
        "onnx_sha256": tiny.network("pose").sha256,
        "precision": "fp32",
        "profiles": [
            {"smallest": 1, "largest": 2},
            {"smallest": 3, "largest": 8},
        ],
        "tf32": False,
        "level": 3,
        "capabilities": [],
    }
    assert path.name.startswith("tiny-pose-fp32-sm90-")


def test_the_folder_has_no_temporary_files(load, tmp_path):
    path = load().path
    assert set(files(tmp_path / "plans")) == {
        *(path.with_suffix(ending).name for ending in (".plan", ".json", ".lock")),
        *(f"timings-11.4.0.106-Stand-In-9000.{ending}" for ending in ("cache", "lock")),
    }


def test_the_folder_is_the_users_cache_or_that_of_oaks_cache(monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.delenv("OAKS_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name, appauthor: tmp_path / name)
    assert default_folder() == tmp_path / "oaks" / "tensorrt"
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path / "elsewhere"))
    assert default_folder() == tmp_path / "elsewhere" / "tensorrt"


def test_the_default_folder_is_used(load, monkeypatch, tmp_path):
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path / "mine"))
    assert load(folder=None).path.parent == tmp_path / "mine" / "tensorrt"


# ---- what changes the name of a plan

CHANGED_ATTRIBUTES = {
    "version": ("trt", "__version__", "11.5.0.1"),
    "GPU": ("gpu", "name", "Another"),
    "capability": ("gpu", "compute_capability", "86"),
    "partition": ("gpu", "multiprocessors", 16),
    "CUDA": ("gpu", "cuda_major", 12),
    "system": ("platform", "machine", lambda: "riscv"),
    "schema": ("cache", "SCHEMA", 99),
}
CHANGED_SETTINGS = {
    "profiles": {"profiles": profiles_for([1, 3])},
    "TF32": {"tf32": True},
    "level": {"level": 5},
}
CHANGED_NETWORKS = {"network": ("ks",), "precision": ("pose", "fp16")}


@pytest.mark.parametrize("what", [*CHANGED_ATTRIBUTES, *CHANGED_SETTINGS, *CHANGED_NETWORKS])
def test_the_name_of_a_plan_depends_on_everything_that_the_plan_depends_on(
    what, world, gpu, tiny, monkeypatch
):
    settings, owners = BuildSettings(profiles_for(BATCHES)), {"trt": world.trt, "gpu": gpu, "cache": cache}
    owners["platform"] = cache.platform

    def stem(network=("pose",), **changes):
        network, changed = tiny.network(*network), dataclasses.replace(settings, **changes)
        return cache._stem(network, gpu, plan_key(library(), network, changed, gpu))

    before = stem()
    assert stem() == before
    if what in CHANGED_ATTRIBUTES:
        owner, name, value = CHANGED_ATTRIBUTES[what]
        monkeypatch.setattr(owners[owner], name, value)
    assert stem(CHANGED_NETWORKS.get(what, ("pose",)), **CHANGED_SETTINGS.get(what, {})) != before


def test_the_key_contains_no_numbers_of_enums(world, gpu, tiny, monkeypatch):
    """Except for the version, the key is the same under both majors of TensorRT."""
    keys = []
    for version in ("10.16", "11.4"):
        tensorrt_stand_in.install(monkeypatch, version, world)
        keys.append(plan_key(library(), tiny.network("pose"), BuildSettings(profiles_for(BATCHES)), gpu))
        assert keys[-1].pop("version") == listings.full_version(version)
    assert keys[0] == keys[1]


def test_other_batches_and_other_gpus_get_plans_of_their_own(load, world):
    paths = {load().path, load(batches=[1, 2]).path, load(where=pycuda.device(1)).path}
    assert len(paths) == 3
    assert world.built == 3


def test_tf32_is_disabled_only_for_fp32(load, world, tiny):
    load()
    load(tiny.network("pose", "fp16"))
    assert [config._values["cleared"] for config in world.configs] == [["TF32"], []]


def test_a_changed_onnx_file_is_named(load, world, tiny):
    network = tiny.network("pose")
    (tiny.path / network.file).write_bytes(bundles.pose_network(3, (48, 64), visibility=False))
    with pytest.raises(BundleError, match=r"tiny/pose.fp32.onnx is damaged or another file"):
        load(network)
    assert world.built == 0


# ---- plans stored in the bundle


@pytest.fixture
def rtx(world, gpu, monkeypatch):
    tensorrt_stand_in.install(monkeypatch, "rtx_1.7", world)
    monkeypatch.setattr(gpu, "compute_capability", "89")
    return world


def with_plan(tiny, load, **changes) -> Bundle:
    """Return the bundle with a plan of its pose network, with a changed key."""
    made = load(flavor="tensorrt_rtx")
    note = json.loads(made.path.with_suffix(".json").read_text())
    (tiny.path / "pose.plan").write_bytes(made.path.read_bytes())
    plan = {"role": "pose", "precision": "fp32", "flavor": "tensorrt_rtx", "version": "1.7.1.116",
            "file": "pose.plan", "key": {**note["key"], **changes}}  # fmt: skip
    made.path.unlink()
    return write_bundle(tiny.path, {**tiny.description, "plans": [plan]})


@pytest.mark.parametrize("batches", [BATCHES, [1, 2], [3, 8]])
def test_a_plan_of_the_bundle_is_used_if_its_profiles_cover_the_batches(tiny, load, rtx, batches):
    bundle = with_plan(tiny, load)
    plan = load(bundle.network("pose"), flavor="tensorrt_rtx", batches=batches)
    assert rtx.built == 1
    assert plan.path == tiny.path / "pose.plan"
    assert plan.profiles == profiles_for(BATCHES)
    assert plan.kernels.name.endswith("-Stand-In-9000.kernels")


def test_a_plan_of_the_bundle_is_used_on_every_gpu_that_it_was_built_for(tiny, load, rtx, monkeypatch):
    bundle = with_plan(tiny, load)
    other = pycuda.device(1)
    monkeypatch.setattr(other, "compute_capability", "120")
    load(bundle.network("pose"), other, flavor="tensorrt_rtx")
    assert rtx.built == 1
    monkeypatch.setattr(other, "compute_capability", "75")
    load(bundle.network("pose"), other, flavor="tensorrt_rtx")
    assert rtx.built == 2
    assert rtx.configs[-1]._values["capabilities"] == ["SM75"]


@pytest.mark.parametrize(
    "changes",
    [{"version": "1.6.0"}, {"onnx_sha256": "0" * 64}, {"tf32": True}, {"profiles": []}, {"profiles": 3},
     {"profiles": [{"smallest": 1, "largest": 7}]}, {"profiles": [{"bad": 1}]}, {"more": 1}],
)  # fmt: skip
def test_a_plan_of_the_bundle_with_another_key_is_not_used(tiny, load, rtx, changes):
    bundle = with_plan(tiny, load, **changes)
    plan = load(bundle.network("pose"), flavor="tensorrt_rtx")
    assert rtx.built == 2
    assert plan.path.parent.name == "plans"


def test_a_gpu_that_tensorrt_for_rtx_does_not_support_gets_no_plan(load, rtx, gpu, monkeypatch):
    monkeypatch.setattr(gpu, "compute_capability", "90")
    with pytest.raises(BackendUnavailable, match=r"supports compute capabilities 7\.5, .*this GPU has 9\.0"):
        load(flavor="tensorrt_rtx")
    assert rtx.built == 0


def test_a_plan_of_the_bundle_that_does_not_load_is_built_again(tiny, load, rtx, caplog):
    bundle = with_plan(tiny, load)
    rtx.deserialize_fails = 1
    load(bundle.network("pose"), flavor="tensorrt_rtx")
    assert rtx.built == 2
    assert "does not load" in caplog.text
    assert "pose.plan, so it is built again" in caplog.text


# ---- damaged plans


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def change_note(content: str):
    return lambda path: path.with_suffix(".json").write_text(content)


def change_version_in_note(path: Path) -> None:
    note = json.loads(path.with_suffix(".json").read_text())
    note["key"]["version"] = "10.0.0"
    path.with_suffix(".json").write_text(json.dumps(note))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (truncate, "it is damaged"),
        (lambda path: path.with_suffix(".json").unlink(), "its note cannot be read"),
        (change_note('{"key": {"schema"'), "its note cannot be read"),
        (change_note('["something else"]'), "its note describes another plan"),
        (change_version_in_note, "its note describes another plan"),
    ],
)
def test_a_damaged_plan_is_set_aside_and_built_again(load, world, change, reason, caplog):
    path = load().path
    change(path)
    found = path.read_bytes()
    again = load()
    assert again.path == path
    assert world.built == 2
    assert path.with_name(path.name + ".bad").read_bytes() == found
    assert reason in caplog.text
    load()
    assert world.built == 2


def test_a_plan_that_tensorrt_does_not_load_is_set_aside_and_built_once(load, world, caplog):
    path = load().path
    world.deserialize_fails = 1
    load()
    assert world.built == 2
    assert "TensorRT does not load it: ERROR: Serialization assertion" in caplog.text
    assert path.with_name(path.name + ".bad").is_file()
    assert path.with_name(path.stem + ".json.bad").is_file()


def test_a_new_plan_that_does_not_load_is_an_error(load, world):
    load()
    world.deserialize_fails = 2
    with pytest.raises(TensorRTError, match=r"does not load the plan that it has just built(.|\n)*assertion"):
        load()
    assert world.built == 2


def test_a_plan_of_another_gpu_is_built_again_although_it_loads(load, world, caplog):
    load()
    world.deserialize_says = "Using an engine plan file across different models of devices is not recommended"
    load()
    assert world.built == 2
    assert "it was built on another GPU" in caplog.text


def test_only_the_last_damaged_plan_is_kept(load, tmp_path):
    for _ in range(3):
        truncate(load().path)
    load()
    assert len(files(tmp_path / "plans", ".bad")) == 2


# ---- timings


def test_timings_are_shared_by_plans_of_a_device(load, tmp_path, tiny):
    load()
    load(tiny.network("ks"))
    (path,) = (tmp_path / "plans").glob("timings-*.cache")
    assert path.read_bytes() == b"|measured|measured"


def test_timings_of_a_failed_build_are_kept(load, world, tmp_path):
    world.build_fails = "no"
    with pytest.raises(TensorRTError):
        load()
    (path,) = (tmp_path / "plans").glob("timings-*.cache")
    assert path.read_bytes() == b"|measured"
    assert files(tmp_path / "plans", ".plan", ".json") == []


def test_rejected_timings_are_replaced(load, world, tmp_path, tiny):
    load()
    world.timings_rejected = [b"|measured"]
    load(tiny.network("ks"))
    (path,) = (tmp_path / "plans").glob("timings-*.cache")
    assert path.read_bytes() == b"|measured"


# ---- the disk


class FullDisk(io.RawIOBase):
    """A file whose disk is full after `room` bytes."""

    def __init__(self, inner, room: int) -> None:
        self._inner, self._room = inner, room

    def write(self, content) -> int:
        if len(content) > self._room:
            self._inner.write(bytes(content)[: self._room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room -= len(content)
        return self._inner.write(content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._inner.close()

    def close(self) -> None:
        self._inner.close()
        super().close()

    def fileno(self) -> int:
        return self._inner.fileno()


@pytest.mark.parametrize("room", [0, 10, 3000])
def test_a_full_disk_leaves_no_incomplete_file(load, world, tmp_path, monkeypatch, room):
    from oaks import files as oaks_files

    def full(path, mode="r", *_):
        opened = builtins.open(path, mode, 0 if mode == "wb" else -1)  # noqa: SIM115
        return FullDisk(opened, room) if mode == "wb" else opened

    monkeypatch.setattr(oaks_files, "open", full, raising=False)
    with pytest.raises(TensorRTError, match=r"cannot write .*\.plan: No space left.*OAKS_CACHE"):
        load()
    left = {path.suffix for path in (tmp_path / "plans").iterdir()}
    assert left <= {".lock", ".cache"}  # the timings may fit


def test_a_plan_is_kept_if_its_timings_cannot_be_written(load, tmp_path, monkeypatch, caplog):
    replacing = cache.replacing

    def refuse_timings(path):
        if Path(path).suffix == ".cache":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replacing(path)

    monkeypatch.setattr(cache, "replacing", refuse_timings)
    with caplog.at_level(logging.WARNING):
        assert load().path.read_bytes().startswith(MAGIC)
    assert "cannot be written: [Errno 28]" in caplog.text


def test_a_folder_that_cannot_be_created_is_named(load, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TensorRTError, match=r"cannot make .*file/plans: .*OAKS_CACHE"):
        load(folder=tmp_path / "file" / "plans")


# ---- simultaneous builds


def test_two_processes_build_a_plan_once(tiny, tmp_path):
    program = Path(__file__).with_name("two_builders.py")
    (tmp_path / "meeting").mkdir()
    command = [sys.executable, program, tiny.path, tmp_path / "plans", tmp_path / "meeting"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    built, loaded, paths = zip(*(output.split() for output, _ in results), strict=True)
    assert sorted(built) == ["0", "1"]
    assert loaded == ("1", "1")
    assert len(set(paths)) == 1
    assert files(tmp_path / "plans", ".plan") == [paths[0]]
    assert files(tmp_path / "plans", ".bad") == []


def test_several_threads_build_a_plan_once(load, world):
    plans = []
    threads = [threading.Thread(target=lambda: plans.append(load())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({plan.path for plan in plans}) == 1
    assert len(plans) == 3
    assert world.built == 1


def test_waiting_for_another_build_is_logged(load, world, caplog):
    building, waiting = threading.Event(), threading.Event()

    def steps(monitor) -> bool:
        building.set()
        return waiting.wait(30)

    class Noticed(logging.Handler):
        def emit(self, record):
            if "another process is building" in record.getMessage():
                waiting.set()

    world.steps = steps
    logger, handler = logging.getLogger("oaks.plans"), Noticed()
    logger.addHandler(handler)
    try:
        first = threading.Thread(target=load)
        first.start()
        assert building.wait(30)
        second = threading.Thread(target=load)
        second.start()
        for thread in (first, second):
            thread.join(30)
    finally:
        logger.removeHandler(handler)
    assert world.built == 1


def test_a_build_names_the_file_of_its_plan(load, capsys):
    path = load(show=True).path
    output = "".join(capsys.readouterr().err.split())
    assert "BuildingtheTensorRT11.4.0.106planof" in output
    assert path.name in output
