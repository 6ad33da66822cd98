"""Lock for objects that one thread at a time may use, and that refuse re-entrant calls."""

from __future__ import annotations

import os
import threading

from oaks.errors import StateError
from oaks.forks import check_process


class Turn:
    """A lock for a `with` block: other threads wait; re-entrant calls and calls in a fork are refused.

    A signal handler, a finalizer or a callback may run in the middle of a call. If it called the same object, it would
    overwrite buffers that this call still reads.

    Args:
        name: what messages call the object.
    """

    def __init__(self, name: str) -> None:
        self._name, self._process = name, os.getpid()
        self._lock, self._taken = threading.RLock(), False

    def check_process(self) -> None:
        """Refuse to run in a fork of the process that made this.

        Raises:
            StateError: this is a fork.
        """
        check_process(self._process, self._name)

    @property
    def is_here(self) -> bool:
        """Return whether this is the process that made the object, not a fork of it."""
        return self._process == os.getpid()

    def __enter__(self) -> None:
        """Raises StateError: this is a fork, or a call from within the block."""
        self.check_process()
        self._lock.acquire()
        if self._taken:
            self._lock.release()
            raise StateError(
                f"this {self._name} is at work in this thread, and is called again from within, by a signal handler, "
                f"finalizer or callback; call it afterwards, or make another {self._name} for that"
            )
        self._taken = True

    def __exit__(self, *exception: object) -> None:
        self._taken = False
        self._lock.release()


__all__ = ["Turn"]
