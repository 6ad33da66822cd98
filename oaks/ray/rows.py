"""Poses as rows of a table: one row per person, and one for a picture without people or with an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.addresses import redacted
from oaks.errors import ArgumentError
from oaks.poses import Poses
from oaks.skeleton import Skeleton

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
"""Format of the tables, stated in their metadata."""

_PER_KEYPOINT = ("visibility", "similarity", "keypoint_scores", "heat")
_PER_PERSON = {
    "box_score": "box_scores", "score": "scores", "oaks_score": "oaks_scores",
    "conventional_score": "conventional_scores",
}  # fmt: skip
"""Column -> array of Poses."""

COLUMNS = (
    "file", "frame", "time", "image_id", "width", "height", "person", "box", "box_score", "keypoints",
    *_PER_KEYPOINT, "score", "oaks_score", "conventional_score", "track_id", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The result for a picture, or for a frame of a video.

    Attributes:
        file: address of the picture or video; tables hold it without its password.
        poses: the people in it; None if it could not be read.
        size: (width, height), or None.
        error: why it could not be read, or why its poses have no score; None without an error.
        image_id: id in the box file, or None.
        frame, time: number of a video's frame and its time in seconds, or None.
    """

    file: str
    poses: Poses | None = None
    size: tuple[int, int] | None = None
    error: str | None = None
    image_id: int | None = None
    frame: int | None = None
    time: float | None = None


def schema() -> pa.Schema:
    """Schema of the tables; docs/ray.md describes each column."""
    import pyarrow as pa

    numbers = pa.list_(pa.float32())
    types = {
        "file": pa.string(), "frame": pa.int64(), "time": pa.float64(), "image_id": pa.int64(), "width": pa.int32(),
        "height": pa.int32(), "person": pa.int32(), "box": numbers, "keypoints": pa.list_(numbers),
        "track_id": pa.int64(), "error": pa.string(),
        **dict.fromkeys(_PER_KEYPOINT, numbers), **dict.fromkeys(_PER_PERSON, pa.float32()),
    }  # fmt: skip
    return pa.schema([(name, types[name]) for name in COLUMNS])


def to_table(found: Iterable[Found]) -> pa.Table:
    """Return the rows of pictures, in their order."""
    import pyarrow as pa

    pictures = list(found)
    counts = np.array([0 if entry.poses is None else len(entry.poses) for entry in pictures], np.int64)
    rows = np.maximum(counts, 1)  # a picture without people has a row too, which marks it as finished
    own = np.repeat(np.arange(len(pictures)), rows)
    blank = np.repeat(counts == 0, rows)
    within = np.arange(len(own)) - np.repeat(np.cumsum(rows) - rows, rows)
    listed = [entry.poses for entry in pictures if entry.poses is not None and len(entry.poses)]
    person = np.where(blank, 0, np.cumsum(~blank) - 1)

    def of_picture(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(own))

    def of_person(values: pa.Array) -> pa.Array:
        return values.take(pa.array(person, mask=blank))

    def joined(name: str) -> np.ndarray | None:
        return np.concatenate([getattr(poses, name) for poses in listed]) if listed else None

    def numbers(array: np.ndarray | None) -> pa.Array:
        """(N, ...) float32 as nested lists."""
        if array is None:
            return pa.nulls(0, pa.list_(pa.float32()))
        values = pa.array(np.ascontiguousarray(array).reshape(-1))
        for size in reversed(array.shape[1:]):
            values = pa.ListArray.from_arrays(
                pa.array(np.arange(0, len(values) + 1, size, dtype=np.int32)), values
            )
        return values

    expected = schema()
    columns: dict[str, pa.Array] = {
        **{
            name: of_picture([getattr(entry, name) for entry in pictures], expected.field(name).type)
            for name in ("frame", "time", "image_id")
        },
        "file": of_picture([redacted(entry.file, alone=True) for entry in pictures], pa.string()),
        "error": of_picture([entry.error and redacted(entry.error) for entry in pictures], pa.string()),
        "width": of_picture([entry.size and entry.size[0] for entry in pictures], pa.int32()),
        "height": of_picture([entry.size and entry.size[1] for entry in pictures], pa.int32()),
        "person": pa.array(within.astype(np.int32), mask=blank),
    }
    for name, attribute in {"box": "boxes", **{n: n for n in ("keypoints", *_PER_KEYPOINT)}}.items():
        array = joined(attribute)
        columns[name] = (
            pa.nulls(len(own), expected.field(name).type) if array is None else of_person(numbers(array))
        )
    for name, attribute in _PER_PERSON.items():
        array = joined(attribute)
        columns[name] = pa.nulls(len(own), pa.float32()) if array is None else of_person(pa.array(array))
    columns["track_id"] = _track_ids(listed, own, of_person)
    return pa.table([columns[name] for name in COLUMNS], schema=expected)


def _track_ids(listed: list[Poses], own: np.ndarray, of_person: Any) -> pa.Array:
    import pyarrow as pa

    if not listed or all(poses.track_ids is None for poses in listed):
        return pa.nulls(len(own), pa.int64())
    ids = [np.full(len(poses), -1) if poses.track_ids is None else poses.track_ids for poses in listed]
    return of_person(pa.array(np.concatenate(ids)))


def about(skeleton: Skeleton, score_kind: str, **more: Any) -> str:
    """Return the metadata of a table, as JSON text."""
    return json.dumps({"format": FORMAT, "skeleton": skeleton.to_dict(), "score_kind": score_kind, **more})


def read_about(metadata: Mapping[bytes, bytes] | None, name: str) -> dict[str, Any]:
    """Return the content of `about` from a table's metadata.

    Raises:
        ArgumentError: oaks did not write the table, or a newer version did.
    """
    try:
        content = json.loads((metadata or {})[b"oaks"])
        if content["format"] > FORMAT:
            raise ArgumentError(
                f"{name}: format must be at most {FORMAT}, got {content['format']}; upgrade oaks"
            )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{name}: must be a Parquet file that oaks wrote, got another") from error
    return content


def to_poses(table: pa.Table, skeleton: Skeleton, score_kind: str) -> Poses:
    """Return the people of a table; frame_index numbers the pictures (file and frame) in the order of their first rows."""
    people = table.filter(table["person"].is_valid())
    count, keypoints = people.num_rows, skeleton.count
    if not count:
        return Poses.empty(skeleton, score_kind)

    def array(name: str, *shape: int) -> np.ndarray:
        values = people[name].combine_chunks()
        while len(shape) and hasattr(values, "flatten") and values.type.num_fields:
            values = values.flatten()
        return np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(count, *shape)

    pictures: dict[tuple[str, int | None], int] = {}
    keys = zip(people["file"].to_pylist(), people["frame"].to_pylist(), strict=True)
    index = [pictures.setdefault(key, len(pictures)) for key in keys]
    tracked = people["track_id"].null_count == 0
    return Poses(
        keypoints=array("keypoints", keypoints, 2),
        boxes=array("box", 4),
        visibility=array("visibility", keypoints),
        similarity=array("similarity", keypoints),
        heat=array("heat", keypoints),
        box_scores=array("box_score"),
        scores=array("score"),
        oaks_scores=array("oaks_score"),
        conventional_scores=array("conventional_score"),
        frame_index=np.array(index),
        track_ids=people["track_id"].to_numpy() if tracked else None,
        skeleton=skeleton,
        score_kind=score_kind,
    )


__all__ = ["COLUMNS", "FORMAT", "Found", "about", "read_about", "schema", "to_poses", "to_table"]
