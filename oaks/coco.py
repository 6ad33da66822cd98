"""COCO's JSON files: person boxes in, keypoint results out."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from oaks.files import write_json

AREA_OF_BOX = 0.53
"""A person's area as a part of their box's, where there is no mask: what COCO's masks cover on average."""
_PACKAGES = ("oaks", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "tensorrt")


@dataclass(frozen=True)
class PersonBoxes:
    """The boxes of the people in a set of images.

    Attributes:
        source: what a result's header should say about where the boxes are from.
        boxes: image id -> (N, 4) float32 x1, y1, x2, y2.
        scores: image id -> (N,) float32.
        image_ids: file name, with its folders where it has any -> image id; empty for a results file, which
            names no files.
    """

    source: str
    boxes: Mapping[int, np.ndarray]
    scores: Mapping[int, np.ndarray]
    image_ids: Mapping[str, int]

    def image_id(self, path: str | Path) -> int | None:
        """The id of an image file; COCO's own files without a list of names are numbers themselves.

        Where names have folders, the longest that the path ends with counts; else a file name that only one has.
        """
        path = Path(path)
        if self.image_ids:
            for start in range(len(path.parts)):
                name = "/".join(path.parts[start:])
                if name in self.image_ids:
                    return self.image_ids[name]
            found = [number for name, number in self.image_ids.items() if Path(name).name == path.name]
            return found[0] if len(found) == 1 else None
        digits = path.stem.rsplit("_", 1)[-1]
        return int(digits) if digits.isdecimal() else None

    def of(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) and scores (N,) of an image; none if it has none."""
        if image_id not in self.boxes:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return self.boxes[image_id], self.scores[image_id]


def read_boxes(path: str | Path, category: int = 1) -> PersonBoxes:
    """Person boxes from COCO JSON.

    Args:
        path: an annotation file (images and annotations; crowds are left out, scores are 1), or
            a results file (a list of rows with image_id, category_id, bbox and score).
        category: of a person in a results file, which does not name its categories.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither; the message names the file, and the row that does not fit.
    """
    content = _read_json(path)
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        try:
            person = person_category(content)
            rows = [row for row in content["annotations"] if not row.get("iscrowd", 0)]
            names = {Path(image["file_name"]).as_posix(): int(image["id"]) for image in content["images"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}: COCO annotations wanted, images with id and file_name: {error!r}"
            ) from error
        if len(names) < len(content["images"]):
            raise ValueError(f"{path}: two images have the same file name")
        return _collect(path, rows, person, names, "annotated")
    if isinstance(content, list):
        return _collect(path, content, category, {}, "detected")
    raise ValueError(f"{path}: COCO annotations or a list of results wanted, got {type(content).__name__}")


def _collect(
    path: str | Path, rows: Iterable[Mapping[str, Any]], category: int, names: dict[str, int], kind: str
) -> PersonBoxes:
    boxes: dict[int, list[list[float]]] = {}
    scores: dict[int, list[float]] = {}
    for number, row in enumerate(rows):
        try:
            if int(row.get("category_id", category)) != category:
                continue
            x, y, width, height = (float(value) for value in row["bbox"])
            image_id, score = int(row["image_id"]), float(row.get("score", 1.0))
            if not np.isfinite([x, y, width, height, score]).all() or min(width, height) < 0:
                raise ValueError(f"bbox {row['bbox']}, score {score}")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            where = row.get("id", number) if isinstance(row, Mapping) else number
            raise ValueError(
                f"{path}: row {where}: image_id and bbox [x, y, width, height] wanted: {error!r}"
            ) from error
        boxes.setdefault(image_id, []).append([x, y, x + width, y + height])
        scores.setdefault(image_id, []).append(score)
    return PersonBoxes(
        source=f"{kind}: {Path(path).name}",
        boxes={key: np.array(value, np.float32) for key, value in boxes.items()},
        scores={key: np.array(value, np.float32) for key, value in scores.items()},
        image_ids=names,
    )


def person_category(content: Mapping[str, Any]) -> int:
    """The id of people in annotations: of the only category, else of the one called person, else COCO's 1."""
    categories = content.get("categories", ())
    for category in categories:
        if len(categories) == 1 or category.get("name") == "person":
            return int(category["id"])
    return 1


def make_header(described: Mapping[str, Any], *, box_source: str, **settings: Any) -> dict[str, Any]:
    """How results were made, for the header beside them.

    Args:
        described: Engine.describe().
        box_source: where the boxes are from: "annotated: FILE", "detected: FILE", "detector: FILE",
            "whole image".
        settings: what else was chosen: nms, thresholds.
    """
    return {
        **described,
        "box_source": box_source,
        **settings,
        "versions": _versions(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def header_path(path: str | Path) -> Path:
    """Where the header of a results file lies: results.json has results.header.json."""
    return Path(path).with_suffix(".header.json")


def write_results(
    path: str | Path, rows: Sequence[Mapping[str, Any]], header: Mapping[str, Any] | None = None
) -> None:
    """Writes a COCO keypoint results file: a plain list, as pycocotools loads it.

    Args:
        rows: as Poses.to_coco gives them.
        header: how they were made (make_header); written beside the file.

    Raises:
        ValueError: a row has "bbox", for which pycocotools would take the file for box results, or holds NaN.
    """
    for row in rows:
        if "bbox" in row:
            raise ValueError(
                'rows: "bbox" makes pycocotools take keypoint results for boxes; write "box" instead'
            )
    write_json(path, list(rows))
    if header is not None:
        write_json(header_path(path), header, indent=1)


def read_results(path: str | Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The rows of a results file, and the header beside it, or None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a list of results; the message names the file.
    """
    rows = _read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "image_id" in row for row in rows):
        raise ValueError(f"{path}: a list of results with image_id wanted")
    beside = header_path(path)
    return rows, _read_json(beside) if beside.is_file() else None


def are_numbers(values: Any) -> bool:
    """Whether it is a finite number, or a flat list of them; null, text and lists within it are not."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths within it
        return False
    return array.ndim < 2 and array.dtype.kind in "iuf" and bool(np.isfinite(array).all())


def _read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


__all__ = [
    "AREA_OF_BOX",
    "PersonBoxes",
    "are_numbers",
    "header_path",
    "make_header",
    "person_category",
    "read_boxes",
    "read_results",
    "write_results",
]
