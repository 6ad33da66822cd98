"""Bounded queues with a thread each: reading ahead and writing behind."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import Generic, TypeVar

from oaks.arguments import check_count
from oaks.errors import StateError
from oaks.forks import check_process

T = TypeVar("T")

_WAKE = 0.5  # seconds; on Windows an unlimited wait would ignore Ctrl-C
_JOIN = 2.0  # seconds to wait for a thread that may hang in a network read


class ReadAhead(Iterator[T], Generic[T]):
    """Iterate in a thread, at most `size` items ahead. Errors are raised by next().

    Args:
        items: the iterable; closed together with this, if it has `close`.
        size: how many items may wait.
        weigh: returns the bytes of an item; None: 0.
        heaviest: maximum bytes of all waiting items; a single item may exceed it.
        drop_oldest: whether to drop the oldest waiting item for a new one instead of waiting.
        changed: condition notified when an item, the end or an error arrives; None: a new one.

    Attributes:
        dropped: number of dropped items.

    Raises:
        ArgumentError: size is no integer of at least 1.
    """

    def __init__(
        self,
        items: Iterable[T],
        size: int,
        *,
        weigh: Callable[[T], int] | None = None,
        heaviest: int = 0,
        drop_oldest: bool = False,
        changed: threading.Condition | None = None,
    ) -> None:
        check_count("size", size)
        self.dropped = 0
        self._items, self._size, self._drop_oldest = items, size, drop_oldest
        self._weigh, self._heaviest = weigh, heaviest
        self._changed = changed or threading.Condition()
        self._waiting: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._read,), daemon=True, name="oaks read ahead"
        )
        self._thread.start()

    def _read(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            getattr(iterator, "close", lambda: None)()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            while self._drop_oldest and self._is_full(item):
                self._waiting.popleft()
                self.dropped += 1
            while self._is_full(item) and not self._closed:
                self._changed.wait()
            if not self._closed:
                self._waiting.append(item)
                self._changed.notify_all()
            return not self._closed

    def _is_full(self, item: T) -> bool:
        if len(self._waiting) >= self._size:
            return True
        if self._weigh is None or not self._waiting:
            return False
        return sum(map(self._weigh, (*self._waiting, item))) > self._heaviest

    @property
    def ready(self) -> bool:
        """Whether next() would return at once, with an item, the end or an error; raises in a fork."""
        return bool(self._waiting) or self._ended or self._closed or self._process != os.getpid()

    def __next__(self) -> T:
        check_process(self._process, "ReadAhead")
        with self._changed:
            while not self.ready:
                self._changed.wait(_WAKE)
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread; one that hangs in a read is abandoned and ends with the process."""
        if self._process != os.getpid():
            return  # the thread does not run here, and may hold the lock
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(_JOIN)


class WriteBehind(Generic[T]):
    """Call `write` in a thread, at most `size` items behind; beyond that the caller waits.

    After the first error nothing more is written, and it is raised by the next call and by `close`.

    Args:
        write: takes one item.
        size: how many items may wait.
    """

    def __init__(self, write: Callable[[T], object], size: int) -> None:
        check_count("size", size)
        self._write, self._size = write, size
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), daemon=True, name="oaks write behind"
        )
        self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                item = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._write(item)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return

    def __call__(self, item: T) -> None:
        """Queue an item.

        Raises:
            StateError: this is closed, or was made before a fork.
        """
        check_process(self._process, "WriteBehind")
        with self._changed:
            if self._closed:
                raise StateError("this WriteBehind is closed: what is handed over now would not be written")
            while len(self._waiting) >= self._size and self._error is None:
                self._changed.wait(_WAKE)
            if self._error is None:
                self._waiting.append(item)
                self._changed.notify_all()
        self._raise()

    def close(self) -> None:
        """Wait until everything is written."""
        if self._process != os.getpid():
            return  # the parent writes it
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        while self._thread.is_alive():
            self._thread.join(_WAKE)
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


__all__ = ["ReadAhead", "WriteBehind"]
