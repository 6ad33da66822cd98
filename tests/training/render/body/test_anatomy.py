"""Joints: limits hold for every pose, bones keep their lengths, left is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oaks.training.render.body import poses
from oaks.training.render.body.anatomy import (
    BONES,
    ELBOW_LIMIT,
    JOINT,
    KNEE_LIMIT,
    TWIST_LIMIT,
    draw_proportions,
    frames,
    joints,
    limit,
    mirrored,
)
from tests.training.render.body.limits import violations


def angle(a, b):
    return np.arccos(np.clip(np.dot(a, b), -1, 1))


def check(pose):
    """Check the limits, stated independently by angles."""
    np.testing.assert_allclose(np.linalg.norm(pose, axis=1), 1, atol=1e-6)
    row = {name: pose[index] for index, name in enumerate(BONES)}
    pelvis, chest, head = frames(pose)
    assert angle(pelvis[0], chest[0]) <= TWIST_LIMIT + 1e-3
    assert angle(chest[2], head[2]) <= np.radians(101)
    for side in ("left", "right"):
        assert angle(row[f"{side}_upper_arm"], row[f"{side}_forearm"]) <= ELBOW_LIMIT + 1e-3
        assert angle(row[f"{side}_thigh"], row[f"{side}_shin"]) <= KNEE_LIMIT + 1e-3
        # The knee never bends forward: in the thigh's own frame the shin swings to its back.
        back = np.cross(pelvis[0], row[f"{side}_thigh"])
        assert row[f"{side}_shin"] @ back >= -1e-3
        outward = pelvis[0] * (1 if side == "left" else -1)
        assert row[f"{side}_thigh"] @ outward >= -0.5 - 1e-3
        assert row[f"{side}_thigh"] @ pelvis[2] >= -0.5 - 1e-3


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_directions_are_brought_within_the_limits(seed):
    pose = limit(np.random.default_rng(seed).normal(size=(13, 3)))
    check(pose)
    assert violations(pose) == []
    np.testing.assert_allclose(limit(pose), pose, atol=1e-3)


@pytest.mark.parametrize("family", sorted(poses.FAMILIES))
def test_families_hold_the_limits(family):
    rng = np.random.default_rng(3)
    for _ in range(10):
        check(poses.hand_written(rng, family))


def test_fitted_poses_hold_the_limits_and_differ():
    rng = np.random.default_rng(4)
    drawn = np.array([poses.shipped_statistics().pose(rng)[0] for _ in range(60)])
    for pose in drawn:
        check(pose)
    assert drawn.std(0).mean() > 0.15
    assert (drawn[:, 0, 1] > 0.6).mean() > 0.7  # most people are upright


def test_violations_are_named():
    pose = poses.hand_written(np.random.default_rng(0), "stand")
    row = BONES.index("left_shin")
    pose[row] = [0.0, -0.7, 0.714]  # a knee bent forward
    assert violations(pose) == ["left_shin"]


def test_bones_keep_their_lengths_and_sides():
    rng = np.random.default_rng(5)
    for _ in range(30):
        body = draw_proportions(rng)
        pose = poses.hand_written(rng)
        at = joints(pose, body)
        for side in ("left", "right"):
            place = {
                name: at[JOINT[f"{side}_{name}"]]
                for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
            }
            for start, end, length in (
                ("shoulder", "elbow", body.upper_arm), ("elbow", "wrist", body.forearm),
                ("hip", "knee", body.thigh), ("knee", "ankle", body.shin),
            ):  # fmt: skip
                assert np.linalg.norm(place[end] - place[start]) == pytest.approx(length)
        pelvis, chest, _ = frames(pose)
        assert (at[JOINT["left_shoulder"]] - at[JOINT["right_shoulder"]]) @ chest[0] > 0
        assert (at[JOINT["left_hip"]] - at[JOINT["right_hip"]]) @ pelvis[0] > 0


def test_mirroring_exchanges_left_and_right():
    rng = np.random.default_rng(8)
    body = draw_proportions(rng)
    swapped = [JOINT[_other(name)] for name in JOINT]
    for _ in range(10):
        pose = poses.hand_written(rng)
        check(mirrored(pose))
        np.testing.assert_allclose(mirrored(mirrored(pose)), pose)
        expected = joints(pose, body)[swapped] * [-1, 1, 1]
        np.testing.assert_allclose(joints(mirrored(pose), body), expected, atol=1e-9)


def _other(name):
    if name.startswith("left_"):
        return name.replace("left_", "right_")
    return name.replace("right_", "left_")


def test_proportions_span_men_women_and_children():
    rng = np.random.default_rng(6)
    people = [draw_proportions(rng) for _ in range(400)]
    adults = [body for body in people if not body.child]
    children = [body for body in people if body.child > 0.8]
    assert 20 < len(people) - len(adults) < 130
    assert 120 < sum(body.female for body in adults) < len(adults) - 120
    share = {name: np.mean([body.head / body.stature for body in group]) for name, group in
             (("adults", adults), ("children", children))}  # fmt: skip
    assert share["children"] > 1.2 * share["adults"]
    standing = [joints(poses.hand_written(rng, "stand"), body) for body in adults]
    tall = [
        at[JOINT["head_top"], 1] - min(at[JOINT["left_ankle"], 1], at[JOINT["right_ankle"], 1])
        for at in standing
    ]
    assert np.mean(tall) == pytest.approx(np.mean([body.stature for body in adults]), rel=0.07)
