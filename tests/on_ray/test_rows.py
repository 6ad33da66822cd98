"""Poses as rows of a table, and back."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from oaks.errors import ArgumentError
from oaks.poses import Poses
from oaks.ray.rows import COLUMNS, Found, about, read_about, schema, to_poses, to_table
from oaks.skeleton import COCO17


def poses(count: int, seed: int = 0, *, tracked: bool = False) -> Poses:
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.random((count, *shape), np.float32)

    return Poses(
        keypoints=numbers(17, 2) * 100, visibility=numbers(17), similarity=numbers(17), heat=numbers(17),
        oaks_scores=numbers(), conventional_scores=numbers(), scores=numbers(), boxes=numbers(4), box_scores=numbers(),
        frame_index=np.zeros(count), track_ids=np.arange(count) + 5 if tracked else None,
    )  # fmt: skip


def test_tables_hold_no_passwords():
    address = "https://me:sec@ret@host/a.jpg"
    table = to_table([Found(address, Poses.empty()), Found(address, error=f"{address}: could not be read")])
    assert table["file"].to_pylist() == ["https://me:***@host/a.jpg"] * 2
    assert table["error"].to_pylist() == [None, "https://me:***@host/a.jpg: could not be read"]


def test_a_person_is_a_row_and_so_is_a_picture_without_one():
    first, last = poses(2, 1), poses(1, 2)
    table = to_table([
        Found("a.jpg", first, (640, 480), image_id=7), Found("b.jpg", Poses.empty(), (10, 20)),
        Found("c.jpg", error="damaged"), Found("d.jpg", last, (30, 40)),
    ])  # fmt: skip
    assert table.schema == schema()
    assert tuple(table.column_names) == COLUMNS
    assert table["file"].to_pylist() == ["a.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert table["person"].to_pylist() == [0, 1, None, None, 0]
    assert table["image_id"].to_pylist() == [7, 7, None, None, None]
    assert table["width"].to_pylist() == [640, 640, 10, None, 30]
    assert table["error"].to_pylist() == [None, None, None, "damaged", None]
    for row, (own, n) in {0: (first, 0), 1: (first, 1), 4: (last, 0)}.items():
        one = table.slice(row, 1).to_pylist()[0]
        assert np.array_equal(np.float32(one["keypoints"]), own.keypoints[n])
        assert np.array_equal(np.float32(one["box"]), own.boxes[n])
        for name in ("visibility", "similarity", "keypoint_scores", "heat"):
            assert np.array_equal(np.float32(one[name]), getattr(own, name)[n])
        for name in ("score", "oaks_score", "conventional_score", "box_score"):
            assert np.float32(one[name]) == getattr(own, f"{name}s")[n]
        assert one["track_id"] is None
    for row in (2, 3):
        one = table.slice(row, 1).to_pylist()[0]
        assert {name for name, value in one.items() if value is not None} <= {
            "file",
            "width",
            "height",
            "error",
        }


def test_rows_become_the_same_poses_again():
    parts = [poses(3, 1), poses(2, 2)]
    table = to_table(
        [Found("a", parts[0]), Found("b", Poses.empty()), Found("c", error="x"), Found("d", parts[1])]
    )
    back = to_poses(pa.concat_tables([table.slice(0, 2), table.slice(2)]), COCO17, "oaks")
    for name in (
        "keypoints",
        "visibility",
        "similarity",
        "heat",
        "scores",
        "oaks_scores",
        "conventional_scores",
        "boxes",
    ):
        assert np.array_equal(getattr(back, name), np.concatenate([getattr(part, name) for part in parts]))
    assert back.frame_index.tolist() == [0, 0, 0, 1, 1]
    assert back.track_ids is None
    assert back.to_coco([4, 9]) == parts[0].to_coco(4) + parts[1].to_coco(9)


def test_missing_values_stay_nan():
    """A bundle without visibility gives NaN, which is not the null of a picture without people."""
    own = poses(1)
    own.visibility[:] = np.nan
    own.keypoints[0, 3] = np.nan
    back = to_poses(to_table([Found("a", own)]), COCO17, "conventional")
    assert np.isnan(back.visibility).all()
    assert np.isnan(back.keypoints[0, 3]).all()
    assert back.score_kind == "conventional"


def test_frames_of_a_video_keep_time_and_tracks():
    table = to_table(
        Found("v.mp4", poses(2, n, tracked=True), (8, 8), frame=n, time=n / 25) for n in range(3)
    )
    assert table["frame"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert table["time"].to_pylist()[-1] == 2 / 25
    assert to_poses(table, COCO17, "oaks").track_ids.tolist() == [5, 6] * 3
    assert to_poses(table, COCO17, "oaks").frame_index.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("found", [[], [Found("a", error="x")], [Found("a", Poses.empty())]])
def test_without_people_there_are_no_poses(found):
    table = to_table(found)
    assert table.schema == schema()
    assert len(table) == len(found)
    assert len(to_poses(table, COCO17, "oaks")) == 0


def test_tables_are_recognized_by_their_metadata():
    content = read_about({b"oaks": about(COCO17, "oaks", source="a.tar").encode()}, "x")
    assert content["source"] == "a.tar"
    for metadata in (None, {}, {b"oaks": b"{}"}, {b"oaks": b"["}):
        with pytest.raises(ArgumentError, match="must be a Parquet file that oaks wrote"):
            read_about(metadata, "x")
    with pytest.raises(ArgumentError, match="upgrade oaks"):
        read_about({b"oaks": json.dumps({"format": 2}).encode()}, "x")
