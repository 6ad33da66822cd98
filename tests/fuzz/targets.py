"""Readers of external files and arguments, each with valid inputs to corrupt."""

from __future__ import annotations

import importlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import bundles
import hypothesis.strategies as st
import numpy as np
from ops.arguments import CASES
from PIL import Image
from video.clips import write_clip

import oaks
from fuzz.calls import Case, make_calls
from fuzz.inputs import arguments, as_json, changed, damaged, files, from_schema, values
from oaks.bundle import Bundle

SCHEMA = Path(oaks.__file__).parent / "bundle.schema.json"


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        inputs: strategy of what it is given.
        read: gives it an input, in a folder that is empty each time; what it returns is not looked at.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def write_and_read(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return write_and_read


@cache
def _bundle(folder: Path) -> Path:
    return bundles.write(folder / "valid", half=True).path


def _annotations() -> dict[str, Any]:
    people = [
        {"id": n, "image_id": n % 2, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 500.0, "iscrowd": 0,
         "num_keypoints": 17, "keypoints": [3.0, 4.0, 2] * 17, "track_id": n}
        for n in range(1, 4)
    ]  # fmt: skip
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48} for n in (0, 1)],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(oaks.COCO17.keypoints)}],
    }


def _results() -> list[dict[str, Any]]:
    return [
        {"image_id": n % 2, "category_id": 1, "score": 0.5, "keypoints": [3.0, 4.0, 1.0] * 17, "box": [1, 2, 30, 40],
         "box_score": 0.9, "heat": [0.5] * 17, "visibility": [0.5] * 17, "similarity": [0.5] * 17, "track_id": n}
        for n in range(3)
    ]  # fmt: skip


def _boxes() -> list[dict[str, Any]]:
    return [{"image_id": n, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5} for n in (0, 1)]


# bundles


def read_description(content: bytes, folder: Path) -> object:
    for name in ("pose.fp32.onnx", "pose.fp16.onnx", "ks.fp32.onnx", "ks.fp16.onnx"):
        (folder / name).write_bytes((_valid / name).read_bytes())
    (folder / "bundle.json").write_bytes(content)
    return Bundle.load(folder)


def open_engine(content: bytes, folder: Path) -> object:
    """A bundle whose description fits its files, if not its networks: what is left to the Engine."""
    with oaks.Engine(read_description(content, folder), backend="onnxruntime", threads=1) as engine:
        return engine.infer(np.zeros((60, 50, 3), np.uint8), boxes=[[1, 1, 40, 50]])


def read_zip(content: bytes, folder: Path) -> object:
    (folder / "bundle.zip").write_bytes(content)
    return Bundle.load(folder / "bundle.zip")


def read_onnx(content: bytes, folder: Path) -> object:
    from oaks import onnx_file

    (folder / "a.onnx").write_bytes(content)
    read = onnx_file.read(folder / "a.onnx")
    onnx_file.state(read, "a.onnx")
    return onnx_file.in_precision(read, "fp16", "fp32", "a.onnx")


def run_onnx(content: bytes, folder: Path) -> object:
    """A damaged network under its own checksum, on a runtime."""
    (folder / "pose.fp32.onnx").write_bytes(content)
    bundle = bundles.rewrite(folder, ["pose.fp32.onnx"])
    with oaks.Engine(bundle, backend="onnxruntime", threads=1) as engine:
        return engine.infer(np.zeros((60, 50, 3), np.uint8), boxes=[[1, 1, 40, 50]])


def read_detector(content: bytes, folder: Path) -> object:
    (folder / "a.onnx").write_bytes(content)
    return oaks.Detector(folder / "a.onnx", threads=1).detect(np.zeros((60, 50, 3), np.uint8))


# measurements


def read_truth(content: bytes, folder: Path) -> object:
    from oaks.val.ground_truth import GroundTruth

    (folder / "a.json").write_bytes(content)
    return GroundTruth.load(folder / "a.json")


def read_detections(content: bytes, folder: Path) -> object:
    from oaks.val.detections import Detections

    (folder / "results.json").write_bytes(content)
    return Detections.load(folder / "results.json", _truth())


@cache
def _truth() -> Any:
    from oaks.val.ground_truth import GroundTruth

    (_valid.parent / "truth.json").write_bytes(as_json(_annotations()))
    return GroundTruth.load(_valid.parent / "truth.json")


def read_header(content: bytes, folder: Path) -> object:
    (folder / "results.header.json").write_bytes(content)
    return read_detections(as_json(_results()), folder)


def evaluate_tracks(content: bytes, folder: Path) -> object:
    from oaks.val.tracking import evaluate_tracks as evaluate

    (folder / "results.json").write_bytes(content)
    _truth()
    return evaluate(folder / "results.json", _valid.parent / "truth.json")


def read_report(content: bytes, folder: Path) -> object:
    from oaks.val.report.writer import load_report, save_report

    (folder / "report.json").write_bytes(content)
    return save_report(load_report(folder), folder)


def resume_detection(content: bytes, folder: Path) -> object:
    from oaks.val.resumable import run_over_images

    (folder / "out.json.partial").write_bytes(content)
    return run_over_images(
        {0: 1, 1: 2}, lambda batch: [(i, [{"image_id": i}]) for i in batch], folder / "out.json", {"a": 1}
    )


def score_results(content: bytes, folder: Path) -> object:
    from oaks.scorer import Scorer

    return Scorer.read(content, "scorer")


# training


def read_recipe(case: tuple[bytes, list[str]], folder: Path) -> object:
    from oaks.training.recipe import read_recipe as read

    (folder / "recipe.yaml").write_bytes(case[0])
    return read(folder / "recipe.yaml", case[1])


def change_recipe(change: str, folder: Path) -> object:
    from oaks.training.recipe import read_recipe as read

    return read("tiny_pose", [change])


def read_shards(case: tuple[bytes, bytes], folder: Path) -> object:
    from oaks.training.data.people import DamagedImage
    from oaks.training.data.shards import read_shards as read

    (folder / "index.json").write_bytes(case[0])
    (folder / "people-0000.safetensors").write_bytes(case[1])
    people = read(folder)
    for index in range(min(len(people), 4)):
        try:
            people.sample(index)
        except DamagedImage:
            continue
    return people.digest()


def read_checkpoint(content: bytes, folder: Path) -> object:
    from oaks.training.checkpoint import load_network

    (folder / "network.safetensors").write_bytes(content)
    return load_network(folder / "network.safetensors")


def read_weights(content: bytes, folder: Path) -> object:
    from oaks.training.pretrained import read_state_dict

    (folder / "weights.pth").write_bytes(content)
    return read_state_dict(folder / "weights.pth")


def read_run(content: bytes, folder: Path) -> object:
    from oaks.training.run_folder import RunFolder

    for name in ("run.json", "metrics.json"):
        (folder / name).write_bytes(content)
    (folder / "network.safetensors").write_bytes(b"")
    (folder / "recipe.yaml").write_bytes(_recipe_text("small_pose"))
    run = RunFolder(folder)
    run.complete()
    return run.read()


def read_training_people(content: bytes, folder: Path) -> object:
    from oaks.training.data.people import read_coco

    (folder / "a.json").write_bytes(content)
    return len(read_coco("a", folder / "a.json", folder, oaks.COCO17))


@cache
def _recipe_text(name: str) -> bytes:
    import oaks.training.recipe as recipes

    return (Path(recipes.__file__).parent / "recipes" / f"{name}.yaml").read_bytes()


@cache
def _shards() -> tuple[bytes, bytes]:
    from oaks.training.data.people import Person
    from oaks.training.data.shards import write_shards

    person = Person(np.full((17, 3), 20, np.float32), np.float32([4, 4, 40, 50]), 900.0, np.ones(17, bool), 1, 2,
                    np.float32([1, 1, 0, 0]))  # fmt: skip
    picture = np.zeros((60, 50, 3), np.uint8)
    folder = _valid.parent / "shards"
    write_shards("a", [(picture, person)] * 2, folder, size=(24, 32))
    return (folder / "index.json").read_bytes(), (folder / "people-0000.safetensors").read_bytes()


@cache
def _checkpoint() -> bytes:
    import torch

    from oaks.training.checkpoint import save_network
    from oaks.training.networks import build

    architecture = {
        "name": "oa_hpe", "backbone": "resnet18", "width": 0.125, "head_channels": 8, "head_layers": 1,
        "input": [48, 64], "keypoints": 17,
    }  # fmt: skip
    torch.manual_seed(0)
    path = _valid.parent / "network.safetensors"
    save_network(path, build(architecture), {"kind": "pose", "architecture": architecture})
    return path.read_bytes()


@st.composite
def _checkpoints(draw: st.DrawFn) -> bytes:
    """A checkpoint with a changed description, or damaged bytes."""
    content = _checkpoint()
    if draw(st.booleans()):
        return draw(damaged(content[:2000])) + content[2000:]
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["oaks"])
    header["__metadata__"]["oaks"] = as_json(draw(changed(described))).decode()
    if draw(st.integers(0, 3)) == 0:
        header = draw(changed(header))
    text = as_json(header)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


# pictures and videos


@cache
def _pictures() -> list[bytes]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    found = []
    for kind, settings in (
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("GIF", {}), ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}), ("PPM", {}), ("JPEG2000", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        image.save(buffer, kind, **settings)
        found.append(buffer.getvalue())
    return found


def read_picture(content: bytes, folder: Path) -> object:
    from oaks.images import read_image, read_size

    (folder / "a.jpg").write_bytes(content)
    width, height = read_size(folder / "a.jpg")
    image = read_image(folder / "a.jpg")
    assert image.shape == (height, width, 3), "read_size and read_image differ"
    return image


@cache
def _clip(kind: str) -> bytes:
    return write_clip(_valid.parent / f"clip.{kind}", 8).read_bytes()


def read_video(case: tuple[str, bytes], folder: Path) -> object:
    from oaks.video import open_source

    kind, content = case
    (folder / f"a.{kind}").write_bytes(content)
    source = open_source(folder / f"a.{kind}")
    try:
        return sum(1 for _, _ in zip(source, range(200), strict=False))
    finally:
        source.close()


# arrays and arguments


@cache
def _poses() -> bytes:
    poses = _engine().infer(np.zeros((60, 50, 3), np.uint8), boxes=[[1, 1, 40, 50], [2, 2, 30, 30]])
    poses.save(_valid.parent / "poses.npz")
    return (_valid.parent / "poses.npz").read_bytes()


@st.composite
def _archives(draw: st.DrawFn) -> bytes:
    """An .npz file with members changed, or damaged bytes."""
    content = _poses()
    if draw(st.booleans()):
        return draw(damaged(content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w") as after:
        for name in before.namelist():
            turn = draw(st.integers(0, 4))
            if turn == 1:
                continue
            member = before.read(name)
            if turn == 2:
                member = draw(damaged(member))
            elif turn == 3:
                stream = io.BytesIO()
                array = draw(st.builds(
                    lambda shape, dtype: np.ones(shape).astype(dtype), st.lists(st.integers(0, 4), max_size=3),
                    st.sampled_from(("f4", "f8", "i8", "?", "U4", "c8")),
                ))  # fmt: skip
                np.save(stream, array)
                member = stream.getvalue()
            after.writestr(name, member)
    return buffer.getvalue()


@cache
def _engine() -> oaks.Engine:
    return oaks.Engine(_valid, backend="onnxruntime", threads=1, max_batch=4)


def infer(case: tuple[Any, Any, Any], folder: Path) -> object:
    frames, boxes, scores = case
    poses = _engine().infer(frames, boxes=boxes, box_scores=scores)
    assert np.isfinite(poses.keypoints).all(), "keypoints of finite heatmaps must be finite"
    return poses.to_coco(1)


def make_detector(case: dict[str, Any], folder: Path) -> object:
    return oaks.Detector(folder / "missing.onnx", **case)


def operate(case: tuple[str, dict[str, Any]], folder: Path) -> object:
    name, changes = case
    made = CASES[name]()
    known = {**made.inputs, **made.keywords}
    return made.run(**{argument: value for argument, value in changes.items() if argument in known})


@cache
def _calls() -> dict[str, Case]:
    folder = _valid.parent / "calls"
    folder.mkdir()
    return make_calls(folder, _valid, _annotations(), _results())


def call(case: tuple[str, str, Any], folder: Path) -> object:
    """A public call with one wrong argument. An index that is too large is Python's own IndexError."""
    name, argument, value = case
    made = _calls()[name]
    # A text that is taken for a path names a file in the folder.
    with in_folder(folder), suppress(IndexError) if name == "Poses[]" else nullcontext():
        return made.run(**{**made.right, argument: value})
    return None


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """The folder as the working directory (contextlib.chdir, which Python 3.10 lacks)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def tell(text: str, folder: Path) -> object:
    """Whatever a name is, it can be shown, and a file can be named after it."""
    from oaks.names import file_name, shown

    assert shown(text).isprintable() or any(c in shown(text) for c in "\u200c\u200d")
    (folder / file_name(text, ending="_2.jpg")).write_bytes(b"")
    assert [path.parent for path in folder.iterdir()] == [folder]
    return None


OPERATION_ARGUMENTS = sorted({
    name for make in CASES.values() for name in (*make().inputs, *make().keywords)
} - {"model"})  # fmt: skip
_frames = st.one_of(
    st.just(np.zeros((60, 50, 3), np.uint8)),
    st.just(np.zeros((2, 20, 20, 3), np.uint8)),
    st.just([np.zeros((60, 50, 3), np.uint8)] * 2),
    arguments,
)
_operations = st.tuples(
    st.sampled_from(sorted(CASES)),
    st.dictionaries(st.sampled_from(OPERATION_ARGUMENTS), arguments | values, min_size=1, max_size=3),
)
_valid = Path()


def make_targets(folder: Path) -> dict[str, Target]:
    """Every target; `folder` gets the right files that inputs are made from."""
    global _valid
    _valid = _bundle(folder)
    description = json.loads((_valid / "bundle.json").read_bytes())
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    skeleton = oaks.COCO17.to_dict()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(_valid.iterdir()):
            archive.write(path, path.name)
    pose = (_valid / "pose.fp32.onnx").read_bytes()
    import yaml

    recipe = _recipe_text("small_pose")
    recipes = st.one_of(
        changed(yaml.safe_load(recipe)).map(
            lambda content: yaml.safe_dump(content, allow_unicode=False).encode()
        ),
        files(yaml.safe_load(recipe), recipe),
    )
    report = {
        "format": 1, "title": "a", "answer": None, "head": [{"title": "b", "entries": {"c": "d"}}], "tiles": [],
        "sections": [{"key": "k", "title": "t", "text": "x", "items": []}],
    }  # fmt: skip
    partial = b'{"header": {"a": 1}}\n{"image": 0, "rows": [{"image_id": 0}]}\n'
    run = {"data": ".", "packed": None, "people": "a", "step": 1, "steps": 2}
    importlib.import_module("oaks.training.run")  # before the clock starts
    _checkpoint()

    mot = b"1,1,10,20,30,40,0.5,-1,-1,-1\n2,1,10,20,30,40,1\n"
    return {
        "bundle.json": Target(
            st.one_of(files(description), files(description), from_schema(schema).flatmap(changed).map(as_json),
                from_schema(schema).map(as_json)),
            read_description
        ),
        "engine": Target(files(description), open_engine),
        "zip": Target(damaged(buffer.getvalue()), read_zip),
        "onnx": Target(damaged((_valid / "pose.fp16.onnx").read_bytes()), read_onnx),
        "network": Target(damaged(pose), run_onnx),
        "detector": Target(damaged(pose), read_detector),
        "annotations": Target(files(_annotations()), read_truth),
        "boxes": Target(
            files(_boxes()) | files(_annotations()), _file("a.json", lambda path: _read_boxes(path))
        ),
        "mot": Target(
            damaged(mot) | st.lists(st.lists(values.map(str), max_size=8).map(",".join), max_size=4).map(
                lambda lines: "\n".join(lines).encode("utf-8", "replace")
            ),
            _file("a.txt", lambda path: _read_mot(path)),
        ),
        "results": Target(files(_results()), read_detections),
        "header": Target(files({"bundle": "a", "box_source": "annotated: a", "nms": None}), read_header),
        "tracks": Target(files(_results()), evaluate_tracks),
        "report": Target(files(report), read_report),
        "partial": Target(
            damaged(partial) | st.lists(changed(json.loads(partial.split(b"\n")[1])).map(as_json), max_size=3).map(
                lambda lines: b'{"header": {"a": 1}}\n' + b"".join(line + b"\n" for line in lines)
            ),
            resume_detection,
        ),
        "scorer": Target(files(_scorer()), score_results),
        "skeleton": Target(files(skeleton), _file("a.json", oaks.Skeleton.from_json)),
        "recipe": Target(st.tuples(recipes, st.just([])), read_recipe),
        "set": Target(st.builds("{}={}".format, _fields(), st.text(max_size=8) | values.map(str)), change_recipe),
        "shards": Target(
            st.tuples(files(json.loads(_shards()[0])), st.just(_shards()[1]))
            | st.tuples(st.just(_shards()[0]), damaged(_shards()[1])),
            read_shards,
        ),
        "checkpoint": Target(_checkpoints(), read_checkpoint),
        "weights": Target(damaged(_torch_file()), read_weights),
        "run": Target(files(run), read_run),
        "people": Target(files(_annotations()), read_training_people),
        "picture": Target(st.sampled_from(_pictures()).flatmap(damaged), read_picture),
        "video": Target(
            st.sampled_from(("mp4", "avi", "mkv")).flatmap(lambda kind: st.tuples(st.just(kind), damaged(_clip(kind)))),
            read_video,
        ),
        "poses": Target(_archives(), _file("a.npz", oaks.Poses.load)),
        "infer": Target(st.tuples(_frames, arguments, st.none() | arguments), infer),
        "detector arguments": Target(
            st.dictionaries(
                st.sampled_from((
                    "threshold", "overlap", "person", "color", "mean", "std", "size", "threads", "backend", "precision",
                    "device",
                )),
                arguments, min_size=1, max_size=2,
            ),
            make_detector,
        ),
        "calls": Target(
            st.sampled_from(sorted(_calls())).flatmap(
                lambda name: st.tuples(
                    st.just(name), st.sampled_from(sorted(_calls()[name].right)), arguments | values
                )
            ),
            call,
        ),
        "operations": Target(_operations, operate),
        "names": Target(st.text(max_size=300) | st.sampled_from(_NAMES), tell),
    }  # fmt: skip


_NAMES = (
    "..", ".", "", "/", "\0", "a" * 300, "ä" * 200, "\x1b]0;x\x07", "\udc80", "con",
    "rtsp://u:p@h/s?token=1#x", "\u202egpj.exe",
)  # fmt: skip


def _fields() -> st.SearchStrategy[str]:
    parts = st.sampled_from(
        ("training", "epochs", "data", "train", "0", "9", "kind", "title", "network", "", "-1", "a")
    )
    return st.lists(parts, min_size=1, max_size=3).map(".".join)


def _read_boxes(path: Path) -> object:
    from oaks.box_files import read_boxes

    people = read_boxes(path)
    for boxes in people.boxes.values():
        assert np.isfinite(boxes).all(), "a file gave boxes that are not finite"
    return people


def _read_mot(path: Path) -> object:
    from oaks.box_files import read_mot

    people = read_mot(path)
    for boxes in people.boxes.values():
        assert np.isfinite(boxes).all(), "a file gave boxes that are not finite"
    return people


def _scorer() -> Any:
    """The content of a scorer whose trees know nothing."""
    from oaks.results_features import feature_names
    from oaks.scorer import Card, Scorer

    names = feature_names(oaks.COCO17.count)
    forest = oaks.ops.Forest(
        len(names), roots=[0], feature=[1], threshold=[0], left=[-1], right=[-2], leaves=[0.1, 0.9]
    )
    card = Card("results", "a", "b", oaks.COCO17, True, None, names, {}, {}, (0.0, 0.5, 1.0))
    return Scorer.of(card, forest, forest).to_dict()


def _torch_file() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.zeros(3, 3), "a.bias": torch.zeros(3)}}, buffer)
    return buffer.getvalue()


__all__ = ["Target", "make_targets"]
