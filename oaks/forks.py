"""Fork safety: objects that a forked child must neither use nor destroy.

A fork copies every object but only one thread. Destructors of runtimes, decoders and encoders wait for threads that
the child does not have, so dropping such an object, or exiting, would hang or crash. The child therefore keeps these
objects alive and exits without the libraries' own cleanup, as children of multiprocessing do.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import weakref
from typing import Any, TypeVar

from oaks.errors import StateError

T = TypeVar("T")

_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: frozenset[str] = frozenset()


def outlives_forks(thing: T) -> T:
    """Return the object. A forked child keeps it alive, with everything it refers to."""
    _kept.add(thing)
    return thing


def inherited(module: str) -> bool:
    """Return whether this process is a fork of one that had imported the module."""
    return module in _inherited


def check_process(process: int, name: str) -> None:
    """Refuse to use an object whose threads run in another process.

    Args:
        process: the one that made it.
        name: what messages call it.

    Raises:
        StateError: this is not that process.
    """
    if process != os.getpid():
        raise StateError(
            f"this {name} was made in process {process}, and this is its fork {os.getpid()}, in which its threads "
            f"do not run: make one {name} in each process"
        )


def _after_fork() -> None:
    """Keep the objects alive; runs in the child before anything else."""
    global _inherited
    _inherited = frozenset(sys.modules)
    # Closed decoders and encoders are left in reference cycles; collecting them here would hang.
    if "av" in _inherited:
        gc.freeze()
    things = list(_kept)
    if not things:
        return
    increase = ctypes.pythonapi.Py_IncRef
    increase.argtypes, increase.restype = [ctypes.py_object], None
    for thing in things:
        increase(thing)
    _end_without_destructors()


def _end_without_destructors() -> None:
    """Let this process exit right after Python's own cleanup (glibc's on_exit passes the exit status)."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["check_process", "inherited", "outlives_forks"]
