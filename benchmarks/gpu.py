"""Run everything that needs a GPU: tests, sanitizer, kernels, Engines. `make gpu` calls it.

    python benchmarks/gpu.py [--minutes 9] [--out benchmarks/results/gpu]

Needs an NVIDIA GPU, nvcc, and a Python with torch, pytest and the build requirements of oaks (setuptools, pybind11, CMake,
Ninja); pytest needs no plugins. If one of these is missing, the script names it, runs nothing and exits with 2. It uses
no network. Each stage is a process with a time limit; a stage that fails or exceeds its time does not stop the others.
A stage whose tests were all skipped has failed. At most eight files are written: the output of stages, and summary.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLI = ["-m", "oaks"]
LEFT_FOR_SUMMARY = 5.0
"""Seconds."""
MOST_FILES = 8
PACKAGES = ("torch", "pytest", "numpy", "onnxruntime", "setuptools", "pybind11", "rich", "typer")
PROGRAMS = ("nvcc", "cmake", "ninja")


@dataclass(frozen=True)
class Stage:
    """A command and the file of its output.

    Attributes:
        name: for the summary.
        command: program and arguments.
        log: name of the file; stages with the same one are appended.
        limit: seconds after which it is stopped.
        needs: a program that must be on the PATH, or "".
        may_skip: whether all of its tests may be skipped, because they need optional software.
    """

    name: str
    command: tuple[str, ...]
    log: str
    limit: float
    needs: str = ""
    may_skip: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a stage: "passed", "failed", "timed out" or "left out", and why; for pytest the numbers of tests."""

    name: str
    result: str
    seconds: float
    detail: str
    log: str
    tests: dict[str, int] = field(default_factory=dict)


def gpu_count() -> int:
    """Return the number of GPUs that the driver reports; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    started = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if started else 0


def missing() -> list[str]:
    """Return the requirements of every stage that this machine lacks."""
    lacks = [] if gpu_count() else ["an NVIDIA GPU with its driver (libcuda.so.1 finds none)"]
    environment = Path(sys.executable).parent
    for program in PROGRAMS:
        if shutil.which(program) is None and shutil.which(program, path=str(environment)) is None:
            lacks.append(f"the program {program}")
    return lacks + [f"the Python package {name}" for name in PACKAGES if find_spec(name) is None]


def stages(out: Path) -> list[Stage]:
    """Return all stages, the most important first."""
    python = sys.executable
    # Without the options of pyproject.toml for pytest's plugins, which may be missing here.
    tests = [
        python,
        *["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings="],
    ]
    if find_spec("pytest_timeout"):
        tests.append("--timeout=120")
    sanitizer = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all"]
    # Every operation, without the cases that launch thousands of times: a launch takes milliseconds there.
    few = ["tests/cuda", "-m", "needs_cuda", "-k", "not two_largest and not any_ and not every_"]
    build = [
        python,
        *["-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "-q", "-e", "."],
    ]
    on_gpu = ["tests/cuda", "tests/executors/test_torch_cuda.py", "-m", "needs_cuda"]
    return [
        Stage("build", tuple(build), "build.txt", 200),
        Stage("machine", ("nvidia-smi",), "machine.txt", 20, needs="nvidia-smi"),
        Stage("doctor", (python, *CLI, "doctor"), "machine.txt", 30),
        Stage("tests", (*tests, *on_gpu), "tests.txt", 120),
        Stage("kernels", (python, "benchmarks/gpu_operations.py", "--quick"), "kernels.txt", 90),
        Stage(
            "engines",
            (python, *CLI, "benchmark", "small", "--device", "cuda", "--batch", "1", "--batch", "64",
             "--out", str(out / "engines.json")),
            "engines.txt", 120,
        ),
        Stage("memcheck", (*sanitizer, "--tool", "memcheck", *tests, "-x", *few),
              "sanitizer.txt", 90, needs="compute-sanitizer"),
        Stage("racecheck", (*sanitizer, "--tool", "racecheck", *tests, "-x", *few),
              "sanitizer.txt", 90, needs="compute-sanitizer"),
        Stage("tensorrt", (*tests, "tests/engines/plans/test_real_tensorrt.py", "-m", "tensorrt"),
              "tests.txt", 120, may_skip=True),
    ]  # fmt: skip


def run(listed: Sequence[Stage], out: Path, minutes: float) -> list[Outcome]:
    """Run the stages one after another, within the time of all together."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        if old.is_file():
            old.unlink()
    deadline = time.monotonic() + 60 * minutes - LEFT_FOR_SUMMARY
    outcomes = []
    for stage in listed:
        outcomes.append(_run(stage, out, deadline - time.monotonic()))
        print(f"{stage.name}: {outcomes[-1].result} ({outcomes[-1].detail})", flush=True)
        # Written after each stage, so that an interrupted run keeps the finished ones.
        text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
        (out / "summary.json").write_text(text + "\n", encoding="utf-8")
    return outcomes


def _run(stage: Stage, out: Path, left: float) -> Outcome:
    if stage.needs and shutil.which(stage.needs) is None:
        return Outcome(stage.name, "left out", 0.0, f"{stage.needs} not found on the PATH", stage.log)
    if left < 1:
        return Outcome(stage.name, "left out", 0.0, "no time is left", stage.log)
    started = time.monotonic()
    environment = {**os.environ, "OAKS_CUDA": "on", "PYTHONUNBUFFERED": "1"}
    environment |= {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}
    # CMake and Ninja may be installed beside Python, outside the PATH.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.setdefault("OAKS_CUDA_ARCHITECTURES", "native")
    with (out / stage.log).open("ab") as log:
        log.write(f"==== {stage.name}: {' '.join(stage.command)}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                stage.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Outcome(stage.name, "failed", 0.0, str(error), stage.log)
        try:
            code = process.wait(min(stage.limit, left))
        except subprocess.TimeoutExpired:
            code = None
        finally:  # an interrupted stage must not run on either
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = round(time.monotonic() - started, 1)
    if code is None:
        return Outcome(stage.name, "timed out", seconds, f"stopped after {seconds} s", stage.log)
    if code == 5 and "pytest" in stage.command:
        return Outcome(stage.name, "left out", seconds, "no test was collected", stage.log)
    if "pytest" not in stage.command:
        return Outcome(stage.name, "failed" if code else "passed", seconds, f"exit code {code}", stage.log)
    tests = _counts(out / stage.log)
    said = ", ".join(f"{number} {kind}" for kind, number in tests.items()) or "no summary of tests"
    if not code and not tests.get("passed") and stage.may_skip:
        return Outcome(stage.name, "left out", seconds, said, stage.log, tests)
    failed = bool(code) or not tests.get("passed")
    return Outcome(
        stage.name, "failed" if failed else "passed", seconds, f"exit code {code}: {said}", stage.log, tests
    )


def _counts(log: Path) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, from pytest's last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    ending = next((line for line in reversed(lines) if re.search(r" in [\d.]+s", line)), "")
    return {
        kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", ending)
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all stages together")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu", help="folder of the results"
    )
    options = parser.parse_args()
    if lacks := missing():
        print("nothing was run; this machine lacks:", *lacks, sep="\n  ", file=sys.stderr)
        return 2
    out = options.out.resolve()
    outcomes = run(stages(out), out, options.minutes)
    print(f"results: {out}")
    return int(any(outcome.result in ("failed", "timed out") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
