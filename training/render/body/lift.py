"""Lift 2D poses to 3D: bones shorter in the image than in the body lean towards the camera or away from it.

The limits of joints and the direction in which the person faces decide between the two, bone by bone from
the trunk. The camera's frame: x to the right of the image, y up, z towards the viewer.
"""

from __future__ import annotations

import numpy as np

from oaks.training.render.body.anatomy import unit

# Bones of the 2D pose as (row of BONES, COCO keypoint from, to, length as a share of the stature).
_BONES = (
    (1, 12, 11, 0.118), (2, 6, 5, 0.205),
    (3, 5, 7, 0.168), (4, 6, 8, 0.168), (5, 7, 9, 0.15), (6, 8, 10, 0.15),
    (7, 11, 13, 0.24), (8, 12, 14, 0.24), (9, 13, 15, 0.24), (10, 14, 16, 0.24),
)  # fmt: skip
_SPINE = 0.285
ASPECTS = (4 / 3, 3 / 4, 1.0)


def lengths(points: np.ndarray, labeled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bones of 2D poses: length in the image over share of the stature, (N, 11), and which are known.

    Args:
        points: (N, 17, 2).
        labeled: (N, 17) bool.
    """
    values, known = [], []
    middle = (points[:, 5] + points[:, 6]) / 2 - (points[:, 11] + points[:, 12]) / 2
    values.append(np.hypot(*middle.T) / _SPINE)
    known.append(labeled[:, [5, 6, 11, 12]].all(1))
    for _, a, b, share in _BONES:
        values.append(np.hypot(*(points[:, b] - points[:, a]).T) / share)
        known.append(labeled[:, a] & labeled[:, b])
    return np.stack(values, 1), np.stack(known, 1)


def choose_aspect(points: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Return the aspect (image width / height) of ASPECTS at which each pose's limbs are most plausible, (N,).

    The true aspect makes the fewest limbs look too long beside the others, so plausible limbs have similar ratios of
    length in the image to length in the body.

    Args:
        points: (N, 17, 2) as shares of the image's width and height.
        labeled: (N, 17) bool.
    """
    costs = []
    for aspect in ASPECTS:
        values, known = lengths(points * [aspect, 1.0], labeled)
        limbs = np.where(known, values, np.nan)[:, [0, 3, 4, 5, 6, 7, 8, 9, 10]]
        with np.errstate(all="ignore"):
            spread = np.log(np.maximum(limbs, 1e-6))
            center = np.nanmedian(np.where(np.isnan(limbs).all(1, keepdims=True), 0.0, spread), axis=1)
            costs.append(np.nanmean(np.abs(np.nan_to_num(spread - center[:, None])), axis=1))
    # Landscape photographs are the most common, so other aspects must be clearly better.
    weighted = np.stack(costs, 1) + np.array([0.0, 0.02, 0.02])
    return np.array(ASPECTS)[weighted.argmin(1)]


def stature(points: np.ndarray, labeled: np.ndarray) -> float:
    """Estimate the stature in the units of `points`, from the bones nearest to the image plane; 0 if unknown."""
    values, known = lengths(points[None], labeled[None])
    values, known = values[0], known[0].copy()
    known[1] = False  # hips are annotated anywhere across the pelvis
    found = np.sort(values[known])[::-1]
    if len(found) == 0:
        return 0.0
    return float(found[: min(3, len(found))].mean()) if len(found) > 2 else float(found[0])


def lift(points: np.ndarray, labeled: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Estimate the directions of bones of a 2D pose.

    Args:
        points: (17, 2) in units that are the same in x and y, y down.
        labeled: (17,) bool.

    Returns:
        (13, 3) directions in the camera's frame, (13,) bool which of them the labels determine, and the
        stature in the units of `points`.
    """
    flat = points * [1.0, -1.0]
    scale = stature(points, labeled)
    pose, known = np.zeros((13, 3)), np.zeros(13, bool)
    if scale <= 0:
        return pose, known, 0.0

    def bone(row: int, start: np.ndarray, end: np.ndarray, share: float) -> None:
        step = (end - start) / (share * scale)
        size = float(np.hypot(*step))
        pose[row, :2] = step / max(size, 1.0)
        pose[row, 2] = np.sqrt(max(1 - size * size, 0.0))
        known[row] = True

    face_turn = _face_turn(flat, labeled)
    if labeled[[5, 6, 11, 12]].all():
        bone(0, (flat[11] + flat[12]) / 2, (flat[5] + flat[6]) / 2, _SPINE)
        pose[0, 2] *= 0.6
        pose[0] = unit(pose[0])
    for row, a, b, share in _BONES:
        if labeled[a] and labeled[b]:
            bone(row, flat[a], flat[b], share)
    # The left side of a person who looks to the right of the image is farther away (z < 0).
    for row in (1, 2):
        pose[row, 2] *= -1.0 if face_turn > 0 else 1.0
    across = pose[2] if known[2] else pose[1]
    up = pose[0] if known[0] else np.array([0.0, 1.0, 0.0])
    forward = np.cross(unit(across), up)
    if not (known[1] or known[2]):
        forward = np.array([np.sin(face_turn), 0.0, np.cos(face_turn)])
    pose[0, 2] *= np.sign(forward[2]) if forward[2] else 1.0
    _choose_signs(pose, known, forward, across)
    _head(pose, known, flat, labeled, scale, up, forward)
    return pose, known, scale


def _choose_signs(pose: np.ndarray, known: np.ndarray, forward: np.ndarray, across: np.ndarray) -> None:
    """Decide for each limb whether it leans towards the viewer: thighs and arms prefer forward, knees bend back, elbows
    forward."""
    for other in (0, 1):
        for upper, lower, knee in ((7 + other, 9 + other, True), (3 + other, 5 + other, False)):
            options = []
            for first in (1, -1) if known[upper] else (1,):
                for second in (1, -1) if known[lower] else (1,):
                    a, b = pose[upper] * [1, 1, first], pose[lower] * [1, 1, second]
                    cost = 0.0
                    if known[upper]:
                        weight, most = (1.5, 0.6) if knee else (0.8, 0.5)
                        cost -= weight * min(float(a @ forward), most)
                    if known[upper] and known[lower]:
                        weight, back = (2.5 if knee else 1.5), np.cross(unit(across), a)
                        cost -= weight * float(np.clip(b @ (back if knee else -back), -0.5, 0.3))
                    options.append((cost, first, second))
            _, first, second = min(options)
            pose[upper, 2] *= first
            pose[lower, 2] *= second


def _face_turn(flat: np.ndarray, labeled: np.ndarray) -> float:
    """Return the face's direction, radians to the right of the image, from the place of the nose between the ears."""
    if labeled[3] and labeled[4] and labeled[0]:
        half = abs(flat[3, 0] - flat[4, 0]) / 2
        turn = float(np.arctan2(flat[0, 0] - (flat[3, 0] + flat[4, 0]) / 2, max(half, 1e-6)))
        return turn if flat[3, 0] >= flat[4, 0] else float(np.sign(turn) or 1) * np.pi - turn
    if labeled[0] and (labeled[3] or labeled[4]):
        ear = 3 if labeled[3] else 4
        return float(np.sign(flat[0, 0] - flat[ear, 0])) * np.radians(65)
    if labeled[0] or labeled[1] or labeled[2]:
        return 0.0
    # No part of the face is labeled: seen from behind.
    return np.pi


def _head(
    pose: np.ndarray,
    known: np.ndarray,
    flat: np.ndarray,
    labeled: np.ndarray,
    scale: float,
    up: np.ndarray,
    forward: np.ndarray,
) -> None:
    seen = int(labeled[:5].sum())
    if seen >= 2 and labeled[0]:
        turn = _face_turn(flat, labeled)
        ears = [k for k in (3, 4) if labeled[k]]
        rise = (flat[0, 1] - np.mean([flat[k, 1] for k in ears])) / (0.07 * scale) if ears else 0.0
        nod = float(np.clip(rise + 0.35, -0.9, 0.9)) * 0.7
        pose[12] = [np.sin(turn) * np.cos(nod), np.sin(nod), np.cos(turn) * np.cos(nod)]
    else:
        pose[12] = forward if forward[2] < 0.3 else np.array([forward[0], 0.0, -abs(forward[2])])
    pairs = [(left, right) for left, right in ((1, 2), (3, 4)) if labeled[left] and labeled[right]]
    eyes = flat[pairs[0][0]] - flat[pairs[0][1]] if pairs else None
    if eyes is not None and np.hypot(*eyes) > 0.01 * scale:
        level = np.array([-eyes[1], eyes[0], 0.0]) * (
            1 if eyes[0] * np.sign(pose[12, 2] or 1) >= 0 or abs(up[1]) < 0.3 else -1
        )
        pose[11] = unit(level * (1 if level @ up > 0 else -1) + 0.5 * up)
    else:
        pose[11] = up
    known[12] = labeled[0] or seen == 0
    known[11] = eyes is not None


def face_viewer(pose: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, float]:
    """Remove the yaw of a lifted pose.

    Returns:
        the pose turned to face +z, and the yaw in radians that turns it back.
    """
    forward = np.zeros(3)
    up = pose[0] if known[0] else np.array([0.0, 1.0, 0.0])
    for row, share in ((2, 1.0), (1, 0.6)):
        if known[row]:
            forward = forward + share * np.cross(unit(pose[row]), up)
    if np.hypot(forward[0], forward[2]) < 0.05:
        forward = pose[12]
    yaw = float(np.arctan2(forward[0], forward[2]))
    return turn(pose, -yaw), yaw


def turn(directions: np.ndarray, yaw: float) -> np.ndarray:
    """Rotate directions (..., 3) about the vertical; a positive yaw takes +z towards +x."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return directions @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
