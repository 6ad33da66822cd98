"""MOTChallenge's text files: one box per line, frames and ids numbered from 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from oaks.coco import PersonBoxes
from oaks.errors import ArgumentError
from oaks.poses import NO_TRACK, Poses
from oaks.structured import read_bytes

LARGEST = 1e9
"""Bound on pixels and frame numbers; floats beyond it are no numbers of either."""


def read_mot(path: str | Path) -> PersonBoxes:
    """Person boxes from a MOT file: frame, id, left, top, width, height, score, ... per line.

    In ground truth the seventh number is 0 for boxes that do not count: these are left out. -1 says nothing,
    and becomes 1.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: a line is not of this form; the message names file and line.
    """
    boxes: dict[int, list[list[float]]] = {}
    scores: dict[int, list[float]] = {}
    text = read_bytes(path, "json_bytes").decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            frame, _, x, y, width, height, *more = (float(value) for value in line.split(","))
            score = more[0] if more else 1.0
        except ValueError as error:
            raise ArgumentError(
                f"{path}: line {number} must be frame, id, left, top, width, height, score, got {line[:128]!r}"
            ) from error
        sides = abs(x) < LARGEST and abs(y) < LARGEST and 0 < width < LARGEST and 0 < height < LARGEST
        if not (sides and 0 < frame < LARGEST and frame == int(frame)):
            raise ArgumentError(
                f"{path}: line {number} must have a frame from 1 and a box of positive, finite extent, got {line[:128]!r}"
            )
        if not (0 <= score <= 1 or score == -1):
            raise ArgumentError(
                f"{path}: line {number}: score must be from 0 to 1, or -1 for none, got {score:g}"
            )
        if score == 0:
            continue
        boxes.setdefault(int(frame), []).append([x, y, x + width, y + height])
        scores.setdefault(int(frame), []).append(1.0 if score == -1 else score)
    return PersonBoxes(
        source=f"MOT: {Path(path).name}",
        boxes={key: np.array(value, np.float32) for key, value in boxes.items()},
        scores={key: np.array(value, np.float32) for key, value in scores.items()},
        image_ids={},
    )


def mot_lines(poses: Poses, frame: int) -> Iterator[str]:
    """The lines of a frame's tracked poses, without line ends; untracked ones have none.

    Args:
        poses: of one frame, with track_ids.
        frame: its number, from 1.
    """
    for pose in poses:
        if pose.track_id != NO_TRACK:
            x1, y1, x2, y2 = (float(value) for value in pose.box)
            box, score = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}", min(pose.score, 1.0)
            yield f"{frame},{pose.track_id},{box},{score:.4f},-1,-1,-1"


__all__ = ["mot_lines", "read_mot"]
