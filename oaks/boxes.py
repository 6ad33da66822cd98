"""Person boxes: their sources, conversions between their two forms, and their intersection over union."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from oaks.arguments import as_path, check_count
from oaks.coco_fields import first_of
from oaks.errors import ArgumentError
from oaks.images import check_size
from oaks.skipping import skip

if TYPE_CHECKING:
    from oaks.box_files import PersonBoxes
    from oaks.detector import Detector

FARTHEST = 1e9
"""Bound on the coordinates of boxes, in pixels."""

Boxes = tuple[np.ndarray, np.ndarray]
"""Boxes (N, 4) x1, y1, x2, y2, and their scores (N,)."""


def to_xyxy(boxes: Any) -> np.ndarray:
    """Convert boxes (..., 4) from x, y, width, height to x1, y1, x2, y2."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def to_xywh(boxes: Any) -> np.ndarray:
    """Convert boxes (..., 4) from x1, y1, x2, y2 to x, y, width, height."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4) x1, y1, x2, y2; 0 where neither has an area."""
    a, b = a[:, None], b[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.maximum(sides, 0).prod(axis=-1)
    both = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - common
    return common / np.where(both > 0, both, 1)


def as_boxes(name: str, boxes: Any) -> np.ndarray:
    """Return boxes as (N, 4) float32 x1, y1, x2, y2.

    Raises:
        ArgumentError: another shape, values that are not finite numbers, or a box that ends before it starts.
    """
    array = numbers(name, boxes, "(N, 4) numbers x1, y1, x2, y2")
    if array.shape == (0,):
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ArgumentError(f"{name} must have shape (N, 4), x1, y1, x2, y2, got {array.shape}")
    for problem, bad in (
        (f"finite numbers of at most {FARTHEST:g} pixels", ~(np.abs(array) <= FARTHEST).all(axis=1)),
        ("x1 <= x2 and y1 <= y2", (array[:, 2:] < array[:, :2]).any(axis=1)),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise ArgumentError(f"{name} must have {problem}, got {array[row].tolist()} in row {row}")
    return array


def numbers(name: str, values: Any, expected: str) -> np.ndarray:
    """Return an array or nested lists as a float32 array.

    Args:
        name: of the argument.
        values: what was given.
        expected: the requirement, for messages.

    Raises:
        ArgumentError: it holds anything but real numbers (text, dates, complex numbers, booleans, objects or masked
            entries), most of which NumPy would convert silently.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ArgumentError(f"{name} must be {expected}, got masked entries")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ArgumentError(f"{name} must be {expected}, got {type(values).__name__}: {error}") from error
    if array.dtype.kind not in "iuf":
        raise ArgumentError(f"{name} must be {expected}, got {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def as_box_scores(
    name: str, scores: Any, count: int, *, or_shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return box scores as (N,) float32; all 1 if none are given.

    Args:
        or_shape: another accepted shape with `count` elements.

    Raises:
        ArgumentError: another length, or numbers that are not from 0 to 1.
    """
    if scores is None:
        return np.ones(count, np.float32)
    array = numbers(name, scores, f"{count} finite numbers, one for each box").copy()  # Poses keep it
    if array.shape not in ((count,), or_shape) or not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be {count} finite numbers, one for each box, got {scores!r}")
    if ((array < 0) | (array > 1)).any():
        bad = array[(array < 0) | (array > 1)][0]
        raise ArgumentError(f"{name} must be from 0 to 1, got {bad:g}; scale them, or leave them out")
    return array.reshape(count)


class Image(Protocol):
    """A picture, or a frame of a video."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR, upright."""
        ...

    @property
    def index(self) -> int:
        """Its number, from 0."""
        ...

    @property
    def name(self) -> str:
        """Its file; "" for a frame of a video file."""
        ...


def number_from_one(image: Image) -> int:
    """Return an image's number as MOT and COCO files count."""
    return image.index + 1


def _unnamed(_image: Image) -> None:
    return None


@dataclass(frozen=True)
class BoxSource:
    """Source of the people's boxes in pictures or in a video's frames.

    Attributes:
        description: for the header of the results.
        find: image -> boxes (N, 4) x1, y1, x2, y2, and scores (N,). Raises ArgumentError for an image that the source
            does not know.
        every: in a video, the source is used at every n-th frame; None: at the first frame only. At other frames the
            boxes are predicted from the tracks.
        image_id: image -> its id in a COCO file that names pictures, else None. Raises ArgumentError as `find` does.
        detected: whether the boxes are detections, so that two may belong to one person.
        unmatched: says why the source had boxes for none of the images so far, though it holds some; "" if it had.
    """

    description: str
    find: Callable[[Image], Boxes]
    every: int | None = 1
    image_id: Callable[[Image], int | None] = _unnamed
    detected: bool = False
    unmatched: Callable[[], str] = str

    def __post_init__(self) -> None:
        if self.every is not None:
            check_count("every", self.every)

    def id_in_results(self, image: Image) -> int:
        """Return an image's id in results: the source's own, otherwise its number from 1."""
        found = self.image_id(image)
        return number_from_one(image) if found is None else found

    def due(self, looked_at: int) -> bool:
        """Return whether the source is used at the frame with this number."""
        return looked_at == 0 if self.every is None else looked_at % self.every == 0


def boxes_from_detector(detector: Detector, every: int | None = 1) -> BoxSource:
    """Return a source of boxes from a detector."""
    return BoxSource(detector.description, lambda image: detector.detect(image.image), every, detected=True)


def boxes_from_file(
    path: str | Path, every: int | None = 1, category: str | int | None = None, *, sequence: bool = True
) -> BoxSource:
    """Return a source of boxes from COCO JSON (annotations, or results with boxes) or a MOT file (.txt).

    Pictures are found by their names where a COCO file has any. Boxes that lie outside of their picture are skipped.

    Args:
        path: the file.
        every: as BoxSource has it.
        category: name or id of the category of people; None as oaks.coco.choose_category says.
        sequence: whether the images are frames of a sequence. Ids of a COCO file without names are then frame numbers
            from 1, as in MOT files; otherwise they are the numbers that the pictures' names end with, as in COCO.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is neither of these; the message names it.
    """
    from oaks.box_files import read_boxes, read_mot

    path = as_path("path", path)
    if path.suffix.lower() == ".txt":
        return boxes_of_people(read_mot(path), every, sequence=True)
    return boxes_of_people(read_boxes(path, category), every, sequence=sequence)


def boxes_of_people(people: PersonBoxes, every: int | None = 1, *, sequence: bool = True) -> BoxSource:
    """Return a source of boxes from a file that has been read; `boxes_from_file` explains the arguments."""
    matched = False

    def image_id(image: Image) -> int | None:
        if not image.name or (sequence and not people.image_ids):
            return None
        found = people.image_id(image.name)
        if found is None:
            raise ArgumentError(f"{image.name}: {people.source} does not know this picture")
        check_size(image.name, image.image.shape[1::-1], people.size(found))
        return found

    def find(image: Image) -> Boxes:
        nonlocal matched
        found = image_id(image)
        boxes, scores = people.of(number_from_one(image) if found is None else found)
        matched = matched or len(boxes) > 0
        height, width = image.image.shape[:2]
        within = ((boxes[:, :2] < (width, height)) & (boxes[:, 2:] > 0)).all(axis=1)
        if not within.all():
            name = image.name or f"frame {image.index}"
            skip(f"boxes of {people.path} outside of {name}", f"{np.count_nonzero(~within)} of {len(boxes)}")
        return boxes[within], scores[within]

    def unmatched() -> str:
        if matched or not people.boxes:
            return ""
        has = first_of(sorted(people.boxes))
        return (
            f"{people.source}: none of its boxes belong to the frames that were read; it has boxes for frames "
            f"(or image ids) {has}"
        )

    return BoxSource(people.source, find, every, image_id, detected=not people.image_ids, unmatched=unmatched)


def first_boxes(boxes: Any, box_scores: Any = None) -> BoxSource:
    """Return a source of boxes of a video's first frame; later boxes are predicted from the tracks.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        box_scores: (N,); None: 1.

    Raises:
        ArgumentError: an argument does not fit.
    """
    corners = as_boxes("boxes", boxes)
    scores = as_box_scores("box_scores", box_scores, len(corners))
    return BoxSource("first boxes", lambda _image: (corners, scores), None)


def whole_image() -> BoxSource:
    """Return a source for images of one person each."""

    def find(image: Image) -> Boxes:
        height, width = image.image.shape[:2]
        return np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)

    return BoxSource("whole image", find)


def missing_boxes(bundle: str, instead: str) -> ArgumentError:
    """Return the error for a bundle without a detector where no boxes are given; `instead` says what to pass."""
    return ArgumentError(
        f"boxes must be given, as bundle {bundle!r} has no detector, got None; pass {instead}"
    )


__all__ = [
    "BoxSource",
    "as_box_scores",
    "as_boxes",
    "boxes_from_detector",
    "boxes_from_file",
    "boxes_of_people",
    "first_boxes",
    "iou",
    "number_from_one",
    "to_xywh",
    "to_xyxy",
    "whole_image",
]
