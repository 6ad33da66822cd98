"""The code blocks of the documentation, and the folder in which they run.

A block is a fence with a language. Blocks in `python` and `sh` run in the order of their page, in one folder and, for
Python, one namespace. A comment on the line above changes that, and must say why:

    <!-- not run: needs several machines -->
    <!-- slow: fits a scorer -->     runs only with the marker slow, where the whole page does
    <!-- ray: starts Ray -->         runs only with the marker ray

What the machine lacks stands in (`stand_ins`): a camera, a display, a GPU with TensorRT, the service that `curl` asks.
Trainings and exports get the further words of `SMALLER`. `pip install` is never run; its extras must exist. `static` checks
the blocks that are not run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable
from contextlib import ExitStack
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

from .stand_ins import ask_service, camera_and_display, gpu_with_tensorrt, interrupted_when_serving
from .static import check_installation, commands_of

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda path: path.relative_to(ROOT).as_posix()
)
RUN = ("python", "sh")
SHOWN = ("text", "json", "jsonc", "yaml")
FENCE = re.compile(r"^```(\w*)[ \t]*$")
COMMENT = re.compile(r"^<!-- (not run|slow|ray): (.+) -->$")
NARROW = (
    "--accelerator cpu --set network.width=0.0625 --set initial=null --set training.epochs=0.5 --set training.batch=2 "
    "--set training.workers=0"
)
SMALLER = {
    "oaks export runs/paper_oa_hpe/network.safetensors": "--tolerance fp16=1",
    "oaks export": "--tolerance int8=1",
    "oaks finetune": "--epochs 1",
    "oaks train rendered_oa_hpe": "--set data.train.0.count=8 --set data.validation.0.count=4 --set training.epochs=1 "
    "--set training.batch=4 --set training.workers=0",
    "oaks train paper_oa_hpe": f"{NARROW} --set network.head_channels=16 --set network.visibility_channels=8",
    "oaks train paper_hpe": f"{NARROW} --set network.head_channels=16",
    "oaks train paper_ks_net": NARROW.replace(" --set initial=null", ""),
}
"""Further words of commands that would train for hours or export from better networks, by the words they start with."""


@dataclass(frozen=True)
class Block:
    """A fence of a page.

    Attributes:
        page: its name in the repository.
        line: of the first line within the fence, from 1.
        language: what stands after the fence's marks.
        text: the lines within.
        section: the last heading of the second level above it.
        mode: "run", "slow", "ray" or "not run".
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
    """Fill a folder with what the pages speak of: pictures, boxes, videos, a detector, bundles.

    The bundles `small` and `my-bundle` are copies of the shipped `tiny`, which is quicker and has the same outputs; the
    detector finds one person in the middle of every picture. `photo.jpg` shows one person. `street` is what
    `oaks render-video` writes, with fewer frames.
    """
    pictures = folder / "pictures"
    shutil.copytree(DEMO, pictures)
    shutil.move(pictures / "people.json", folder / "people.json")
    cv2.imwrite(str(folder / "photo.jpg"), cv2.imread(str(pictures / "people_5.jpg"))[110:, 190:410])
    for name in ("small", "my-bundle"):
        shutil.copytree(oaks.Bundle.load("tiny").path, folder / name)
    write_clip(folder / "street.mp4", 6)
    person = (32, 0, 0, (32.0, 32.0, 40.0, 60.0), 0.9, 1.0)
    write(folder / "yolox.onnx", yolox([person]))
    furnish_clip(folder / "street" / "000001")


def furnish_clip(folder: Path) -> None:
    """A clip of four frames with one person, whose box is annotated."""
    (folder / "img1").mkdir(parents=True)
    images, people = [], []
    for number in range(1, 5):
        name = f"{number:06}.jpg"
        cv2.imwrite(str(folder / "img1" / name), np.full((120, 160, 3), 20 * number, np.uint8))
        images.append({"id": number, "file_name": name, "width": 160, "height": 120})
        people.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": [30, 10, 50, 100], "track_id": 1}
        )
    content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    (folder / "annotations.json").write_text(json.dumps(content))


def furnish_calibration(folder: Path) -> None:
    """An estimator's results, a network with heatmaps, and about a hundred annotated people in images of noise."""
    import bundles
    from fit import frozen

    results, annotations = frozen.write(folder / "estimator", images=40)
    rows, content = json.loads(results.read_text()), json.loads(annotations.read_text())
    boxes = {person["id"]: person["bbox"] for person in content["annotations"]}
    rows = [{**row, "bbox": boxes[row["annotation_id"]]} for row in rows]
    for name in ("results.json", "other_results.json"):
        (folder / name).write_text(json.dumps(rows))
    shutil.move(annotations, folder / "annotations.json")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for image in content["images"]:
        noise = rng.integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(
            str(folder / "images" / image["file_name"]), cv2.resize(noise, (image["width"], image["height"]))
        )
    (folder / "hrnet_w32.onnx").write_bytes(bundles.pose_network(17, (192, 256), visibility=False))


def furnish_labels(folder: Path) -> None:
    """Labels of a few rendered people, whose pictures join the others and stand for new ones too, and crops of people."""
    shutil.copytree(folder / "pictures", folder / "pictures-of-people")
    with pytest.raises(SystemExit):
        main(["render", str(folder / "rendered"), "--count", "24", "--seed", "5", "--quiet"])
    for picture in (folder / "rendered" / "images").iterdir():
        shutil.move(picture, folder / "pictures")
    shutil.move(folder / "rendered" / "annotations.json", folder / "my.json")
    (folder / "new.json").write_bytes((folder / "my.json").read_bytes())
    (folder / "new-pictures").symlink_to("pictures")


def furnish_checkpoint(folder: Path) -> None:
    """The shipped network as `oaks train` leaves one, and crops of people."""
    from oaks.training.checkpoint import load_from_bundle, save_network

    save_network(
        folder / "network.safetensors", *load_from_bundle(oaks.Bundle.load("tiny").torch_network("pose"))
    )
    shutil.copytree(folder / "pictures", folder / "pictures-of-people")


def furnish_coco(folder: Path) -> None:
    """A folder laid out as COCO 2017, with a dozen people to train on and a few to validate on."""
    from training.conftest import write_people

    (folder / "coco" / "annotations").mkdir(parents=True)
    for seed, (part, images) in enumerate((("train2017", 6), ("val2017", 2))):
        write_people(folder / part, images=images, seed=seed)
        (folder / part / "images").rename(folder / "coco" / part)
        (folder / part / "annotations.json").rename(
            folder / "coco" / "annotations" / f"person_keypoints_{part}.json"
        )


def furnish_for_ray(folder: Path) -> None:
    """Photos and clips, and photos with boxes in a table."""
    import pyarrow
    import pyarrow.parquet

    (folder / "photos").mkdir()
    (folder / "clips").mkdir()
    shutil.copy(folder / "photo.jpg", folder / "photos")
    shutil.copy(folder / "street.mp4", folder / "clips")
    rows = [{"id": 7, "bytes": (folder / "photo.jpg").read_bytes(), "boxes": [[10.0, 20.0, 200.0, 460.0]]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "photos.parquet")


SLOW_FURNITURE = {
    "docs/calibrate.md": furnish_calibration,
    "docs/deploy.md": furnish_checkpoint,
    "docs/finetune.md": furnish_labels,
    "docs/training.md": furnish_coco,
}
"""What a page needs besides where its slow blocks run too."""


def given() -> dict[str, Any]:
    """What a reader has at hand where a page does not say where it comes from, anew in every section of a page."""
    rng = np.random.default_rng(0)
    frame = cv2.imread("photo.jpg")
    boxes = np.float32([[104, 62, 300, 470], [10, 20, 200, 460]])
    maps = (2, oaks.COCO17.count, 96, 72)
    return {
        "__name__": "__page__",
        "settings": {
            "recipe": "paper_oa_hpe",
            "change": SMALLER["oaks train paper_oa_hpe"].split()[3::2],
            "data": os.path.abspath("coco"),
            "out": os.path.abspath("on_ray"),
            "accelerator": "cpu",
            "workers": 2,
            "hosts": 1,
        },
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
        "keypoints": rng.uniform(10, 200, (*maps[:2], 2)).astype(np.float32),
        "scores": rng.random(maps[:2], np.float32),
    }


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block with the line numbers of its page; one for TensorRT on a stand-in, which its Engines do not outlive."""
    code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
    if '"tensorrt"' not in block.text:
        exec(code, namespace)
        return
    own = dict(namespace)
    with gpu_with_tensorrt("11.4"):
        exec(code, own)
        close_engines(value for name, value in own.items() if value is not namespace.get(name))


def close_engines(values: Iterable[Any]) -> None:
    """Close those of the values that are Engines."""
    for value in values:
        if isinstance(value, oaks.Engine):
            value.close()


def run_shell(block: Block) -> None:
    """Run the commands of a block; in this process, and only `oaks`, `curl` and the check of a `pip install`."""
    for line, words in commands_of(block.text):
        if words[:2] == ["pip", "install"]:
            check_installation(block.place, words[2:])
        elif words[0] == "curl":
            ask_service(f"{block.place}: `{line}`", words)
        elif words[0] == "oaks":
            run_command(f"{block.place}: `{line}`", words)
        else:
            raise AssertionError(
                f"{block.place}: only `oaks` and `curl` can be run, got `{line}`; say why it is not run"
            )


def run_command(place: str, words: list[str]) -> None:
    """Run a command, which must end with exit code 0."""
    added = next(
        (more for start, more in SMALLER.items() if words[: len(start.split())] == start.split()), ""
    )
    with ExitStack() as needs:
        if words[1] == "track":
            needs.enter_context(camera_and_display())
        elif words[1] == "plan":
            needs.enter_context(gpu_with_tensorrt("11.4" if words[-1] == "tensorrt" else "rtx_1.7"))
        elif words[1] == "serve":
            needs.enter_context(interrupted_when_serving())
        ended = needs.enter_context(pytest.raises(SystemExit))
        main([*words[1:], *added.split()])
    assert not ended.value.code, f"{place} ended with exit code {ended.value.code}"


def run_page(path: Path, folder: Path, modes: Collection[str] = ("run",)) -> int:
    """Run the blocks of a page that have one of these modes in a folder; returns how many were run."""
    count, before = 0, Path.cwd()
    os.chdir(folder)
    namespace, section = given(), ""
    try:
        for block in blocks_of(path):
            if block.language not in RUN or block.mode not in modes:
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
        close_engines(namespace.values())
    return count


__all__ = [
    "PAGES",
    "ROOT",
    "RUN",
    "SHOWN",
    "SLOW_FURNITURE",
    "Block",
    "blocks_of",
    "furnish",
    "furnish_calibration",
    "furnish_coco",
    "furnish_for_ray",
    "run_page",
]
