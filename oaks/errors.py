"""The exceptions of the package. Missing or unreadable files raise Python's own OSError and its subclasses."""

from __future__ import annotations


class OaksError(Exception):
    """Base of every error that the package defines."""


class ArgumentError(OaksError, ValueError):
    """An argument, a setting or the content of an input file is wrong. The message names it."""


class BackendUnavailable(OaksError, RuntimeError):
    """A runtime or package cannot be used here. The message says what to install or to change."""


class StateError(OaksError, RuntimeError):
    """An object cannot be used here or now: it is closed, in use by the same thread, or from before a fork."""


class BundleError(OaksError, RuntimeError):
    """A model bundle is damaged, foreign or too new. The message names the file."""


class OutOfMemory(OaksError, MemoryError):
    """An input does not fit into memory. It is not damaged: elsewhere, or later, it may fit. The message names it."""


__all__ = ["ArgumentError", "BackendUnavailable", "BundleError", "OaksError", "OutOfMemory", "StateError"]
