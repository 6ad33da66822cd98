"""Modules that importing the package loads, in a new process outside the tree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import oaks
from oaks import _native

from .tree import ROOT, modules

HEAVY = {
    *(
        "torch",
        "lightning",
        "tensorrt",
        "pycuda",
        "onnx",
        "onnxruntime",
        "openvino",
        "cv2",
        "scipy",
        "matplotlib",
    ),
    *("av", "PIL", "pycocotools", "pydantic", "supervision", "typer", "rich", "jinja2"),
}

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import importlib
for name in {names}: importlib.import_module(name)
"""
"""Imports modules in a process in which others are not installed."""


def loaded_by(program: str, folder) -> set[str]:
    """The top-level modules that are loaded after a program has run in a new process."""
    code = f"{program}\nimport json, sys\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("program", ["import oaks", "import oaks.ops", "from oaks import Skeleton, ops"])
def test_importing_oaks_loads_numpy_and_nothing_else_heavy(program, tmp_path):
    loaded = loaded_by(program, tmp_path)
    assert {"oaks", "numpy"} <= loaded
    assert not loaded & HEAVY


def names(*packages: str) -> list[str]:
    inside = [n for n in modules() if any(n == p or n.startswith(p + ".") for p in packages)]
    return sorted(name for name in inside if not name.endswith("__main__"))


def test_the_runtime_needs_neither_torch_nor_cuda_nor_tensorrt(tmp_path):
    """Every module outside engines and training is imported while these cannot be."""
    runtime = [name for name in names("oaks") if name not in names("oaks.engines", "oaks.training")]
    assert len(runtime) > 10
    absent = ["torch", "lightning", "tensorrt", "pycuda"]
    assert not set(absent) & loaded_by(WITHOUT.format(absent=absent, names=runtime), tmp_path)


def test_rendering_people_needs_no_torch(tmp_path):
    render = names("oaks.training.render")
    assert len(render) > 1
    loaded_by(WITHOUT.format(absent=["torch", "lightning"], names=render), tmp_path)


def test_every_module_is_installed_from_its_folder(tmp_path):
    """engines/ and training/ are oaks.engines and oaks.training, here as in any other folder."""
    program = "import importlib.util\nfor name in {}: assert importlib.util.find_spec(name), name"
    loaded_by(program.format(names("oaks")), tmp_path)


def test_the_version_is_the_same_everywhere():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert oaks.__version__ == version("oaks") == _native.version == declared[1]


def test_what_the_package_says_it_has_is_there():
    assert set(oaks.__all__) <= set(dir(oaks))
    for name in oaks.__all__:
        assert getattr(oaks, name) is not None
    with pytest.raises(AttributeError, match="engine"):
        oaks.engine  # noqa: B018


def test_every_error_of_the_package_has_one_base():
    """Callers that catch ValueError or RuntimeError catch them too."""
    assert issubclass(oaks.ArgumentError, ValueError)
    assert issubclass(oaks.BackendUnavailable, RuntimeError)
    assert issubclass(oaks.BundleError, RuntimeError)
    own = [
        defined
        for path in modules().values()
        for defined in re.findall(r"^class (\w+)\((.*)\):", path.read_text("utf-8"), re.MULTILINE)
    ]
    bases = {
        name: listed for name, listed in own if re.search(r"Error|Exception|Warning|Unavailable", listed)
    }
    assert {"OaksError", "ArgumentError", "BundleError", "ExportError"} <= set(bases)
    outside = {name for name, listed in bases.items() if not set(listed.split(", ")) & set(bases)}
    assert outside == {"OaksError"}


def test_wrong_arguments_raise_the_package_s_own_error():
    """A plain ValueError would not be caught by who catches OaksError."""
    plain = {
        name for name, path in modules().items() if re.search(r"raise ValueError\b", path.read_text("utf-8"))
    }
    assert not plain
