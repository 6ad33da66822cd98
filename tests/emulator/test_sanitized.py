"""The emulated operations under AddressSanitizer and UndefinedBehaviorSanitizer, in separate processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from . import build

FOUND = 86
"""Exit code of a process stopped by a sanitizer (see build.sanitizer_environment)."""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Environment of a process that loads the sanitized build."""
    variables = build.sanitizer_environment()
    if variables is None:
        pytest.skip(f"{build.compiler()} has no AddressSanitizer library")
    build.build(sanitized=True)
    return variables


def run(environment, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=build.ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.parametrize("file", ["test_same_cases.py", "test_operations.py"])
def test_operations_pass_under_the_sanitizers(environment, file):
    """All but one slow test, whose memory accesses other tests cover."""
    chosen = ["-k", "not two_largest_values"]
    ran = run(
        environment, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen, f"tests/emulator/{file}"
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert " passed" in ran.stdout


PLANTED = """
import numpy as np
from emulator import build
native = build.load()
assert native.sanitized
source, result = np.zeros(64 + {spare}, np.float32), np.zeros(64, np.float32)
native.planted({error!r}, source.ctypes.data + {offset}, result.ctypes.data, 64, {argument})
print("finished")
"""


@pytest.mark.parametrize(
    ("error", "argument", "spare", "offset", "found"),
    [
        ("nothing", 0, 0, 0, None),
        ("read beyond", 0, 0, 0, None),
        ("read beyond", 1, 0, 0, "heap-buffer-overflow"),
        ("write beyond", 1, 0, 0, "heap-buffer-overflow"),
        ("write beyond", -1, 0, 0, "heap-buffer-overflow"),
        ("read vectors", 0, 192, 0, None),
        ("read vectors", 0, 193, 4, "misaligned address"),
        ("half at barrier", 0, 0, 0, "some threads have ended"),
    ],
)
def test_a_planted_error_ends_the_process(environment, error, argument, spare, offset, found):
    code = f"import sys; sys.path.insert(0, 'tests'){PLANTED.format(**locals())}"
    ran = run(environment, "-c", code)
    assert ("finished" in ran.stdout) == (found is None)
    assert (ran.returncode == 0) == (found is None), ran.stderr
    if found and "threads" not in found:
        assert ran.returncode == FOUND
    assert found is None or found in ran.stderr


OPERATION = """
import sys; sys.path.insert(0, 'tests')
import numpy as np
from emulator import build
native = build.load()
room = {people} * 2 * 8 * 12
heatmaps, points, heat = np.zeros(room, np.float32), np.zeros({people} * 4, np.float32), np.zeros({people} * 2, np.float32)
native.cuda.decode(heatmaps.ctypes.data, 0, 0, points.ctypes.data, heat.ctypes.data, 0, 3, 2, 8, 12, 0, {refine}, False,
                   [1.0, 0.0], [1.0, 0.0], 2.0, [0, 1], 0)
print("finished")
"""


@pytest.mark.parametrize("refine", range(4))
def test_reads_beyond_an_array_by_an_operation_are_detected(environment, refine):
    assert "finished" in run(environment, "-c", OPERATION.format(people=3, refine=refine)).stdout
    ran = run(environment, "-c", OPERATION.format(people=2, refine=refine))
    assert ran.returncode == FOUND
    assert "heap-buffer-overflow" in ran.stderr
