"""COCO's files of results: rows of keypoints or boxes, and the header beside them that says how they were made."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from oaks.arguments import check_iterable
from oaks.errors import ArgumentError
from oaks.files import write_json
from oaks.schema import shortened
from oaks.structured import read_json

_PACKAGES = ("oaks", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "tensorrt")


def make_header(described: Mapping[str, Any], *, box_source: str, **settings: Any) -> dict[str, Any]:
    """Return how results were made, for the header beside them.

    Args:
        described: Engine.describe().
        box_source: where the boxes are from: "annotated: FILE", "detected: FILE", "detector: FILE",
            "whole image".
        settings: further settings, such as nms and thresholds.
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
    """Return the path of a results file's header: results.header.json for results.json."""
    return Path(path).with_suffix(".header.json")


def write_results(
    path: str | Path, rows: Sequence[Mapping[str, Any]], header: Mapping[str, Any] | None = None
) -> None:
    """Write a COCO results file of keypoints or boxes: a plain list, as pycocotools loads it.

    Args:
        rows: as Poses.to_coco gives them, or boxes with image_id, category_id, bbox and score.
        header: how they were made (make_header); written beside the file.

    Raises:
        ArgumentError: a row holds NaN, or both "keypoints" and "bbox", with which pycocotools would read the file as box
            results.
    """
    rows = list(check_iterable("rows", rows))
    check_rows(rows)
    write_json(path, rows)
    if header is not None:
        write_json(header_path(path), header, indent=1)


def check_rows(rows: Sequence[Any]) -> None:
    """Refuse rows that `write_results` cannot write, before more are computed.

    Raises:
        ArgumentError: a row is not an object, or has "keypoints" and "bbox", with which pycocotools would read the file
            as box results.
    """
    for row in rows:
        if not isinstance(row, Mapping):
            raise ArgumentError(f"rows must be objects, got {shortened(row)}")
        if "bbox" in row and "keypoints" in row:
            raise ArgumentError(
                'rows: "bbox" makes pycocotools take keypoint results for boxes; write "box" instead'
            )


def read_results(path: str | Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return the rows of a results file, and the header beside it or None.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is not a list of results; the message names the file.
    """
    rows = read_json(path, top=list, strict=False)
    strange = next(
        (i for i, row in enumerate(rows) if not isinstance(row, dict) or "image_id" not in row), None
    )
    if strange is not None:
        raise ArgumentError(
            f"{path}: a results file must be a list of objects with image_id, got another row {strange}"
        )
    beside = header_path(path)
    return rows, read_json(beside, top=dict) if beside.is_file() else None


__all__ = ["check_rows", "header_path", "make_header", "read_results", "write_results"]
