"""Builds the native module through CMake; everything else about the package stands in pyproject.toml.

Settings, read from the environment:
    OAKS_CUDA                 auto (default): build the CUDA half if CMake finds a CUDA compiler; on; off
    OAKS_CUDA_ARCHITECTURES   a CMAKE_CUDA_ARCHITECTURES list, for instance "86;90"
    CMAKE_ARGS                further arguments for CMake, as other packages take them
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
FOLDERS = {"oaks": "oaks", "oaks.engines": "engines", "oaks.training": "training"}


def link_packages() -> bool:
    """Link oaks/engines and oaks/training to the top-level folders, as wheels hold them; True if all links exist.

    An editable install is then one folder on the path, which editors and type checkers follow. Without links,
    setuptools installs a finder, which Python follows but they do not. git ignores the links.
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


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt, leaving the module where setuptools expects it."""

    def build_extension(self, extension: Extension) -> None:
        module = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = Path(self.build_temp).resolve() / extension.name
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
        subprocess.run(["cmake", "--build", str(build), "--target", "_native"], check=True)

        module.parent.mkdir(parents=True, exist_ok=True)
        (built,) = (build / "module").glob("_native*")
        # Renamed into place: a running process keeps the module that it has mapped.
        staged = module.with_name(module.name + ".new")
        self.copy_file(str(built), str(staged))
        os.replace(staged, module)
        print((build / "summary.txt").read_text(), end="", file=sys.stderr, flush=True)


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
        "oaks": ["py.typed", "data/**/*", "val/report/*.html", "*.json"],
        "oaks.engines": ["*.json"],
        "oaks.training": ["**/*.yaml", "**/*.json", "**/*.npz"],
    },
    ext_modules=[Extension("oaks._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
