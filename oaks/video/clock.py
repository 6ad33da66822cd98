"""The time line of a stream, from timestamps that may jump, repeat, run backwards or be missing."""

from __future__ import annotations

import time
from fractions import Fraction

# Seconds between frames beyond which a timestamp is wrong, unless the previous frame lasts that long.
_JUMP = 10
_LONGEST = 900  # maximum stated duration of a frame, in seconds
_RETURN = 8  # frames within which timestamps may return to the line before a jump
_ARRIVAL_BASE = Fraction(1, 90_000)  # seconds per unit for arrival times


class Clock:
    """Time line of frames that starts at 0 and never runs backwards.

    A timestamp before the last frame, or far after its end, is wrong: the frame then follows the last one at the usual
    interval, and the line continues from there. If later timestamps fit the earlier line again, it is resumed.

    Args:
        step: default interval between frames, in seconds.
        live: whether timestamps may jump by the time that has really passed.

    Attributes:
        time_base: seconds per unit of `place`.
        jumps: (time on the line, seconds) of each large jump of the timestamps.
        farthest: seconds of the largest jump, forwards or backwards, after which the earlier line was not resumed.
        latest: seconds from the first timestamp to the largest, which may be wrong.
    """

    def __init__(self, step: Fraction, *, live: bool = False) -> None:
        self._step, self._live = step, live
        self.time_base = Fraction(0)
        self.jumps: list[tuple[float, float]] = []
        self.farthest = self.latest = 0.0
        self._first: Fraction | None = None  # the first timestamp, in seconds
        self._origin: Fraction | None = None  # timestamp, in seconds, at 0 on the line
        self._before: Fraction | None = None  # the same before the last jump, kept for some frames
        self._farthest_before = 0.0  # `farthest` before that jump
        self._since = 0  # frames since the last jump
        self._last: int | None = None
        self._duration = Fraction(0)
        self._arrived, self._gap = 0.0, False

    @property
    def end(self) -> float:
        """Seconds from the first frame to the end of the last."""
        if self._last is None:
            return 0.0
        return float(self._last * self.time_base + (self._duration or self._step))

    def restart(self) -> None:
        """Start a new origin with the next timestamp, after a gap of the real time until it arrives."""
        self._origin, self._before, self._gap = None, None, True

    def place(
        self, pts: int | None, time_base: Fraction, duration: int = 0, following: int | None = None
    ) -> tuple[int, int]:
        """Return when a frame is shown and for how long, in units of `self.time_base` after the first frame.

        Args:
            pts: its timestamp; None if it has none.
            time_base: seconds per unit of pts and duration.
            duration: its stated duration; 0 if none is stated.
            following: the next frame's timestamp; None if it is unknown.
        """
        now = time.monotonic()
        if pts is not None:
            self._first = pts * time_base if self._first is None else self._first
            self.latest = max(self.latest, float(pts * time_base - self._first))
        if self._last is None:
            self.time_base, placed = time_base, 0
            if pts is not None:
                self._origin = pts * time_base
        else:
            later = None if following is None else following * time_base
            placed = self._follow(None if pts is None else pts * time_base, now, later)
        stated = duration * time_base
        self._duration = stated if 0 < stated <= _LONGEST else Fraction(0)
        self._last, self._arrived, self._gap = placed, now, False
        return placed, round(self._duration / self.time_base)

    def place_at(self, seconds: float) -> tuple[int, int]:
        """As `place`, for a frame without a timestamp, from its arrival time in seconds (arbitrary origin)."""
        at = Fraction(seconds)
        if self._last is None:
            self.time_base, self._origin, placed = _ARRIVAL_BASE, at, 0
        elif self._origin is None:
            placed = self._follow(None, time.monotonic())
            self._origin = at - placed * self.time_base
        else:
            placed = max(round((at - self._origin) / self.time_base), self._last + 1)
            self._step = (placed - self._last) * self.time_base  # duration of the last frame
        self._last, self._arrived, self._gap = placed, time.monotonic(), False
        return placed, 0

    def _follow(self, at: Fraction | None, now: float, following: Fraction | None = None) -> int:
        """Position on the line, in units, of a later frame with timestamp `at` seconds; `following` is the next's."""
        assert self._last is not None
        self._since += 1
        if self._since > _RETURN:
            self._before = None
        if at is not None and self._before is not None and self._fits(at - self._before, now):
            self._origin, self._before = self._before, None
            self.farthest = self._farthest_before
            return round((at - self._origin) / self.time_base)
        if at is not None and self._origin is not None and self._fits(at - self._origin, now):
            # No frame is after the next one: if that one fits the line too, this timestamp is wrong.
            late = following is not None and following < at and self._fits(following - self._origin, now)
            if not late:
                return round((at - self._origin) / self.time_base)
        step = max(self._step, Fraction(now - self._arrived)) if self._gap else self._step
        placed = self._last + max(round(step / self.time_base), 1)
        if at is not None:
            self._leave_line(at, placed)
        return placed

    def _leave_line(self, at: Fraction, placed: int) -> None:
        """Continue the line from a timestamp that does not fit it."""
        if self._origin is not None and self._last is not None:
            jump = float(at - self._origin - self._last * self.time_base)
            # After several wrong timestamps, return to the line before the first of them.
            if self._before is None:
                self._before, self._farthest_before = self._origin, self.farthest
            self.farthest = max(self.farthest, abs(jump))
            if abs(jump) > _JUMP:
                self.jumps.append((float(placed * self.time_base), jump))
            self._since = 0
        self._origin = at - placed * self.time_base

    def _fits(self, seconds: Fraction, now: float) -> bool:
        """Return whether a frame may be at this position on the line, in seconds."""
        assert self._last is not None
        step = seconds - self._last * self.time_base
        allowed = _JUMP + self._duration + (Fraction(now - self._arrived) if self._live else 0)
        return round(seconds / self.time_base) > self._last and step <= allowed


__all__ = ["Clock"]
