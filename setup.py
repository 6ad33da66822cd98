"""Build the native module with CMake; all other settings of the package are in pyproject.toml.

Settings, read from the environment:
    OAKS_CUDA                 auto (default): build the CUDA half if CMake finds a CUDA compiler; on; off
    OAKS_CUDA_ARCHITECTURES   the GPUs to build for: a CMAKE_CUDA_ARCHITECTURES list, for instance "86;90", or "common":
                              machine code for all common ones. Default: the GPUs of this machine; without one, PTX
                              that every GPU from compute capability 7.5 on compiles at first use
    CMAKE_ARGS                further arguments for CMake, as other packages take them
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
TOOLS = ("cmake", "ninja", "c++", "nvcc")
VARIABLES = (
    "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDACXX", "CUDAFLAGS", "CUDA_PATH", "CUDAARCHS", "CUDAHOSTCXX",
    "MACOSX_DEPLOYMENT_TARGET", "SDKROOT",
)  # fmt: skip
"""Environment variables that a build depends on, beside those that start with CMAKE_ or OAKS_."""
FOLDERS = {"oaks": "oaks", "oaks.engines": "engines", "oaks.training": "training"}


def link_packages() -> bool:
    """Link oaks/engines and oaks/training to the top-level folders, as wheels hold them; True if all links exist.

    An editable install is then one folder on the path, which editors and type checkers follow. Without links,
    setuptools installs a finder, which only Python follows. git ignores the links.
    """
    for package, folder in FOLDERS.items():
        link = ROOT.joinpath(*package.split("."))
        if link.exists():
            continue
        try:
            if sys.platform == "win32":  # junctions need no privilege, symbolic links do
                subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT / folder)], check=True)
            else:
                link.symlink_to(Path("..", folder), target_is_directory=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{link} could not be linked to {folder}/: {error}", file=sys.stderr)
            return False
    return True


def missing_tool() -> str | None:
    """Return, in one line, what must be installed to compile the native module; None if nothing is missing."""
    named = shlex.split(os.environ.get("CXX", ""))
    compilers = named[:1] or ["c++", "g++", "clang++", "CC", "icpx", "cl"]
    if not any(map(shutil.which, compilers)):
        return (
            f"oaks: C++ compiler not found: {', '.join(compilers)}; install one, for instance with 'apt install g++', "
            "'dnf install gcc-c++', 'xcode-select --install' or the Build Tools for Visual Studio"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return (
            f"oaks: Python.h not found: {sysconfig.get_path('include')}; install Python's headers, for instance with "
            "'apt install python3-dev' or 'dnf install python3-devel'"
        )
    return None


def forget_other_environments(build: Path) -> None:
    """Empty a build folder that was made with other tools or settings.

    pip deletes its build environment, with CMake, Ninja and pybind11 in it. And CMake's cache keeps the first compiler,
    its absence, and settings that are no longer given.
    """
    stamp = build / "environment.txt"
    environment = "\n".join(
        [str(ROOT), sys.executable, pybind11.get_cmake_dir()]
        + [f"{tool}={shutil.which(tool)}" for tool in TOOLS]
        + [
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name in VARIABLES or name.startswith(("CMAKE_", "OAKS_"))
        ]
    ).encode("utf-8", "surrogateescape")
    if not stamp.is_file() or stamp.read_bytes() != environment:
        if build.is_dir():
            shutil.rmtree(build)
        build.mkdir(parents=True)
        stamp.write_bytes(environment)


def run_with_progress(command: list[str]) -> None:
    """Run Ninja. Its output goes to the log, and a counter to the terminal, because pip hides the log while it builds.

    Raises:
        CalledProcessError: it failed.
    """
    with ExitStack() as stack:
        terminal = None
        if not sys.stdout.isatty():
            with suppress(OSError):
                terminal = stack.enter_context(open("CONOUT$" if os.name == "nt" else "/dev/tty", "w"))
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if terminal is not None and (step := re.match(r"\[(\d+)/(\d+)\] .*?([\w.]+)\.o(bj)?\b", line)):
                # The last column is for pip's spinner.
                print(
                    f"\r\033[K  oaks: compiling, {step[1]} of {step[2]}, {step[3]}  ",
                    end="",
                    flush=True,
                    file=terminal,
                )
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


class CMakeBuild(build_ext):
    """Configure and build with CMake, and put the module where setuptools expects it."""

    def build_extension(self, extension: Extension) -> None:
        module = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = ROOT / "build" / f"cmake{sysconfig.get_config_var('EXT_SUFFIX')}"
        try:
            forget_other_environments(build)
        except OSError as error:  # of another user, or build is a file: nothing in it is needed
            build = Path(staging.name) / "cmake"
            print(f"oaks: {error}; compiling in {build}", file=sys.stderr)
            forget_other_environments(build)
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build / 'module'}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DOAKS_CUDA={os.environ.get('OAKS_CUDA', 'auto')}",
            f"-DOAKS_VERSION={self.distribution.get_version()}",
        ]  # fmt: skip
        if architectures := os.environ.get("OAKS_CUDA_ARCHITECTURES"):
            configure.append(f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        subprocess.run(configure, check=True)
        run_with_progress(["cmake", "--build", str(build), "--target", "_native"])

        module.parent.mkdir(parents=True, exist_ok=True)
        (built,) = (build / "module").glob("_native*")
        # Renamed into place, so that running processes keep the module they have mapped.
        staged = module.with_name(module.name + ".new")
        self.copy_file(str(built), str(staged))
        os.replace(staged, module)
        print((build / "summary.txt").read_text(), end="", file=sys.stderr, flush=True)


COMPILING = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}
if COMPILING & set(sys.argv) and (missing := missing_tool()):
    sys.exit(missing)

# Not build/lib in the tree: files left there by an earlier version would be installed again.
staging = tempfile.TemporaryDirectory(prefix="oaks-build-")
setup(
    packages=[
        ".".join([package, *init.parent.relative_to(folder).parts])
        for package, folder in FOLDERS.items()
        for init in sorted(Path(folder).rglob("__init__.py"))
        if ".".join(["oaks", init.relative_to(folder).parts[0]]) not in FOLDERS
    ],
    package_dir={"": "."} if "editable_wheel" in sys.argv and link_packages() else FOLDERS,
    include_package_data=False,  # MANIFEST.in is for the sdist; package_data names what modules read
    package_data={
        "oaks": ["py.typed", "*.pyi", "data/**/*", "val/report/*.html", "ray/*.html", "*.json"],
        "oaks.engines": ["*.json"],
        "oaks.training": ["**/*.yaml", "**/*.json", "**/*.npz"],
    },
    options={"build": {"build_base": staging.name}},
    ext_modules=[Extension("oaks._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
