"""Smoothing of keypoints: the one-euro filter, weighted by visibility and predicted keypoint similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from oaks.arguments import is_number
from oaks.errors import ArgumentError
from oaks.poses import NO_TRACK, Poses

_FORGET = 2.0  # seconds after which the state of an absent track is dropped
_LEAST = 1e-3  # weight of a keypoint without visibility or similarity


@dataclass
class _State:
    """One person's filter: points (K, 2), velocities (K, 2) per second, weights so far (K,), and their time."""

    points: np.ndarray
    velocity: np.ndarray
    weight: np.ndarray
    time: float


class OneEuro:
    """The one-euro filter (Casiez, Roussel and Vogel, CHI 2012) on every keypoint of every track.

    A low-pass filter whose cutoff rises with the keypoint's speed: steady at rest, responsive in motion. It has two
    extensions. Each keypoint is weighted by visibility times predicted similarity, as in a weighted mean: an uncertain
    value changes little, and a certain one after uncertain ones nearly replaces them. And the last value is
    extrapolated with the filter's velocity before the new one is mixed in, so that evenly moving people are drawn
    without lag.

    Args:
        min_cutoff: Hz at rest; lower is steadier.
        beta: Hz added by a speed of one body size per second; higher lags less. A body's size is the square root of
            its box's area, so that near and far people are treated alike.
        velocity_cutoff: Hz of the filter of the velocity.

    Raises:
        ArgumentError: an argument does not fit.
    """

    def __init__(self, *, min_cutoff: float = 1.5, beta: float = 2.0, velocity_cutoff: float = 1.0) -> None:
        for name, value in (("min_cutoff", min_cutoff), ("velocity_cutoff", velocity_cutoff)):
            if not is_number(value) or value <= 0:
                raise ArgumentError(f"{name} must be a number above 0, got {value!r}")
        if not is_number(beta) or beta < 0:
            raise ArgumentError(f"beta must be a number 0 or more, got {beta!r}")
        self.min_cutoff, self.beta, self.velocity_cutoff = min_cutoff, beta, velocity_cutoff
        self._states: dict[int, _State] = {}

    def update(self, poses: Poses, time: float) -> Poses:
        """Return the smoothed poses of the next frame.

        Args:
            poses: of one frame, with track_ids; those of no track (-1) stay as they are.
            time: of the frame, in seconds.

        Returns:
            The same poses in the same order with other keypoints; NaN stays NaN.

        Raises:
            ArgumentError: poses without track_ids, two of one track, or a time that runs backwards.
        """
        if poses.track_ids is None:
            raise ArgumentError("poses must have track_ids, got None; each person is smoothed alone")
        keypoints = poses.keypoints.copy()
        weights = np.clip(np.nan_to_num(poses.keypoint_scores.astype(np.float64)), _LEAST, 1)
        sizes = np.sqrt(np.maximum((poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(axis=1), 1))
        done = set()
        for i, track_id in enumerate(poses.track_ids.tolist()):
            if track_id == NO_TRACK:
                continue
            if track_id in done:
                raise ArgumentError(f"poses must have each track once, got two of track {track_id}")
            done.add(track_id)
            points = poses.keypoints[i].astype(np.float64)
            if track_id in self._states:
                self._step(self._states[track_id], points, weights[i], float(sizes[i]), time)
                keypoints[i] = np.where(np.isfinite(points), self._states[track_id].points, points)
            else:
                self._states[track_id] = _State(points, np.zeros_like(points), weights[i], time)
        for track_id in [key for key, state in self._states.items() if time - state.time > _FORGET]:
            del self._states[track_id]
        return replace(poses, keypoints=keypoints)

    def rescale(self, scale: Sequence[float]) -> None:
        """Scale the state for pictures of another size: x and y times scale (2,)."""
        for state in self._states.values():
            state.points = state.points * np.asarray(scale)
            state.velocity = state.velocity * np.asarray(scale)

    def _step(self, state: _State, points: np.ndarray, weights: np.ndarray, size: float, time: float) -> None:
        """Update a person's filter with the points (K, 2) of a later time; NaN points are extrapolated."""
        step = time - state.time
        if step < 0:
            raise ArgumentError(f"time must be at least the last frame's, {state.time}, got {time}")
        if step == 0:
            return
        begun = np.isfinite(state.points)
        expected = state.points + state.velocity * step
        error = np.where(np.isfinite(points) & begun, points - expected, 0)
        trust = np.minimum(weights / state.weight, 1)
        state.velocity = state.velocity + (_share(self.velocity_cutoff, step) * trust)[:, None] * error / step
        speed = np.linalg.norm(state.velocity, axis=1) / size
        share = _share(self.min_cutoff + self.beta * speed, step)
        state.weight = (1 - share) * state.weight + share * weights
        gain = (share * weights / state.weight)[:, None]
        state.points = np.where(begun, expected + gain * error, points)
        state.time = time


def _share(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """Weight (0 to 1) of a new value in a low-pass filter of some cutoff (Hz) after some time (s)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


__all__ = ["OneEuro"]
