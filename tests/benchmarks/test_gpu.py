"""The control flow of `make gpu`; its stages themselves need a GPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
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


def test_stages_without_time_left_are_left_out(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LEFT_FOR_SUMMARY", 0.0)
    listed = [stage(gpu, f"slow{i}", "import time; time.sleep(100)", limit=100) for i in range(3)]
    started = time.monotonic()
    outcomes = gpu.run(listed, tmp_path, 2 / 60)
    assert time.monotonic() - started < 60
    assert [outcome.result for outcome in outcomes] == ["timed out", "left out", "left out"]
    assert outcomes[1].detail == "no time is left"


def test_files_of_an_earlier_run_are_removed(gpu, tmp_path):
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


def test_every_option_of_a_stage_exists(gpu, tmp_path):
    """A stage that fails on its own command line would be found only on a machine with a GPU."""
    stages = {s.name: list(s.command) for s in gpu.stages(tmp_path)}
    for name, shown in (("engines", [*gpu.CLI, "benchmark"]), ("kernels", [])):
        command = stages[name]
        if name == "kernels":
            text = (gpu.ROOT / "benchmarks" / "gpu_operations.py").read_text(encoding="utf-8")
        else:
            ran = subprocess.run([sys.executable, *shown, "--help"], capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            text = ran.stdout
        options = [part for part in command if part.startswith("--")]
        assert options
        assert all(option in text for option in options), (name, options)
    assert "doctor" in subprocess.run(
        [sys.executable, *gpu.CLI, "--help"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def test_tests_are_collected_without_plugins_of_pytest(gpu, tmp_path):
    """The same command, which only collects here, with plugins switched off."""
    command = list(next(s for s in gpu.stages(tmp_path) if s.name == "tests").command)
    command = [part for part in command if not part.startswith("--timeout")]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(
        [*command, "--collect-only"], cwd=gpu.ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "test_cases_on_cuda.py" in ran.stdout


def test_no_stage_uses_a_network(gpu, tmp_path):
    for s in gpu.stages(tmp_path):
        assert "install" not in s.command or "--no-index" in s.command
    listed = [stage(gpu, "asks", "import os; print('index', os.environ['PIP_NO_INDEX'])")]
    gpu.run(listed, tmp_path, 1)
    assert "index 1" in (tmp_path / "asks.txt").read_text()


def test_an_interrupted_run_ends_its_stage_and_keeps_finished_ones(gpu, tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def remember(*arguments, **options):
        started.append(popen(*arguments, **options))
        if len(started) == 2:
            started[1].wait = lambda timeout=None: interrupt()
        return started[-1]

    def interrupt():
        del started[1].wait
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu.subprocess, "Popen", remember)
    listed = [stage(gpu, "first", "print('done')"), stage(gpu, "second", "import time; time.sleep(100)")]
    with pytest.raises(KeyboardInterrupt):
        gpu.run(listed, tmp_path, 1)
    assert started[1].poll() is not None
    assert [entry["name"] for entry in json.loads((tmp_path / "summary.json").read_text())] == ["first"]


def test_missing_requirements_are_named_and_nothing_is_run(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "gpu_count", lambda: 0)
    monkeypatch.setattr(gpu, "PROGRAMS", ("no-such-program-anywhere",))
    monkeypatch.setattr(gpu, "PACKAGES", ("json", "no_such_package_anywhere"))
    monkeypatch.setattr(gpu, "run", lambda *_: pytest.fail("a stage was run"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "results")])
    assert gpu.main() == 2
    said = capsys.readouterr().err
    for lack in ("an NVIDIA GPU", "program no-such-program-anywhere", "package no_such_package_anywhere"):
        assert lack in said
    assert "package json" not in said
    assert not (tmp_path / "results").exists()


def test_gpus_are_counted_by_the_driver(gpu, monkeypatch):
    class Driver:
        def __init__(self, started):
            self.started = started

        def cuInit(self, _flags):
            return self.started

        def cuDeviceGetCount(self, count):
            count._obj.value = 3
            return 0

    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _name: Driver(0))
    assert gpu.gpu_count() == 3
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _name: Driver(100))
    assert gpu.gpu_count() == 0

    def absent(_name):
        raise OSError

    monkeypatch.setattr(gpu.ctypes, "CDLL", absent)
    assert gpu.gpu_count() == 0


@pytest.mark.parametrize(
    ("ending", "code", "result", "tests"),
    [
        ("12 passed, 3 skipped in 1.25s", 0, "passed", {"passed": 12, "skipped": 3}),
        ("15 skipped, 2 deselected in 0.50s", 0, "failed", {"skipped": 15}),
        ("1 failed, 4 passed in 61.20s (0:01:01)", 1, "failed", {"failed": 1, "passed": 4}),
        ("nothing of pytest's", 0, "failed", {}),
    ],
)
def test_tests_are_counted_and_a_stage_that_skips_all_has_failed(gpu, tmp_path, ending, code, result, tests):
    command = (sys.executable, "-c", f"print({ending!r}); raise SystemExit({code})", "pytest")
    (outcome,) = gpu.run([gpu.Stage("tests", command, "tests.txt", 30)], tmp_path, 1)
    assert (outcome.result, outcome.tests) == (result, tests)
    assert json.loads((tmp_path / "summary.json").read_text())[0]["tests"] == tests
    (outcome,) = gpu.run([gpu.Stage("tests", command, "tests.txt", 30, may_skip=True)], tmp_path, 1)
    assert outcome.result == ("left out" if tests.keys() <= {"skipped"} else result)
