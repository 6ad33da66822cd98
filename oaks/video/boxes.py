"""Where the people of a video are: in a detector's eyes, in a file, or where they were before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks.coco import read_boxes
from oaks.detector import Detector
from oaks.errors import ArgumentError
from oaks.images import as_box_scores, as_boxes, check_size
from oaks.video.frames import Frame, number_from_one
from oaks.video.mot import read_mot

ONCE = 0


@dataclass(frozen=True)
class FrameBoxes:
    """Who is asked for boxes, and how often.

    Attributes:
        description: for the header of the results.
        find: frame -> boxes (N, 4) x1, y1, x2, y2, and scores (N,).
        every: it is asked at every n-th frame that is looked at, ONCE (0): at the first alone. At the others
            the tracks' own boxes are taken: where their people should be by now.
        image_id: frame -> its image id in results: the file's own where the boxes are from a COCO file that
            names pictures, else the frame's number from 1.
    """

    description: str
    find: Callable[[Frame], tuple[np.ndarray, np.ndarray]]
    every: int = 1
    image_id: Callable[[Frame], int] = number_from_one

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 0:
            raise ArgumentError(f"every: a whole number, 0 or more, wanted, got {self.every!r}")

    def due(self, looked_at: int) -> bool:
        """Whether it is asked at the frame before which so many have been looked at."""
        return looked_at == 0 if self.every == ONCE else looked_at % self.every == 0


def boxes_from_detector(detector: Detector, every: int = 1) -> FrameBoxes:
    """Boxes from a detector."""
    return FrameBoxes(detector.description, lambda frame: detector.detect(frame.image), every)


def boxes_from_file(path: str | Path, every: int = 1, category: str | int | None = None) -> FrameBoxes:
    """Boxes from a COCO JSON file, or from a MOT file (.txt).

    Pictures are found by their names where a COCO file has any; frames of a video by their number, from 1.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is neither of the two; the message names it.
    """
    people = read_mot(path) if Path(path).suffix.lower() == ".txt" else read_boxes(path, category)

    def image_id(frame: Frame) -> int:
        if not (frame.name and people.image_ids):
            return number_from_one(frame)
        found = people.image_id(frame.name)
        if found is None:
            raise ArgumentError(f"{people.source} does not know the picture {frame.name}")
        check_size(frame.name, frame.image.shape[1::-1], people.size(found))
        return found

    return FrameBoxes(people.source, lambda frame: people.of(image_id(frame)), every, image_id)


def first_boxes(boxes: Any, box_scores: Any = None) -> FrameBoxes:
    """Boxes of the first frame; from there on the tracks follow their people alone.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        box_scores: (N,); None: 1.

    Raises:
        ArgumentError: an argument does not fit.
    """
    corners = as_boxes("boxes", boxes)
    scores = as_box_scores("box_scores", box_scores, len(corners))
    return FrameBoxes("first boxes", lambda _frame: (corners, scores), ONCE)


__all__ = ["ONCE", "FrameBoxes", "boxes_from_detector", "boxes_from_file", "first_boxes"]
