"""Poses: shapes, slices, files and other libraries' forms."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections import UserList
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import RGB
from PIL import Image

from oaks import COCO17, ArgumentError, BackendUnavailable, Poses
from oaks.draw import draw
from oaks.poses import NO_TRACK

PLAIN = ("skeleton", "score_kind", "frame_count")
FIELDS = [entry.name for entry in dataclasses.fields(Poses) if entry.name not in PLAIN]


def make(count: int = 4, seed: int = 0, **changes: object) -> Poses:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 100, (count, 2))
    arrays = {
        "keypoints": random.uniform(0, 300, (count, 3, 2)),
        "visibility": random.uniform(0, 1, (count, 3)),
        "similarity": random.uniform(0, 1, (count, 3)),
        "heat": random.uniform(0, 1, (count, 3)),
        "oaks_scores": random.uniform(0, 1, count),
        "conventional_scores": random.uniform(0, 1, count),
        "scores": random.uniform(0, 1, count),
        "boxes": np.concatenate([corners, corners + random.uniform(1, 100, (count, 2))], axis=1),
        "box_scores": random.uniform(0, 1, count),
        "frame_index": np.arange(count) // 2,
    }
    return Poses(**{**arrays, "skeleton": RGB, **changes})


def assert_same(a: Poses, b: Poses) -> None:
    assert (a.skeleton, a.score_kind) == (b.skeleton, b.score_kind)
    for name in FIELDS:
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right, err_msg=name)


def test_arrays_have_one_type_each():
    poses = make(track_ids=[4, 5, 6, 7])
    for name in FIELDS:
        expected = np.int64 if name in ("frame_index", "track_ids") else np.float32
        assert getattr(poses, name).dtype == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keypoints", np.zeros((4, 2, 2))),
        ("visibility", np.zeros((4, 2))),
        ("heat", np.zeros(4)),
        ("scores", np.zeros((4, 1))),
        ("boxes", np.zeros((3, 4))),
        ("track_ids", [1]),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must have shape \(.*\), got"):
        make(**{name: value})


def test_keypoint_scores_are_similarity_times_visibility_or_heat():
    poses = make()
    np.testing.assert_array_equal(poses.keypoint_scores, poses.similarity * poses.visibility)
    plain = make(score_kind="conventional")
    np.testing.assert_array_equal(plain.keypoint_scores, plain.heat)


def test_present_is_placed_and_not_predicted_absent():
    visibility = np.float32([[0.5, np.nextafter(np.float32(0.5), np.float32(0)), np.nan]])
    poses = make(1, visibility=visibility)
    np.testing.assert_array_equal(poses.present, [[True, False, True]])
    lost = make(1, visibility=np.ones((1, 3)), keypoints=[[[1, np.nan], [1, 2], [np.nan, np.nan]]])
    np.testing.assert_array_equal(lost.present, [[False, True, False]])


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), slice(None, None, -1), [2, 0], np.array([True, False, True, False]), [], np.int64([3])],
)
def test_slices_take_the_same_rows_of_everything(index):
    poses = make(track_ids=[4, 5, 6, 7])
    part = poses[index]
    rows = np.arange(4)[np.asarray(index, int) if isinstance(index, list) else index]
    assert len(part) == len(rows)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(part, name), getattr(poses, name)[rows])


def test_invalid_indices_are_refused():
    with pytest.raises(ValueError, match="index must be "):
        make()[np.zeros((2, 2), int)]
    with pytest.raises(ValueError, match="index must be "):
        make()[[0.5]]
    with pytest.raises(IndexError):
        make()[4]


def test_iteration_gives_every_person_once():
    poses = make(track_ids=[4, 5, 6, 7])
    people = list(poses)
    assert [person.track_id for person in people] == [4, 5, 6, 7]
    for i, person in enumerate(people):
        np.testing.assert_array_equal(person.keypoints, poses.keypoints[i])
        np.testing.assert_array_equal(person.keypoint_scores, poses.keypoint_scores[i])
        assert person.score == poses.scores[i]
        assert person.frame_index == poses.frame_index[i]
    assert poses[-1].track_id == 7
    assert make()[0].track_id is None


def test_concatenate_puts_parts_in_a_row():
    poses = make()
    assert_same(Poses.concatenate([poses[:1], poses[1:1], poses[1:]]), poses)
    with pytest.raises(ValueError, match="at least one"):
        Poses.concatenate([])
    with pytest.raises(ValueError, match="same skeleton"):
        Poses.concatenate([poses, Poses.empty(COCO17)])
    with pytest.raises(ValueError, match="track_ids, or none"):
        Poses.concatenate([poses, make(track_ids=[0, 1, 2, 3])])


def test_empty_works_everywhere(tmp_path):
    poses = Poses.empty()
    assert (len(poses), list(poses), poses.to_coco(), poses.keypoint_scores.shape) == (0, [], [], (0, 17))
    assert len(poses[poses.frame_index == 0]) == 0
    poses.save(tmp_path / "none.npz")
    assert_same(Poses.load(tmp_path / "none.npz"), poses)
    assert len(poses.to_supervision()) == 0
    assert len(Poses.concatenate([poses, poses])) == 0


@pytest.mark.parametrize("track_ids", [None, [4, 5, 6, 7]])
def test_saved_poses_come_back_bit_for_bit(tmp_path, track_ids):
    poses = make(track_ids=track_ids, visibility=np.full((4, 3), np.nan), score_kind="conventional")
    poses.save(tmp_path / "poses.npz")
    assert_same(Poses.load(tmp_path / "poses.npz"), poses)
    assert [path.name for path in tmp_path.iterdir()] == ["poses.npz"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "poses.npz"
    make(seed=1).save(path)
    before = path.read_bytes()

    def fail(*_arguments, **_arrays):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        make(seed=2).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["poses.npz"]


def test_a_foreign_or_newer_file_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: not a file of Poses"):
        Poses.load(tmp_path / "other.npz")
    make().save(tmp_path / "cut.npz")
    for name, content in (("cut.npz", (tmp_path / "cut.npz").read_bytes()[:-50]), ("text.npz", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: not a file of Poses"):
            Poses.load(tmp_path / name)
    np.savez(tmp_path / "newer.npz", about=np.array(json.dumps({"format": 2})))
    with pytest.raises(ValueError, match=r"newer\.npz: .*format 2 is newer than 1"):
        Poses.load(tmp_path / "newer.npz")


@pytest.mark.parametrize("at", range(0, 1200, 40))
def test_a_damaged_file_raises_value_error(tmp_path, at):
    path = tmp_path / "poses.npz"
    make().save(path)
    content = bytearray(path.read_bytes())
    content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    path.write_bytes(content)
    with contextlib.suppress(ValueError):  # and nothing else; some bytes decide nothing
        Poses.load(path)


def test_image_ids_that_do_not_fit_are_refused():
    for ids in ({0: 7, 1: 8}, [7], "78", [1.5, 2.5], [[7, 8]]):
        with pytest.raises(
            ValueError, match=r"image_ids must be an integer, or one for each of the 2 frames"
        ):
            make().to_coco(ids)
    assert json.dumps(make().to_coco(np.array([7, 8]), np.int64(3)))
    assert Poses.empty().to_coco([]) == []


def test_coco_rows_hold_what_the_arrays_hold():
    poses = make(track_ids=[4, 5, 6, 7])
    rows = poses.to_coco([70, 80])
    assert [row["image_id"] for row in rows] == [70, 70, 80, 80]
    assert {row["category_id"] for row in rows} == {1}
    for row, pose in zip(rows, poses, strict=True):
        triplets = np.array(row["keypoints"]).reshape(3, 3)
        np.testing.assert_allclose(triplets[:, :2], pose.keypoints, atol=6e-4)
        np.testing.assert_allclose(triplets[:, 2], pose.keypoint_scores, atol=1e-7)
        x1, y1, x2, y2 = pose.box
        np.testing.assert_allclose(row["box"], [x1, y1, x2 - x1, y2 - y1], atol=6e-4)
        assert row["score"] == pytest.approx(pose.score, abs=1e-7)
        assert row["oaks_score"] == pytest.approx(pose.oaks_score, abs=1e-7)
        assert row["conventional_score"] == pytest.approx(pose.conventional_score, abs=1e-7)
        for name in ("visibility", "similarity", "heat"):
            np.testing.assert_allclose(row[name], getattr(pose, name), atol=1e-7)
        assert row["track_id"] == pose.track_id
    assert "bbox" not in rows[0]
    assert [row["image_id"] for row in make().to_coco()] == [0, 0, 1, 1]
    assert {row["image_id"] for row in make().to_coco(9)} == {9}


def test_coco_rows_are_json_whatever_is_missing():
    poses = make(
        1,
        keypoints=[[[np.nan, np.nan], [1, 2], [3, 4]]],
        visibility=np.full((1, 3), np.nan),
        similarity=np.full((1, 3), np.nan),
        oaks_scores=[np.nan],
        scores=[np.nan],
        boxes=[[10, 20, 30, 60]],
        score_kind="conventional",
        heat=[[np.nan, 0.5, 0.25]],
    )
    (row,) = json.loads(json.dumps(poses.to_coco(), allow_nan=False))
    assert row["keypoints"][:3] == [19.5, 39.5, 0]
    assert row["keypoints"][3:] == [1, 2, 0.5, 3, 4, 0.25]
    assert (row["visibility"], row["similarity"], row["oaks_score"], row["score"]) == (None, None, None, 0)
    assert row["heat"] == [None, 0.5, 0.25]


def test_rows_carry_the_names_of_their_files():
    names = [row["file_name"] for row in make().to_coco([7, 8], file_names=["a.jpg", "b/c.png"])]
    assert names == ["a.jpg", "a.jpg", "b/c.png", "b/c.png"]
    assert {row["file_name"] for row in make().to_coco(file_names="a.jpg")} == {"a.jpg"}
    assert all("file_name" not in row for row in make().to_coco())
    with pytest.raises(ValueError, match="file_names must be a name, or one for each of the 2 frames, got 1"):
        make().to_coco(file_names=["a.jpg"])


def test_file_names_can_be_any_indexable():
    expected = ["a.jpg", "a.jpg", "b.jpg", "b.jpg"]
    for given in (np.array(["a.jpg", "b.jpg"]), UserList(["a.jpg", "b.jpg"]), (Path("a.jpg"), Path("b.jpg"))):
        rows = json.loads(json.dumps(make().to_coco(file_names=given)))
        assert [row["file_name"] for row in rows] == expected
    for given in (np.array("a.jpg"), {"a.jpg", "b.jpg"}, iter(expected), b"ab", [1, 2], 3):
        with pytest.raises(ArgumentError, match="file_names must be a name, or one for each of the 2 frames"):
            make().to_coco(file_names=given)


def test_by_frame_gives_one_poses_for_every_frame_handed_in():
    poses = replace(make(), frame_index=[1, 3, 1, 0], frame_count=6)
    parts = poses.by_frame()
    assert [len(part) for part in parts] == [1, 2, 0, 1, 0, 0]
    assert_same(parts[1], poses[[0, 2]])
    assert [len(part) for part in replace(poses, frame_count=None).by_frame()] == [1, 2, 0, 1]
    assert Poses.empty().by_frame() == []
    assert [len(part) for part in Poses.empty(frame_count=3).by_frame()] == [0, 0, 0]


def test_frame_count_is_kept(tmp_path):
    poses = replace(make(), frame_count=5)
    poses.save(tmp_path / "poses.npz")
    assert Poses.load(tmp_path / "poses.npz").frame_count == poses[:1].frame_count == 5
    assert Poses.concatenate([poses, replace(poses, frame_count=9)]).frame_count == 9
    assert Poses.concatenate([poses, make()]).frame_count is None


def test_repr_is_one_short_line():
    poses = make(scores=[0.25, 0.5, 0.75, np.nan], track_ids=[1, 1, NO_TRACK, 2])
    assert repr(poses) == "Poses(4 people, 3 keypoints, 2 frames, oaks scores 0.25 to 0.75, 2 tracks)"
    assert repr(poses[:1]) == "Poses(1 person, 3 keypoints, oaks scores 0.25, 1 track)"
    assert repr(Poses.empty()) == "Poses(0 people, 17 keypoints)"


def test_notebooks_show_a_picture_of_the_poses():
    poses = make()
    picture = cv2.imdecode(np.frombuffer(poses._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] == 240
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3, "something is drawn"
    one = cv2.imdecode(np.frombuffer(poses.by_frame()[0]._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert one.shape[1] < picture.shape[1]
    assert Poses.empty()._repr_png_() is None
    lost = replace(poses, keypoints=np.full(poses.keypoints.shape, np.nan))
    assert lost._repr_png_() is None


def test_draw_takes_what_an_engine_takes(tmp_path):
    poses = make().by_frame()[0]
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    expected = draw(image, poses, boxes=True)
    assert (expected != image).any()
    for given in (image, tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(poses.draw(given, boxes=True), expected)
    with pytest.raises(ValueError, match=r"poses must be of one frame, got Poses\(4 people, .*by_frame"):
        make().draw(image)


def test_pandas_gets_a_row_per_pose():
    poses = make(track_ids=[4, 5, 6, 7])
    table = poses.to_pandas()
    assert len(table) == 4
    assert table["track_id"].tolist() == [4, 5, 6, 7]
    assert table["frame"].tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(table["score"], poses.scores)
    np.testing.assert_array_equal(table[["box_x1", "box_y1", "box_x2", "box_y2"]], poses.boxes)
    for place, name in enumerate(poses.skeleton.keypoints):
        np.testing.assert_array_equal(table[[f"{name}_x", f"{name}_y"]], poses.keypoints[:, place])
        np.testing.assert_array_equal(table[f"{name}_score"], poses.keypoint_scores[:, place])
        for what in ("visibility", "similarity", "heat"):
            np.testing.assert_array_equal(table[f"{name}_{what}"], getattr(poses, what)[:, place])
    assert len(Poses.empty().to_pandas().columns) == 9 + 6 * 17


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_missing_packages_are_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailable, match=f"to_{package} needs {package}: .*pip install"):
        getattr(make(), f"to_{package}")()


def test_supervision_gets_points_scores_and_presence():
    poses = make()
    keypoints = poses.to_supervision()
    np.testing.assert_array_equal(keypoints.xy, poses.keypoints)
    np.testing.assert_array_equal(keypoints.keypoint_confidence, poses.keypoint_scores)
    np.testing.assert_array_equal(keypoints.detection_confidence, poses.scores)
    np.testing.assert_array_equal(keypoints.visible, poses.present)
    np.testing.assert_array_equal(keypoints.data["frame_index"], poses.frame_index)
    assert len(keypoints[1:3]) == 2
    assert "track_id" not in keypoints.data
    assert make(track_ids=[4, 5, 6, 7]).to_supervision()[1:3].data["track_id"].tolist() == [5, 6]
