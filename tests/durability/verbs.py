"""Every verb that writes, on inputs small enough to run it a hundred times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bundles
import cv2
import numpy as np
import yaml
from training.conftest import pose_recipe, write_people
from video.clips import write_clip

from oaks import COCO17

_TIMES = re.compile(
    rb'"(date|seconds|commit|machine|time|elapsed)": ("[^"]*"|[-0-9.e]+|null)|oaks-[0-9a-z_]{8}|[0-9.]+ ms'
)
"""What may differ between two runs in files of text."""


@dataclass(frozen=True)
class Verb:
    """A command that is killed.

    Attributes:
        name: for messages.
        arguments: words after `oaks`, for an output path.
        again: words that resume a run that has begun; None: the same.
        compared: which of the output's files must be the same bytes after a rerun, by pattern.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]] | None = None
    compared: tuple[str, ...] = ("*",)

    def rerun(self, out: Path) -> list[str]:
        """The words that bring a killed run to its end."""
        if self.again is not None and (out / "run.json").exists():
            return self.again(out)
        return self.arguments(out)


def prepare(folder: Path) -> dict[str, Verb]:
    """Inputs for all verbs, and the verbs."""
    bundle = bundles.write(folder / "bundle", skeleton=COCO17).path
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        cv2.imwrite(
            str(pictures / f"{number}.png"), cv2.resize(rng.integers(0, 256, (9, 7, 3), np.uint8), (140, 180))
        )
    clip = write_clip(folder / "clip.mp4", 90)
    write_people(folder / "people", images=16)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(pose_recipe(training={"epochs": 6, "checkpoint_minutes": 0.001})))
    annotations, images = str(folder / "people" / "annotations.json"), str(folder / "people" / "images")
    rows = _results(folder / "people" / "annotations.json", folder / "results.json")
    engine = ["--bundle", str(bundle), "--backend", "onnxruntime", "--threads", "1"]
    first = ["--first-boxes", "5,5,60,60"]
    labeled = [annotations, "--images", images]
    trained = ["--accelerator", "cpu"]
    alone = ["--workers", "1"]
    made = (
        Verb("predict", lambda out: ["predict", str(pictures), "--boxes", "whole", "--out", str(out), *engine]),
        Verb(
            "track",
            lambda out: ["track", str(clip), *first, "--out", str(out), *engine],
            compared=("*.jsonl", "*.json", "*.txt"),
        ),
        Verb(
            "val detect",
            lambda out: ["val", "detect", str(bundle), *labeled, "--out", str(out / "r.json"), *engine[2:]],
        ),
        Verb(
            "val report",
            lambda out: ["val", "report", str(rows), "--annotations", annotations, "--out", str(out), "--resamples", "5"],
            compared=("*.json", "*.html", "*.md", "*.svg"),
        ),
        Verb("render", lambda out: ["render", str(out), "--count", "12", "--size", "96", "96", *alone]),
        Verb(
            "render-video",
            lambda out: ["render-video", str(out), "--count", "1", "--frames", "6", "--size", "96", "64", *alone],
        ),
        Verb("pack", lambda out: ["pack", str(recipe), "--data", str(folder), "--out", str(out)]),
        Verb(
            "train",
            lambda out: ["train", str(recipe), "--data", str(folder), "--out", str(out), *trained],
            again=lambda out: ["train", "--resume", str(out), *trained],
            compared=("network.safetensors", "recipe.yaml", "run.json"),
        ),
    )  # fmt: skip
    return {verb.name: verb for verb in made}


def _results(annotations: Path, path: Path) -> Path:
    """The annotated poses as somebody's results."""
    rng = np.random.default_rng(1)
    rows = []
    for entry in json.loads(annotations.read_text())["annotations"]:
        points = np.array(entry["keypoints"], float).reshape(-1, 3)
        points[:, :2] += rng.normal(size=(17, 2))
        points[:, 2] = rng.random(17)
        rows.append({
            "image_id": entry["image_id"], "category_id": 1, "score": float(rng.random()),
            "keypoints": points.ravel().tolist(),
        })  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


def contents(out: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """File -> bytes of an output, without what depends on the clock."""
    files = {path for pattern in patterns for path in out.rglob(pattern) if path.is_file()}
    files = {path for path in files if not path.name.startswith(".oaks-")}  # what a killed write leaves
    found = {}
    for path in sorted(files):
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl", ".html", ".md", ".yaml"):
            content = _TIMES.sub(b"", content.replace(str(out).encode(), b"OUT"))
        found[str(path.relative_to(out))] = content
    return found


def unreadable(out: Path) -> list[str]:
    """Files of an output that are there under their final names and cannot be read."""
    wrong = []
    for path in sorted(out.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        content = path.read_bytes()
        try:
            if path.suffix == ".json":
                json.loads(content)
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in content.split(b"\n")[:-1]]
            elif path.suffix in (".jpg", ".png"):
                assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None
            elif path.suffix == ".mp4":
                _play(path)
            elif path.suffix == ".safetensors":
                from safetensors.numpy import load

                load(content)
            elif path.suffix == ".html":
                assert content.rstrip().endswith(b"</html>")
            elif path.suffix in (".yaml", ".csv", ".md", ".txt", ".svg"):
                content.decode()
        except Exception as error:
            wrong.append(f"{path.relative_to(out)}: {type(error).__name__}: {error}")
    return wrong


def _play(path: Path) -> None:
    """Decode a video; one without a frame has a header."""
    import av

    with av.open(str(path)) as container:
        for _ in container.decode(video=0):
            pass


__all__ = ["Verb", "contents", "prepare", "unreadable"]
