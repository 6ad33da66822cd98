"""Reading ahead and writing behind: bounded, in order, without hangs or lost errors."""

from __future__ import annotations

import threading

import pytest

from oaks.video.threads import ReadAhead, WriteBehind


def counted(limit: int, made: list[int]):
    for n in range(limit):
        made.append(n)
        yield n


def wait_for(condition) -> None:
    """Wait until a condition holds, up to the time limit of the test."""
    while not condition():
        threading.Event().wait(0.005)


def settle(made: list) -> None:
    """Wait until the list stops growing."""
    seen = -1
    while seen != len(made):
        seen = len(made)
        threading.Event().wait(0.05)


def test_items_are_read_ahead_in_order_up_to_the_size():
    made: list[int] = []
    with_room = ReadAhead(counted(50, made), 4)
    wait_for(lambda: len(made) == 5)
    settle(made)
    assert len(made) == 5, "four that wait, and one in the reader's hand"
    assert list(with_room) == list(range(50))
    assert with_room.dropped == 0
    with pytest.raises(StopIteration):
        next(with_room)


def test_waiting_items_are_bounded_by_their_bytes():
    made: list[int] = []
    ahead = ReadAhead(counted(20, made), 10, weigh=lambda item: 5, heaviest=14)
    wait_for(lambda: len(made) == 3)
    settle(made)
    assert len(made) == 3  # two are waiting, and one was made and does not fit
    assert list(ahead) == list(range(20))
    heavy = ReadAhead(counted(3, []), 10, weigh=lambda item: 100, heaviest=1)
    assert list(heavy) == [0, 1, 2]


def test_the_oldest_item_is_dropped_and_counted():
    made: list[int] = []
    ahead = ReadAhead(counted(50, made), 3, drop_oldest=True)
    settle(made)
    assert list(ahead) == [47, 48, 49]
    assert ahead.dropped == 47


def test_an_error_is_raised_after_the_items_before_it():
    def failing():
        yield 1
        raise OSError("the cable")

    ahead = ReadAhead(failing(), 4)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the cable"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_ends_a_waiting_reader_and_closes_its_iterable():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = ReadAhead(endless(), 2)
    assert next(ahead) == 1
    ahead.close()
    assert closed.is_set()
    assert not ahead._thread.is_alive()
    assert next(ahead, None) is None


def test_closing_ends_the_wait_for_an_item():
    """A read that hangs does not block the next reader."""
    release = threading.Event()

    def hanging():
        release.wait()
        yield 1

    ahead, got = ReadAhead(hanging(), 2), []
    waiter = threading.Thread(target=lambda: got.append(next(ahead, "closed")))
    waiter.start()
    with ahead._changed:
        ahead._closed = True
        ahead._changed.notify_all()
    waiter.join()
    release.set()
    assert got == ["closed"]


def test_a_shared_condition_is_notified_of_items_and_of_the_end():
    changed = threading.Condition()
    release = threading.Event()

    def gated():
        release.wait()
        yield 1

    ahead = ReadAhead(gated(), 2, changed=changed)
    assert not ahead.ready
    with changed:
        release.set()
        assert changed.wait_for(lambda: ahead.ready, timeout=10)
    assert next(ahead) == 1
    with changed:
        assert changed.wait_for(lambda: ahead.ready, timeout=10)
    assert next(ahead, None) is None


def test_everything_is_written_in_order_before_close_returns():
    written: list[int] = []
    behind = WriteBehind(written.append, 2)
    for n in range(50):
        behind(n)
    behind.close()
    assert written == list(range(50))
    behind.close()
    with pytest.raises(RuntimeError, match="this WriteBehind is closed"):
        behind(50)


def test_waiting_writes_are_bounded_by_the_size():
    release, taken = threading.Event(), []

    def slow(item):
        taken.append(item)
        release.wait()

    behind, handed = WriteBehind(slow, 2), []

    def hand():
        for n in range(5):
            behind(n)
            handed.append(n)

    giver = threading.Thread(target=hand)
    giver.start()
    wait_for(lambda: len(handed) == 3)
    settle(handed)
    assert (taken, handed) == ([0], [0, 1, 2])
    release.set()
    giver.join()
    behind.close()
    assert taken == [0, 1, 2, 3, 4]


def test_after_an_error_nothing_more_is_written_and_every_call_raises_it():
    """A caller that waits for room is not blocked either."""
    taken = []

    def failing(item):
        taken.append(item)
        raise OSError(28, "No space left on device")

    behind = WriteBehind(failing, 1)
    with pytest.raises(OSError, match="No space"):
        list(map(behind, range(10)))
    assert taken == [0]
    for call in (lambda: behind(11), behind.close, behind.close):
        with pytest.raises(OSError, match="No space"):
            call()


def test_a_queue_without_room_is_refused():
    for make in (lambda: ReadAhead([], 0), lambda: WriteBehind(print, 0)):
        with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
            make()
