"""One time line from timestamps that jump, repeat, run backwards or are missing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from oaks.video.clock import Clock

MS = Fraction(1, 1000)
STEP = Fraction(1, 25)


def placed(stamps, *, durations=None, live=False) -> list[int]:
    clock = Clock(STEP, live=live)
    durations = durations or [0] * len(stamps)
    return [clock.place(pts, MS, length)[0] for pts, length in zip(stamps, durations, strict=True)]


def placed_with_next(stamps) -> list[int]:
    clock = Clock(STEP)
    return [clock.place(pts, MS, 0, later)[0] for pts, later in zip(stamps, [*stamps[1:], None], strict=True)]


def test_a_start_offset_is_subtracted_and_uneven_steps_are_kept():
    assert placed([3_600_000, 3_600_040, 3_600_500, 3_609_000]) == [0, 40, 500, 9000]


@pytest.mark.parametrize("ahead", [11_000, 3_600_000, 75_000_000, -3_600_000, -11_000])
@pytest.mark.parametrize("wrong", [[5], [5, 6], [5, 7], [5, 6, 7, 8]])
def test_wrong_timestamps_do_not_change_other_times(ahead, wrong):
    right = [40 * n for n in range(20)]
    stamps = [pts + ahead if n in wrong else pts for n, pts in enumerate(right)]
    times = placed(stamps)
    assert (np.diff(times) > 0).all()
    assert times == right


def test_several_different_wrong_timestamps_do_not_shift_the_line():
    """Each wrong timestamp differs, so that no second line exists."""
    stamps = [40 * n for n in range(30)]
    for n, ahead in zip(range(10, 16), (9e6, 2e6, -4e6, 5e7, 11e3, 7e8), strict=True):
        stamps[n] += int(ahead)
    times = placed(stamps)
    assert (np.diff(times) > 0).all()
    assert times[-1] == stamps[-1]


@pytest.mark.parametrize("ahead", [60, 2000, 9000, 3_600_000])
@pytest.mark.parametrize("wrong", [[5], range(5, 40, 10), [38]])
def test_a_timestamp_after_the_next_one_is_wrong(ahead, wrong):
    right = [40 * n for n in range(40)]
    assert placed_with_next([at + ahead * (n in wrong) for n, at in enumerate(right)]) == right


def test_a_long_frame_is_no_wrong_timestamp():
    stamps = [0, 40, 9000, 9040, 9080]
    assert placed_with_next(stamps) == stamps
    assert placed_with_next([0, 40, 80, 9000]) == [0, 40, 80, 9000]
    assert placed_with_next([0, 0, 80, 80, 160]) == [0, 40, 80, 120, 160]


@pytest.mark.parametrize("ahead", [60_000, 86_400_000])
def test_a_jump_that_stays_joins_the_line(ahead):
    stamps = [40 * n + (ahead if n >= 10 else 0) for n in range(40)]
    assert placed(stamps) == [40 * n for n in range(40)]


def test_timestamps_that_restart_join_the_line():
    stamps = [40 * n for n in range(10)] + [40 * n for n in range(10)] + [2000, 2040]
    assert placed(stamps) == [40 * n for n in range(20)] + [400 + 2000, 400 + 2040]


def test_repeated_timestamps_do_not_stretch_the_line():
    """Both fields of a picture may have its timestamp."""
    stamps = [80 * (n // 2) for n in range(100)]
    times = placed(stamps)
    assert (np.diff(times) > 0).all()
    assert times[::2] == stamps[::2]


def test_frames_without_timestamps_are_a_step_apart():
    assert placed([None] * 4) == [0, 40, 80, 120]
    assert placed([5000, 5040, None, 5120]) == [0, 40, 80, 120]


def test_a_stated_duration_allows_a_jump():
    stamps, durations = [0, 40, 60_040, 60_080], [40, 60_000, 40, 5000]
    assert placed(stamps, durations=durations) == stamps
    clock = Clock(STEP)
    for pts, length in zip(stamps, durations, strict=True):
        given = clock.place(pts, MS, length)
    assert given == (60_080, 5000)
    assert clock.end == pytest.approx(65.08)
    # A duration of hours is wrong too.
    assert placed([0, 40, 75_000_000, 75_000_040], durations=[40, 74_999_960, 40, 40]) == [0, 40, 80, 120]


def test_jumps_are_recorded():
    clock = Clock(STEP)
    for pts in (0, 40, 7_200_000, 120):
        clock.place(pts, MS)
    assert clock.jumps == [(pytest.approx(0.08), pytest.approx(7199.96))]


@pytest.mark.parametrize("wrong", [[5], [5, 7], [5, 14, 30]])
def test_a_jump_after_which_the_line_is_resumed_is_not_the_farthest(wrong):
    clock = Clock(STEP)
    for n in range(40):
        clock.place(40 * n + 5000 * (n in wrong), MS, 0, 40 * n + 40)
    assert clock.farthest == 0
    for n in range(40, 60):  # this one stays
        clock.place(40 * n + 20_000, MS)
    clock.place(40 * 60 + 70_000, MS)
    clock.place(40 * 61 + 20_000, MS)
    assert clock.farthest == pytest.approx(20.04)


def test_a_live_source_may_pause(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("oaks.video.clock.time.monotonic", lambda: now[0])
    clock = Clock(STEP, live=True)
    assert clock.place(0, MS)[0] == 0
    now[0] += 30
    assert clock.place(30_000, MS)[0] == 30_000, "as long as nothing came"
    assert clock.place(90_000, MS)[0] == 30_040, "a jump"


def test_frames_without_timestamps_are_placed_by_arrival():
    clock = Clock(STEP)
    times = [clock.place_at(at)[0] * clock.time_base for at in (50.0, 50.3, 50.3, 51.5)]
    assert [float(at) for at in times] == pytest.approx([0, 0.3, 0.3, 1.5], abs=1e-4)
    assert times[1] < times[2]
    clock.restart()
    assert float(clock.place_at(53.0)[0] * clock.time_base) > 1.5
