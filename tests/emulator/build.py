"""Build the CUDA operations for the host, on emulated blocks, with or without sanitizers."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType

from filelock import FileLock

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SANITIZED = "OAKS_EMULATOR_SANITIZED"
"""Environment variable; 1 makes a process that runs under AddressSanitizer load the sanitized build."""


def compiler() -> str:
    """The C++ compiler that CMake uses."""
    return os.environ.get("CXX", "c++")


def sources() -> list[Path]:
    """Every source file of the build."""
    folders = [ROOT / "csrc" / name for name in ("core", "cuda", "bindings")] + [HERE]
    kinds = {".h", ".cpp", ".cu", ".txt"}
    own = {"device.cu"}  # replaced by the emulator's device.cpp
    files = (path for folder in folders for path in folder.iterdir())
    return sorted(path for path in files if path.suffix in kinds and path.name not in own)


def key(sanitized: bool) -> str:
    """Return a hash of everything that the build depends on."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    digest.update("\0".join([version, sys.version, sys.executable, str(sanitized)]).encode())
    return digest.hexdigest()[:16]


def build(sanitized: bool) -> Path:
    """Build the module unless it is built already, and return its file."""
    folder = _made(
        "sanitized" if sanitized else "plain", key(sanitized), partial(_compile, sanitized=sanitized)
    )
    return folder / f"_emulated{importlib.machinery.EXTENSION_SUFFIXES[0]}"


ARCHITECTURES = (75, 120)
"""The lowest and the highest compute capability in cmake/cuda_architectures.cmake, times ten."""


def nvcc() -> str | None:
    """The CUDA compiler, or None if there is none."""
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


def nvcc_version() -> str:
    """The release of the CUDA compiler, as in "13.0"."""
    told = subprocess.run([nvcc() or "nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return told.split("release ")[1].split(",")[0]


def ptx(architecture: int) -> list[str]:
    """Return the PTX of each kernel file, compiled with the options of cmake/cuda.cmake."""
    digest = hashlib.sha256(f"{nvcc()} {nvcc_version()}".encode())
    for path in sources():
        if path.suffix in {".cu", ".h"}:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    compile_kernels = partial(_compile_ptx, architecture=architecture)
    folder = _made(f"ptx-{architecture}", digest.hexdigest()[:16], compile_kernels)
    return [path.read_text() for path in sorted(folder.glob("*.ptx"))]


def _made(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of this kind and key, made once by one process; folders of other keys are removed."""
    builds = ROOT / "build" / "emulator"
    builds.mkdir(parents=True, exist_ok=True)
    expected, unfinished = builds / f"{kind}-{key}", builds / f"{kind}-unfinished"
    with FileLock(builds / f"{kind}.lock"):
        if not expected.is_dir():
            for outdated in builds.glob(f"{kind}-*"):
                shutil.rmtree(outdated)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(expected)
    return expected


def _compile_ptx(folder: Path, architecture: int) -> None:
    options = ["-std=c++17", "--fmad=false", "-I", str(ROOT / "csrc"), "-I", str(HERE.parent), "-ptx"]
    command = [nvcc() or "nvcc", *options, f"-arch=compute_{architecture}"]
    kernels = [path for path in sources() if path.suffix == ".cu" and path.stem != "device"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [
            pool.submit(_run, [*command, str(path), "-o", str(folder / f"{path.stem}.ptx")])
            for path in kernels
        ]
        for running in made:
            running.result()


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")


def _compile(folder: Path, sanitized: bool) -> None:
    import pybind11

    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=programs)
    if cmake is None:
        raise RuntimeError("the emulator's tests need cmake: install oaks with its test extra, '.[test]'")
    configure = [
        cmake, "-S", str(HERE), "-B", str(folder), "-G", "Ninja",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DSANITIZED={'ON' if sanitized else 'OFF'}",
    ]  # fmt: skip
    for command in (configure, [cmake, "--build", str(folder)]):
        _run(command, {**os.environ, "PATH": programs})


def load() -> ModuleType:
    """Load the module; sanitized if the environment variable is set."""
    path = build(os.environ.get(SANITIZED) == "1")
    spec = importlib.util.spec_from_file_location("_emulated", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sanitizer_environment() -> dict[str, str] | None:
    """Environment for a Python process that loads the sanitized build; None if the compiler has no sanitizers."""
    # The C++ library is preloaded too; otherwise AddressSanitizer misses the exceptions of modules that load it later.
    names = [
        subprocess.run(
            [compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    if not all(Path(name).is_absolute() for name in names):
        return None
    return {
        **os.environ,
        SANITIZED: "1",
        "LD_PRELOAD": " ".join(names),
        # Python itself leaks memory at exit.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:exitcode=86:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=86",
    }
