"""Every reader is fed for a short time, with a fixed seed; `make fuzz MINUTES=n` runs longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import sanitized

TESTS = Path(__file__).resolve().parents[1]
SECONDS = 45
"""For all readers together; the operations under sanitizers take the rest of a minute."""


def run(
    *words: object, environment: dict[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[str], list[dict]]:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.run", *map(str, words)], cwd=TESTS, capture_output=True, text=True, timeout=900,
        env={"OMP_NUM_THREADS": "1", **(environment or os.environ)},
    )  # fmt: skip
    return done, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.timeout(900)
def test_readers_refuse_what_does_not_fit():
    done, lines = run("--seconds", SECONDS, "--seed", 0)
    results = {line["target"]: line for line in lines if "inputs" in line and "target" in line}
    wrong = {name: line["kinds"] for name, line in results.items() if line["faults"]}
    assert not wrong, json.dumps(wrong, indent=1)
    assert done.returncode == 0, done.stderr[-4000:]
    assert lines[-1]["inputs"] >= len(results) >= 25
    tried = [name for name, line in results.items() if line["inputs"] and line["refused"]]
    assert len(tried) > len(results) // 2, "most inputs were taken, or none was tried"


@pytest.mark.timeout(900)
def test_operations_under_sanitizers():
    from emulator.build import sanitizer_environment

    if sys.platform != "linux" or sanitizer_environment() is None:
        pytest.skip("this compiler has no AddressSanitizer library")
    environment = sanitized.environment(sanitized.build())
    done, lines = run("--seconds", 15, "--seed", 0, "operations", environment=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert lines[-1]["inputs"] > 0


FAULTY = """
import sys, time, tempfile
import hypothesis.strategies as st
import fuzz.run, fuzz.targets
from fuzz.targets import Target
held = []
def read(value, folder):
    if value == "raw": {}["a"]
    if value == "slow": [None for _ in iter(int, 1)]
    if value == "large": held.append(bytearray(b"1") * (1200 << 20))
    if value == "crash": import ctypes; ctypes.string_at(0)
fuzz.targets.make_targets = lambda folder: {"faulty": Target(st.just(sys.argv.pop()), read)}
sys.exit(fuzz.run.main())
"""


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("raw", "KeyError at"), ("slow", "more than 5 s"), ("large", "more than 1 GB"), ("crash", "")],
)
def test_the_harness_finds_planted_faults(fault, kind):
    code = FAULTY.replace("sys.argv.pop()", repr(fault))
    done = subprocess.run(
        [sys.executable, "-c", code, "--seconds", "2"], cwd=TESTS, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    if kind:
        found = json.loads(done.stdout.splitlines()[1])["kinds"]
        assert any(name.startswith(kind) for name in found), found
    else:
        assert "Segmentation fault" in done.stderr
