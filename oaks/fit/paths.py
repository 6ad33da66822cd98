"""Paths of annotations, results and images, as the fits take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oaks.errors import ArgumentError

Paths = str | Path | Sequence[str | Path]


def listed(paths: Paths) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def paired_paths(annotations: Paths, images: Paths, prefix: str = "") -> tuple[list[Path], list[Path]]:
    """Return annotation files and their image folders; `prefix` begins the arguments' names in messages.

    Raises:
        ArgumentError: their numbers differ.
    """
    files, folders = listed(annotations), listed(images)
    if len(files) != len(folders):
        raise ArgumentError(
            f"{prefix}images must be one folder for each of {prefix}annotations, got {len(folders)} and {len(files)}"
        )
    return files, folders


__all__ = ["Paths", "listed", "paired_paths"]
