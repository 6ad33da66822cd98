"""The exceptions that are oaks' own. A wrong argument is a plain ValueError."""

from __future__ import annotations


class BackendUnavailable(RuntimeError):
    """A runtime that was asked for cannot be used here. The message says what to install or to change."""


class BundleError(RuntimeError):
    """A model bundle is damaged, foreign or too new. The message names the file."""


__all__ = ["BackendUnavailable", "BundleError"]
