"""The CPU half of the native module under AddressSanitizer and UndefinedBehaviorSanitizer, fed by the harness.

`python -m fuzz.sanitized --seconds 60` (in tests/) builds it in build/sanitized and feeds its operations; words are
those of fuzz.run. `load` puts it in the place of the installed one, in a process that was started with `environment()`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
FOUND = 86
"""The exit code of a process in which a sanitizer finds something."""


def build() -> Path:
    """The sanitized module's file, built unless the same sources have been built before."""
    import pybind11

    digest = hashlib.sha256(f"{sys.executable} {FLAGS}".encode())
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    folder = ROOT / "build" / "sanitized" / digest.hexdigest()[:16]
    if not (found := list(folder.glob("module/_native*"))):
        shutil.rmtree(folder.parent, ignore_errors=True)
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        configure = [
            "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", "-DOAKS_CUDA=off",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder / 'module'}", f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DCMAKE_CXX_FLAGS={FLAGS}", "-DCMAKE_CXX_FLAGS_DEBUG=",
        ]  # fmt: skip
        cmake = shutil.which("cmake", path=programs)
        if cmake is None:
            raise RuntimeError("cmake not found; install oaks with its test extra, '.[test]'")
        for words in (configure, ["--build", str(folder), "--target", "_native"]):
            done = subprocess.run(
                [cmake, *words], env={**os.environ, "PATH": programs}, capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(f"cmake {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        found = list(folder.glob("module/_native*"))
    return found[0]


def environment(module: Path) -> dict[str, str] | None:
    """For a process that calls `load`; None if the compiler has no sanitizers."""
    from emulator.build import sanitizer_environment

    variables = sanitizer_environment()
    return None if variables is None else {**variables, "OAKS_FUZZ_MODULE": str(module)}


def load() -> None:
    """Take the sanitized module as oaks._native, if the environment names one. Before anything of oaks is imported."""
    if (path := os.environ.get("OAKS_FUZZ_MODULE")) is None:
        return
    spec = importlib.util.spec_from_file_location("oaks._native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["oaks._native"] = module
    spec.loader.exec_module(module)


def main() -> int:
    variables = environment(build())
    if variables is None:
        print("the compiler has no AddressSanitizer library", file=sys.stderr)
        return 2
    return subprocess.run(
        [sys.executable, "-m", "fuzz.run", *sys.argv[1:], "operations"], env=variables
    ).returncode


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main())
