"""Poses from angles of joints, in degrees, for the hand-written families and motions."""

from __future__ import annotations

import numpy as np


def rotate(vector: np.ndarray, axis: int, degrees: float) -> np.ndarray:
    """Rotate vectors (..., 3) about the axis 0 (x), 1 (y) or 2 (z) of a right-handed frame."""
    angle = np.radians(degrees)
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    turned = vector.copy()
    turned[..., a] = np.cos(angle) * vector[..., a] - np.sin(angle) * vector[..., b]
    turned[..., b] = np.sin(angle) * vector[..., a] + np.cos(angle) * vector[..., b]
    return turned


def _limb(
    side: int, flex: float, abduct: float, bend: float, heading: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return upper and lower bone: swung forward by `flex`, outward by `abduct`, the joint bent by `bend` towards
    `heading` (0: forward of the upper bone, 90: outward)."""
    rest = np.array([0.0, -1.0, 0.0])
    ahead = np.array([0.0, 0.0, 1.0])
    across = np.array([float(side), 0.0, 0.0])
    turn = np.radians(heading)
    square = np.cos(turn) * ahead + np.sin(turn) * across
    lower = np.cos(np.radians(bend)) * rest + np.sin(np.radians(bend)) * square
    both = np.stack([rest, lower])
    both = rotate(rotate(both, 0, -flex), 2, side * abduct)
    return both[0], both[1]


def compose(
    lean: float = 0, sway: float = 0, twist: float = 0, head: tuple[float, float, float] = (0, 0, 0),
    arms: tuple[tuple[float, float, float, float], ...] = ((0, 8, 15, 0),) * 2,
    legs: tuple[tuple[float, float, float, float], ...] = ((0, 3, 4, 0),) * 2,
    tip: float = 0,
) -> np.ndarray:  # fmt: skip
    """Return a pose from angles; `tip` turns the whole body forward about its left-right axis (90: face down)."""
    pose = np.zeros((13, 3))
    spine = rotate(rotate(np.array([0.0, 1.0, 0.0]), 0, lean), 2, sway)
    pose[0] = spine
    pose[1] = [1, 0, 0]
    shoulders = rotate(np.array([1.0, 0.0, 0.0]), 1, twist)
    pose[2] = rotate(rotate(shoulders, 0, lean), 2, sway)
    for index, side in ((0, 1), (1, -1)):
        flex, abduct, bend, heading = arms[index]
        upper, lower = _limb(side, flex, abduct, bend, heading)
        turn = np.stack([upper, lower])
        turn = rotate(rotate(rotate(turn, 1, twist), 0, lean), 2, sway)
        pose[3 + index], pose[5 + index] = turn
        flex, abduct, bend, heading = legs[index]
        pose[7 + index], pose[9 + index] = _limb(side, flex, abduct, -bend, heading)
    yaw, nod, roll = head
    axes = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    axes = rotate(rotate(rotate(axes, 2, roll), 0, nod), 1, yaw + twist)
    pose[11:13] = rotate(rotate(axes, 0, lean * 0.5), 2, sway)
    return rotate(pose, 0, tip) if tip else pose
