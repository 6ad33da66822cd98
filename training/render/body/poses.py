"""Sources of poses: families written by hand, the statistics of real poses, or a file of 2D poses.

All give a pose (13, 3) as in anatomy, upright as the person would be seen, facing roughly +z, within
the limits of joints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from oaks.errors import ArgumentError
from oaks.skeleton import COCO17
from oaks.structured import read_npz
from oaks.training.render.body import lift
from oaks.training.render.body.anatomy import limit, mirrored, unit
from oaks.training.render.body.angles import compose, rotate
from oaks.training.render.scene.labels import CLASS_EDGES

STATISTICS = Path(__file__).parent / "pose_statistics.npz"


class Statistics:
    """Statistics of real poses: a mixture of low-rank Gaussians over directions, and patterns of labels.

    Attributes:
        weights: (C,) the mixture's shares.
        means: (C, 39); factors: (C, R, 39); spreads: (C, 39): a pose (13, 3) in a row is
            mean + normal @ factor + normal * spread.
        facing: (C, 36): how often each component faces each 10 degrees of yaw, from -180 up.
        patterns: for each of the four occlusion levels, (P,) int: bit k is set where keypoint k has a label.
        pattern_weights: for each class, (P,) float shares.
    """

    def __init__(self, path: Path = STATISTICS) -> None:
        with np.load(path) as content:
            self.weights = content["weights"].astype(np.float64)
            self.means = content["means"].astype(np.float64)
            self.factors = content["factors"].astype(np.float64)
            self.spreads = content["spreads"].astype(np.float64)
            self.facing = content["facing"].astype(np.float64)
            self.patterns = [content[f"patterns_{index}"].astype(np.int64) for index in range(4)]
            self.pattern_weights = [_shares(content[f"pattern_counts_{index}"]) for index in range(4)]
        self.weights /= self.weights.sum()

    def pose(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Draw a pose within the limits; return it and its component."""
        component = int(rng.choice(len(self.weights), p=self.weights))
        factor = self.factors[component]
        vector = self.means[component] + rng.normal(size=len(factor)) @ factor
        vector = vector + rng.normal(size=len(vector)) * self.spreads[component]
        return limit(vector.reshape(13, 3)), component

    def yaws(self, rng: np.random.Generator, component: int, count: int) -> np.ndarray:
        """Draw yaws (count,), in radians, at which poses of a component are seen."""
        steps = rng.choice(36, count, p=_shares(self.facing[component]))
        return np.radians(-180 + 10 * (steps + rng.random(count)))

    def pattern(self, rng: np.random.Generator, level: int) -> np.ndarray:
        """Draw which keypoints have a label, (17,) bool, as on a real person of this occlusion level."""
        code = int(self.patterns[level][rng.choice(len(self.patterns[level]), p=self.pattern_weights[level])])
        return (code >> np.arange(17)) & 1 == 1

    def complete(self, pose: np.ndarray, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw the unknown directions of a pose given the known ones, from the mixture.

        Args:
            pose: (13, 3) directions facing +z; rows that are not known are not read.
            known: (13,) bool.
            rng: random generator.
        """
        mask = np.repeat(known, 3)
        vector = pose.reshape(39)
        noise = self.spreads**2 + 0.02
        distance = ((vector - self.means) ** 2 / noise)[:, mask].sum(1) + np.log(noise)[:, mask].sum(1)
        log = np.log(self.weights + 1e-12) - 0.5 * distance
        component = int(rng.choice(len(log), p=_shares(np.exp(log - log.max()))))
        factor, mean, spread = self.factors[component], self.means[component], noise[component]
        # The latent's posterior given the known coordinates, then the rest from it.
        seen = factor[:, mask] / spread[mask]
        precision = np.eye(len(factor)) + seen @ factor[:, mask].T
        latent = np.linalg.solve(precision, seen @ (vector - mean)[mask])
        latent = latent + np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=len(factor)))
        filled = (mean + latent @ factor).reshape(13, 3)
        return np.where(known[:, None], pose, unit(filled))


@cache
def shipped_statistics() -> Statistics:
    """Return the statistics that come with the package."""
    return Statistics()


def _shares(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    return counts / counts.sum()


# ---- families written by hand


def _head(rng: np.random.Generator) -> tuple[float, float, float]:
    return float(rng.normal(0, 25)), float(rng.normal(4, 14)), float(rng.normal(0, 8))


def _arm(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw an arm that hangs, holds, points, is on the hip, at the head, across the body or raised."""
    kind = int(rng.integers(7))
    n = rng.normal
    if kind == 0:
        return n(0, 12), abs(n(8, 6)), abs(n(15, 15)), n(0, 20)
    if kind == 1:
        return n(25, 20), abs(n(12, 10)), rng.uniform(50, 110), n(-15, 20)
    if kind == 2:
        return rng.uniform(50, 110), n(10, 25), rng.uniform(0, 50), n(0, 30)
    if kind == 3:
        return n(-15, 8), rng.uniform(30, 50), rng.uniform(85, 120), n(-60, 12)
    if kind == 4:
        return rng.uniform(40, 110), rng.uniform(10, 40), rng.uniform(100, 145), n(-20, 20)
    if kind == 5:
        return n(25, 10), n(0, 8), rng.uniform(80, 110), n(-65, 12)
    return rng.uniform(110, 180), rng.uniform(0, 40), rng.uniform(0, 80), n(-20, 30)


def _stand(rng: np.random.Generator) -> np.ndarray:
    legs = tuple(
        (rng.normal(2, 6), abs(rng.normal(4, 4)), abs(rng.normal(4, 5)), rng.normal(0, 10)) for _ in range(2)
    )
    return compose(
        rng.normal(2, 6), rng.normal(0, 4), rng.normal(0, 10), _head(rng), (_arm(rng), _arm(rng)), legs
    )


def _walk(rng: np.random.Generator, pace: tuple[float, float] = (10, 35)) -> np.ndarray:
    swing = rng.uniform(*pace) * (1 if rng.random() < 0.5 else -1)
    fast = pace[1] > 40
    bend = rng.uniform(60, 110) if fast else rng.uniform(5, 45)
    arms = tuple(
        (-side * swing * 0.9, abs(rng.normal(8, 5)), bend * rng.uniform(0.8, 1.2), rng.normal(-10, 15))
        for side in (1, -1)
    )
    legs = tuple(
        (side * swing * rng.uniform(0.7, 1.3) + (15 if fast else 3), abs(rng.normal(2, 2)),
         rng.uniform(30, 110) if fast and side * swing < 0 else rng.uniform(3, 45), 0.0)
        for side in (1, -1)
    )  # fmt: skip
    return compose(rng.normal(12 if fast else 4, 4), rng.normal(0, 3), -swing * 0.3, _head(rng), arms, legs)


def _run(rng: np.random.Generator) -> np.ndarray:
    return _walk(rng, (30, 65))


def _sit(rng: np.random.Generator) -> np.ndarray:
    legs = tuple(
        (rng.uniform(65, 100), rng.uniform(0, 25), rng.uniform(40, 105), rng.normal(0, 15)) for _ in range(2)
    )
    return compose(
        rng.normal(5, 15), rng.normal(0, 5), rng.normal(0, 12), _head(rng), (_arm(rng), _arm(rng)), legs
    )


def _squat(rng: np.random.Generator) -> np.ndarray:
    flex, bend = rng.uniform(50, 115), rng.uniform(70, 140)
    legs = tuple(
        (flex + rng.normal(0, 8), rng.uniform(5, 35), bend + rng.normal(0, 8), rng.normal(0, 10))
        for _ in range(2)
    )
    return compose(
        rng.uniform(10, 50), rng.normal(0, 5), rng.normal(0, 10), _head(rng), (_arm(rng), _arm(rng)), legs
    )


def _kneel(rng: np.random.Generator) -> np.ndarray:
    one = (rng.uniform(-5, 25), abs(rng.normal(5, 5)), rng.uniform(70, 130), 0.0)
    other = (
        (rng.uniform(70, 100), rng.uniform(5, 20), rng.uniform(70, 110), 0.0) if rng.random() < 0.5 else one
    )
    return compose(rng.normal(10, 12), 0, rng.normal(0, 10), _head(rng), (_arm(rng), _arm(rng)), (one, other))


def _lie(rng: np.random.Generator) -> np.ndarray:
    legs = tuple(
        (rng.uniform(-5, 70), rng.uniform(0, 25), rng.uniform(0, 90), rng.normal(0, 15)) for _ in range(2)
    )
    pose = compose(rng.normal(5, 10), 0, rng.normal(0, 10), _head(rng), (_arm(rng), _arm(rng)), legs)
    pose = rotate(pose, 0, float(rng.choice([-80, 80])) + rng.normal(0, 10))
    return rotate(pose, 1, rng.uniform(-180, 180))


def _sport(rng: np.random.Generator) -> np.ndarray:
    def reach() -> tuple[float, float, float, float]:
        return rng.uniform(-40, 170), rng.uniform(0, 90), rng.uniform(0, 110), rng.normal(-10, 40)

    legs = tuple(
        (rng.uniform(-25, 80), rng.uniform(0, 50), rng.uniform(5, 100), rng.normal(0, 20)) for _ in range(2)
    )
    lean, sway, twist = rng.normal(18, 22), rng.normal(0, 15), rng.normal(0, 25)
    return compose(lean, sway, twist, _head(rng), (reach(), reach()), legs, rng.normal(0, 12))


def _raise(rng: np.random.Generator) -> np.ndarray:
    arms = tuple(
        (rng.uniform(0, 30), rng.uniform(95, 175), rng.uniform(0, 70), rng.normal(-30, 40)) for _ in range(2)
    )
    legs = tuple((rng.normal(3, 8), abs(rng.normal(6, 6)), abs(rng.normal(6, 8)), 0.0) for _ in range(2))
    return compose(rng.normal(0, 6), rng.normal(0, 6), rng.normal(0, 8), _head(rng), arms, legs)


def _spread(rng: np.random.Generator) -> np.ndarray:
    arms = tuple(
        (rng.normal(5, 15), rng.uniform(60, 110), rng.uniform(0, 60), rng.normal(0, 60)) for _ in range(2)
    )
    legs = tuple((rng.normal(5, 12), rng.uniform(2, 30), rng.uniform(0, 40), 0.0) for _ in range(2))
    return compose(rng.normal(6, 10), rng.normal(0, 8), rng.normal(0, 10), _head(rng), arms, legs)


FAMILIES: dict[str, tuple[float, Callable[[np.random.Generator], np.ndarray]]] = {
    "stand": (0.3, _stand), "walk": (0.17, _walk), "run": (0.08, _run), "sit": (0.14, _sit),
    "squat": (0.05, _squat), "kneel": (0.03, _kneel), "lie": (0.03, _lie), "sport": (0.1, _sport),
    "raise": (0.05, _raise), "spread": (0.05, _spread),
}  # fmt: skip
"""Share of each family, and the function that draws a pose of it."""


def hand_written(rng: np.random.Generator, family: str | None = None) -> np.ndarray:
    """Draw a pose (13, 3) of one of FAMILIES (by their shares, unless named), within the limits of joints."""
    if family is None:
        names = list(FAMILIES)
        family = names[int(rng.choice(len(names), p=[FAMILIES[name][0] for name in names]))]
    return limit(FAMILIES[family][1](rng))


class PoseSource:
    """Poses from the shipped statistics with probability `fitted`, otherwise from the hand-written families."""

    def __init__(self, fitted: float = 0.72) -> None:
        self.fitted = fitted
        self.statistics = shipped_statistics()

    def draw(self, rng: np.random.Generator, level: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Draw a person of an occlusion level: pose (13, 3), yaw in radians, (17,) bool: which keypoints have labels."""
        pattern = self.statistics.pattern(rng, level)
        if rng.random() < self.fitted:
            pose, component = self.statistics.pose(rng)
            yaws = self.statistics.yaws(rng, component, 10)
        else:
            pose = hand_written(rng)
            yaws = rng.uniform(-np.pi, np.pi, 14)
        yaw = fitting_yaw(pose, pattern, yaws)
        if rng.random() < 0.5:
            return mirrored(pose), -yaw, pattern[COCO17.mirror]
        return pose, yaw, pattern


class PoseFile:
    """Poses of a file with kpt_xy (N, 17, 2), relative to the image's width and height, and kpt_v (N, 17)."""

    def __init__(self, path: Path) -> None:
        try:
            content = read_npz(path)
            self._points, visible = content["kpt_xy"].astype(np.float64), content["kpt_v"]
        except (KeyError, ValueError, OSError) as error:
            raise ArgumentError(
                f"poses: {path} is no file of 2D poses (kpt_xy, kpt_v in an npz): {error}"
            ) from error
        if self._points.shape != (len(self._points), 17, 2) or visible.shape != (len(self._points), 17):
            raise ArgumentError(
                f"poses: {path} must have kpt_xy of shape (N, 17, 2) and kpt_v of shape (N, 17), got "
                f"{self._points.shape} and {visible.shape}"
            )
        if not np.isfinite(self._points[visible > 0]).all():
            raise ArgumentError(f"poses: {path} must have finite kpt_xy where kpt_v is above 0, got others")
        self._labeled = visible > 0
        level = np.digitize(self._labeled.sum(1), CLASS_EDGES)
        self._members = [np.flatnonzero((level == index) & (self._labeled.sum(1) > 0)) for index in range(4)]
        if any(len(members) == 0 for members in self._members):
            came = [len(members) for members in self._members]
            raise ArgumentError(f"poses: {path} must have people of all four occlusion levels, got {came}")
        self.statistics = shipped_statistics()

    def draw(self, rng: np.random.Generator, level: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Draw a person of the class, lifted to 3D, with unknown directions drawn; returns as PoseSource.draw does."""
        person = int(rng.choice(self._members[level]))
        points, labeled = self._points[person], self._labeled[person]
        aspect = lift.choose_aspect(points[None], labeled[None])[0]
        pose, known, scale = lift.lift(points * [aspect, 1.0], labeled)
        if scale <= 0 or not known[1:3].any():
            pose, component = self.statistics.pose(rng)
            yaws = self.statistics.yaws(rng, component, 10)
            return pose, fitting_yaw(pose, labeled, yaws), labeled
        pose, yaw = lift.face_viewer(pose, known)
        return limit(self.statistics.complete(pose, known, rng)), yaw, labeled


def fitting_yaw(pose: np.ndarray, pattern: np.ndarray, yaws: np.ndarray) -> float:
    """Return, of some yaws, the one at which the visible parts of the face fit the pattern best."""
    forward, up = pose[12], pose[11]
    across = unit(np.cross(up, forward))
    ways = np.stack([
        forward, forward + 0.5 * across, forward - 0.5 * across, across + 0.25 * forward, 0.25 * forward - across
    ])  # fmt: skip
    towards = np.cos(yaws)[:, None] * ways[:, 2] - np.sin(yaws)[:, None] * ways[:, 0]
    shown = towards > (0.0, 0.1, 0.1, 0.0, 0.0)
    # A head without labels may be hidden or cut off as well as turned away.
    weight = 1.0 if pattern[:5].any() else 0.3
    return float(yaws[(weight * (shown != pattern[:5])).sum(1).argmin()])
