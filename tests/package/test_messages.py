"""The words of errors: one pattern, held over every raise of the package and by calls with wrong arguments.

<name> must be <requirement>, got <value>[; <what to do>]
<thing> not found: <path>; <what to do>
pass exactly one of --a, --b
pass at most one of --a, --b
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import bundles
import numpy as np
import pytest

import oaks
from oaks import coco, errors, limits, ops
from oaks.animations import Animation
from oaks.boxes import BoxSource, boxes_from_file, first_boxes
from oaks.draw import draw
from oaks.images import find_images, images_in, read_image
from oaks.video import OneEuro, Tracker, open_source, track
from oaks.video.threads import ReadAhead, WriteBehind
from oaks.video.trails import Trails

from .tree import ROOT

PATTERN = re.compile(
    r"^(?P<name>\S.*?) must (?P<not>not )?\w+ .+, got .+"  # <name> must be <requirement>, got <value>
    r"|^\S.* not found: .+"
    r"|^pass (exactly|at most) one of .+",
    re.DOTALL,
)
RAISED = {
    "ArgumentError",
    "LimitError",
    "StateError",
    "BackendUnavailable",
    "BundleError",
    "OaksError",
    "OutOfMemory",
    "FileNotFoundError",
}
UNWANTED = {
    r"\bwanted\b": "expected, or must be",
    r"\bno such\b": "not found",
    r"\bgo(es)? on\b": "resume, continue",
    r"\bnothing at all\b": "plain words",
    r"\bthat is there\b": "available",
    r"\blicence\b": "license",
    r"\bcolour\b": "color",
}
"""Words that messages do not use, and what they say instead (a part of the rules of plain English)."""


def text_of(node: ast.AST) -> str | None:
    """A literal message, each value in it as {}; None if it is put together elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = text_of(node.left), text_of(node.right)
        return None if None in parts else "".join(parts)  # type: ignore[arg-type]
    return None


def messages() -> list[tuple[str, str, str]]:
    """(error, file and line, message) of every raise of one of the package's errors with a literal message."""
    found = []
    for folder in ("oaks", "engines", "training"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if folder == "oaks" and relative.parts[1] in ("engines", "training"):
                continue  # links to the top-level folders
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                    continue
                name = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
                text = text_of(node.exc.args[0])
                if name in RAISED and text is not None:
                    found.append((name, f"{relative}:{node.lineno}", text))
    return found


ALL = messages()


def test_the_walk_finds_the_raises():
    assert len(ALL) > 300
    assert {name for name, _, _ in ALL} >= {
        "ArgumentError",
        "BackendUnavailable",
        "BundleError",
        "FileNotFoundError",
    }


def test_every_error_of_the_package_is_known_here():
    defined = {name for name in errors.__all__ if issubclass(getattr(errors, name), oaks.OaksError)}
    assert defined <= RAISED


@pytest.mark.parametrize("word", UNWANTED)
def test_messages_use_plain_words(word):
    strays = [(place, text) for _, place, text in ALL if re.search(word, text)]
    assert not strays, f"say {UNWANTED[word]!r}: {strays}"


def test_a_value_is_named_after_what_it_must_be():
    """What came stands after what is required; a message that only says what came leaves the reader to guess."""
    strays = [
        (place, text)
        for _, place, text in ALL
        if re.search(r"\bgot\b", text)
        and not re.search(r"\bmust\b|\bpass\b|: none of |^\{\}: (bundle|row|a results)", text)
    ]
    assert not strays


def test_requirements_say_what_came():
    """`must` alone says what is right; the value that was given is what the reader looks for."""
    strays = [
        (place, text)
        for _, place, text in ALL
        if re.search(r"\bmust\b", text) and not re.search(r"\bgot\b", text)
    ]
    assert not strays


def test_missing_things_are_not_found():
    strays = [
        (place, text)
        for name, place, text in ALL
        if name == "FileNotFoundError" and not re.search(r"not found|must be", text)
    ]
    assert not strays


def test_missing_packages_say_what_to_install():
    strays = [
        (place, text)
        for name, place, text in ALL
        if name == "BackendUnavailable"
        and re.search(r"\bneeds\b|not installed", text)
        and "pip install" not in text
    ]
    assert not strays


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    bundle = bundles.write(tmp_path_factory.mktemp("bundles") / "tiny")
    with oaks.Engine(bundle, "onnxruntime") as engine:
        yield engine


IMAGE = np.zeros((40, 60, 3), np.uint8)
POSES = oaks.Poses.empty()
MAPS = np.zeros((1, 17, 8, 6), np.float32)
POINTS = np.zeros((2, 17, 2), np.float32)
SIGMAS = oaks.COCO17.sigmas
NOBODY = BoxSource("nobody", lambda _image: (np.zeros((0, 4)), np.zeros(0)))

CALLS: dict[str, Callable[[SimpleNamespace], object]] = {
    "Engine backend": lambda at: oaks.Engine(at.bundle, backend="caffe"),
    "Engine precision": lambda at: oaks.Engine(at.bundle, precision="fp8"),
    "Engine precision not held": lambda at: oaks.Engine(at.bundle, "onnxruntime", precision="int8"),
    "Engine color": lambda at: oaks.Engine(at.bundle, color="hsv"),
    "Engine refine": lambda at: oaks.Engine(at.bundle, refine="best"),
    "Engine threads": lambda at: oaks.Engine(at.bundle, threads=0),
    "Engine max_batch": lambda at: oaks.Engine(at.bundle, max_batch=1.5),
    "Engine bundle": lambda at: oaks.Engine(at.folder / "nowhere"),
    "Bundle.load": lambda at: oaks.Bundle.load("nowhere"),
    "infer without boxes": lambda at: at.engine.infer(IMAGE),
    "infer box scores alone": lambda at: at.engine.infer(IMAGE, box_scores=[1]),
    "infer image": lambda at: at.engine.infer(IMAGE[..., 0], boxes="whole"),
    "infer None": lambda at: at.engine.infer(None, boxes="whole"),
    "infer missing file": lambda at: at.engine.infer(at.folder / "gone.png", boxes="whole"),
    "infer boxes": lambda at: at.engine.infer(IMAGE, boxes=[1, 2, 3, 4]),
    "infer inverted boxes": lambda at: at.engine.infer(IMAGE, boxes=[[9, 0, 3, 9]]),
    "infer box words": lambda at: at.engine.infer(IMAGE, boxes="none"),
    "infer box scores": lambda at: at.engine.infer(IMAGE, boxes=[[0, 0, 9, 9]], box_scores=[37]),
    "infer boxes per frame": lambda at: at.engine.infer([IMAGE, IMAGE], boxes=[[[0, 0, 9, 9]]]),
    "detect": lambda at: at.engine.detect(IMAGE),
    "Detector file": lambda at: oaks.Detector(at.folder / "gone.onnx"),
    "Detector threshold": lambda at: oaks.Detector(at.folder / "gone.onnx", threshold=2),
    "Detector color": lambda at: oaks.Detector(at.folder / "gone.onnx", color="gray"),
    "Detector size": lambda at: oaks.Detector(at.folder / "gone.onnx", size=(0, 1)),
    "Detector bundle": lambda at: oaks.Detector(at.bundle),
    "Poses shape": lambda at: oaks.Poses(**{**vars(POSES), "scores": np.zeros(3)}),
    "Poses score_kind": lambda at: oaks.Poses(**{**vars(POSES), "score_kind": "best"}),
    "Poses index": lambda at: POSES[[0.5]],
    "Poses concatenate": lambda at: oaks.Poses.concatenate([]),
    "Poses image_ids": lambda at: POSES.to_coco("7"),
    "draw image": lambda at: draw(IMAGE[..., 0], POSES),
    "draw absent": lambda at: draw(IMAGE, POSES, absent="ghost"),
    "Poses.draw": lambda at: POSES.draw(at.folder / "gone.png"),
    "read_image": lambda at: read_image(at.folder / "gone.png"),
    "Animation": lambda at: Animation(at.folder / "gone.gif"),
    "images_in": lambda at: images_in(at.folder),
    "find_images": lambda at: find_images([at.folder / "*.png"]),
    "find_images stream": lambda at: find_images(["rtsp://camera/1"]),
    "read_annotations": lambda at: coco.read_annotations(at.folder / "gone.json"),
    "boxes_from_file": lambda at: boxes_from_file(at.folder / "gone.json"),
    "boxes_from_file MOT": lambda at: boxes_from_file(at.folder / "gone.txt"),
    "boxes_from_file line": lambda at: boxes_from_file(at.write("a.txt", "1,2,3")),
    "boxes_from_file score": lambda at: boxes_from_file(at.write("b.txt", "1,-1,0,0,5,5,37")),
    "boxes_from_file row": lambda at: boxes_from_file(
        at.write("c.json", '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 37}]')
    ),
    "first_boxes": lambda at: first_boxes([[0, 0, np.nan, 1]]),
    "BoxSource every": lambda at: BoxSource("", NOBODY.find, 0),
    "open_source file": lambda at: open_source(at.folder / "gone.mp4"),
    "open_source text": lambda at: open_source(at.write("text.mp4", "no video")),
    "open_source rate": lambda at: open_source([IMAGE], rate=0),
    "open_source list": lambda at: open_source(["a.png", "b.mp4"]),
    "track together": lambda at: track([IMAGE], at.engine, boxes=NOBODY, together=0),
    "track boxes": lambda at: track([IMAGE], at.engine, boxes=[NOBODY] * 2),
    "Tracker gate": lambda at: Tracker(oaks.COCO17, gate=2),
    "Tracker score": lambda at: Tracker(oaks.COCO17, score="heat"),
    "Tracker patience": lambda at: Tracker(oaks.COCO17, patience=-1),
    "Tracker time": lambda at: Tracker(oaks.COCO17).update(POSES, float("nan")),
    "OneEuro": lambda at: OneEuro(min_cutoff=0),
    "Trails": lambda at: Trails(-1),
    "ReadAhead": lambda at: ReadAhead([], 0),
    "WriteBehind": lambda at: WriteBehind(print, 0),
    "Skeleton file": lambda at: oaks.Skeleton.from_json(at.folder / "gone.json"),
    "ops.crop boxes": lambda at: ops.crop(IMAGE, [[1, 2, 3]], size=(48, 64), mean=(0, 0, 0), std=(1, 1, 1)),
    "ops.crop size": lambda at: ops.crop(IMAGE, [[0, 0, 9, 9]], size=(0, 64), mean=(0, 0, 0), std=(1, 1, 1)),
    "ops.decode": lambda at: ops.decode(MAPS[0]),
    "ops.decode refine": lambda at: ops.decode(MAPS, refine="best"),
    "ops.decode blur": lambda at: ops.decode(MAPS, blur_sigma=2.0),
    "ops.decode mirrored": lambda at: ops.decode(MAPS, MAPS),
    "ops.score": lambda at: ops.score(np.zeros((2, 17)), np.zeros((3, 17))),
    "ops.oks": lambda at: ops.oks(POINTS, POINTS, areas=[1], sigmas=SIGMAS),
    "ops.oks_nms": lambda at: ops.oks_nms(POINTS, [1, 2], areas=[1], sigmas=SIGMAS),
    "ops.box_nms": lambda at: ops.box_nms([[0, 0, 1, 1]], [1, 2], threshold=0.5),
    "limits": lambda at: limits.check("threads", "threads", 10**9),
}
"""Public functions with one wrong argument each."""


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_is_said_in_the_pattern(engine, tmp_path, call):
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    at = SimpleNamespace(engine=engine, bundle=engine.bundle, folder=tmp_path, write=write)
    with pytest.raises((oaks.OaksError, FileNotFoundError)) as caught:
        CALLS[call](at)
    assert PATTERN.match(str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_argument_error_is_a_value_error():
    assert issubclass(oaks.ArgumentError, ValueError)
    assert issubclass(oaks.ArgumentError, oaks.OaksError)
