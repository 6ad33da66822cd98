"""The code blocks of the documentation, and the folder in which they run.

A block is a fence with a language. Blocks in `python` and `sh` run in the order of their page, in one folder and, for
Python, one namespace. A comment on the line above changes that, and must say why:

    <!-- not run: needs a camera -->
    <!-- slow: trains a network -->      runs only with the marker slow, where the whole page does

`pip install` is never run; its extras must exist. A block that is not run is checked: its Python compiles and imports only
names that exist, and its `oaks` commands have only options and arguments that the command line takes.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from test_detector import write, yolox
from video.clips import write_clip

import oaks
from oaks.cli.main import app, main
from oaks.predict import DEMO

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda path: path.relative_to(ROOT).as_posix()
)
RUN = ("python", "sh")
SHOWN = ("text", "json", "jsonc", "yaml")
FENCE = re.compile(r"^```(\w*)[ \t]*$")
COMMENT = re.compile(r"^<!-- (not run|slow): (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fence of a page.

    Attributes:
        page: its name in the repository.
        line: of the first line within the fence, from 1.
        language: what stands after the fence's marks.
        text: the lines within.
        section: the last heading of the second level above it.
        mode: "run", "slow" or "not run".
        reason: why, where it is not "run".
    """

    page: str
    line: int
    language: str
    text: str
    section: str = ""
    mode: str = "run"
    reason: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """The fences of a page, in order."""
    found, lines = [], path.read_text(encoding="utf-8").splitlines()
    start, language, comment, section = 0, None, None, ""
    for number, line in enumerate(lines, start=1):
        if language is None and line.startswith("## "):
            section = line
        fence = FENCE.match(line.strip())
        if fence and language is None:
            start, language = number + 1, fence[1]
            comment = COMMENT.match(lines[number - 2].strip()) if number > 1 else None
        elif fence:
            mode, reason = comment.groups() if comment else ("run", "")
            text = "\n".join(lines[start - 1 : number - 1]) + "\n"
            page = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
            found.append(Block(page, start, language, text, section, mode, reason))
            language = None
    assert language is None, f"{path}: the fence at line {start - 1} has no end"
    return found


def furnish(folder: Path) -> None:
    """Fill a folder with what the pages speak of: pictures, boxes, a video, a detector, bundles.

    The bundle `small` is a copy of the shipped `tiny`, which is quicker and has the same outputs; the detector finds
    one person in the middle of every picture. `photo.jpg` shows one person.
    """
    pictures = folder / "pictures"
    shutil.copytree(DEMO, pictures)
    shutil.move(pictures / "people.json", folder / "people.json")
    cv2.imwrite(str(folder / "photo.jpg"), cv2.imread(str(pictures / "people_5.jpg"))[110:, 190:410])
    shutil.copytree(oaks.Bundle.load("tiny").path, folder / "small")
    write_clip(folder / "street.mp4", 6)
    person = (32, 0, 0, (32.0, 32.0, 40.0, 60.0), 0.9, 1.0)
    write(folder / "yolox.onnx", yolox([person]))


def given() -> dict[str, Any]:
    """What a reader has at hand where a page does not say where it comes from, anew in every section of a page."""
    rng = np.random.default_rng(0)
    frame = cv2.imread("photo.jpg")
    boxes = np.float32([[104, 62, 300, 470], [10, 20, 200, 460]])
    maps = (2, oaks.COCO17.count, 96, 72)
    return {
        "__name__": "__page__",
        "frame": frame,
        "frames": [frame, frame],
        "boxes": boxes,
        "all_boxes": [boxes, boxes[:1]],
        "detector": oaks.Detector("yolox.onnx"),
        "mean": (123.7, 116.3, 103.5),
        "std": (58.4, 57.1, 57.4),
        "heatmaps": rng.random(maps, np.float32),
        "mirrored": rng.random(maps, np.float32),
        "pairs": oaks.COCO17.pairs,
        "similarity": rng.random(maps[:2], np.float32),
        "visibility": rng.random(maps[:2], np.float32),
        "areas": np.float32([80000, 83600]),
    }


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block with the line numbers of its page."""
    code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
    exec(code, namespace)


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a shell block: each line, and its words without what leads from one command to the next."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield line, words[:end]
            words = words[end + 1 :]


def run_shell(block: Block) -> None:
    """Run the commands of a block in this process: `oaks` alone is known, and the extras of `pip install` are looked up."""
    for line, words in commands_of(block):
        if words[:2] == ["pip", "install"]:
            check_installation(block, words[2:])
            continue
        if words[0] != "oaks":
            raise AssertionError(
                f"{block.place}: only `oaks` can be run, got `{line}`; say why it is not run"
            )
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert not ended.value.code, f"{block.place}: `{line}` ended with exit code {ended.value.code}"


def check_installation(block: Block, requirements: list[str]) -> None:
    """Look up the extras of this package that a `pip install` names."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = set(re.findall(r"^([\w-]+) = \[", text.split("[project.optional-dependencies]")[1], re.M))
    for named in re.findall(r"^(?:oaks|\.)\[([^\]]+)\]", "\n".join(requirements), re.M):
        unknown = {name.strip() for name in named.split(",")} - extras
        assert not unknown, f"{block.place}: no extra is called {', '.join(sorted(unknown))}"


def check_block(block: Block) -> None:
    """Check a block without running it."""
    if block.language == "python":
        check_python(block)
        return
    for _, words in commands_of(block):
        if words[:2] == ["pip", "install"]:
            check_installation(block, words[2:])
        elif words[0] == "oaks":
            check_command(block, words[1:])


def check_python(block: Block) -> None:
    """Compile a block, and look up the names that it imports from this package."""
    for node in ast.walk(ast.parse(textwrap.dedent(block.text), block.page)):
        if isinstance(node, ast.Import):
            imported = [(name.name, None) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [(str(node.module), name.name) for name in node.names]
        else:
            continue
        for module, name in imported:
            if module.split(".")[0] == "oaks":
                found = importlib.import_module(module)
                assert name is None or hasattr(found, name), f"{block.place}: {module} has no {name}"


def check_command(block: Block, words: list[str]) -> None:
    """Parse the words after `oaks` as the command line does."""
    command, context, path = typer.main.get_command(app), None, "oaks"
    try:
        while True:
            context = command.make_context(path, list(words), parent=context)
            if not hasattr(command, "resolve_command"):
                return
            left = [*context._protected_args, *context.args]
            name, command, words = command.resolve_command(context, left)
            path = f"{path} {name}"
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise AssertionError(f"{block.place}: `oaks {' '.join(words)}`: {error.format_message()}") from error


def run_page(path: Path, folder: Path, *, slow: bool) -> int:
    """Run a page's blocks in a folder; returns how many were run."""
    count, before = 0, Path.cwd()
    os.chdir(folder)
    namespace, section = given(), ""
    try:
        for block in blocks_of(path):
            if block.language not in RUN or block.mode == "not run" or (block.mode == "slow" and not slow):
                continue
            if block.section != section:
                namespace, section = {**namespace, **given()}, block.section
            if block.language == "python":
                run_python(block, namespace)
            else:
                run_shell(block)
            count += 1
    finally:
        os.chdir(before)
        for value in namespace.values():
            if isinstance(value, oaks.Engine):
                value.close()
    return count


__all__ = ["PAGES", "ROOT", "RUN", "SHOWN", "Block", "blocks_of", "check_block", "furnish", "run_page"]
