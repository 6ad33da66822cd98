"""When frames are shown: one time line from timestamps that jump, repeat, run backwards or are missing."""

from __future__ import annotations

import time
from fractions import Fraction

_JUMP = (
    10  # seconds between two frames beyond which a timestamp is wrong, unless the frame before lasts so long
)
_LONGEST = 900  # seconds that a frame may say it lasts
_RETURN = 8  # frames after a jump within which the timestamps may return to the line before it
_ARRIVAL_BASE = Fraction(1, 90_000)  # seconds per unit where frames are placed by their arrival


class Clock:
    """Places frames on one time line that starts at 0 and never runs backwards.

    A timestamp that lies before the last frame, or far after its end, does not belong to the line: the frame then
    follows the last one at the usual distance, and the line continues from there. Where later timestamps fit the
    line again as it was before, it returns to that.

    Args:
        step: seconds from frame to frame where nothing else is known.
        live: whether timestamps may jump by as much time as passes on this computer.

    Attributes:
        time_base: seconds per unit of `place`.
        jumps: (time on the line, seconds) of timestamps that jumped by more than some seconds.
    """

    def __init__(self, step: Fraction, *, live: bool = False) -> None:
        self._step, self._live = step, live
        self.time_base = Fraction(0)
        self.jumps: list[tuple[float, float]] = []
        self._origin: Fraction | None = None  # timestamp, in seconds, that stands at 0 on the line
        self._before: Fraction | None = None  # the same before the last jump, for some frames
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
        """The next timestamp begins a line of its own, after a gap that lasts as long as it takes to come."""
        self._origin, self._before, self._gap = None, None, True

    def place(self, pts: int | None, time_base: Fraction, duration: int = 0) -> tuple[int, int]:
        """When a frame is shown, and for how long, in units of `self.time_base` after the first frame.

        Args:
            pts: its timestamp; None if it has none.
            time_base: seconds per unit of pts and duration.
            duration: how long it says that it is shown; 0 if it does not say.
        """
        now = time.monotonic()
        if self._last is None:
            self.time_base, placed = time_base, 0
            if pts is not None:
                self._origin = pts * time_base
        else:
            placed = self._follow(None if pts is None else pts * time_base, now)
        stated = duration * time_base
        self._duration = stated if 0 < stated <= _LONGEST else Fraction(0)
        self._last, self._arrived, self._gap = placed, now, False
        return placed, round(self._duration / self.time_base)

    def place_at(self, seconds: float) -> tuple[int, int]:
        """The same for a frame without a timestamp that arrived at some second, of any origin."""
        at = Fraction(seconds)
        if self._last is None:
            self.time_base, self._origin, placed = _ARRIVAL_BASE, at, 0
        elif self._origin is None:
            placed = self._follow(None, time.monotonic())
            self._origin = at - placed * self.time_base
        else:
            placed = max(round((at - self._origin) / self.time_base), self._last + 1)
            self._step = (placed - self._last) * self.time_base  # how long the last frame counts as shown
        self._last, self._arrived, self._gap = placed, time.monotonic(), False
        return placed, 0

    def _follow(self, at: Fraction | None, now: float) -> int:
        """Units on the line of a frame after the first, whose timestamp is `at` seconds."""
        assert self._last is not None
        self._since += 1
        if self._since > _RETURN:
            self._before = None
        if at is not None and self._before is not None and self._fits(at - self._before, now):
            self._origin, self._before = self._before, None
            return round((at - self._origin) / self.time_base)
        if at is not None and self._origin is not None and self._fits(at - self._origin, now):
            return round((at - self._origin) / self.time_base)
        step = max(self._step, Fraction(now - self._arrived)) if self._gap else self._step
        placed = self._last + max(round(step / self.time_base), 1)
        if at is not None:
            self._leave_line(at, placed)
        return placed

    def _leave_line(self, at: Fraction, placed: int) -> None:
        """Let the line continue from a timestamp that does not fit it."""
        if self._origin is not None and self._last is not None:
            jump = float(at - self._origin - self._last * self.time_base)
            if abs(jump) > _JUMP:
                self.jumps.append((float(placed * self.time_base), jump))
            # Several wrong timestamps in a row lead back to the line before the first of them.
            self._before = self._origin if self._before is None else self._before
            self._since = 0
        self._origin = at - placed * self.time_base

    def _fits(self, seconds: Fraction, now: float) -> bool:
        """Whether a frame may stand at so many seconds on the line."""
        assert self._last is not None
        step = seconds - self._last * self.time_base
        allowed = _JUMP + self._duration + (Fraction(now - self._arrived) if self._live else 0)
        return round(seconds / self.time_base) > self._last and step <= allowed


__all__ = ["Clock"]
