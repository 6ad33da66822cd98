"""What `make gpu` does around its stages; the stages themselves need a GPU."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


def stage(gpu, name: str, code: str, *, limit: float = 30, **more):
    return gpu.Stage(name, (sys.executable, "-c", code), f"{name}.txt", limit, **more)


def test_a_stage_that_fails_or_hangs_does_not_stop_the_others(gpu, tmp_path):
    listed = [
        stage(gpu, "bad", "print('before'); raise SystemExit(3)"),
        stage(gpu, "hangs", "import time; print('waiting', flush=True); time.sleep(100)", limit=1),
        gpu.Stage("absent", ("/no/such/program",), "absent.txt", 5),
        stage(gpu, "lacks", "", needs="no-such-program-anywhere"),
        stage(gpu, "good", "print('after')"),
    ]
    outcomes = gpu.run(listed, tmp_path, 1)
    assert [outcome.result for outcome in outcomes] == ["failed", "timed out", "failed", "left out", "passed"]
    assert "exit code 3" in outcomes[0].detail
    assert "not found on the PATH" in outcomes[3].detail
    assert "before" in (tmp_path / "bad.txt").read_text()
    assert "after" in (tmp_path / "good.txt").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["name"] for entry in summary] == [s.name for s in listed]


def test_all_stages_end_within_the_time_and_those_without_any_left_are_told(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LEFT_FOR_SUMMARY", 0.0)
    listed = [stage(gpu, f"slow{i}", "import time; time.sleep(100)", limit=100) for i in range(3)]
    started = time.monotonic()
    outcomes = gpu.run(listed, tmp_path, 2 / 60)
    assert time.monotonic() - started < 60
    assert [outcome.result for outcome in outcomes] == ["timed out", "left out", "left out"]
    assert outcomes[1].detail == "no time is left"


def test_what_an_earlier_run_left_is_removed(gpu, tmp_path):
    (tmp_path / "old.txt").write_text("old")
    gpu.run([stage(gpu, "only", "")], tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["only.txt", "summary.json"]


def test_there_are_at_most_eight_files_and_every_script_exists(gpu, tmp_path):
    listed = gpu.stages(tmp_path)
    assert len({s.log for s in listed} | {"engines.json", "summary.json"}) <= gpu.MOST_FILES
    for s in listed:
        for part in s.command:
            if part.startswith(("benchmarks/", "tests/")):
                assert (gpu.ROOT / part).exists(), part
    named = [s.name for s in listed]
    assert {"build", "tests", "memcheck", "racecheck", "kernels", "engines", "tensorrt"} <= set(named)
