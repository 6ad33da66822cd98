"""Detections to be measured: a COCO keypoint results file, written by oaks or by another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks.coco_fields import alone, are_numbers, counted_categories, is_whole, lists_of_numbers
from oaks.coco_results import read_results
from oaks.errors import ArgumentError
from oaks.names import printable
from oaks.schema import shortened
from oaks.val.assignment import assign_people
from oaks.val.ground_truth import GroundTruth

BOX_SOURCES = ("ground truth", "detected")


@dataclass(frozen=True)
class Detections:
    """N detected poses on the ground truth's scale, sorted by image and, within an image, in the file's order.

    Attributes:
        path: the results file.
        name: its name in tables.
        header: the file's header, which states what the figures depend on; empty if it has none.
        box_source: "ground truth" or "detected".
        rows: (N,) index of each row in the file.
        image: (N,) index into the ground truth's images.
        keypoints: (N,K,2) original pixels.
        scores: (N,) the file's scores, which include the box score.
        areas: (N,) area of the rectangle around the keypoints, as in pycocotools.
        own: (N,) index of the person that a pose belongs to; -1 for none. With ground-truth boxes, the person whose
            box was cropped.
        box_scores: (N,) or None.
        heat, visibility, similarity: (N,K) values per keypoint, or None if the file has none.
    """

    path: str
    name: str
    header: dict[str, Any]
    box_source: str
    rows: np.ndarray
    image: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    own: np.ndarray
    box_scores: np.ndarray | None
    heat: np.ndarray | None
    visibility: np.ndarray | None
    similarity: np.ndarray | None

    @property
    def count(self) -> int:
        """The number of poses, N."""
        return len(self.scores)

    @classmethod
    def load(
        cls, path: str | Path, truth: GroundTruth, *, name: str | None = None, box_source: str | None = None
    ) -> Detections:
        """Read a results file and its header, if there is one beside it.

        Args:
            path: a JSON list that pycocotools' loadRes accepts. Rows may also hold what oaks writes: `box_score`,
                `heat`, `visibility` and `similarity` (K values each), `annotation_id` (the person whose box was
                cropped).
            truth: the people to measure against.
            name: its name in tables; default: the file's stem.
            box_source: "ground truth" or "detected", if the header does not state it; default: "detected".

        Raises:
            ArgumentError: the content is wrong; the message names the file and the row.
        """
        rows, header = read_results(path)
        box_source = box_source or _stated_source(header or {})
        return cls.from_rows(rows, truth, path=str(path), name=name, header=header, box_source=box_source)

    @classmethod
    def from_rows(
        cls,
        rows: list[dict[str, Any]],
        truth: GroundTruth,
        *,
        path: str = "results",
        name: str | None = None,
        header: dict[str, Any] | None = None,
        box_source: str | None = None,
    ) -> Detections:
        """Like `load`, from rows in memory; `path` is only used in messages."""
        if not isinstance(rows, list):
            raise ArgumentError(f"{path} must be a list of detections, got {type(rows).__name__}")
        if box_source not in (None, *BOX_SOURCES):
            raise ArgumentError(f"{path}: box_source must be one of {BOX_SOURCES}, got {box_source!r}")
        _check_ids(rows, path)
        position = {int(image_id): i for i, image_id in enumerate(truth.image_ids)}
        kept = [i for i, row in enumerate(rows) if _belongs(row, i, path, position, truth)]
        if rows and not kept:
            found = counted_categories(np.array([row["category_id"] for row in rows], np.int64))
            raise ArgumentError(
                f"{path}: some row must have category_id {truth.category_id}, that of {truth.path}, got {found}"
            )
        kept.sort(key=lambda i: position[rows[i]["image_id"]])
        kept_rows = [rows[i] for i in kept]
        image = np.array([position[row["image_id"]] for row in kept_rows], dtype=np.int64)
        scale = truth.scales[image]

        count = truth.skeleton.count
        points = np.array([row["keypoints"] for row in kept_rows], dtype=float).reshape(-1, count, 3)
        keypoints = points[..., :2] * scale[:, None]
        extent = keypoints.max(axis=1) - keypoints.min(axis=1)
        heat = _field(kept_rows, kept, path, "heat", count)
        if heat is None and len(points) and np.ptp(points[..., 2]) > 0:
            heat = points[..., 2]
        box_scores = _field(kept_rows, kept, path, "box_score", None)
        box_source = box_source or "detected"
        return cls(
            path=path,
            name=printable(name or Path(path).stem),
            header=header or {},
            box_source=box_source,
            rows=np.array(kept, dtype=np.int64),
            image=image,
            keypoints=keypoints,
            scores=np.array([row["score"] for row in kept_rows], dtype=float),
            areas=extent[:, 0] * extent[:, 1],
            own=assign_people(truth, box_source, kept_rows, image, keypoints, path=path, indices=kept),
            box_scores=None if box_scores is None else box_scores[:, 0],
            heat=heat,
            visibility=_field(kept_rows, kept, path, "visibility", count),
            similarity=_field(kept_rows, kept, path, "similarity", count),
        )


def _stated_source(header: dict[str, Any]) -> str | None:
    """Translate the box_source of oaks.coco_results.make_header ("annotated: FILE", "detected: FILE", ...)."""
    stated = header.get("box_source")
    if stated is None:
        return None
    return "ground truth" if str(stated).startswith("annotated") else "detected"


def _check_ids(rows: Sequence[Any], path: str) -> None:
    """Refuse ids that are not integers: a row of category "1" would be ignored as one of another category."""
    for index, row in enumerate(rows):
        for key in ("image_id", "category_id", "annotation_id"):
            value = row.get(key) if isinstance(row, dict) else None
            if value is not None and not is_whole(value):
                raise ArgumentError(f"{path}: row {index}: {key} must be an integer, got {shortened(value)}")


def _belongs(row: dict[str, Any], index: int, path: str, images: dict[int, int], truth: GroundTruth) -> bool:
    """Check one row; return False if it is of another category."""
    where = f"{path}: row {index} (image {row.get('image_id') if isinstance(row, dict) else '?'})"
    for key in ("image_id", "category_id", "keypoints", "score"):
        if not isinstance(row, dict) or row.get(key) is None:
            raise ArgumentError(f"{where}: {key!r} is missing")
    if row["category_id"] != truth.category_id:
        return False
    if row["image_id"] not in images:
        raise ArgumentError(f"{where}: {truth.path} has no image {row['image_id']}")
    count = truth.skeleton.count
    if not are_numbers(row["keypoints"]):
        raise ArgumentError(
            f"{where}: keypoints must be finite numbers in one list, got {str(row['keypoints'])[:64]}"
        )
    if np.size(row["keypoints"]) != 3 * count:
        raise ArgumentError(
            f"{where}: skeleton {truth.skeleton.name!r} has {count} keypoints of 3 numbers each, the row "
            f"has {np.size(row['keypoints']) / 3:g}"
        )
    if not are_numbers(row["score"]) or np.ndim(row["score"]):
        raise ArgumentError(f"{where}: score must be a finite number, got {str(row['score'])[:64]}")
    return True


def _field(
    rows: Sequence[dict[str, Any]], indices: Sequence[int], path: str, key: str, count: int | None
) -> np.ndarray | None:
    """Return an optional field as (N,count); None if it is missing or null in all of some rows.

    `count` is None for a field that holds a number, which is returned as (N,1).
    """
    values = [alone(row.get(key)) if count is None else row.get(key) for row in rows]
    missing = [n for n, value in enumerate(values) if value is None]
    if rows and len(missing) == len(rows):
        return None

    def label(n: int) -> str:
        return f"{path}: row {indices[n]} (image {rows[n]['image_id']}): {key}"

    if missing:
        raise ArgumentError(f"{label(missing[0])} is missing, though other rows have it")
    return lists_of_numbers(
        values, count or 1, label, "a finite number" if count is None else f"a list of {count}"
    )
