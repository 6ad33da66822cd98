"""CMake configuration for each OAKS_CUDA, with and without a CUDA compiler. Only CMake's own checks are compiled."""

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


def configure(build: Path, cuda: str, path: str, architectures: str = "") -> tuple[int, str]:
    """The exit status of CMake, and the summary that it wrote or what it said instead."""
    import pybind11

    command = [
        "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", f"-DOAKS_CUDA={cuda}",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
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
    assert "OAKS_CUDA must be auto, on or off, got 'maybe'" in said


def nvidia_smi(folder: Path, *capabilities: str) -> str:
    """A PATH with a machine's GPUs, or none, on it."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    lines = "".join(f"echo {capability}\n" for capability in capabilities)
    program.write_text(f"#!/bin/sh\n{lines or 'exit 9'}\n")
    program.chmod(0o755)
    return os.pathsep.join(map(str, [folder, *TOOLS]))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
@pytest.mark.parametrize(
    ("present", "built"),
    [
        ((), "75-virtual"),  # PTX for every GPU from 7.5 on
        (
            ("9.0", "99.0", "9.0"),
            "90-real 75-virtual",
        ),  # two of a kind, and one that is newer than the compiler
    ],
)
def test_the_cuda_half_is_built_for_the_gpus_of_this_machine(tmp_path, present, built):
    path = nvidia_smi(tmp_path / "bin", *present)
    status, summary = configure(tmp_path / "build", "auto", path)
    assert status == 0, summary
    assert summary.endswith(f"; {built})\n"), summary


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
def test_common_means_machine_code_for_the_common_gpus_and_ptx_for_the_newest(tmp_path):
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    common = [n for n in (75, 80, 86, 89, 90, 100, 120) if f"compute_{n}" in listed.split()]
    assert 90 in common
    status, summary = configure(tmp_path, "auto", os.pathsep.join(map(str, TOOLS)), "common")
    assert status == 0, summary
    # Devices of 10.3 and 11.0 take neither the newest PTX nor machine code of 10.0.
    virtual = [100] if 100 in common[:-1] else []
    built = " ".join([*(f"{n}-real" for n in common), *(f"{n}-virtual" for n in (*virtual, common[-1]))])
    assert summary.endswith(f"; {built})\n"), summary


def test_a_build_folder_remembers_no_other_tools_or_settings(tmp_path, monkeypatch):
    source = (ROOT / "setup.py").read_text("utf-8").split("\nCOMPILING =")[0]
    setup = {"__file__": str(ROOT / "setup.py"), "__name__": "setup"}
    exec(compile(source, "setup.py", "exec"), setup)
    build = tmp_path / "build"

    def forgets() -> bool:
        """Whether what lies in the folder is gone after the next start of a build."""
        setup["forget_other_environments"](build)
        gone = not (build / "CMakeCache.txt").exists()
        (build / "CMakeCache.txt").touch()
        return gone

    assert [forgets(), forgets()] == [True, False]
    (build / "environment.txt").write_bytes(b"\xff of another program")
    assert [forgets(), forgets()] == [True, False]
    for name in (
        "CXX",
        "CUDACXX",
        "CUDAARCHS",
        "OAKS_CUDA_ARCHITECTURES",
        "CMAKE_ARGS",
        "CMAKE_TOOLCHAIN_FILE",
    ):
        monkeypatch.setenv(name, "another")
        assert [forgets(), forgets()] == [True, False]
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(nvcc.parent) + os.pathsep + os.environ["PATH"])
    assert [forgets(), forgets()] == [True, False]


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_without_a_cpp_compiler_the_build_ends_with_one_line(tmp_path):
    (tmp_path / "python").symlink_to(sys.executable)
    environment = {name: value for name, value in os.environ.items() if name != "CXX"}
    for named in ({}, {"CXX": "no-such-compiler -m64"}):
        done = subprocess.run(
            [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(tmp_path)], cwd=ROOT, text=True,
            env={**environment, "PATH": str(tmp_path), **named}, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        looked_for = "no-such-compiler" if named else "c++, g++, clang++"
        assert line.startswith(f"oaks: C++ compiler not found: {looked_for}")
        assert "install one" in line
