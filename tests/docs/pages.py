"""The code blocks of the documentation, and the folder in which they run.

A block is a fence with a language. Blocks in `python` and `sh` run in the order of their page, in one folder and, for
Python, one namespace. A comment on the line above changes that, and must say why:

    <!-- not run: needs a camera -->
    <!-- slow: trains a network -->      runs only with the marker slow, where the whole page does
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_detector import write, yolox
from video.clips import write_clip

import oaks
from oaks.cli.main import main
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


def run_shell(block: Block) -> None:
    """Run the commands of a block, one a line, in this process: `oaks` alone is known."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] != "oaks":
            raise AssertionError(
                f"{block.place}: only `oaks` can be run, got `{line}`; say why it is not run"
            )
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert not ended.value.code, f"{block.place}: `{line}` ended with exit code {ended.value.code}"


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


__all__ = ["PAGES", "ROOT", "RUN", "SHOWN", "Block", "blocks_of", "furnish", "run_page"]
