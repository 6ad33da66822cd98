"""What CMake makes of OAKS_CUDA, with a CUDA compiler and without one. Nothing is compiled but CMake's own trials."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .tree import ROOT

TOOLS = [Path(sys.executable).parent, *map(Path, os.environ.get("PATH", "").split(os.pathsep))]
"""Where to look for commands: beside this Python first, as in an activated environment."""

if find_spec("pybind11") is None or shutil.which("cmake", path=os.pathsep.join(map(str, TOOLS))) is None:
    pytest.skip("configuring needs pybind11, CMake and Ninja in this environment", allow_module_level=True)


@pytest.fixture(scope="module")
def without_nvcc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which is all that is on this one, but no CUDA compiler."""
    folder = tmp_path_factory.mktemp("bin")
    for tools in TOOLS:
        for tool in tools.iterdir() if tools.is_dir() else ():
            if "nvcc" not in tool.name and not (folder / tool.name).is_symlink():
                (folder / tool.name).symlink_to(tool)
    assert shutil.which("nvcc", path=str(folder)) is None
    return str(folder)


def configure(build: Path, cuda: str, path: str) -> tuple[int, str]:
    """The exit status of CMake, and the summary that it wrote or what it said instead."""
    import pybind11

    command = [
        "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", f"-DOAKS_CUDA={cuda}",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("CUDACXX", "CUDA_PATH")}
    environment["PATH"] = path
    program = shutil.which("cmake", path=path)
    done = subprocess.run(
        command, executable=program, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    if done.returncode:
        return done.returncode, " ".join(done.stderr.split())
    return 0, (build / "summary.txt").read_text("utf-8")


def test_without_a_compiler_the_cuda_half_is_left_out(without_nvcc, tmp_path):
    status, summary = configure(tmp_path, "auto", without_nvcc)
    assert (status, summary.endswith("not for CUDA (no CUDA compiler found)\n")) == (0, True), summary


def test_asked_for_without_a_compiler_it_stops_and_says_what_to_do(without_nvcc, tmp_path):
    status, said = configure(tmp_path, "on", without_nvcc)
    assert status != 0
    assert "no CUDA compiler was found: put nvcc on the PATH or set CUDACXX" in said


def test_another_setting_is_refused(without_nvcc, tmp_path):
    status, said = configure(tmp_path, "maybe", without_nvcc)
    assert status != 0
    assert "OAKS_CUDA is 'maybe'; wanted auto, on or off" in said


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
def test_with_a_compiler_there_is_machine_code_for_the_common_gpus_and_ptx_for_the_newest(tmp_path):
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    common = [n for n in (75, 80, 86, 89, 90, 100, 120) if f"compute_{n}" in listed.split()]
    assert 90 in common
    status, summary = configure(tmp_path, "auto", os.pathsep.join(map(str, TOOLS)))
    assert status == 0, summary
    # Devices of 10.3 and 11.0 take neither the newest PTX nor machine code of 10.0.
    virtual = [100] if 100 in common[:-1] else []
    built = " ".join([*(f"{n}-real" for n in common), *(f"{n}-virtual" for n in (*virtual, common[-1]))])
    assert summary.endswith(f"; {built})\n"), summary
