"""Files of people's boxes: COCO annotations, COCO results, and MOTChallenge's text files."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oaks.boxes import FARTHEST, to_xyxy
from oaks.coco import PERSON_ID, read_annotations
from oaks.coco_fields import (
    as_id,
    category_ids,
    counted_categories,
    first_of,
    integers,
    lists_of_numbers,
    tell_skipped,
)
from oaks.errors import ArgumentError
from oaks.images import plain_name
from oaks.names import number_of
from oaks.schema import shortened
from oaks.structured import check_regular, read_bytes, read_json


class PersonBoxes:
    """The boxes of the people in a set of images.

    Args:
        path: the file.
        source: origin of the boxes, for the header of results.
        boxes: image id -> (N, 4) float32 x1, y1, x2, y2.
        scores: image id -> (N,) float32.
        image_ids: file name, with its folders where it has any -> image id; empty for a results file, which
            names no files.
        sizes: image id -> (width, height) that the file states.
    """

    def __init__(
        self,
        path: str | Path,
        source: str,
        boxes: Mapping[int, np.ndarray],
        scores: Mapping[int, np.ndarray],
        image_ids: Mapping[str, int],
        sizes: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        self.path, self.source = path, source
        self.boxes, self.scores, self.image_ids = boxes, scores, image_ids
        self.sizes = sizes or {}
        self._by_path = {plain_name(name): number for name, number in image_ids.items()}
        self._by_name: dict[str, int | None] = {}
        for name, number in self._by_path.items():
            last = name.rpartition("/")[2]
            self._by_name[last] = None if last in self._by_name else number

    def image_id(self, path: str | Path) -> int | None:
        """Return the id of an image file; without a list of names, the number in its file name, as in COCO.

        The longest name with which the path ends is taken; if there is none, the file name without folders, if it is
        unique. Names are compared in one Unicode form.
        """
        if self.image_ids:
            parts = plain_name(Path(path).as_posix()).split("/")
            for start in range(len(parts)):
                if (number := self._by_path.get("/".join(parts[start:]))) is not None:
                    return number
            return self._by_name.get(parts[-1])
        digits = Path(path).stem.rsplit("_", 1)[-1]
        return int(digits) if digits.isdecimal() and len(digits) < 19 else None

    def check_pictures(self, pictures: Sequence[str | Path]) -> None:
        """Refuse pictures that boxes without file names do not belong to.

        Raises:
            ArgumentError: there are boxes, but none for any of the pictures.
        """
        if self.image_ids or not self.boxes or any(self.image_id(path) in self.boxes for path in pictures):
            return
        raise ArgumentError(
            f"{self.source} must have boxes of the pictures, got boxes of image ids {first_of(sorted(self.boxes))}; it "
            f"names no files, so each picture's id is the number at the end of its name; the first picture is {pictures[0]}"
        )

    def of(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (N, 4) and scores (N,) of an image; N is 0 for an image without any."""
        if image_id not in self.boxes:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return self.boxes[image_id], self.scores[image_id]

    def size(self, image_id: int) -> tuple[int, int]:
        """Return the (width, height) that the file states for an image; (0, 0) if it states none."""
        return self.sizes.get(image_id, (0, 0))


def read_boxes(path: str | Path, category: str | int | None = None) -> PersonBoxes:
    """Person boxes from COCO JSON.

    Args:
        path: an annotation file (images and annotations; crowds are left out, scores are 1), or
            a results file (a list of rows with image_id, category_id, bbox and score).
        category: name or id of the category of people; for None see `choose_category`. A results file names
            no categories: there it is an id, 1 for None.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is neither, or has no person; the message names the file and the row that does not fit.
    """
    if _is_list(path):
        return _detected_boxes(path, read_json(path, top=list, strict=False, kept=_of_box), category)
    found = read_annotations(path, category=category)
    names = [plain_name(name) for name in found.file_names]
    if "" in names:
        raise ArgumentError(
            f"{path}: image {found.image_ids[names.index('')]} must have a file_name, got none"
        )
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ArgumentError(f"{path}: file names must differ, got two images named {twice!a}")
    single = ~found.crowd
    if len(found.ids) and not single.any():
        raise ArgumentError(
            f"{path}: people must not all be crowds, got only crowds ({number_of(len(found.ids), 'annotation')})"
        )
    numbers = found.image_ids.tolist()
    boxes, scores = _by_image(
        path, found.image_ids[found.image[single]], found.corners[single], np.ones(int(single.sum()))
    )
    return PersonBoxes(
        path,
        source=f"annotated: {Path(path).name}",
        boxes=boxes,
        scores=scores,
        image_ids=dict(zip(found.file_names, numbers, strict=True)),
        sizes={number: (int(w), int(h)) for number, (w, h) in zip(numbers, found.sizes, strict=True)},
    )


def _is_list(path: str | Path) -> bool:
    """Return whether a JSON file holds a list, by its first bytes that are no white space."""
    check_regular(path)
    with open(path, "rb") as file:
        start = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
        while not start and (more := file.read(1 << 20)):
            start = more.lstrip()
    return start.startswith(b"[")


def _of_box(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of box results without the fields that are not read."""
    return {key: row[key] for key in ("image_id", "category_id", "bbox", "score") if key in row}


def _detected_boxes(path: str | Path, rows: list[Any], category: str | int | None) -> PersonBoxes:
    expected = PERSON_ID if category is None else as_id(category)
    if expected is None:
        raise ArgumentError(
            f"{path}: a results file names no categories; pass the category's id, got {category!r}"
        )

    def named(n: int) -> str:
        return f"{path}: row {n}"

    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ArgumentError(f"{named(n)}: must be an object with image_id and bbox, got {shortened(row)}")
    categories = category_ids(rows, lambda n: f"{named(n)}: category_id", expected)
    kept = np.flatnonzero(categories == expected)
    if rows and not len(kept):
        raise ArgumentError(
            f"{path}: none of its {len(rows)} rows is of category {expected}, got {counted_categories(categories)}; "
            "pass --category"
        )
    own = [rows[n] for n in kept]
    for n, row in zip(kept.tolist(), own, strict=True):
        if row.get("bbox") is None:
            raise ArgumentError(f"{named(n)}: bbox [x, y, width, height] is missing")
    images = integers([row.get("image_id") for row in own], lambda n: f"{named(kept[n])}: image_id", least=0)
    boxes = lists_of_numbers(
        [row["bbox"] for row in own], 4, lambda n: f"{named(kept[n])}: bbox", "[x, y, width, height]"
    )
    scores = lists_of_numbers(
        [[row.get("score", 1.0)] for row in own], 1, lambda n: f"{named(kept[n])}: score", "a finite number"
    )[:, 0]
    outside = (scores < 0) | (scores > 1)
    if outside.any():
        n = int(outside.argmax())
        raise ArgumentError(
            f"{named(kept[n])}: score must be from 0 to 1, got {scores[n]:g}; scale the scores, or leave them out"
        )
    extent = (boxes[:, 2:] > 0).all(axis=1)
    if own and not extent.any():
        raise ArgumentError(
            f"{path}: none of its {len(own)} boxes has a positive width and height, row {kept[0]} has {own[0]['bbox']}"
        )
    if not extent.all():
        tell_skipped(path, {"rows whose box has no extent": kept[~extent].tolist()})
    grouped = _by_image(path, images[extent], to_xyxy(boxes[extent]), scores[extent])
    return PersonBoxes(path, f"detected: {Path(path).name}", *grouped, image_ids={})


def _by_image(
    path: str | Path, images: np.ndarray, boxes: np.ndarray, scores: np.ndarray
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return boxes and scores by image id; within an image their order is kept."""
    if (far := np.abs(boxes) >= FARTHEST).any():
        raise ArgumentError(
            f"{path}: boxes must lie within {FARTHEST:g} pixels, got {boxes[far.any(axis=1)][0].tolist()}"
        )
    order = np.argsort(images, kind="stable")
    numbers, starts = np.unique(images[order], return_index=True)
    corners = np.split(boxes[order].astype(np.float32), starts[1:])
    values = np.split(scores[order].astype(np.float32), starts[1:])
    keys = numbers.tolist()
    return dict(zip(keys, corners, strict=False)), dict(zip(keys, values, strict=False))


def read_mot(path: str | Path) -> PersonBoxes:
    """Person boxes from a MOT file: frame, id, left, top, width, height, score, ... per line.

    In ground truth, the seventh number is 0 for boxes to ignore. These are left out; a file with only such boxes is
    refused. A score of -1 stands for none and becomes 1.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: a line is not of this form, or all boxes must be ignored; the message names file and line.
    """
    ignored = 0
    boxes: dict[int, list[list[float]]] = {}
    scores: dict[int, list[float]] = {}
    text = read_bytes(path, "json_bytes").decode("utf-8-sig", errors="replace")
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
        sides = abs(x) < FARTHEST and abs(y) < FARTHEST and 0 < width < FARTHEST and 0 < height < FARTHEST
        if not (sides and 0 < frame < FARTHEST and frame == int(frame)):
            raise ArgumentError(
                f"{path}: line {number} must have a frame from 1 and a box of positive, finite extent, got {line[:128]!r}"
            )
        if not (0 <= score <= 1 or score == -1):
            raise ArgumentError(
                f"{path}: line {number}: score must be from 0 to 1, or -1 for none, got {score!r}"
            )
        if score == 0:
            ignored += 1
            continue
        boxes.setdefault(int(frame), []).append([x, y, width, height])
        scores.setdefault(int(frame), []).append(1.0 if score == -1 else score)
    if ignored and not boxes:
        raise ArgumentError(
            f"{path}: scores must not all be 0, which marks boxes to ignore, got {ignored} of them"
        )
    return PersonBoxes(
        path,
        source=f"MOT: {Path(path).name}",
        boxes={key: to_xyxy(value).astype(np.float32) for key, value in boxes.items()},
        scores={key: np.array(value, np.float32) for key, value in scores.items()},
        image_ids={},
    )


__all__ = ["PersonBoxes", "read_boxes", "read_mot"]
