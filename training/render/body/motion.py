"""Motion of people from stop to stop: a gait that follows its phase, standing, turning, waving.

The ground's coordinates: x to the camera's right, z away from it, meters. A heading of 0 looks at the camera,
of 90 degrees to the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oaks.training.render.body.anatomy import JOINT, Proportions, joints, limit
from oaks.training.render.body.angles import compose

_Angles = tuple[float, float, float, float]

# A leg over one stride from its heel strike on, in steps of 5 percent, degrees: the curves that textbooks of gait
# analysis show for adults at their own pace.
_HIP = (30, 29, 26, 22, 17, 12, 7, 2, -3, -7, -10, -9, -4, 5, 14, 22, 28, 31, 32, 31)
_KNEE = (4, 10, 16, 18, 16, 13, 9, 6, 5, 7, 13, 24, 38, 51, 59, 59, 50, 35, 18, 6)
_HARMONICS = 6

_ANKLES, _HEELS, _TOES = (
    [JOINT[f"{side}_{end}"] for side in ("left", "right")] for end in ("ankle", "heel", "toes")
)
_BALL = 0.75  # of the length from heel to toes: where a foot bends as it pushes off
_ROLL = 0.012  # meters of height over which a foot rolls from its heel to its toes
_DOUBLE = 0.4  # radians after its heel's strike at which a foot carries half of the body

_STEPS = 60

_TURN = np.radians(150)  # per second, at most
_EASE = 0.45  # seconds from standing to full pace or to turning
_RAISE = 0.8  # seconds to raise an arm
_AHEAD = 0.6  # meters from a stop at which it counts as reached


@dataclass(frozen=True)
class Stop:
    """A place to walk to (x, z), the time to stay there (seconds), and whether to wave meanwhile."""

    place: tuple[float, float]
    seconds: float = 0.0
    waving: bool = False


@dataclass(frozen=True)
class Manner:
    """A person's way of moving; angles in degrees.

    Attributes:
        cadence: strides (two steps) per second.
        swing: of the legs, as a share of an adult's at an easy pace.
        arms: amplitude of the arms' swing; elbow: bend of the elbows.
        lean: of the trunk, forward.
        rest: each arm while standing: flexion, abduction, bend, heading, as for angles.compose.
        waves: the arm that waves, 0 left or 1 right, and how often per second.
        looks: phase at which the head's slow turns begin, radians.
        stance: the heading while standing, radians.
    """

    cadence: float
    swing: float
    arms: float
    elbow: float
    lean: float
    rest: tuple[_Angles, _Angles]
    waves: tuple[int, float]
    looks: float
    stance: float


@dataclass(frozen=True)
class Motion:
    """A person's places and poses in T frames.

    Attributes:
        places: (T, 2): x and z of the pelvis over the ground, meters.
        heights: (T,): of the pelvis over the ground, meters.
        headings: (T,): radians.
        poses: (T, 13, 3): directions as in anatomy, within the limits of joints.
    """

    places: np.ndarray
    heights: np.ndarray
    headings: np.ndarray
    poses: np.ndarray


def draw_manner(rng: np.random.Generator) -> Manner:
    """Draw a person's way of moving."""
    left, right = (
        (float(rng.normal(2, 6)), abs(float(rng.normal(7, 3))), float(rng.uniform(5, 35)), 0.0)
        for _ in range(2)
    )
    return Manner(
        cadence=float(rng.uniform(0.85, 1.05)),
        swing=float(rng.uniform(0.9, 1.15)),
        arms=float(rng.uniform(12, 30)),
        elbow=float(rng.uniform(12, 40)),
        lean=float(rng.normal(4, 2)),
        rest=(left, right),
        waves=(int(rng.integers(2)), float(rng.uniform(1.2, 1.9))),
        looks=float(rng.uniform(0, 2 * np.pi)),
        stance=float(rng.normal(0, 0.7)),
    )


def move(
    rng: np.random.Generator, body: Proportions, start: tuple[float, float], stops: Sequence[Stop],
    frames: int, rate: float,
) -> Motion:  # fmt: skip
    """Walk from `start` (x, z) to one stop after another, and stay at the last.

    Args:
        rng: draws the manner and the first foot.
        body: whose stride it is.
        start: x, z.
        stops: at least one.
        frames: number of frames, T.
        rate: frames per second.
    """
    manner = draw_manner(rng)
    phase = float(rng.uniform(0, 2 * np.pi))
    walker = _Walker(start, stops, manner.stance, _stride(manner, body) * manner.cadence)
    places, headings, poses = np.zeros((frames, 2)), np.zeros(frames), np.zeros((frames, 13, 3))
    heights = np.zeros(frames)
    for index in range(frames):
        places[index], headings[index] = walker.place, walker.heading
        poses[index] = posture(manner, phase, walker.effort, walker.waving, index / rate)
        heights[index] = _support(phase) @ _depths(joints(poses[index], body))
        walker.advance(1 / rate)
        # Small steps are quicker than large ones, relative to their size.
        phase += 2 * np.pi * manner.cadence / rate * walker.effort**0.5
    return Motion(places, heights, headings, poses)


def posture(manner: Manner, phase: float, effort: float, waving: float, time: float) -> np.ndarray:
    """Return a pose (13, 3) while walking, standing or in between.

    Args:
        manner: whose.
        phase: of the stride in radians; the left heel strikes at 0, the right one at pi.
        effort: 0 standing to 1 walking.
        waving: 0 not at all to 1 with a raised arm.
        time: seconds, for motion that does not depend on the stride.
    """
    legs, arms = [], []
    for side in (0, 1):
        own = phase + np.pi * side
        hip, knee = manner.swing * _curve(_HIP, own), _curve(_KNEE, own)
        legs.append((_between(2.0, hip, effort), 3.0, _between(3.0, knee, effort), 0.0))
        swing = -manner.arms * np.cos(own)
        walking = (swing - 4, 6.0, manner.elbow + 0.35 * max(swing, 0.0), -5.0)
        arm = _blend(manner.rest[side], walking, effort)
        if side == manner.waves[0]:
            to_and_fro = 24 * np.sin(2 * np.pi * manner.waves[1] * time)
            arm = _blend(arm, (12.0, 82.0, 88.0 + to_and_fro, 78.0), waving * waving * (3 - 2 * waving))
        arms.append(arm)
    look = np.sin(2 * np.pi * 0.13 * time + manner.looks)
    return limit(compose(
        lean=manner.lean * (0.4 + 0.6 * effort),
        sway=1.5 * np.sin(2 * np.pi * 0.21 * time + 2 * manner.looks) * (1 - effort),
        twist=6 * np.cos(phase) * effort,
        head=(22 * look * (1 - 0.6 * effort), 4 * np.cos(2 * np.pi * 0.09 * time), 0.0),
        arms=tuple(arms),
        legs=tuple(legs),
    ))  # fmt: skip


def _stride(manner: Manner, body: Proportions) -> float:
    """Return the meters that a stride covers: the distance that the carrying feet move back under the body."""
    phases = np.linspace(0, 2 * np.pi, _STEPS + 1)
    at = np.array([joints(posture(manner, phase, 1.0, 0.0, 0.0), body) for phase in phases])
    back = -np.diff(at[:, _ANKLES, 2], axis=0)
    carrying = np.where(np.sin(phases[:-1] - _DOUBLE) > 0, 0, 1)
    return float(back[np.arange(_STEPS), carrying].sum())


def _support(phase: float) -> np.ndarray:
    """Return the shares of the body that the left and the right foot carry, (2,); they change smoothly."""
    left = 0.5 + 0.5 * np.tanh(np.sin(phase - _DOUBLE))
    return np.array([left, 1 - left])


def _depths(at: np.ndarray) -> np.ndarray:
    """Return the meters from the pelvis down to the lower of each foot's heel and ball, (2,); a smooth maximum."""
    heel, toes = -at[_HEELS, 1], -at[_TOES, 1]
    ball = heel + _BALL * (toes - heel)
    return _ROLL * np.logaddexp(heel / _ROLL, ball / _ROLL)


def _curve(table: tuple[int, ...], phase: float) -> float:
    """Evaluate a closed curve through a table's values, without harmonics too high for a limb."""
    terms = np.fft.rfft(table)[:_HARMONICS] / len(table)
    waves = np.exp(1j * phase * np.arange(_HARMONICS))
    return float(2 * (terms * waves).real.sum() - terms[0].real)


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


def _blend(first: _Angles, second: _Angles, share: float) -> _Angles:
    a, b, c, d = (_between(low, high, share) for low, high in zip(first, second, strict=True))
    return a, b, c, d


class _Walker:
    """Steers along stops; place, heading, effort and waving change smoothly.

    Attributes:
        place: (2,) x, z; heading: radians.
        effort: 0 standing to 1 walking; waving: likewise.
    """

    def __init__(
        self, start: tuple[float, float], stops: Sequence[Stop], heading: float, speed: float
    ) -> None:
        self.place = np.array(start, float)
        self.effort, self.waving = 0.0, 0.0
        self._stops, self._stance, self._speed = list(stops), heading, speed
        self._pace, self._turning = 0.0, 0.0
        self._rest: float | None = None  # seconds left at the first of the stops, None before it is reached
        self.heading = self._course(stops[0])
        if self._away(stops[0]) > _AHEAD:  # already on the way
            self.effort = self._pace = 1.0

    def advance(self, seconds: float) -> None:
        """Advance by some seconds."""
        self._choose(seconds)
        stop, standing = self._stops[0], self._rest is not None
        goal = self._stance if standing else self._course(stop)
        turn = float((goal - self.heading + np.pi) % (2 * np.pi) - np.pi)
        ease = seconds / _EASE
        rate = float(np.clip(3 * turn, -_TURN, _TURN))
        self._turning += float(np.clip(rate - self._turning, -_TURN * ease, _TURN * ease))
        self.heading += self._turning * seconds
        turning = 0.4 if abs(turn) > 0.15 else 0.0
        self.effort += float(np.clip((turning if standing else 1.0) - self.effort, -ease, ease))
        pace = 0.0 if standing else self.effort * max(np.cos(turn), 0.0)
        self._pace += float(np.clip(pace - self._pace, -ease, ease))
        raising = seconds / _RAISE
        self.waving += float(np.clip((standing and stop.waving) - self.waving, -raising, raising))
        way = np.array([np.sin(self.heading), -np.cos(self.heading)])
        self.place = self.place + self._pace * self._speed * seconds * way

    def _choose(self, seconds: float) -> None:
        """Begin or continue the stay at a stop, or choose the next."""
        if self._rest is not None:
            self._rest -= seconds
        elif self._away(self._stops[0]) < _AHEAD:
            self._rest = self._stops[0].seconds
        if self._rest is not None and self._rest <= 0 and len(self._stops) > 1:
            self._stops.pop(0)
            self._rest = None

    def _course(self, stop: Stop) -> float:
        x, z = np.subtract(stop.place, self.place)
        return float(np.arctan2(x, -z))

    def _away(self, stop: Stop) -> float:
        return float(np.hypot(*np.subtract(stop.place, self.place)))
