"""Killed at any moment, a verb leaves files that can be read, and a rerun gives the bytes of a run that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from durability.verbs import Verb, contents, prepare, unreadable

NAMES = ("predict", "track", "val detect", "val report", "render", "render-video", "pack", "train")
KILLS_IN_ALL = 200

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


@pytest.fixture(scope="module")
def verbs(tmp_path_factory) -> dict[str, Verb]:
    made = prepare(tmp_path_factory.mktemp("durability"))
    assert set(made) == set(NAMES)
    return made


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "oaks", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(arguments: list[str]) -> float:
    """Runs a verb to its end; gives the seconds from its first file on."""
    process = start(arguments)
    begun = time.monotonic()
    _, said = process.communicate(timeout=250)
    assert process.returncode == 0, said
    return time.monotonic() - begun


def state(folder: Path) -> list[tuple[str, int]]:
    """What lies in a folder, and how large it is."""
    found = []
    for path in folder.rglob("*"):
        try:
            found.append((str(path), path.stat().st_size))
        except FileNotFoundError:
            continue
    return sorted(found)


def kill_once(verb: Verb, out: Path, whole: dict[str, bytes], seconds: float, rng: random.Random) -> bool:
    """Kills a run some time after its first file, and reruns it; whether the kill came before its end."""
    out.mkdir()
    process = start(verb.arguments(out))
    before = state(out)
    while process.poll() is None and state(out) == before:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, seconds))
    killed = process.poll() is None
    with suppress(ProcessLookupError):  # it may have ended in this moment
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert unreadable(out) == []
    finish(verb.rerun(out))
    assert unreadable(out) == []
    found = contents(out, verb.compared)
    assert found.keys() == whole.keys()
    assert [name for name in whole if found[name] != whole[name]] == []
    shutil.rmtree(out)
    return killed


def reference(verb: Verb, out: Path) -> tuple[dict[str, bytes], float]:
    """The files of a run that is left alone, and about how long it writes."""
    out.mkdir()
    process, first = start(verb.arguments(out)), None
    before = state(out)
    while process.poll() is None:
        if first is None and state(out) != before:
            first = time.monotonic()
        time.sleep(0.002)
    seconds = time.monotonic() - (first or time.monotonic())
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert unreadable(out) == []
    whole = contents(out, verb.compared)
    assert whole
    shutil.rmtree(out)
    return whole, seconds


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "train" else name for name in NAMES]
)
def test_a_killed_run_is_readable_and_its_rerun_the_same(verbs, tmp_path, name):
    verb, rng = verbs[name], random.Random(name)
    whole, seconds = reference(verb, tmp_path / "out")
    kill_once(verb, tmp_path / "out", whole, seconds, rng)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NAMES)
def test_many_kills(verbs, tmp_path, name):
    verb, rng = verbs[name], random.Random(f"many {name}")
    whole, seconds = reference(verb, tmp_path / "out")
    kills = sum(
        kill_once(verb, tmp_path / "out", whole, seconds, rng) for _ in range(-(-KILLS_IN_ALL // len(NAMES)))
    )
    assert kills > KILLS_IN_ALL // len(NAMES) // 3, "most kills came after the end"
