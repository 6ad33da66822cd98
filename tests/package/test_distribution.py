"""Distributions: an sdist from a copy of the tree, a wheel from the sdist, an import from the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from .tree import FOLDERS, ROOT, modules

BUILD = "import sys; from setuptools import build_meta; print(build_meta.{}(sys.argv[1]))"
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
"""Where to look for commands: beside this Python first, as in an activated environment."""


def run(command: list[str], folder: Path, **environment: str) -> tuple[str, str]:
    """Runs a command that must succeed; gives the last line that it prints, and what it says on stderr."""
    env = {**os.environ, "PATH": TOOLS, **environment}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout.splitlines()[-1], done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without what git ignores, so that nothing an earlier build left behind helps."""
    absent = [name for name in ("setuptools", "pybind11") if find_spec(name) is None]
    if absent:
        pytest.skip(
            f"building needs {' and '.join(absent)} in this environment: pip install {' '.join(absent)}"
        )
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()]
    target = tmp_path_factory.mktemp("tree") / "oaks"
    shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(".git", *ignored))
    return target


@pytest.fixture(scope="module")
def sdist(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    present = {path.relative_to(copy) for path in copy.rglob("*")}
    folder = tmp_path_factory.mktemp("sdist")
    name, _ = run([sys.executable, "-c", BUILD.format("build_sdist"), str(folder)], copy)
    with tarfile.open(folder / name) as archive:
        archive.extractall(folder, filter="data")
    (copy / "present.txt").write_text(
        "\n".join(sorted(path.as_posix() for path in present)), encoding="utf-8"
    )
    return folder / name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built from the sdist without the CUDA half."""
    folder = tmp_path_factory.mktemp("wheel")
    if shutil.which("cmake", path=TOOLS) is None:
        pytest.skip("building needs CMake: pip install cmake ninja")
    build = [sys.executable, "-c", BUILD.format("build_wheel"), str(folder)]
    name, said = run(build, sdist, OAKS_CUDA="off")
    (folder / "said.txt").write_text(said, encoding="utf-8")
    with zipfile.ZipFile(folder / name) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_sdist_holds_the_whole_tree(copy, sdist):
    """Sources, CMake files, tests, benchmarks, documents: all but the settings of editors and hosts."""
    expected = (copy / "present.txt").read_text("utf-8").splitlines()
    expected = {path for path in expected if (copy / path).is_file() and not path.startswith(".")}
    packed = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    for needed in (
        "CMakeLists.txt",
        "setup.py",
        "csrc/core/decode.h",
        "cmake/cpu.cmake",
        "tests/conftest.py",
    ):
        assert needed in expected
    assert not sorted(expected - packed)


def test_the_wheel_holds_every_module(wheel):
    expected = {
        Path(*package.split("."), path.relative_to(folder)).as_posix()
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
    }
    assert len(expected) == len(modules())
    packed = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*.py")}
    assert not sorted(expected - packed)


def test_the_wheel_holds_the_data(wheel):
    """Whatever lies beside the modules is there because they read it."""
    expected = {
        Path(*package.split("."), path.relative_to(folder)).as_posix()
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so", ".pyd", ".md")
    }
    assert "oaks/py.typed" in expected
    packed = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*")}
    assert not sorted(expected - packed)
    assert (wheel / "oaks" / "py.typed").is_file()
    assert not list(wheel.rglob("*.cpp"))


def test_the_wheel_works_from_outside_the_tree(wheel, tmp_path):
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import oaks, oaks.engines, oaks.training.render
from oaks import ops
assert oaks.__file__.startswith(sys.argv[1]), oaks.__file__
assert oaks._native.__file__.startswith(sys.argv[1])
assert oaks.engines.__file__.startswith(sys.argv[1])
print(*ops.decode(np.eye(4, dtype=np.float32)[None, None], refine="none").points.ravel())
"""
    run_in = [sys.executable, "-c", program, str(wheel)]
    assert run(run_in, tmp_path)[0] == "0.0 0.0"


def test_the_build_says_in_one_line_what_it_built(wheel):
    said = (wheel.parent / "said.txt").read_text("utf-8").splitlines()
    built = [line for line in said if line.startswith("oaks ") and "built for the CPU" in line]
    assert len(built) == 1
    assert built[0].endswith("not for CUDA (OAKS_CUDA=off)")


@pytest.mark.slow
def test_a_tree_builds_again_where_the_first_build_environment_is_gone(wheel, sdist, tmp_path):
    (build,) = (sdist / "build").glob("cmake*")
    cache, stamp = build / "CMakeCache.txt", build / "environment.txt"
    ninja = next(line for line in cache.read_text().splitlines() if line.startswith("CMAKE_MAKE_PROGRAM:"))
    cache.write_text(cache.read_text().replace(ninja, "CMAKE_MAKE_PROGRAM:FILEPATH=/gone/ninja"))
    stamp.write_text(stamp.read_text().replace("ninja", "gone"))
    (sdist / "build" / "lib" / "oaks").mkdir(parents=True)
    (sdist / "build" / "lib" / "oaks" / "left_behind.py").touch()
    run([sys.executable, "-c", BUILD.format("build_wheel"), str(tmp_path)], sdist, OAKS_CUDA="off")
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(again) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {
        path.relative_to(wheel).as_posix()
        for path in wheel.rglob("*")
        if path.is_file() and ".dist-info" not in str(path.relative_to(wheel))
    }
