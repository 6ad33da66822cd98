"""Every verb that writes, on inputs small enough to run it a hundred times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import bundles
import cv2
import numpy as np
import torch
import yaml
from fit import frozen
from training.conftest import TINY, pose_recipe, write_people
from video.clips import write_clip

from oaks import COCO17
from oaks.training.checkpoint import save_network
from oaks.training.networks import build

_TIMES = re.compile(
    rb'"(date|seconds|commit|machine|time|elapsed)": ("[^"]*"|[-0-9.e]+|null)|oaks-[0-9a-z_]{8}|[0-9.]+ ms'
    rb"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[+0-9:]*"
)
"""What may differ between two runs in files of text."""
_NUMBERS = re.compile(_TIMES.pattern + rb"|-?[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?")


@dataclass(frozen=True)
class Verb:
    """A command that is killed.

    Attributes:
        name: for messages.
        arguments: words after `oaks`, for an output path.
        again: words that resume a run that has begun; None: the same.
        compared: which of the output's files must be the same bytes after a rerun, by pattern.
        varying: what differs between any two runs, in files of text.
        once: whether the verb refuses an output that is whole.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]] | None = None
    compared: tuple[str, ...] = ("*",)
    varying: re.Pattern[bytes] = _TIMES
    once: bool = False

    def rerun(self, out: Path) -> list[str]:
        """The words that bring a killed run to its end."""
        if self.again is not None and (out / "run.json").exists():
            return self.again(out)
        return self.arguments(out)


def prepare(folder: Path, names: Collection[str] | None = None) -> dict[str, Verb]:
    """Inputs for the verbs of these names, or for all, and the verbs."""
    write_inputs(folder, names)
    verbs = verbs_on(folder)
    return verbs if names is None else {name: verbs[name] for name in names}


def write_inputs(folder: Path, names: Collection[str] | None = None) -> None:
    """The files that the verbs of these names read, or all verbs."""
    bundles.write(folder / "bundle", skeleton=COCO17)
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        cv2.imwrite(
            str(pictures / f"{number}.png"), cv2.resize(rng.integers(0, 256, (9, 7, 3), np.uint8), (140, 180))
        )
    write_clip(folder / "clip.mp4", 90)
    write_people(folder / "people", images=16)
    write_people(folder / "few", images=4)
    recipe = pose_recipe(training={"epochs": 3, "checkpoint_minutes": 0.001})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    _results(folder / "people" / "annotations.json", folder / "results.json")
    _results(folder / "few" / "annotations.json", folder / "theirs.json")
    frozen.write(folder / "frozen", images=30)
    _network(folder / "pose.safetensors")
    np.savez(folder / "crops.npz", crops=rng.integers(0, 256, (4, 80, 60, 3), np.uint8))
    (folder / "theirs.onnx").write_bytes(bundles.pose_network(17, bundles.SIZE, visibility=False))
    if names is None or "rescore" in names:
        from oaks.fit import fit_results

        found = folder / "frozen"
        boxes = {
            a["id"]: a["bbox"] for a in json.loads((found / "annotations.json").read_text())["annotations"]
        }
        rows = json.loads((found / "estimator.json").read_text())
        (folder / "boxed.json").write_text(
            json.dumps([{**r, "box": boxes[r["annotation_id"]]} for r in rows])
        )
        fit_results(
            found / "estimator.json", found / "annotations.json", out=folder / "scorer", settings=frozen.QUICK,
            resamples=2,
        )  # fmt: skip
    if names is None or "finetune" in names:
        from oaks.engines.export.export import export

        export(
            folder / "pose.safetensors", out=folder / "trained", crops=folder / "crops.npz", tolerance={"fp16": 10},
            show=False,
        )  # fmt: skip


def verbs_on(folder: Path) -> dict[str, Verb]:
    """The verbs on the files of `write_inputs`."""
    annotations, images = str(folder / "people" / "annotations.json"), str(folder / "people" / "images")
    few = [str(folder / "few" / "annotations.json"), "--images", str(folder / "few" / "images")]
    bundle, recipe = str(folder / "bundle"), str(folder / "recipe.yaml")
    engine = ["--bundle", bundle, "--backend", "onnxruntime", "--threads", "1"]
    labeled = [annotations, "--images", images]
    fitted = [
        str(folder / "frozen" / "estimator.json"),
        "--annotations",
        str(folder / "frozen" / "annotations.json"),
    ]
    made = (
        Verb(
            "predict",
            lambda out: ["predict", str(folder / "pictures"), "--boxes", "whole", "--out", str(out), *engine],
        ),
        Verb(
            "track",
            lambda out: ["track", str(folder / "clip.mp4"), "--first-boxes", "5,5,60,60", "--out", str(out), *engine],
            compared=("*.jsonl", "*.json", "*.txt"),
        ),
        Verb(
            "val run",
            lambda out: ["val", "run", bundle, *few, "--out", str(out), "--resamples", "5", *engine[2:]],
            compared=("*.json", "*.html", "*.md", "*.svg"),
        ),
        Verb(
            "val others",
            lambda out: [
                "val", "others", str(folder / "theirs.json"), "--annotations", *few, "--bundle", bundle, "--out", str(out),
                "--resamples", "5", "--box-source", "ground truth", *engine[2:],
            ],
            compared=("*.json", "*.html", "*.md", "*.svg"),
        ),
        Verb("val detect", lambda out: ["val", "detect", bundle, *labeled, "--out", str(out / "r.json"), *engine[2:]]),
        Verb("val boxes", lambda out: ["val", "boxes", *labeled, "--out", str(out / "boxes.json")]),
        Verb(
            "val report",
            lambda out: [
                "val", "report", str(folder / "results.json"), "--annotations", annotations, "--out", str(out),
                "--resamples", "5",
            ],
            compared=("*.json", "*.html", "*.md", "*.svg"),
        ),
        Verb("fit", lambda out: ["fit", *fitted, "--out", str(out / "scorer"), "--resamples", "5"]),
        Verb(
            "rescore",
            lambda out: ["rescore", str(folder / "scorer"), str(folder / "boxed.json"), "--out", str(out / "rescored.json")],
        ),
        Verb(
            "import",
            lambda out: ["import", str(folder / "theirs.onnx"), "--preset", "hrnet", "--out", str(out / "bundle")],
            once=True,
        ),
        Verb(
            "finetune",
            lambda out: [
                "finetune", str(folder / "trained"), "--annotations", annotations, "--images", images, "--out",
                str(out / "tuned"), "--epochs", "1", "--batch", "4", "--resamples", "5", "--threads", "1",
                "--accelerator", "cpu",
            ],
            compared=("tuned/*",),
            once=True,
        ),
        Verb(
            "benchmark",
            lambda out: [
                "benchmark", bundle, "--backend", "onnxruntime", "--precision", "fp32", "--batch", "1", "--turns", "1",
                "--threads", "1", "--annotations", *few, "--out", str(out / "speed.json"),
            ],
            varying=_NUMBERS,
        ),
        Verb(
            "export",
            lambda out: [
                "export", str(folder / "pose.safetensors"), "--out", str(out / "bundle"), "--crops",
                str(folder / "crops.npz"), "--tolerance", "fp16=10",
            ],
        ),
        Verb("render", lambda out: ["render", str(out), "--count", "12", "--size", "96", "96", "--workers", "1"]),
        Verb(
            "render-video",
            lambda out: [
                "render-video", str(out), "--count", "1", "--frames", "6", "--size", "96", "64", "--workers", "1",
            ],
        ),
        Verb("pack", lambda out: ["pack", recipe, "--data", str(folder), "--out", str(out)]),
        Verb(
            "train",
            lambda out: ["train", recipe, "--data", str(folder), "--out", str(out), "--accelerator", "cpu"],
            again=lambda out: ["train", "--resume", str(out), "--accelerator", "cpu"],
            compared=("network.safetensors", "recipe.yaml", "run.json"),
        ),
    )  # fmt: skip
    return {verb.name: verb for verb in made}


def _network(path: Path) -> None:
    """An untrained pose network."""
    torch.manual_seed(0)
    architecture = {**TINY, "input": [48, 64], "keypoints": 17}
    described = {
        "kind": "pose", "architecture": architecture, "skeleton": COCO17.to_dict(), "stride": 4, "padding": 1.25,
        "input": {"size": [48, 64], "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4], "color": "bgr"},
        "heatmap_sigma": 1.0, "alignment": "half_pixel", "refine": "second_peak", "license": "CC0-1.0",
        "trained_on": ["nobody"],
    }  # fmt: skip
    save_network(path, build(architecture), described)


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


def contents(out: Path, verb: Verb) -> dict[str, bytes]:
    """File -> bytes of an output, without what depends on the clock."""
    files = {path for pattern in verb.compared for path in out.rglob(pattern) if path.is_file()}
    files = {path for path in files if not path.name.startswith(".oaks-")}  # what a killed write leaves
    found = {}
    for path in sorted(files):
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl", ".html", ".md", ".yaml"):
            content = verb.varying.sub(b"", content.replace(str(out).encode(), b"OUT"))
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


__all__ = ["Verb", "contents", "prepare", "unreadable", "verbs_on", "write_inputs"]
