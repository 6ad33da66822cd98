"""Checks of commands and Python in the documentation that run neither.

A block is checked whole: its Python compiles, the names and keywords that it takes from this package exist, and its commands
have only verbs, options and arguments that the command line takes. Text in backquotes may be a part of a command: what it
has must exist, what it lacks may be missing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from oaks.cli.main import app

if TYPE_CHECKING:
    from .pages import Block

ROOT = Path(__file__).parents[2]
INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
ASSIGNED = re.compile(r"^[A-Z][A-Z_]*=")
OTHER_TOOLS = {"--max-restarts", "--dist", "--build-arg"}
"""Options in the text that belong to torchrun, pytest and docker."""


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a shell text: each line, and its words without what leads from one command to the next."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield line, words[:end]
            words = words[end + 1 :]


def check_block(block: Block) -> None:
    """Check a block without running it."""
    if block.language == "python":
        check_python(block.place, block.text)
    else:
        for _, words in commands_of(block.text):
            check_words(block.place, words)


def inline_code(text: str) -> Iterator[tuple[int, str]]:
    """What stands in backquotes outside of blocks: the number of its line, and itself."""
    without = re.sub(r"^```.*?^```", lambda match: "\n" * match[0].count("\n"), text, flags=re.M | re.S)
    for match in INLINE.finditer(without):
        yield without.count("\n", 0, match.start()) + 1, " ".join(match[1].split())


def commands_of_example(path: Path) -> Iterator[tuple[int, str]]:
    """The commands in an example: indented lines of its docstring, and text in backquotes, also in a notebook's cells."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    else:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    yield from inline_code(text)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith(("python ", "pip ", "oaks ")):
            yield number, re.split(r"\s{3,}|\s+#", line.strip())[0]


def check_inline(place: str, code: str) -> bool:
    """Check a command or an option in backquotes; returns whether it is one."""
    first = code.split()[0] if code.split() else ""
    if first.startswith("--") and len(first) > 2:
        known = {*all_options(), *OTHER_TOOLS}
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in known, f"{place}: no command has the option {option} of `{code}`"
        return True
    words = shlex.split(code) if first in ("oaks", "make", "python", "pip") or ASSIGNED.match(first) else []
    check_words(place, words, partly=True)
    return bool(words)


def check_words(place: str, words: list[str], *, partly: bool = False) -> None:
    """Check the words of one command; commands of other programs pass.

    Args:
        place: page and line, for messages.
        words: the command, perhaps with settings of environment variables before it.
        partly: what it lacks may be missing.
    """
    while words and ASSIGNED.match(words[0]):
        check_variable(place, words[0].partition("=")[0])
        words = words[1:]
    if not words:
        return
    if "oaks" in words and words[words.index("oaks") - 1] == "-m":
        check_command(place, words[words.index("oaks") + 1 :], partly=partly)
    elif words[0] == "oaks":
        check_command(place, words[1:], partly=partly)
    elif words[:2] == ["pip", "install"]:
        check_installation(place, words[2:])
    elif words[0] == "make":
        check_targets(place, words[1:])
    elif words[0] == "python" and len(words) > 1:
        check_script(place, words[1:])


def check_variable(place: str, name: str) -> None:
    """Look up an environment variable of this package."""
    if name.startswith("OAKS_LIMIT_"):
        from oaks.limits import Limits

        assert hasattr(Limits(), name.removeprefix("OAKS_LIMIT_").lower()), (
            f"{place}: no limit is set by {name}"
        )
    elif name.startswith("OAKS_"):
        assert name in sources(), f"{place}: nothing reads {name}"


@cache
def sources() -> str:
    """The text of the files that read environment variables of the build and of the package."""
    paths = [ROOT / "setup.py", ROOT / "CMakeLists.txt", ROOT / "tests" / "conftest.py"]
    paths += [path for folder in ("oaks", "engines", "training") for path in (ROOT / folder).rglob("*.py")]
    return "\n".join(path.read_text("utf-8") for path in paths)


def check_installation(place: str, requirements: list[str]) -> None:
    """Look up the extras of this package that a `pip install` names."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = set(re.findall(r"^([\w-]+) = \[", text.split("[project.optional-dependencies]")[1], re.M))
    for named in re.findall(r"^(?:oaks|\.)\[([^\]]+)\]", "\n".join(requirements), re.M):
        unknown = {name.strip() for name in named.split(",")} - extras
        assert not unknown, f"{place}: no extra is called {', '.join(sorted(unknown))}"


def check_targets(place: str, words: list[str]) -> None:
    """Look up the targets and variables of a `make`."""
    text = (ROOT / "Makefile").read_text("utf-8")
    for word in words:
        if "=" in word:
            name = word.partition("=")[0]
            assert re.search(rf"\$\({name}\)", text), f"{place}: the Makefile has no variable {name}"
        else:
            assert re.search(rf"^{re.escape(word)}:", text, re.M), f"{place}: make has no target {word}"


def check_script(place: str, words: list[str]) -> None:
    """Look up a script or module of this repository, and its options in its text and in that of what it imports."""
    if words[0] == "-m":
        name = words[1].split(".")
        if name[0] != "oaks":
            return
        path = ROOT.joinpath(*(name[1:] if name[1:2] in (["training"], ["engines"]) else name)).with_suffix(
            ".py"
        )
    elif words[0].endswith(".py"):
        path = ROOT / words[0]
    else:
        return
    assert path.is_file(), f"{place}: there is no {path.relative_to(ROOT).as_posix()}"
    text = path.read_text("utf-8")
    for word in words[1:]:
        name = word.partition("=")[0]
        if name.startswith("--"):
            typed = re.search(
                rf"\b{name[2:].replace('-', '_')}\b", text
            )  # an option that a type has a field for
            assert f'"{name}"' in text or typed, f"{place}: {path.name} has no option {name}"


def check_command(place: str, words: list[str], *, partly: bool = False) -> None:
    """Parse the words after `oaks` as the command line does, and read the recipe of `oaks train`."""
    command: Any = typer.main.get_command(app)
    context, path, given = None, "oaks", words
    if "--help" in words:
        words, partly = [word for word in words if word != "--help"], True
    try:
        while True:
            if partly and not words and hasattr(command, "commands"):
                return
            context = command.make_context(path, list(words), parent=context)
            if not hasattr(command, "resolve_command"):
                break
            left = [*context._protected_args, *context.args]
            name, command, words = command.resolve_command(context, left)
            path = f"{path} {name}"
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        lacks = message.startswith("Missing ") or "requires an argument" in message
        placeholder = message.startswith("Invalid value") and any(word.isupper() for word in given)
        if partly and (lacks or placeholder):
            return
        raise AssertionError(f"{place}: `oaks {' '.join(given)}`: {message}") from error
    recipe = context.params.get("recipe")
    if path in ("oaks train", "oaks pack") and recipe and recipe.islower():
        from oaks.training.recipe import read_recipe

        read_recipe(recipe, context.params["change"])


@cache
def all_options() -> frozenset[str]:
    """The options of every verb, and of the scripts in benchmarks/ and examples/."""
    found: set[str] = set()
    waiting: list[Any] = [typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    for folder in ("benchmarks", "examples"):
        for path in (ROOT / folder).glob("*.py"):
            found |= set(re.findall(r'"(--[a-z][\w-]*)"', path.read_text("utf-8")))
    return frozenset(found | {"--help"})


def check_python(place: str, text: str) -> None:
    """Compile Python, and look up the names and keywords that it takes from this package."""
    tree = ast.parse(textwrap.dedent(text), place)
    known: dict[str, Any] = {"oaks": importlib.import_module("oaks")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "oaks":
                    importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "oaks":
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{place}: {node.module} has no {name.name}"
                known[name.asname or name.name] = getattr(module, name.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            resolve(place, node, known)
        if isinstance(node, ast.Call):
            check_call(place, node, known)


def resolve(place: str, node: ast.expr, known: dict[str, Any]) -> Any:
    """What a dotted name of this package leads to; None for anything else."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolve(place, node.value, known)
    if not inspect.ismodule(owner) or owner.__name__.split(".")[0] != "oaks":
        return None
    if not hasattr(owner, node.attr):
        try:
            return importlib.import_module(f"{owner.__name__}.{node.attr}")
        except ModuleNotFoundError as error:
            raise AssertionError(f"{place}: {owner.__name__} has no {node.attr}") from error
    return getattr(owner, node.attr)


def check_call(place: str, node: ast.Call, known: dict[str, Any]) -> None:
    """Bind the arguments of a call to the signature of what is called."""
    called = resolve(place, node.func, known)
    if called is None or any(isinstance(argument, ast.Starred) for argument in node.args):
        return
    if any(keyword.arg is None for keyword in node.keywords):
        return
    try:
        inspect.signature(called).bind(*node.args, **{str(keyword.arg): keyword for keyword in node.keywords})
    except TypeError as error:
        raise AssertionError(f"{place}: {ast.unparse(node.func)}: {error}") from error
