"""Import layers: cli, video, val -> inference -> executors, ops, bundle -> skeleton."""

from __future__ import annotations

import re

import pytest

from .tree import ROOT, Import, imports, loaded_with, modules

HEIGHT = {
    "oaks.skeleton": 0,
    "oaks.ops": 1,
    "oaks.bundle": 1,
    "oaks.executors": 1,
    "oaks.inference": 2,
    "oaks.cli": 3,
    "oaks.ray": 3,
    "oaks.video": 3,
    "oaks.val": 3,
    "oaks.engines": 4,
    "oaks.training": 4,
}
"""A module knows those below it and beside it; what is not listed is bound by whom it is loaded with."""

UPWARDS = {
    ("oaks.cli", "oaks.engines"),
    ("oaks.cli", "oaks.training"),
    ("oaks.executors.onnxruntime", "oaks.engines.plans.cache"),
    ("oaks.executors.tensorrt", "oaks.engines"),
    ("oaks.executors.torch", "oaks.training.checkpoint"),
    ("oaks.executors.torch", "oaks.training.networks"),
}
"""Imports from further up that are allowed inside a function."""


NETWORKS = ("oaks.training.networks", "oaks.training.checkpoint", "oaks.training.render")
"""What an export may know of training: how networks are built and read, and people to compare them on."""


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def height(module: str) -> int | None:
    return next((level for package, level in HEIGHT.items() if inside(module, package)), None)


@pytest.fixture(scope="module")
def statements() -> list[Import]:
    return imports()


def test_the_tree_is_read_as_it_is(statements):
    """Were a folder renamed or an import overlooked, the tests below would pass on nothing."""
    assert set(HEIGHT) <= set(modules())
    assert Import("oaks.bundle", "oaks.skeleton", False) in statements
    assert Import("oaks.ops.native", "oaks._native", False) in statements
    assert Import("oaks.training.checkpoint", "torch", False) in statements
    assert "oaks.skeleton" in loaded_with("oaks.bundle", statements)


@pytest.mark.parametrize("module", [name for name in modules() if height(name) is not None])
def test_nothing_from_further_up_is_loaded(module, statements):
    loaded = loaded_with(module, statements)
    higher = {name for name in loaded if (height(name) or 0) > height(module)}
    assert not higher, f"{module} loads {sorted(higher)}, which stand above it"


def test_functions_reach_upwards_only_where_it_is_needed(statements):
    strays = [
        statement
        for statement in statements
        if None not in (height(statement.importer), height(statement.imported))
        and height(statement.imported) > height(statement.importer)
        and not any(inside(statement.importer, a) and inside(statement.imported, b) for a, b in UPWARDS)
    ]
    assert not strays


def test_nobody_imports_in_a_circle(statements):
    circles = [name for name in modules() if name in loaded_with(name, statements, packages=False)]
    assert not circles


def test_the_native_module_is_known_to_ops_alone(statements):
    allowed = ("oaks.ops", "oaks.doctor")
    strays = {s.importer for s in statements if s.imported == "oaks._native"}
    assert not {name for name in strays if not any(inside(name, package) for package in allowed)}


def test_ops_knows_the_native_module_errors_and_arguments_alone(statements):
    known = {s.imported for s in statements if inside(s.importer, "oaks.ops") and inside(s.imported, "oaks")}
    assert {name for name in known if not inside(name, "oaks.ops")} <= {
        "oaks._native",
        "oaks.arguments",
        "oaks.errors",
    }


def test_engines_and_training_meet_only_in_the_export_of_networks(statements):
    for statement in statements:
        if inside(statement.importer, "oaks.training"):
            assert not inside(statement.imported, "oaks.engines"), statement
        if inside(statement.importer, "oaks.engines") and inside(statement.imported, "oaks.training"):
            assert statement.importer == "oaks.engines.export.export", statement
            assert any(inside(statement.imported, part) for part in NETWORKS), statement


def test_rendered_people_need_no_torch(statements):
    """Neither at the top of a file nor in a function."""
    for module in modules():
        if inside(module, "oaks.training.render"):
            assert not {n for n in loaded_with(module, statements) if inside(n, "torch")}, module
            late = {s.imported for s in statements if s.importer == module and inside(s.imported, "torch")}
            assert not late, module


INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(folder: str) -> list[tuple[str, str, str]]:
    """(file, < or ", what it includes) for every source file of a folder of csrc."""
    files = [path for path in (ROOT / "csrc" / folder).iterdir() if path.is_file()]
    assert files
    return [(path.name, *found) for path in files for found in INCLUDE.findall(path.read_text("utf-8"))]


def test_the_core_includes_itself_and_the_standard_library():
    """No Python, no torch, no CUDA: host and device compilers both read it."""
    for file, kind, name in includes("core"):
        if kind == "<":
            assert re.fullmatch(r"[a-z_]+", name), f"core/{file} includes <{name}>"
        else:
            assert name.startswith("core/"), f'core/{file} includes "{name}"'


@pytest.mark.parametrize("folder", ["cpu", "cuda"])
def test_the_loops_know_neither_python_nor_torch(folder):
    foreign = re.compile(r"python|pybind|numpy|torch|aten|c10", re.IGNORECASE)
    for file, _, name in includes(folder):
        assert not foreign.search(name), f"{folder}/{file} includes {name}"
        assert not name.startswith("bindings/"), f"{folder}/{file} includes {name}"
        assert folder == "cuda" or "cuda" not in name, f"{folder}/{file} includes {name}"


def test_every_operation_has_a_file_of_its_name_per_device():
    for operation in (
        "crop",
        "decode",
        "score",
        "oks",
        "nms",
        "decode_simcc",
        "map_features",
        "forest",
        "opinion_features",
    ):
        assert (ROOT / "csrc" / "cpu" / f"{operation}.cpp").is_file()
        assert (ROOT / "csrc" / "cuda" / f"{operation}.cu").is_file()


def test_every_operation_releases_the_interpreter():
    """Other Python threads run on while an operation does."""
    text = (ROOT / "csrc" / "bindings" / "operations.h").read_text("utf-8")
    bodies = re.split(r"\bm\.def\(", text)[1:]
    names = [body.split('"')[1] for body in bodies]
    assert names == [
        "crop",
        "decode",
        "decode_simcc",
        "map_features",
        "forest",
        "opinion_features",
        "score",
        "oks",
        "oks_nms",
        "box_nms",
    ]
    assert all("gil_scoped_release" in body for body in bodies)
