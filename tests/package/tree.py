"""The package's source tree as the tests of this folder read it."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"oaks": ROOT / "oaks", "oaks.engines": ROOT / "engines", "oaks.training": ROOT / "training"}


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported`, when it is loaded itself or (`late`) when a function runs."""

    importer: str
    imported: str
    late: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports() -> list[Import]:
    """Every import statement in the package, except those for type checkers alone."""
    known = modules()
    return [found for name, path in known.items() for found in _imports_of(name, path, known)]


def loaded_with(name: str, statements: list[Import], *, packages: bool = True) -> set[str]:
    """What is loaded along with a module: all that it imports outside functions, and so on.

    `packages`: also the packages that the modules lie in, which Python loads before them.
    """
    direct: dict[str, set[str]] = {}
    for statement in statements:
        if not statement.late:
            direct.setdefault(statement.importer, set()).add(statement.imported)
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        parents = {current.rpartition(".")[0]} - {""} if packages else set()
        for found in (direct.get(current, set()) | parents) - seen:
            seen.add(found)
            waiting.append(found)
    return seen


def _imports_of(name: str, path: Path, known: dict[str, Path]) -> list[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []

    def visit(node: ast.AST, late: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(Import(name, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                module = f"{base}.{alias.name}"
                native = module == "oaks._native"
                found.append(Import(name, module if native or module in known else base, late))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, late or inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found
