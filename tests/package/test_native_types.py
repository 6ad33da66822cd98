"""oaks/_native.pyi says what the native module holds, parameter by parameter."""

from __future__ import annotations

import ast
import re

import pytest

from oaks import _native

from .tree import ROOT

STUB = ast.parse((ROOT / "oaks" / "_native.pyi").read_text("utf-8"))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
KINDS = {"int": "SupportsInt", "float": "SupportsFloat", "bool": "bool", "str": "str", "Sequence": "Sequence"}
"""How pybind11's signatures write a type of the stub."""


def methods(name: str) -> dict[str, ast.FunctionDef]:
    """The functions of a submodule in the stub, those of its base class included."""
    bases = [base.id for base in CLASSES[name].bases if isinstance(base, ast.Name)]
    found = {key: value for base in bases if base in CLASSES for key, value in methods(base).items()}
    own = {node.name: node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    return {**found, **own}


def parameters(function: object) -> list[str]:
    """The types of a native function's parameters, as its docstring lists them."""
    (inside,) = re.findall(r"^\w+\((.*)\) -> ", function.__doc__ or "", re.MULTILINE)
    return re.split(r"(?:^|, )arg\d+: ", inside)[1:]


SUBMODULES = [name for name in ("cpu", "cuda") if hasattr(_native, name)]


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_submodule_holds_what_the_stub_lists(name):
    module = getattr(_native, name)
    functions = {key for key in vars(module) if not key.startswith("__") and key != "Graph"}
    assert functions == set(methods(f"_{name.capitalize()}"))


@pytest.mark.parametrize("name", SUBMODULES)
def test_parameters_are_those_of_the_stub(name):
    seen = 0
    for key, stated in methods(f"_{name.capitalize()}").items():
        native, listed = parameters(getattr(getattr(_native, name), key)), stated.args.posonlyargs[1:]
        assert len(native) == len(listed), key
        for actual, parameter in zip(native, listed, strict=True):
            kind = ast.unparse(parameter.annotation).partition("[")[0]
            assert KINDS[kind] in actual.partition("[")[0] + actual, (key, parameter.arg, actual)
            assert (kind == "Sequence") == ("Sequence[" in actual), (key, parameter.arg)
            seen += 1
    assert seen > 90


def test_the_values_are_those_of_the_stub():
    stated = {
        node.target.id: ast.unparse(node.annotation) for node in STUB.body if isinstance(node, ast.AnnAssign)
    }
    for key in ("version", "max_keypoints", "max_tree_leaves", "max_blur_sigma"):
        assert type(getattr(_native, key)).__name__ == stated.pop(key)
    assert set(stated) == {"cpu", "cuda", "cuda_version", "cuda_architectures"}
    assert {key for key in vars(_native) if not key.startswith("__")} <= set(stated) | {
        "version", "max_keypoints", "max_tree_leaves", "max_blur_sigma",
    }  # fmt: skip
