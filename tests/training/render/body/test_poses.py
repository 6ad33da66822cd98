"""Poses lifted from 2D, files of poses, and the statistics fitted to them."""

from __future__ import annotations

import numpy as np
import pytest

from oaks.skeleton import COCO17
from oaks.training.render import RenderedPeople
from oaks.training.render.body import fit, lift
from oaks.training.render.body.anatomy import draw_proportions, unit
from oaks.training.render.body.figure import CameraView, Figure
from oaks.training.render.body.mesh import Body
from oaks.training.render.body.outfit import Outfit
from oaks.training.render.body.poses import PoseFile, hand_written, shipped_statistics
from oaks.training.render.scene.labels import CLASS_RANGES
from tests.training.render.body.limits import violations

LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))


def projected(rng, family, yaw=None):
    """Return 2D keypoints of a person, all labeled except the far side of the face, and its pose and yaw."""
    body = Body(draw_proportions(rng), Outfit())
    pose = hand_written(rng, family)
    yaw = rng.uniform(-np.pi, np.pi) if yaw is None else yaw
    figure = Figure(body, pose, CameraView(yaw, 0.0, 0.0, 12.0))
    labeled = np.ones(17, bool)
    labeled[:5] = figure.facing > 0
    return figure.keypoints, labeled, pose, yaw


def write_file(path, count=260, aspect=4 / 3, seed=0):
    rng = np.random.default_rng(seed)
    points, flags = np.zeros((count, 17, 2), np.float32), np.zeros((count, 17), np.uint8)
    for index in range(count):
        xy, labeled, _, _ = projected(rng, ("stand", "walk", "sit", "raise")[index % 4], rng.normal(0, 0.7))
        expected = int(rng.integers(*CLASS_RANGES[index % 4])) if index % 4 < 3 else 17
        keep = np.argsort(-xy[:, 1] if rng.random() < 0.5 else xy[:, 0])[:expected]
        shown = np.zeros(17, bool)
        shown[keep] = True
        if index % 4 == 3:
            labeled[:5] = True
        points[index] = (xy * 0.2 + 0.5) / [aspect, 1.0]
        flags[index] = 2 * (shown & labeled)
    np.savez(path, kpt_xy=points, kpt_v=flags)
    return points, flags


def angles_between(a, b):
    """Return degrees between the limbs of two 2D poses, where both are long enough to have a direction."""
    result = []
    for start, end in LIMBS:
        u, v = a[end] - a[start], b[end] - b[start]
        if min(np.linalg.norm(u), np.linalg.norm(v)) > 0.35 * max(np.linalg.norm(a[11] - a[5]), 1e-6):
            result.append(np.degrees(np.arccos(np.clip(unit(u) @ unit(v), -1, 1))))
    return result


def test_a_lifted_pose_projects_to_the_same_limbs():
    rng = np.random.default_rng(1)
    errors, front = [], []
    for index in range(40):
        xy, labeled, truth, yaw = projected(rng, ("stand", "walk", "sit", "sport")[index % 4])
        pose, known, scale = lift.lift(xy, labeled)
        assert known[3:11].all()
        assert 0.75 < scale / 1.72 < 1.5 or scale > 0.9
        np.testing.assert_allclose(np.linalg.norm(pose[:11], axis=1), 1, atol=1e-6)
        for row in range(3, 11):
            flat = (truth @ lift.turn(np.eye(3), yaw))[row, :2]
            if np.linalg.norm(flat) > 0.4:
                errors.append(np.degrees(np.arccos(np.clip(unit(flat) @ unit(pose[row, :2]), -1, 1))))
        _, found = lift.face_viewer(pose, known)
        front.append(np.cos(found - yaw))
    assert np.median(errors) < 3
    assert np.mean(np.array(front) > 0.5) > 0.8  # most are seen from the side that they were seen from


def test_the_aspect_is_found():
    rng = np.random.default_rng(2)
    for aspect in lift.ASPECTS:
        people = [projected(rng, "spread", rng.normal(0, 0.3)) for _ in range(60)]
        points = np.array([xy / [aspect, 1.0] for xy, *_ in people])
        labeled = np.array([seen for _, seen, *_ in people])
        labeled[:, :5] = False
        found = lift.choose_aspect(points, labeled)
        assert (found == aspect).mean() > 0.4  # of three


def test_turning_agrees_with_the_camera():
    assert lift.turn(np.array([0.0, 0.0, 1.0]), 0.5) == pytest.approx(
        CameraView(0.5, 0, 0, 4).rotation() @ [0, 0, 1]
    )
    pose = hand_written(np.random.default_rng(0), "stand")
    again, yaw = lift.face_viewer(lift.turn(pose, 2.0), np.ones(13, bool))
    assert lift.turn(again, yaw) == pytest.approx(lift.turn(pose, 2.0))


def test_completion_keeps_the_known():
    rng = np.random.default_rng(3)
    known = np.zeros(13, bool)
    known[:7] = True
    pose = hand_written(rng, "sit")
    for _ in range(5):
        filled = shipped_statistics().complete(pose, known, rng)
        np.testing.assert_array_equal(filled[known], pose[known])
        np.testing.assert_allclose(np.linalg.norm(filled, axis=1), 1, atol=1e-6)


def test_files_of_poses_give_their_people(tmp_path):
    points, flags = write_file(tmp_path / "poses.npz")
    source = PoseFile(tmp_path / "poses.npz")
    rng = np.random.default_rng(4)
    body = Body(draw_proportions(rng), Outfit())
    errors = []
    for draw in range(30):
        level = draw % 4
        pose, yaw, pattern = source.draw(rng, level)
        assert violations(pose) == []
        low, high = CLASS_RANGES[level]
        assert low <= pattern.sum() <= high
        if level == 3:
            figure = Figure(body, pose, CameraView(yaw, 0.0, 0.0, 12.0))
            candidates = [points[i] * [4 / 3, 1.0] for i in np.flatnonzero((flags > 0).sum(1) >= 16)]
            errors.append(min(np.median(angles_between(xy, figure.keypoints)) for xy in candidates))
    assert np.median(errors) < 12
    image, annotations = RenderedPeople(0, poses=tmp_path / "poses.npz").sample(0)
    assert image.shape == (320, 320, 3)
    assert annotations


def test_foreign_files_of_poses_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", kpt_xy=np.zeros((1, 17, 2)))
    np.savez(tmp_path / "few.npz", kpt_xy=np.zeros((1, 17, 2)), kpt_v=np.zeros((1, 17)))
    for name in ("text.npz", "other.npz", "few.npz"):
        with pytest.raises(ValueError, match=name):
            PoseFile(tmp_path / name)


def test_statistics_are_fitted_without_the_poses(tmp_path):
    _, flags = write_file(tmp_path / "poses.npz", 400)
    fit.fit(tmp_path / "poses.npz", tmp_path / "fitted.npz", components=4, rank=3, patterns=5)
    with np.load(tmp_path / "fitted.npz") as content:
        assert sum(array.size for array in content.values()) < 400 * 34
        codes = ((flags > 0) * (1 << np.arange(17))).sum(1)
        labeled = (flags > 0).sum(1)
        whole = codes[labeled >= 16]
        best = content["pattern_counts_3"].max()
        assert best == max((whole == code).sum() for code in np.unique(whole))
        assert content["weights"].sum() <= ((flags[:, 5:] > 0).all(1)).sum()
    statistics = type(shipped_statistics())(tmp_path / "fitted.npz")
    pose, _ = statistics.pose(np.random.default_rng(0))
    assert violations(pose) == []


def test_shipped_patterns_are_of_their_class():
    rng = np.random.default_rng(5)
    for level, (low, high) in enumerate(CLASS_RANGES):
        drawn = [shipped_statistics().pattern(rng, level) for _ in range(40)]
        assert all(low <= pattern.sum() <= high for pattern in drawn)
        assert len({tuple(pattern) for pattern in drawn}) > (2 if level == 3 else 10)
    assert COCO17.count == 17


@pytest.mark.real_people
def test_real_poses_are_rendered(real_data):
    people = RenderedPeople(1, poses=real_data / "coco_kpts_2017.npz")
    levels = [0] * 4
    for index in range(60):
        for entry in people.sample(index)[1]:
            for level, (low, high) in enumerate(CLASS_RANGES):
                levels[level] += low <= entry["num_keypoints"] <= high
    np.testing.assert_allclose(np.array(levels) / sum(levels), (0.145, 0.279, 0.432, 0.144), atol=0.12)
