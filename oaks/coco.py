"""COCO's annotation files: the one checked reader.

Malformed content is refused with an error that names the file and the annotation id. Well-formed but unusable content,
such as a box without extent, is skipped, counted in `skipped`, and named by the annotation ids.
"""

from __future__ import annotations

import logging
import math
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oaks.boxes import FARTHEST, to_xyxy
from oaks.coco_fields import (
    alone,
    are_numbers,
    as_id,
    category_ids,
    counted_categories,
    folded,
    integers,
    lists_of_numbers,
    tell_skipped,
)
from oaks.errors import ArgumentError, OaksError
from oaks.names import number_of
from oaks.schema import shortened
from oaks.skeleton import Skeleton
from oaks.structured import check_top, read_json

AREA_OF_BOX = 0.53
"""Area of a person relative to the box, where there is no mask: the mean of COCO's masks."""
PERSON = "person"
PERSON_ID = 1
"""COCO's own id of people, for files that do not list categories."""

IMAGE_FIELDS = ("id", "file_name", "width", "height", "orig_width", "orig_height")
"""Fields of images that are read."""
_NUMBERS = {int, float}
_GATHERED = object()
"""Stands in the place of an annotation that _Columns has gathered."""

NO_BOX = "annotations without a box of some extent"
NO_IMAGE = "annotations of images that the file does not list"
NO_AREA = "labeled people whose area is not positive"
OUTSIDE = "annotations whose box lies outside of their image"

log = logging.getLogger("oaks")


def estimated_areas(sides: np.ndarray) -> np.ndarray:
    """Estimate the areas (...) of people from the width and height (..., 2) of their boxes."""
    return AREA_OF_BOX * sides.prod(axis=-1)


@dataclass(frozen=True)
class Images:
    """I images of a data set.

    Attributes:
        image_ids: (I,) int64, each once.
        file_names: I names as the file has them, "" where it has none.
        sizes: (I,2) int64 width and height that the file states; 0 where it does not.
        scales: (I,2) factor from the file's coordinates to original pixels, for x and y; 1 where the file states
            no `orig_width` and `orig_height`.
    """

    image_ids: np.ndarray
    file_names: tuple[str, ...]
    sizes: np.ndarray
    scales: np.ndarray


@dataclass(frozen=True)
class Annotations(Images):
    """I images and the G annotations of one category in them, in the file's order, crowds included.

    Attributes:
        path: what messages call the file.
        category_id: of the people.
        ids: (G,) int64, each once.
        image: (G,) index of the annotation's image.
        boxes: (G,4) float64 x, y, width, height, of positive extent; within their image at least in part if the file
            states its size.
        areas: (G,) float64; NaN where the file states none.
        crowd: (G,) bool: a region with many people.
        keypoints: (G,K,3) float64 x, y, flag in the skeleton's order; all 0 for annotations without keypoints.
            None if no skeleton was given.
        same_keypoints: whether the file's keypoints are the skeleton's, in its order.
        skipped: reason -> ids of the annotations that are left out.
        others: number of annotations of other categories, which are left out.
        renumbered: number of annotations with a repeated id, which were given a new one.
    """

    path: str
    category_id: int
    ids: np.ndarray
    image: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    keypoints: np.ndarray | None
    same_keypoints: bool
    skipped: Mapping[str, Sequence[int]]
    others: int
    renumbered: int = 0

    @property
    def corners(self) -> np.ndarray:
        """(G,4) boxes as x1, y1, x2, y2."""
        return to_xyxy(self.boxes)


def read_annotations(
    path: str | Path,
    *,
    skeleton: Skeleton | None = None,
    category: str | int | None = None,
    renumber: bool = False,
) -> Annotations:
    """Read and check a COCO annotation file.

    Args:
        path: the file.
        skeleton: the keypoints to read; None reads no keypoints.
        category: name or id of the category of people; `choose_category` has the rule for None.
        renumber: whether repeated ids, as in files joined from several, are replaced where it is clear which
            annotation belongs to which image. Otherwise they are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: the content does not fit; the message names the file and the image or annotation id.
    """
    columns = _Columns()
    try:
        content = read_json(path, strict=False, kept=columns.take)
        columns.check(content)
        return _check(content, str(path), skeleton, category, columns=columns, renumber=renumber)
    except _UnusualError:
        content = read_json(path, strict=False, kept=_needed)
        return _check(content, str(path), skeleton, category, renumber=renumber)


class _UnusualError(OaksError):
    """An annotation is not in the usual form (_Columns): the file is read again, with checks of single fields."""


class _Columns:
    """The annotations of a file in the usual form, gathered while it is parsed: a third of the memory of the objects.

    The usual form: integer ids, a box of four finite numbers, and all keypoints as lists of the same length, as COCO
    itself writes them.

    Attributes:
        ids, own_image, categories: (N,) int64.
        boxes: (N,4) float64.
        areas: (N,) float64; NaN where none is stated.
        crowd: (N,) bool.
        points: (N,3K) float64 keypoints, 0 for annotations without; K is 0 if there are none.
        stated: (N,) int64 num_keypoints; -1 where none is stated.
    """

    def __init__(self) -> None:
        self._integers, self._numbers, self._points = array("q"), array("d"), array("d")
        self._width = 0

    def __len__(self) -> int:
        return len(self._integers) // 5

    def take(self, entry: dict[str, Any]) -> Any:
        """Return an object of the file with the fields that are read; _GATHERED for an annotation.

        Raises:
            _UnusualError: an annotation is not in the usual form.
        """
        if "image_id" not in entry:
            is_image = "file_name" in entry and "name" not in entry  # a category has a name
            return {k: entry[k] for k in IMAGE_FIELDS if k in entry} if is_image else entry
        get = entry.get
        integers = [
            get("id"),
            get("image_id"),
            get("category_id"),
            get("iscrowd", 0),
            get("num_keypoints", -1),
        ]
        numbers, points, area = get("bbox"), get("keypoints"), get("area")
        if type(numbers) is not list or len(numbers) != 4 or set(map(type, integers)) != {int}:
            raise _UnusualError
        numbers.append(math.nan if area is None else area)
        if not points:
            points = [0.0] * self._width
        elif not self._width and type(points) is list:
            self._width = len(points)
            self._points.frombytes(bytes(8 * self._width * len(self)))
        if (
            type(points) is not list
            or len(points) != self._width
            or not {*map(type, points), *map(type, numbers)} <= _NUMBERS
        ):
            raise _UnusualError
        if (area is not None and not abs(area) < math.inf) or ("num_keypoints" in entry and integers[4] < 0):
            raise _UnusualError
        try:
            self._integers.extend(integers)
            self._numbers.extend(numbers)
            self._points.extend(points)
        except OverflowError:
            raise _UnusualError from None
        return _GATHERED

    def check(self, content: Any) -> None:
        """Turn what was gathered into arrays.

        Raises:
            _UnusualError: objects elsewhere look like annotations, or a number does not fit.
        """
        integers = np.frombuffer(self._integers, np.int64).reshape(-1, 5)
        numbers = np.frombuffer(self._numbers, np.float64).reshape(-1, 5)
        self.points = np.frombuffer(self._points, np.float64).reshape(len(self), self._width)
        self.ids, self.own_image, self.categories, crowd, self.stated = (np.array(c) for c in integers.T)
        self.boxes, self.areas, self.crowd = numbers[:, :4], numbers[:, 4], crowd > 0
        lists = (
            [content.get(key, []) for key in ("annotations", "images", "categories")]
            if type(content) is dict
            else []
        )
        usual = (
            all(type(entries) is list for entries in lists)
            and [entries.count(_GATHERED) for entries in lists] == [len(self), 0, 0]
            and len(lists[0]) == len(self)
            and bool((integers[:, :4] >= 0).all() and (crowd <= 1).all())
            and bool(np.isfinite(self.boxes).all() and np.isfinite(self.points).all())
        )
        if not usual:
            raise _UnusualError

    def keypoints(self, count: int) -> tuple[np.ndarray, list[int | None]]:
        """Return keypoints (G,K,3) and the num_keypoints of all annotations.

        Raises:
            _UnusualError: the annotations have another number of keypoints.
        """
        if self._width not in (0, 3 * count):
            raise _UnusualError
        points = self.points if self._width else np.zeros((len(self.points), 3 * count))
        return points.reshape(-1, count, 3), [None if n < 0 else n for n in self.stated.tolist()]

    def keep_only(self, kept: np.ndarray) -> None:
        """Keep the annotations with these indices (n,)."""
        if len(kept) < len(self.ids):
            for name in ("points", "boxes", "areas", "crowd", "stated"):
                setattr(self, name, getattr(self, name)[kept])


def _needed(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the file without unread fields, and with an annotation's keypoints as an array.

    This takes half of the memory. A category's keypoints, which are names, stay a list.
    """
    entry.pop("segmentation", None)
    entry = {
        sys.intern(key): value for key, value in entry.items()
    }  # the parser makes a text for each of them
    points = entry.get("keypoints") if "image_id" in entry else None
    if points and type(points) is list and set(map(type, points)) <= _NUMBERS:
        with suppress(OverflowError):  # refused later, with the annotation's id
            entry["keypoints"] = np.array(points, np.float64)
    return entry


def check_annotations(
    content: Any,
    path: str | Path = "annotations",
    *,
    skeleton: Skeleton | None = None,
    category: str | int | None = None,
) -> Annotations:
    """Check parsed JSON as `read_annotations` does; `path` is what messages call it."""
    return _check(content, str(path), skeleton, category)


def _check(
    content: Any,
    path: str,
    skeleton: Skeleton | None,
    category: str | int | None,
    *,
    columns: _Columns | None = None,
    renumber: bool = False,
) -> Annotations:
    """Check parsed JSON, whose annotations may have been gathered as columns instead."""
    if not isinstance(skeleton, Skeleton | None):
        raise ArgumentError(f"skeleton must be a Skeleton, got {skeleton!r}")
    _check_lists(content, path, gathered=columns is not None)
    images, rows = content["images"], content["annotations"]
    chosen = choose_category(content.get("categories", []), path, category)
    image_ids = integers([i.get("id") for i in images], lambda n: f"{path}: images[{n}]: id", least=0)
    ids, own_image = (columns.ids, columns.own_image) if columns is not None else _row_ids(rows, path)
    renumbered = 0
    if renumber:
        image_ids, ids, own_image, renumbered = _renumber(path, image_ids, ids, own_image)
    _refuse_repeated(image_ids, f"{path}: image id")
    _refuse_repeated(ids, f"{path}: annotation id")
    categories = (
        columns.categories
        if columns is not None
        else category_ids(rows, lambda n: f"{path}: annotation {ids[n]}: category_id", chosen["id"])
    )
    kept = _of_category(categories, chosen, path)
    others = len(rows) - len(kept)
    ids, own_image = ids[kept], own_image[kept]

    def named(n: int) -> str:
        return f"{path}: annotation {ids[n]}"

    if columns is not None:
        columns.keep_only(kept)
        boxes, areas, crowd = columns.boxes, columns.areas, columns.crowd
    else:
        rows = [rows[n] for n in kept]
        boxes, areas, crowd = _boxes(rows, named), _areas(rows, named), _crowds(rows, named)
    _refuse_far(boxes, named, "bbox")
    keypoints, same = None, True
    if skeleton is not None:
        read = partial(_keypoints, rows, named) if columns is None else columns.keypoints
        keypoints, same = _skeleton_keypoints(read, chosen, skeleton, named, path)
    image, listed = _positions(own_image, image_ids)
    sizes = _sizes(images, image_ids, path, "width", "height")
    labeled = np.zeros(len(ids), bool) if keypoints is None else (keypoints[..., 2] > 0).any(axis=1)
    left, skipped = _leave_out(
        ids,
        {
            NO_IMAGE: ~listed,
            NO_BOX: np.nan_to_num(boxes[:, 2:]).min(axis=1) <= 0,
            OUTSIDE: _outside(boxes, sizes[image] if len(sizes) else np.zeros((len(ids), 2))),
            NO_AREA: (areas <= 0) & labeled & ~crowd,
        },
        path,
    )
    return Annotations(
        path=path,
        category_id=chosen["id"],
        image_ids=image_ids,
        file_names=tuple(_file_name(i, f"{path}: image {image_ids[n]}") for n, i in enumerate(images)),
        sizes=sizes,
        scales=_scales(images, image_ids, path),
        ids=ids[left],
        image=image[left],
        boxes=boxes[left],
        areas=areas[left],
        crowd=crowd[left],
        keypoints=keypoints if keypoints is None or left.all() else keypoints[left],
        same_keypoints=same,
        skipped=skipped,
        others=others,
        renumbered=renumbered,
    )


def _check_lists(content: Any, path: str, *, gathered: bool) -> None:
    """Refuse content without the lists of a COCO file; the objects of gathered annotations have been checked."""
    check_top(content, f"{path}: COCO annotations", dict)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key, [] if key == "categories" else None)
        if not isinstance(entries, list):
            raise ArgumentError(f"{path}: not a COCO annotation file: its list {key!r} is missing")
        if gathered and key == "annotations":
            continue
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ArgumentError(f"{path}: {key}[{place}] must be an object, got {shortened(entry)}")
            if key == "categories" and isinstance(entry.get("keypoints"), np.ndarray):
                raise ArgumentError(f"{path}: {key}[{place}]: keypoints must be names, got numbers")


def _of_category(categories: np.ndarray, chosen: Mapping[str, Any], path: str) -> np.ndarray:
    """Return the indices of the annotations whose category (N,) is the chosen one."""
    kept = np.flatnonzero(categories == chosen["id"])
    if len(categories) and not len(kept):
        raise ArgumentError(
            f"{path}: none of its {len(categories)} annotations is of category {chosen['id']} "
            f"({chosen.get('name', PERSON)!r}), got {counted_categories(categories)}; pass --category"
        )
    return kept


def _positions(own_image: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each annotation's image (G,), and whether the file lists that image."""
    if not len(image_ids):
        return np.zeros_like(own_image), np.zeros(len(own_image), bool)
    sorted_ids = np.argsort(image_ids, kind="stable")
    found = np.searchsorted(image_ids, own_image, sorter=sorted_ids)
    image = sorted_ids[np.minimum(found, len(image_ids) - 1)]
    return image, image_ids[image] == own_image


def _outside(boxes: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return which boxes (G, 4) lie outside of an image of these sides (G, 2), which are 0 where they are unknown."""
    beyond = ((boxes[:, :2] >= sides) & (sides > 0)) | (boxes[:, :2] + boxes[:, 2:] <= 0)
    return beyond[:, 0] | beyond[:, 1]


def _leave_out(
    ids: np.ndarray, reasons: Mapping[str, np.ndarray], path: str
) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Return which annotations are left, (G,) bool, and the ids of the others by their first reason.

    Raises:
        ArgumentError: none is left.
    """
    left = np.ones(len(ids), bool)
    skipped = {}
    for reason, unfit in reasons.items():
        if (unfit & left).any():
            skipped[reason] = ids[unfit & left].tolist()
            left &= ~unfit
    if len(ids) and not left.any():
        counts = ", ".join(f"{reason}: {len(found)}" for reason, found in skipped.items())
        raise ArgumentError(
            f"{path}: {number_of(len(ids), 'annotation')}, none of which can be used: {counts}"
        )
    tell_skipped(path, skipped)
    return left, skipped


def _boxes(rows: Sequence[Mapping[str, Any]], named: Callable[[int], str]) -> np.ndarray:
    """Return the boxes (G, 4) of all rows; NaN for those without."""
    values = [None if row.get("bbox") == [] else row.get("bbox") for row in rows]
    return lists_of_numbers(values, 4, lambda n: f"{named(n)}: bbox", "[x, y, width, height]")


def _areas(rows: Sequence[Mapping[str, Any]], named: Callable[[int], str]) -> np.ndarray:
    """Return the areas (G,) of all rows; NaN for those without."""
    values = [alone(row.get("area")) for row in rows]
    return lists_of_numbers(values, 1, lambda n: f"{named(n)}: area", "a finite number")[:, 0]


def _refuse_far(values: np.ndarray, named: Callable[[int], str], field: str) -> None:
    """Refuse coordinates (N, ...) that no image has."""
    far = ((values >= FARTHEST) | (values <= -FARTHEST)).any(axis=tuple(range(1, values.ndim)))
    if far.any():
        n = int(far.argmax())
        raise ArgumentError(
            f"{named(n)}: {field} must lie within {FARTHEST:g} pixels, got {np.nanmax(np.abs(values[n])):g}"
        )


def _crowds(rows: Sequence[Mapping[str, Any]], named: Callable[[int], str]) -> np.ndarray:
    """Return the `iscrowd` of all rows, (G,) bool; text is refused, since bool("0") is True."""
    values = [row.get("iscrowd") or 0 for row in rows]
    for n, value in enumerate(values):
        if not isinstance(value, int | float) or value not in (0, 1):
            raise ArgumentError(f"{named(n)}: iscrowd must be 0 or 1, got {shortened(value)}")
    return np.array(values, bool)


def choose_category(
    categories: Sequence[Mapping[str, Any]], path: str | Path, category: str | int | None = None
) -> dict[str, Any]:
    """Return the category of people: the one with keypoints, otherwise the one named "person" (case is ignored).

    Args:
        categories: the file's; empty counts as COCO's person, id 1.
        path: what messages call the file.
        category: its name, in which case is ignored, or its id.

    Raises:
        ArgumentError: there is none, or several; the message offers --category.
    """
    ids = integers([c.get("id") for c in categories], lambda n: f"{path}: categories[{n}]: id", least=0)
    _refuse_repeated(ids, f"{path}: category id")
    known = [{**entry, "id": int(number)} for entry, number in zip(categories, ids, strict=True)]
    number = as_id(category)
    if not known and (category is None or number is not None):
        return {"id": PERSON_ID if number is None else number}
    if category is not None:
        found = [c for c in known if c["id"] == number or folded(c) == str(category).casefold()]
    else:
        found = [c for c in known if c.get("keypoints")] or known
        if len(found) != 1 or not found[0].get("keypoints"):
            found = [c for c in found if folded(c) == PERSON]
    if len(found) != 1:
        has = ", ".join(f"{c['id']} {shortened(c.get('name'))}" for c in known[:20])
        expected = f"{category!r}" if category is not None else "with keypoints or named 'person'"
        raise ArgumentError(
            f"{path}: it must have one category {expected}, got {has}; pass --category NAME or ID"
        )
    return found[0]


def _row_ids(rows: Sequence[Mapping[str, Any]], path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and image ids (N,) of all rows; ids are numbered from 1 if no row has one."""
    values = [row.get("id") for row in rows]
    if all(value is None for value in values):
        ids = np.arange(1, len(rows) + 1)
    else:
        ids = integers(values, lambda n: f"{path}: annotations[{n}]: id", least=0)
    own_image = integers(
        [row.get("image_id") for row in rows], lambda n: f"{path}: annotation {ids[n]}: image_id", least=0
    )
    return ids, own_image


def _refuse_repeated(ids: np.ndarray, what: str) -> None:
    found, counts = np.unique(ids, return_counts=True)
    if len(found) < len(ids):
        raise ArgumentError(f"{what} {found[counts > 1][0]} must occur once, got it {counts.max()} times")


def _renumber(
    path: str, image_ids: np.ndarray, ids: np.ndarray, own_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Give images and annotations unique ids where a file was joined from parts that each count from 1.

    The k-th annotation with some id belongs to the k-th image with the id that it names.
    """
    if len(np.unique(image_ids)) == len(image_ids) and len(np.unique(ids)) == len(ids):
        return image_ids, ids, own_image, 0
    image_turn, turn = _occurrence(image_ids), _occurrence(ids)
    times, same = Counter(ids.tolist()), Counter(image_ids.tolist())
    fresh_images = image_ids.copy()
    again = np.flatnonzero(image_turn)
    fresh_images[again] = image_ids.max() + 1 + np.arange(len(again))
    where = {
        (int(i), int(k)): int(new) for i, k, new in zip(image_ids, image_turn, fresh_images, strict=True)
    }
    own = own_image.copy()
    for n in np.flatnonzero((turn > 0) | np.array([same[int(i)] > 1 for i in own_image], bool)):
        count = same[int(own_image[n])]
        if turn[n] >= count or count != times[int(ids[n])]:
            raise ArgumentError(
                f"{path}: {times[int(ids[n])]} annotations have the id {ids[n]} and image id {own_image[n]} names "
                f"{count} images: which annotation belongs to which image is unclear"
            )
        own[n] = where[int(own_image[n]), int(turn[n])]
    fresh, again = ids.copy(), np.flatnonzero(turn)
    fresh[again] = ids.max(initial=0) + 1 + np.arange(len(again))
    return fresh_images, fresh, own, len(again)


def _occurrence(ids: np.ndarray) -> np.ndarray:
    """Return how often each id (N,) has occurred before."""
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    turn = np.empty_like(order)
    turn[order] = np.arange(len(ids)) - np.searchsorted(sorted_ids, sorted_ids)
    return turn


def _skeleton_keypoints(
    read: Callable[[int], tuple[np.ndarray, Sequence[Any]]],
    category: Mapping[str, Any],
    skeleton: Skeleton,
    named: Callable[[int], str],
    path: str,
) -> tuple[np.ndarray, bool]:
    """Return checked keypoints (G,K,3) in the skeleton's order, and whether that is the file's.

    Args:
        read: returns the file's keypoints and num_keypoints, given the number of keypoints.
    """
    order, same = _keypoint_order(category, skeleton, path)
    count = skeleton.count if order is None else len(category["keypoints"])
    points, stated = read(count)
    _check_keypoints(points, stated, named)
    if order is not None and order != list(range(count)):
        points = points[:, order]
    return points, same


def _keypoint_order(
    category: Mapping[str, Any], skeleton: Skeleton, path: str
) -> tuple[list[int] | None, bool]:
    """Return the file's index of each keypoint of the skeleton (None without names), and whether the order is the same."""
    names = category.get("keypoints")
    if not names:
        return None, True
    if not isinstance(names, list):
        raise ArgumentError(
            f"{path}: category {category['id']}: keypoints must be a list, got {shortened(names)}"
        )
    plain, expected = list(map(_plain, names)), list(map(_plain, skeleton.keypoints))
    if len(set(plain)) < len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        raise ArgumentError(
            f"{path}: category {category['id']}: keypoints must differ, got {shortened(twice)} twice"
        )
    if missing := [name for name in expected if name not in plain]:
        raise ArgumentError(
            f"{path}: category {category['id']} lacks the keypoints {missing} of skeleton {skeleton.name!r}"
        )
    return [plain.index(name) for name in expected], plain == expected


def _plain(keypoint: Any) -> str:
    return str(keypoint).lower().replace(" ", "_").replace("-", "_")


def _keypoints(
    rows: Sequence[Mapping[str, Any]], named: Callable[[int], str], count: int
) -> tuple[np.ndarray, list[Any]]:
    """Return keypoints (G,K,3) in the file's order, 0 for those without, and the num_keypoints of all rows."""
    values = [_or_none(row.get("keypoints")) for row in rows]
    for n, value in enumerate(values):
        if isinstance(value, list | np.ndarray) and len(value) != 3 * count and are_numbers(value):
            raise ArgumentError(
                f"{named(n)}: keypoints must be {3 * count} numbers for {count} keypoints, got {len(value)}"
            )
    form = f"{3 * count} numbers for {count} keypoints"
    points = lists_of_numbers(values, 3 * count, lambda n: f"{named(n)}: keypoints", form)
    return np.nan_to_num(points, nan=0.0).reshape(-1, count, 3), [row.get("num_keypoints") for row in rows]


def _check_keypoints(points: np.ndarray, stated: Sequence[Any], named: Callable[[int], str]) -> None:
    """Refuse coordinates that no image has, unknown flags, and a num_keypoints that is another number; None is unknown."""
    _refuse_far(points, named, "keypoints")
    flags = points[..., 2]
    strange = ((flags != 0) & (flags != 1) & (flags != 2)).any(axis=1)
    if strange.any():
        n = int(strange.argmax())
        raise ArgumentError(
            f"{named(n)}: visibility flags must be 0, 1 or 2, got {np.unique(flags[n]).tolist()}"
        )
    for n, (told, own) in enumerate(zip(stated, np.count_nonzero(flags, axis=1).tolist(), strict=True)):
        if told is not None and told != own:
            raise ArgumentError(
                f"{named(n)}: num_keypoints must be the number of its labeled keypoints, {own}, got {shortened(told)}"
            )


def _or_none(points: Any) -> Any:
    """Return keypoints, or None for an annotation without any: an empty list, null, 0."""
    return points if (len(points) if isinstance(points, np.ndarray) else points) else None


def _file_name(image: Mapping[str, Any], label: str) -> str:
    name = image.get("file_name", "")
    if not isinstance(name, str) or "\0" in name:
        raise ArgumentError(f"{label}: file_name must be text, got {shortened(name)}")
    return name


def _sizes(images: Sequence[Mapping[str, Any]], ids: np.ndarray, path: str, *keys: str) -> np.ndarray:
    """Return the sides (I, 2) that the file states; 0 if it states none."""

    def label(key: str, n: int) -> str:
        return f"{path}: image {ids[n]}: {key}"

    columns = [
        integers(
            [0 if image.get(key) is None else image[key] for image in images],
            partial(label, key),
            least=0,
        )
        for key in keys
    ]
    for key, column in zip(keys, columns, strict=True):
        if (column >= FARTHEST).any():
            n = int(column.argmax())
            raise ArgumentError(f"{label(key, n)} must be below {FARTHEST:g}, got {column[n]}")
    return np.stack(columns, axis=1) if images else np.zeros((0, 2), np.int64)


def _scales(images: Sequence[Mapping[str, Any]], ids: np.ndarray, path: str) -> np.ndarray:
    """Return the factors (I, 2) from the file's coordinates to original pixels."""
    scales = np.ones((len(images), 2))
    if not any("orig_width" in image and "orig_height" in image for image in images):
        return scales
    stated = _sizes(images, ids, path, "width", "height")
    original = _sizes(images, ids, path, "orig_width", "orig_height")
    both = np.array(["orig_width" in image and "orig_height" in image for image in images])
    unfit = both & ((stated < 1) | (original < 1)).any(axis=1)
    if unfit.any():
        n = int(unfit.argmax())
        raise ArgumentError(
            f"{path}: image {ids[n]}: width, height, orig_width and orig_height must be positive, got "
            f"{[*stated[n].tolist(), *original[n].tolist()]}"
        )
    scales[both] = original[both] / stated[both]
    return scales


__all__ = [
    "AREA_OF_BOX",
    "IMAGE_FIELDS",
    "NO_AREA",
    "NO_BOX",
    "NO_IMAGE",
    "OUTSIDE",
    "PERSON",
    "PERSON_ID",
    "Annotations",
    "Images",
    "check_annotations",
    "choose_category",
    "estimated_areas",
    "read_annotations",
]
