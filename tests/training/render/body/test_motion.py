"""People who move: within the limits of joints, without jumps, on the ground, from stop to stop."""

from __future__ import annotations

import numpy as np
import pytest

from oaks.training.render.body.anatomy import JOINT, THIGH, draw_proportions, joints
from oaks.training.render.body.motion import _AHEAD, Stop, draw_manner, move, posture
from tests.training.render.body.limits import violations

RATE = 50.0
FEET = [JOINT[name] for name in ("left_heel", "left_toes", "right_heel", "right_toes")]


def person(seed):
    rng = np.random.default_rng(seed)
    return rng, draw_proportions(rng)


def world(motion, body):
    """Return the joints above the ground, (T, 24, 3): x to the right, y up, z away from the camera."""
    result = []
    for place, height, heading, pose in zip(
        motion.places, motion.heights, motion.headings, motion.poses, strict=True
    ):
        at = joints(pose, body)
        sine, cosine = np.sin(heading), np.cos(heading)
        x, z = cosine * at[:, 0] + sine * at[:, 2], -sine * at[:, 0] + cosine * at[:, 2]
        result.append(np.stack([place[0] + x, height + at[:, 1], place[1] - z], 1))
    return np.array(result)


@pytest.fixture(scope="module", params=range(3))
def stroll(request):
    """Return the motion of a person who walks, turns round, waits, waves and walks back, and the body."""
    rng, body = person(request.param)
    stops = [Stop((3.0, 5.2)), Stop((0.5, 5.0), 3.0, waving=True), Stop((-2.0, 4.8)), Stop((-1.8, 5.0), 9.0)]
    return move(rng, body, (1.5, 5.0), stops, int(17 * RATE), RATE), body


def test_joints_keep_their_limits(stroll):
    motion, _ = stroll
    assert not [names for pose in motion.poses if (names := violations(pose))]


def test_speeds_change_smoothly(stroll):
    """No joint is faster than a swinging foot, and none changes its speed at once."""
    motion, body = stroll
    speed = np.diff(world(motion, body), axis=0) * RATE
    assert 2 < np.linalg.norm(speed, axis=2).max() < 7  # meters per second
    assert np.linalg.norm(np.diff(speed, axis=0), axis=2).max() < 2


def test_feet_stand_on_the_ground(stroll):
    """A heel or a ball is always near the floor, none is deep in it, and the lowest one hardly slides."""
    motion, body = stroll
    at = world(motion, body)
    heels, toes = at[:, FEET[::2]], at[:, FEET[1::2]]
    soles = np.concatenate([heels, heels + 0.75 * (toes - heels)], 1)
    lowest = soles[..., 1].min(1)
    assert lowest.min() > -0.06
    assert lowest.max() < 0.03
    standing = soles[:-1, :, 1].argmin(1)
    steps = np.take_along_axis(np.diff(soles, axis=0), standing[:, None, None], 1)[:, 0, [0, 2]]
    speed = np.linalg.norm(np.diff(motion.places, axis=0), axis=1)
    walking = speed * RATE > 0.6
    assert walking.sum() > 3 * RATE
    assert np.median(np.linalg.norm(steps[walking], axis=1)) < 0.35 * np.median(speed[walking])


def test_stops_are_reached_in_order_and_waved_at(stroll):
    motion, body = stroll
    away = [np.linalg.norm(motion.places - place, axis=1) for place in ((3.0, 5.2), (0.5, 5.0), (-2.0, 4.8))]
    first = [int(np.argmax(distance < _AHEAD)) for distance in away]
    assert 0 < first[0] < first[1] < first[2]
    at = joints(posture(draw_manner(np.random.default_rng(0)), 0.0, 0.0, 0.0, 0.0), body)
    assert max(at[JOINT["left_wrist"], 1], at[JOINT["right_wrist"], 1]) < at[JOINT["left_shoulder"], 1]
    heights = world(motion, body)[:, [JOINT["left_wrist"], JOINT["right_wrist"]], 1].max(1)
    raised = heights > world(motion, body)[:, JOINT["neck"], 1]
    waits = slice(first[1], first[1] + int(3.4 * RATE))
    assert raised[waits].sum() > 0.4 * RATE
    assert not raised[: first[1]].any()
    assert np.linalg.norm(motion.places[-1] - motion.places[-50]) < 0.02  # stays at the last


def test_legs_swing_alternately():
    """Left and right thigh swing against each other, once per stride."""
    rng, body = person(7)
    manner = draw_manner(np.random.default_rng(1))
    phases = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    poses = np.array([posture(manner, phase, 1.0, 0.0, 0.0) for phase in phases])
    left, right = poses[:, THIGH, 2], poses[:, THIGH + 1, 2]
    assert np.corrcoef(left, right)[0, 1] < -0.6
    assert np.corrcoef(left, np.roll(right, 20))[0, 1] > 0.999
    spectrum = np.abs(np.fft.rfft(left - left.mean()))
    assert spectrum.argmax() == 1
    knees = np.degrees(np.arccos((poses[:, THIGH] * poses[:, THIGH + 2]).sum(1)))
    assert 50 < knees.max() < 70
    motion = move(rng, body, (-4.0, 5.0), [Stop((40.0, 5.0))], 200, RATE)
    speed = np.linalg.norm(np.diff(motion.places, axis=0), axis=1) * RATE
    assert 0.6 < speed.mean() < 2.0  # as people walk
