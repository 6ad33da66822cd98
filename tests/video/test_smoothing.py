"""The one-euro filter against a naive implementation, and its jitter and lag."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oaks.video.smoothing import OneEuro

from .scenes import STANDING, people


def reference(
    values: np.ndarray, weights: np.ndarray, times: np.ndarray, size: float, **settings
) -> np.ndarray:
    """Naive filter of one keypoint: values (T, 2), weights (T,)."""
    cutoff, beta, of_velocity = settings["min_cutoff"], settings["beta"], settings["velocity_cutoff"]
    point, velocity, weight = list(values[0]), [0.0, 0.0], weights[0]
    out = [list(point)]
    for t in range(1, len(values)):
        step = times[t] - times[t - 1]
        expected = [point[a] + velocity[a] * step for a in (0, 1)]
        smooth = 1 / (1 + (1 / (2 * math.pi * of_velocity)) / step) * min(weights[t] / weight, 1)
        velocity = [velocity[a] + smooth * (values[t, a] - expected[a]) / step for a in (0, 1)]
        rate = cutoff + beta * math.hypot(*velocity) / size
        alpha = 1 / (1 + (1 / (2 * math.pi * rate)) / step)
        weight = alpha * weights[t] + (1 - alpha) * weight
        gain = alpha * weights[t] / weight
        point = [expected[a] + gain * (values[t, a] - expected[a]) for a in (0, 1)]
        out.append(list(point))
    return np.array(out)


def walk(
    frames: int, *, rate: float, speed: float, noise: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return true and measured keypoints (T, 17, 2) of a walking person with swinging arms and legs."""
    random = np.random.default_rng(seed)
    times = np.arange(frames) / rate
    swing = np.zeros((frames, 17, 2))
    for k, side in ((9, 1), (10, -1), (15, -1), (16, 1)):
        swing[:, k, 0] = side * speed / 8 * np.sin(2 * np.pi * times)
    true = STANDING + swing + np.stack([speed * times, 0 * times], axis=1)[:, None]
    return true, true + random.normal(0, noise, true.shape)


def run(smoother: OneEuro, measured: np.ndarray, rate: float, **poses) -> np.ndarray:
    """Return smoothed keypoints (T, 17, 2)."""
    return np.array([
        smoother.update(people([(0, 0)], noise=points - STANDING, track_ids=[1], **poses), n / rate).keypoints[0]
        for n, points in enumerate(measured)
    ], np.float64)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"min_cutoff": 1.5, "beta": 2.0, "velocity_cutoff": 1.0},
        {"min_cutoff": 0.3, "beta": 0.0, "velocity_cutoff": 5.0},
    ],
)
def test_every_keypoint_equals_the_naive_one_euro_filter(settings):
    random = np.random.default_rng(3)
    times = np.cumsum(random.uniform(0.01, 0.1, 40))
    values = random.normal(0, 20, (40, 17, 2)).cumsum(axis=0).astype(np.float32)
    visibility, similarity = random.uniform(0, 1, (2, 40, 17)).astype(np.float32)
    smoother, out = OneEuro(**settings), []
    box = None
    for n, time in enumerate(times):
        poses = people(
            [(0, 0)], noise=values[n] - STANDING, visibility=visibility[n], similarity=similarity[n], track_ids=[7]
        )  # fmt: skip
        box = np.float32([[0, 0, 50, 200]])
        poses.boxes[:] = box
        out.append(smoother.update(poses, time).keypoints[0])
    weights = np.clip(visibility * similarity, 1e-3, 1).astype(np.float64)
    for k in (0, 5, 16):
        expected = reference(values[:, k].astype(np.float64), weights[:, k], times, 100.0, **settings)
        np.testing.assert_allclose(np.array(out)[:, k], expected, atol=1e-3)


def jitter(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points[15:], n=2, axis=0), axis=-1).mean())


@pytest.mark.parametrize("rate", [25.0, 30.0, 60.0])
@pytest.mark.parametrize("speed", [0.0, 30.0, 130.0])
def test_jitter_is_halved_and_the_lag_is_below_a_frame(rate, speed):
    true, measured = walk(200, rate=rate, speed=speed, noise=2.0)
    steady = run(OneEuro(), measured, rate)
    assert jitter(steady) < 0.5 * jitter(measured)
    if speed:
        velocity = np.gradient(true[..., 0], axis=0)[15:]
        late = ((true - steady)[15:, :, 0] * velocity).sum() / (velocity**2).sum()
        assert abs(late) < 1
    # The filter removes noise and keeps motion.
    assert np.square(steady - true)[15:].mean() < np.square(measured - true)[15:].mean()


def test_an_uncertain_value_changes_little_and_a_certain_one_after_it_much():
    still = np.tile(STANDING, (30, 1, 1))
    for bad_first in (False, True):
        weights = np.full(30, 0.01 if bad_first else 0.9)
        weights[20] = 0.9 if bad_first else 0.01
        still[20] = STANDING + 50
        smoother = OneEuro()
        for n in range(21):
            poses = people(
                [(0, 0)], noise=still[n] - STANDING, visibility=weights[n], similarity=1.0, track_ids=[1]
            )
            steady = smoother.update(poses, n / 30).keypoints[0]
        moved = (steady - STANDING) / 50
        assert (moved > 0.9).all() if bad_first else (abs(moved) < 0.02).all()


def test_equal_weights_change_nothing():
    _, measured = walk(40, rate=30, speed=100, noise=2.0)
    high = run(OneEuro(), measured, 30, visibility=1.0, similarity=1.0)
    low = run(OneEuro(), measured, 30, visibility=0.1, similarity=0.5)
    np.testing.assert_allclose(low, high, atol=1e-3)


def test_near_and_far_people_are_smoothed_alike():
    _, measured = walk(40, rate=30, speed=100, noise=2.0)
    near = run(OneEuro(), measured, 30)
    smoother = OneEuro()
    for n, points in enumerate(measured):
        poses = people([(0, 0)], noise=3 * points - STANDING, track_ids=[1])
        poses.boxes[:] = 3 * people([(0, 0)], noise=points - STANDING).boxes
        far = smoother.update(poses, n / 30).keypoints[0]
    np.testing.assert_allclose(far, 3 * near[-1], atol=2e-2)


def test_tracks_are_smoothed_separately_and_untracked_poses_are_not():
    smoother = OneEuro()
    smoother.update(people([(0, 0), (300, 0), (600, 0)], track_ids=[1, 2, -1]), 0.0)
    moved = people([(310, 0), (610, 0), (0, 0)], track_ids=[2, -1, 1])
    steady = smoother.update(moved, 1 / 30)
    assert 300 < (steady.keypoints[0] - STANDING)[:, 0].mean() < 310
    np.testing.assert_array_equal(steady.keypoints[1], moved.keypoints[1])
    np.testing.assert_allclose(steady.keypoints[2], moved.keypoints[2], atol=1e-4)
    assert steady.scores is moved.scores
    assert smoother.update(people([], track_ids=[]), 0.1).keypoints.shape == (0, 17, 2)


def test_nan_keypoints_stay_nan_and_return_unsmoothed():
    smoother = OneEuro()
    poses = people([(0, 0)], track_ids=[1])
    poses.keypoints[0, 4] = np.nan
    assert np.isnan(smoother.update(poses, 0.0).keypoints[0, 4]).all()
    first = smoother.update(people([(5, 0)], track_ids=[1]), 0.1).keypoints[0]
    np.testing.assert_allclose(first[4], STANDING[4] + (5, 0), atol=1e-4)
    gone = people([(5, 0)], track_ids=[1])
    gone.keypoints[0, 4] = np.nan
    steady = smoother.update(gone, 0.2).keypoints[0]
    assert np.isnan(steady[4]).all()
    assert np.isfinite(np.delete(steady, 4, axis=0)).all()
    assert np.isfinite(smoother.update(people([(5, 0)], track_ids=[1]), 0.3).keypoints).all()


def test_absent_tracks_are_dropped():
    smoother = OneEuro()
    smoother.update(people([(0, 0), (300, 0)], track_ids=[1, 2]), 0.0)
    smoother.update(people([(0, 0)], track_ids=[1]), 2.0)
    assert set(smoother._states) == {1, 2}
    smoother.update(people([(0, 0)], track_ids=[1]), 2.1)
    assert set(smoother._states) == {1}


def test_a_change_of_size_rescales_the_filter():
    smoother = OneEuro()
    for n in range(5):
        smoother.update(people([(200, 200)], track_ids=[1]), n / 30)
    smoother.rescale((0.5, 0.5))
    poses = people([(100, 100)], scale=0.5, track_ids=[1])
    np.testing.assert_allclose(smoother.update(poses, 5 / 30).keypoints, poses.keypoints, atol=1e-3)


def test_wrong_arguments_are_named():
    for arguments, message in (
        ({"min_cutoff": 0}, "min_cutoff must be a number above 0, got 0"),
        ({"velocity_cutoff": float("inf")}, "velocity_cutoff must be "),
        ({"beta": -1}, "beta must be a number 0 or more, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            OneEuro(**arguments)
    smoother = OneEuro()
    with pytest.raises(ValueError, match="poses must have track_ids"):
        smoother.update(people([(0, 0)]), 0.0)
    with pytest.raises(ValueError, match="two of track 3"):
        smoother.update(people([(0, 0), (1, 1)], track_ids=[3, 3]), 0.0)
    smoother.update(people([(0, 0)], track_ids=[1]), 1.0)
    with pytest.raises(ValueError, match="time must be at least the last frame's, 1.0"):
        smoother.update(people([(0, 0)], track_ids=[1]), 0.9)
