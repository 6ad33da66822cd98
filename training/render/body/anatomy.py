"""The articulated person: proportions, a pose as directions of bones, and the limits of joints.

The body frame: x towards the person's left, y up, z forward; meters. A pose is a (13, 3) array of unit
vectors, one per row of BONES; the frames of pelvis, chest and head follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BONES = (
    "spine", "hips", "shoulders",
    "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm",
    "left_thigh", "right_thigh", "left_shin", "right_shin",
    "head_up", "head_forward",
)  # fmt: skip
"""Directions: pelvis to neck, right to left hip and shoulder, limbs away from the trunk, two axes of the head."""

(SPINE, HIPS, SHOULDERS, UPPER_ARM, _, FOREARM, _, THIGH, _, SHIN, _, HEAD_UP, HEAD_FORWARD) = range(13)
# Of limbs, the row of the left one is named; the right one's row is the next.

JOINTS = (
    "pelvis", "neck", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_fingers", "right_fingers", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle", "left_heel", "right_heel", "left_toes", "right_toes",
    "pelvis_low", "neck_low", "head_top",
)  # fmt: skip
JOINT = {name: index for index, name in enumerate(JOINTS)}


@dataclass(frozen=True)
class Proportions:
    """One person's lengths in meters; `build` scales the girths, `female` and `child` run from 0 to 1."""

    stature: float
    female: float
    child: float
    build: float
    spine: float
    neck: float
    head: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    hand: float
    thigh: float
    shin: float
    foot: float


def draw_proportions(rng: np.random.Generator) -> Proportions:
    """Draw a man, woman or child with realistic sizes and builds."""
    child = float(rng.uniform(0.25, 1.0)) if rng.random() < 0.16 else 0.0
    female = float(rng.random() < 0.5)
    stature = (1.77 - 0.13 * female) * (1 - 0.42 * child) * float(np.clip(rng.normal(1, 0.04), 0.9, 1.1))
    build = float(np.clip(np.exp(rng.normal(0.02, 0.14)), 0.78, 1.5))

    def about(share: float) -> float:
        return stature * share * float(np.clip(rng.normal(1, 0.035), 0.9, 1.1))

    return Proportions(
        stature, female, child, build,
        spine=about(0.288), neck=about(0.046), head=about(0.138 + 0.055 * child),
        shoulder=about(0.104 - 0.009 * female - 0.006 * child), hip=about(0.055 + 0.003 * female),
        upper_arm=about(0.172 - 0.01 * child), forearm=about(0.152 - 0.006 * child), hand=about(0.1),
        thigh=about(0.242 - 0.025 * child), shin=about(0.244 - 0.03 * child), foot=about(0.15),
    )  # fmt: skip


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross product of two vectors (3,); much faster than NumPy's general one."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


_FORWARD, _UP, _LEFT = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (..., 3) to length one; a zero vector stays zero."""
    if vectors.ndim == 1:
        return vectors / max(float(vectors @ vectors) ** 0.5, 1e-9)
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    return vectors / np.maximum(length, 1e-9)


def frame(across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the rows x, y, z (3, 3) of a right-handed frame: y is `up`, x as close to `across` as possible."""
    y = unit(up)
    x = across - (across @ y) * y
    if x @ x < 1e-6:
        x = cross(y, _FORWARD) if abs(y[2]) < 0.9 else cross(y, _UP)
    x = unit(x)
    return np.stack([x, y, cross(x, y)])


def frames(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frames of pelvis, chest and head, (3, 3) each with rows x, y, z, in the pose's coordinates."""
    pelvis = frame(pose[HIPS], pose[SPINE])
    chest = frame(pose[SHOULDERS], pose[SPINE])
    forward = pose[HEAD_FORWARD]
    up = pose[HEAD_UP] - (pose[HEAD_UP] @ forward) * forward
    head = frame(cross(up, forward), up) if up @ up > 1e-6 else chest
    return pelvis, chest, head


def mirrored(pose: np.ndarray) -> np.ndarray:
    """Mirror a pose (13, 3): left becomes right."""
    order = [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 11, 12]
    result = pose[order] * [-1.0, 1.0, 1.0]
    result[[HIPS, SHOULDERS]] *= -1
    return result


def joints(pose: np.ndarray, body: Proportions) -> np.ndarray:
    """Return the places of the JOINTS (24, 3), the pelvis at the origin."""
    pelvis, chest, head = frames(pose)
    at = np.zeros((len(JOINTS), 3))
    at[JOINT["neck"]] = body.spine * pose[SPINE]
    at[JOINT["neck_low"]] = 0.9 * at[JOINT["neck"]]
    at[JOINT["pelvis_low"]] = -0.06 * body.stature * pose[SPINE]
    at[JOINT["head"]] = at[JOINT["neck"]] + body.neck * unit(0.6 * chest[1] + 0.4 * head[1] + 0.25 * chest[2])
    at[JOINT["head_top"]] = at[JOINT["head"]] + body.head * head[1]
    for side, sign in (("left", 1), ("right", -1)):
        other = int(sign < 0)
        arm = pose[UPPER_ARM + other]
        # A raised arm lifts its shoulder and brings it inward.
        lift = 0.5 + 0.5 * float(arm @ chest[1])
        shoulder = (
            at[JOINT["neck"]]
            + sign * body.shoulder * (1 - 0.12 * lift) * chest[0]
            + body.stature * (0.035 * lift - 0.022) * chest[1]
            + 0.03 * body.stature * float(arm @ chest[2]) * (1 - lift) * chest[2]
        )
        elbow = shoulder + body.upper_arm * arm
        wrist = elbow + body.forearm * pose[FOREARM + other]
        hip = sign * body.hip * pelvis[0] - 0.012 * body.stature * pelvis[1]
        knee = hip + body.thigh * pose[THIGH + other]
        ankle = knee + body.shin * pose[SHIN + other]
        toe = foot_direction(pose, other, pelvis)
        fingers = wrist + body.hand * unit(0.85 * pose[FOREARM + other] + 0.15 * arm)
        heel = ankle + 0.03 * body.stature * pose[SHIN + other] - 0.3 * body.foot * toe
        placed = {
            "shoulder": shoulder, "elbow": elbow, "wrist": wrist, "fingers": fingers, "hip": hip, "knee": knee,
            "ankle": ankle, "heel": heel, "toes": heel + body.foot * toe,
        }  # fmt: skip
        for name, place in placed.items():
            at[JOINT[f"{side}_{name}"]] = place
    return at


def foot_direction(pose: np.ndarray, other: int, pelvis: np.ndarray) -> np.ndarray:
    """Return the direction of the toes: square to the shin, forward over the knee, turned out a little."""
    shin = pose[SHIN + other]
    sideways = pelvis[0] - (pelvis[0] @ shin) * shin
    ahead = unit(cross(shin, unit(sideways))) if sideways @ sideways > 1e-6 else pelvis[2]
    out = (1 - 2 * other) * 0.2 * unit(sideways)
    return unit(ahead + out + 0.12 * shin)


# ---- limits of joints: each limits a direction in the frame of the bone before it

TWIST_LIMIT = np.radians(50)
HEAD_TURN_LIMIT = np.radians(80)
HEAD_NOD_LIMIT = np.radians(60)
KNEE_LIMIT = np.radians(150)
ELBOW_LIMIT = np.radians(148)
KNEE_SIDE_LIMIT = np.radians(45)
THIGH_BACK, THIGH_INWARD, THIGH_OUTWARD = -0.5, -0.5, 0.94
ARM_BACK, ARM_INWARD = -0.75, -0.7


def limit(pose: np.ndarray) -> np.ndarray:
    """Return a pose within the limits of joints, close to `pose`; limited joint by joint from the trunk outwards.

    Args:
        pose: (13, 3) directions, of any length above zero.

    Returns:
        (13, 3) unit vectors, which `limit` leaves as they are.
    """
    pose = unit(np.array(pose, dtype=np.float64))
    for row in (HIPS, SHOULDERS):
        pose[row] = frame(pose[row], pose[SPINE])[0]
    pelvis = frame(pose[HIPS], pose[SPINE])
    twist = np.arctan2(-(pose[SHOULDERS] @ pelvis[2]), pose[SHOULDERS] @ pelvis[0])
    if abs(twist) > TWIST_LIMIT:
        twist = np.clip(twist, -TWIST_LIMIT, TWIST_LIMIT)
        pose[SHOULDERS] = np.cos(twist) * pelvis[0] - np.sin(twist) * pelvis[2]
    chest = frame(pose[SHOULDERS], pose[SPINE])
    _limit_head(pose, chest)
    for other in (0, 1):
        outward = 1 - 2 * other
        arm = chest @ pose[UPPER_ARM + other]
        arm = _within(arm, outward, (ARM_INWARD, 1.0), ARM_BACK)
        pose[UPPER_ARM + other] = arm @ chest
        forearm = _bend(chest @ pose[FOREARM + other], arm, ELBOW_LIMIT)
        if arm[1] < 0.2:
            forearm = _not_backwards(forearm, arm)
        pose[FOREARM + other] = forearm @ chest
        thigh = _within(pelvis @ pose[THIGH + other], outward, (THIGH_INWARD, THIGH_OUTWARD), THIGH_BACK)
        pose[THIGH + other] = thigh @ pelvis
        pose[SHIN + other] = _knee(pelvis @ pose[SHIN + other], thigh) @ pelvis
    return pose


def _limit_head(pose: np.ndarray, chest: np.ndarray) -> None:
    forward, up = chest @ pose[HEAD_FORWARD], chest @ pose[HEAD_UP]
    turn = float(np.clip(np.arctan2(forward[0], forward[2]), -HEAD_TURN_LIMIT, HEAD_TURN_LIMIT))
    nod = float(np.clip(np.arcsin(np.clip(forward[1], -1, 1)), -HEAD_NOD_LIMIT, HEAD_NOD_LIMIT))
    forward = np.array([np.sin(turn) * np.cos(nod), np.sin(nod), np.cos(turn) * np.cos(nod)])
    level = np.array([-np.sin(turn) * np.sin(nod), np.cos(nod), -np.cos(turn) * np.sin(nod)])
    side = cross(level, forward)
    tilt = float(np.clip(np.arctan2(up @ side, max(up @ level, 1e-6)), -0.6, 0.6))
    pose[HEAD_FORWARD] = forward @ chest
    pose[HEAD_UP] = (np.cos(tilt) * level + np.sin(tilt) * side) @ chest


def _within(direction: np.ndarray, outward: int, sideways: tuple[float, float], back: float) -> np.ndarray:
    """Limit a limb's direction sideways (positive: outward) and backwards."""
    x = np.clip(direction[0] * outward, *sideways)
    z = max(direction[2], back)
    rest = 1 - x * x - z * z
    if rest < 0:
        z = np.sign(z) * np.sqrt(max(1 - x * x, 0.0))
        rest = 0.0
    sign = -1.0 if direction[1] <= 0 else 1.0
    if x * outward == direction[0] and z == direction[2]:
        return direction
    return np.array([x * outward, sign * np.sqrt(rest), z])


def _bend(direction: np.ndarray, before: np.ndarray, most: float) -> np.ndarray:
    """Limit the angle between a bone and the one before it."""
    cosine = float(np.clip(direction @ before, -1, 1))
    if np.arccos(cosine) <= most:
        return direction
    square = direction - cosine * before
    if square @ square < 1e-9:
        square = cross(before, _LEFT) + 1e-3
    return np.cos(most) * before + np.sin(most) * unit(square - (square @ before) * before)


def _not_backwards(forearm: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """Limit the elbow of a lowered arm, which bends forward or sideways, not back."""
    along = float(np.clip(forearm @ arm, -1, 1))
    square = forearm - along * arm
    ahead = np.array([0.0, 0.0, 1.0]) - arm[2] * arm
    size, reach = np.sqrt(square @ square), np.sqrt(ahead @ ahead)
    if size < 1e-6 or reach < 0.2:
        return forearm
    ahead = ahead / reach
    front = float(square @ ahead)
    floor = -0.3 * size
    if front >= floor - 1e-9:
        return forearm
    rest = square - front * ahead
    rest = unit(rest) if rest @ rest > 1e-9 else cross(arm, ahead)
    return along * arm + floor * ahead + np.sqrt(max(float(size * size - floor * floor), 0.0)) * rest


def _knee(shin: np.ndarray, thigh: np.ndarray) -> np.ndarray:
    """Limit the knee, a hinge: the shin swings back, and a little sideways by rotation at the hip."""
    back = cross(_LEFT, thigh)
    back = unit(back) if back @ back > 1e-6 else np.array([0.0, 0.0, -1.0])
    side = cross(thigh, back)
    along = float(np.clip(shin @ thigh, -1, 1))
    bend = float(np.arccos(along))
    heading = float(np.arctan2(shin @ side, shin @ back))
    if bend < 1e-3 or (bend <= KNEE_LIMIT and abs(heading) <= KNEE_SIDE_LIMIT):
        return shin
    if abs(heading) > np.pi / 2:
        bend = min(bend, 0.05)  # bent forward: straighten
    heading = float(np.clip(heading, -KNEE_SIDE_LIMIT, KNEE_SIDE_LIMIT))
    bend = min(bend, KNEE_LIMIT)
    return np.cos(bend) * thigh + np.sin(bend) * (np.cos(heading) * back + np.sin(heading) * side)
