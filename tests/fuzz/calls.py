"""Public calls with right arguments, of which the harness makes wrong ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import oaks
from oaks import box_files, boxes, coco, images
from oaks.bundle import Bundle
from oaks.coco_results import read_results, write_results
from oaks.draw import draw
from oaks.limits import BundleLimits
from oaks.scorer import Scorer
from oaks.val.synthetic_boxes import DetectorLike
from oaks.video import AnnotatedVideo, Frame, OneEuro, Tracker, open_source


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        run: takes the arguments by name.
        right: arguments that fit.
    """

    run: Callable[..., object]
    right: dict[str, Any]


def make_calls(folder: Path, bundle: Path, annotations: object, results: object) -> dict[str, Case]:
    """Every call; files that they read are written into `folder`.

    Args:
        folder: where files may be written.
        bundle: a bundle without a detector.
        annotations, results: contents of a COCO annotation file and of a results file.
    """
    (folder / "a.json").write_text(json.dumps(annotations))
    (folder / "r.json").write_text(json.dumps(results))
    image = np.zeros((60, 50, 3), np.uint8)
    corners = [[1, 1, 40, 50]]
    engine = oaks.Engine(bundle, backend="onnxruntime", threads=1, max_batch=4)
    poses = engine.infer(image, boxes=[*corners, [2, 2, 30, 30]])
    poses.save(folder / "poses.npz")

    def open_engine(**given: Any) -> None:
        oaks.Engine(**given).close()

    def stream(**given: Any) -> object:
        return list(engine.infer_stream(given["frames"], given["boxes"], box_scores=given["box_scores"]))

    def open_and_close(make: Callable[..., Any], **given: Any) -> None:
        make(**given).close()

    file, missing = {"path": folder / "a.json"}, {"path": folder / "missing.jpg"}
    by_category = {**file, "category": None}
    return {
        "Engine": Case(
            open_engine,
            {"bundle": bundle, "backend": "onnxruntime", "flip": True, "precision": "auto", "device": None, "threads": 1,
             "max_batch": 2, "color": None, "refine": None},
        ),
        "infer": Case(engine.infer, {"frames": image, "boxes": corners, "box_scores": None}),
        "infer several": Case(
            lambda frame, boxes: engine.infer([image, frame], boxes=[corners, boxes]), {"frame": image, "boxes": corners}
        ),
        "infer_stream": Case(stream, {"frames": [image], "boxes": [corners], "box_scores": None}),
        "Bundle.load": Case(lambda **given: Bundle.load(given["path"], plans=given["plans"], limits=BundleLimits()),
                            {"path": bundle, "plans": True}),
        "Detector": Case(
            oaks.Detector, {"source": folder / "missing.onnx", "backend": "auto", "precision": "auto", "device": None,
                            "threads": 1, "color": None, "mean": None, "std": None, "size": (640, 640), "person": 0}
        ),
        "draw": Case(draw, {"image": image, "poses": poses, "absent": "hide", "scores": True, "boxes": False,
                                 "threshold": 0.0}),
        "Poses[]": Case(lambda index: poses[index], {"index": slice(None)}),
        "Poses.to_coco": Case(poses.to_coco, {"image_ids": 1, "category_id": 1, "file_names": None}),
        "Poses.without_duplicates": Case(poses.without_duplicates, {"threshold": 0.9}),
        "Poses.save": Case(poses.save, {"path": folder / "saved.npz"}),
        "Poses.load": Case(oaks.Poses.load, {"path": folder / "poses.npz"}),
        "Poses.concatenate": Case(oaks.Poses.concatenate, {"parts": [poses]}),
        "Skeleton": Case(oaks.Skeleton, {"name": "a", "keypoints": ("a", "b"), "sigmas": (0.1, 0.1), "pairs": ((0, 1),),
                                         "limbs": ((0, 1),)}),
        "Skeleton.from_dict": Case(oaks.Skeleton.from_dict, {"content": oaks.COCO17.to_dict()}),
        "Tracker": Case(partial(Tracker, oaks.COCO17),
                        {"gate": 0.3, "score": "oaks", "match": 0.2, "repeat": 0.8, "patience": 1.0}),
        "OneEuro": Case(OneEuro, {"min_cutoff": 1.5, "beta": 2.0, "velocity_cutoff": 1.0}),
        "open_source": Case(
            partial(open_and_close, open_source), {"source": folder / "missing.mp4", "rate": 30.0, "live": None}
        ),
        "AnnotatedVideo": Case(
            partial(open_and_close, AnnotatedVideo, path=folder / "video.mp4"),
            {"absent": "hide", "boxes": False, "trails": 1.0, "quality": 20},
        ),
        "Frame": Case(Frame, {"image": image, "index": 0, "pts": 0, "time_base": Fraction(1, 30)}),
        "DetectorLike": Case(DetectorLike, {"jitter": 0.05, "misses": 0.02, "duplicates": 0.08, "background": 0.7}),
        "first_boxes": Case(boxes.first_boxes, {"boxes": corners, "box_scores": None}),
        "boxes_from_file": Case(boxes.boxes_from_file, {**by_category, "every": 1}),
        "read_boxes": Case(box_files.read_boxes, by_category),
        "read_detected_boxes": Case(box_files.read_boxes, {"path": folder / "r.json", "category": None}),
        "read_mot": Case(box_files.read_mot, missing),
        "read_annotations": Case(coco.read_annotations, {**by_category, "skeleton": oaks.COCO17}),
        "read_results": Case(read_results, {"path": folder / "r.json"}),
        "write_results": Case(partial(write_results, folder / "w.json"), {"rows": [{"image_id": 1}], "header": None}),
        "read_image": Case(images.read_image, missing),
        "read_size": Case(images.read_size, missing),
        "Scorer": Case(Scorer, file),
    }  # fmt: skip


__all__ = ["Case", "make_calls"]
