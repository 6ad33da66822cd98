"""Families of exported detectors, told apart by the shapes of their outputs, each with its own preprocessing."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops import box_nms

_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_ANCHORS = 3
"""Boxes per cell in YOLOv5."""
_END_TO_END = 300
"""Rows in Ultralytics' end-to-end exports."""
_COCO = 80
"""Classes of COCO, which most detectors are trained on."""
_LARGEST_SHARE = 2.0
"""Largest coordinate of a box that is a share of the input's side; a person may lie partly outside."""
_LARGEST_RAW = 20.0
"""Largest offset, or logarithm of a side, before the grid is decoded; beyond it are pixels."""
_COLOR_KEYS = ("color", "color_order", "channel_order", "color_format", "Image.BitmapPixelFormat")
"""Metadata that state the channel order; the last one is of the ONNX standard."""

Found = tuple[np.ndarray, np.ndarray]
"""Boxes (N, 4) xyxy in input pixels, and scores (N,)."""


@dataclass(frozen=True)
class Preprocessing:
    """Pixels that a network takes.

    Attributes:
        color: channel order, "rgb" or "bgr".
        mean, std: in that order, on the 0-255 scale.
        centered: whether the picture lies in the middle of the input, otherwise at its top left.
        fill: gray level of the rest of the input.
    """

    color: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    centered: bool = False
    fill: int = 114


YOLOX = Preprocessing("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
ULTRALYTICS = Preprocessing("rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), centered=True)


@dataclass(frozen=True)
class Format:
    """A family of exported detectors.

    Attributes:
        name: for messages.
        preprocessing: what the family takes.
        certain: whether the outputs determine the preprocessing; if not, it is assumed, with a warning.
        read: outputs, class index of a person, minimum score, NMS threshold -> boxes and scores.
    """

    name: str
    preprocessing: Preprocessing
    certain: bool
    read: Callable[[Sequence[np.ndarray], int, float, float], Found]


def recognize(outputs: Sequence[np.ndarray], size: tuple[int, int], metadata: Mapping[str, str]) -> Format:
    """Recognize the family of a network by its outputs for one gray input.

    Args:
        outputs: of the network.
        size: (width, height) of its input.
        metadata: of the ONNX file.

    Raises:
        ArgumentError: the outputs belong to no known family, or to several.
    """
    ultralytics = metadata.get("author") == "Ultralytics" or {"names", "task", "stride"} <= set(metadata)
    task = metadata.get("task", "detect")
    if ultralytics and task not in ("detect", "pose"):
        raise ArgumentError(f"the network must find boxes, got an Ultralytics export for the task {task!r}")
    flat = _flat(outputs)
    if len(flat) == 1 and flat[0].ndim == 2:
        # The rows of a network for poses hold keypoints too.
        names = None if task == "pose" else class_names(metadata)
        found = _of_one(flat[0], size, ultralytics, None if names is None else len(names))
        if found is not None:
            return found
    if _end_to_end(_flat(outputs)) is not None:
        return Format("boxes after NMS", YOLOX, False, _read_end_to_end)
    raise ArgumentError(
        f"the network's outputs must be YOLOX's, YOLOv5's, Ultralytics' or boxes, scores and labels, got "
        f"{[f'{value.dtype} {value.shape}' for value in outputs]}"
    )


def class_names(metadata: Mapping[str, str]) -> list[str] | None:
    """Return the names of the classes, in order, that an ONNX file's metadata state; None if they state none.

    Ultralytics writes a dict of Python, others write JSON.

    Raises:
        ArgumentError: the names cannot be read.
    """
    text = metadata.get("names")
    if text is None:
        return None
    try:
        names = ast.literal_eval(text)
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return list(names)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    raise ArgumentError(f"the metadata's names must be a list of class names, got {text[:80]!r}")


def person_class(metadata: Mapping[str, str]) -> int:
    """Return the class index of a person: that of the class of this name, 0 if the metadata name no classes.

    Raises:
        ArgumentError: no class has this name, or the names cannot be read.
    """
    names = class_names(metadata)
    if names is None:
        return 0
    for index, name in enumerate(names):
        if name.strip().casefold() == "person":
            return index
    shown = ", ".join(f"{index} {name}" for index, name in enumerate(names[:10]))
    raise ArgumentError(
        f"the network's classes must include person, got {shown}; pass the index as person (--detector-person)"
    )


def stated_color(metadata: Mapping[str, str]) -> str:
    """Return the channel order that an ONNX file's metadata state, "bgr" or "rgb"; "" if they state none.

    Raises:
        ArgumentError: they state another one, such as gray.
    """
    for key in _COLOR_KEYS:
        if key in metadata:
            stated = metadata[key].strip().casefold()
            if stated[:3] not in ("bgr", "rgb"):
                raise ArgumentError(f"the metadata's {key} must be RGB or BGR, got {metadata[key][:80]!r}")
            return stated[:3]
    return ""


def stated_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the (width, height) for which Ultralytics exported a network with dynamic axes; None if not stated."""
    found = re.fullmatch(r"\[(\d{1,5}), ?(\d{1,5})\]", metadata.get("imgsz", ""))
    return (int(found[2]), int(found[1])) if found else None


def _of_one(rows: np.ndarray, size: tuple[int, int], ultralytics: bool, classes: int | None) -> Format | None:
    """Return the format of a single output, (boxes, values) or (values, boxes).

    Args:
        rows: the output without its batch axis.
        size: (width, height) of the input.
        ultralytics: whether the metadata are those of an Ultralytics export.
        classes: number of classes that the metadata name; None if they name none.
    """
    cells = {sum((size[0] // s) * (size[1] // s) for s in strides): strides for strides in _STRIDES}
    for turned in (True, False):
        values, boxes = rows.shape if turned else rows.shape[::-1]
        anchors = boxes % _ANCHORS == 0 and boxes // _ANCHORS in cells
        if not (anchors or boxes in cells) or values < 5:
            continue
        objectness = _has_objectness(values, classes, anchors, turned)
        layout = "values, boxes" if turned else "boxes, values"
        if anchors:
            return (
                Format(f"YOLOv5 ({layout})", ULTRALYTICS, True, _reader(turned, True)) if objectness else None
            )
        if not objectness:
            return Format(f"Ultralytics ({layout})", ULTRALYTICS, True, _reader(turned, False))
        if ultralytics:
            return Format(f"Ultralytics ({layout}), objectness", ULTRALYTICS, True, _reader(turned, True))
        if not turned:
            return _yolox(rows, size, cells[boxes])
        raise ArgumentError(
            f"the network's outputs must be of one family, got {values} values per box: 4 and {values - 4} classes must "
            f"be named in the file's metadata (names), 5 and {values - 5} classes must be on the last axis"
        )
    if rows.shape[1] == 6:
        if ultralytics or len(rows) == _END_TO_END:
            return Format("Ultralytics end-to-end (boxes, 6)", ULTRALYTICS, True, _read_rows)
        return Format("rows after NMS (boxes, 6)", YOLOX, False, _read_rows)
    return None


def _has_objectness(values: int, classes: int | None, anchors: bool, turned: bool) -> bool:
    """Return whether a box's values are its four sides, an objectness and the classes' scores, or lack the objectness.

    Raises:
        ArgumentError: the values fit neither with this number of classes.
    """
    if classes is not None:
        if values not in (4 + classes, 5 + classes):
            raise ArgumentError(
                f"the network must have as many classes as its metadata name, {classes}, got {values} values per box"
            )
        return values == 5 + classes
    if values in (4 + _COCO, 5 + _COCO) and not anchors:
        return values == 5 + _COCO
    return values > 5 and (anchors or not turned)


def _yolox(rows: np.ndarray, size: tuple[int, int], strides: Sequence[int]) -> Format:
    """YOLOX, before or after its grid is decoded: offsets are small, decoded centers lie near their cells.

    Decoded exports of other families have the same outputs, but take other pixels (YOLOv6: RGB from 0 to 1).
    """
    cells = [
        np.stack(np.meshgrid(np.arange(size[0] // s), np.arange(size[1] // s)), axis=2).reshape(-1, 2)
        for s in strides
    ]
    grid, steps = np.concatenate(cells), np.repeat(strides, [len(level) for level in cells])[:, None]
    decoded = np.median(np.abs(rows[:, :2] / steps - grid)) < np.median(np.abs(rows[:, :2]))
    decoded |= np.abs(rows[:, :4]).max(initial=0) > _LARGEST_RAW

    def read(outputs: Sequence[np.ndarray], person: int, threshold: float, overlap: float) -> Found:
        found = _flat(outputs)[0]
        _check_class(found.shape[1] - 5, person)
        scores = found[:, 4] * found[:, 5 + person]
        if not decoded:
            corners = np.concatenate(
                [(found[:, :2] + grid) * steps, np.exp(np.minimum(found[:, 2:4], 20)) * steps], axis=1
            )
            return _suppressed(corners, scores, threshold, overlap)
        return _suppressed(found[:, :4], scores, threshold, overlap)

    return Format("YOLOX, decoded" if decoded else "YOLOX", YOLOX, not decoded, read)


def _reader(turned: bool, objectness: bool) -> Callable[[Sequence[np.ndarray], int, float, float], Found]:
    """Return the `read` of a Format of boxes in pixels, as center, width and height, before NMS."""

    def read(outputs: Sequence[np.ndarray], person: int, threshold: float, overlap: float) -> Found:
        rows = _flat(outputs)[0]
        rows = rows.T if turned else rows
        first = 5 if objectness else 4
        _check_class(rows.shape[1] - first, person)
        scores = rows[:, first + person]
        return _suppressed(rows[:, :4], rows[:, 4] * scores if objectness else scores, threshold, overlap)

    return read


def _read_rows(outputs: Sequence[np.ndarray], person: int, threshold: float, _overlap: float) -> Found:
    rows = _flat(outputs)[0]
    return _chosen(rows[:, :4], rows[:, 4], rows[:, 5] == person, threshold)


def _read_end_to_end(outputs: Sequence[np.ndarray], person: int, threshold: float, _overlap: float) -> Found:
    parts = _end_to_end(_flat(outputs))
    if parts is None:
        shapes = [f"{value.dtype} {value.shape}" for value in outputs]
        raise ArgumentError(f"the network's outputs must be boxes, scores and labels, got {shapes}")
    boxes, scores, labels = parts
    return _chosen(boxes, scores, labels == person, threshold)


def _end_to_end(flat: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Boxes, scores and labels in any order, or boxes with their scores and labels."""
    tables = [value for value in flat if value.ndim == 2 and value.shape[1] in (4, 5)]
    columns = [value for value in flat if value.ndim == 1]
    labels = [value for value in columns if value.dtype.kind in "iu"]
    scores = [value for value in columns if value.dtype.kind == "f"]
    if len(flat) == 3 and len(tables) == len(labels) == len(scores) == 1 and tables[0].shape[1] == 4:
        return tables[0], scores[0], labels[0]
    if len(flat) == 2 and len(tables) == len(labels) == 1 and tables[0].shape[1] == 5:
        return tables[0][:, :4], tables[0][:, 4], labels[0]
    return None


def _flat(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs without the batch axis of 1, which exists if any output has three axes."""
    batched = any(value.ndim == 3 for value in outputs)
    return [value[0] if batched and value.shape[0] == 1 else value for value in outputs]


def _check_class(classes: int, person: int) -> None:
    if person >= classes:
        raise ArgumentError(f"person must be below the network's {classes} classes, got {person}")


class NotFiniteError(ArgumentError):
    """A network gives NaN or infinity for a picture; it may give numbers for others."""


def _check_finite(scores: np.ndarray, boxes: np.ndarray) -> None:
    """Refuse outputs that are not finite; otherwise the picture would seem to have nobody.

    Args:
        scores: all scores or logits; -inf stands for nobody.
        boxes: those of the people found, or what they are made of.
    """
    if not ((scores < np.inf).all() and np.isfinite(boxes).all()):
        raise NotFiniteError("the network's outputs must be finite, got NaN or infinity for this image")


def _check_pixels(boxes: np.ndarray) -> None:
    """Refuse boxes in shares of the input's sides; in pixels, all people would lie in its corner."""
    largest = np.abs(boxes).max(initial=0)  # 0 for rows that only fill the output up
    if 0 < largest <= _LARGEST_SHARE:
        raise ArgumentError(
            f"the network's boxes must be in pixels of its input, got numbers up to {largest:g}; export them in pixels"
        )


def _chosen(boxes: np.ndarray, scores: np.ndarray, persons: np.ndarray, threshold: float) -> Found:
    kept = persons & (scores >= threshold)
    _check_finite(scores, boxes[kept])
    _check_pixels(boxes[kept])
    return boxes[kept].astype(np.float32), scores[kept].astype(np.float32)


def _suppressed(centered: np.ndarray, scores: np.ndarray, threshold: float, overlap: float) -> Found:
    """Convert boxes from center, width and height to xyxy, and apply NMS."""
    kept = scores >= max(threshold, np.finfo(np.float32).tiny)
    _check_finite(scores, centered[kept])
    _check_pixels(centered[kept])
    middles, halves = centered[kept, :2], np.maximum(centered[kept, 2:4], 0) / 2
    return best_of(np.concatenate([middles - halves, middles + halves], axis=1), scores[kept], overlap)


def best_of(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> Found:
    """Return the boxes that `box_nms` keeps, best first."""
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores = np.ascontiguousarray(scores, np.float32)
    kept = box_nms(boxes, scores, threshold=overlap)
    return boxes[kept], scores[kept]


def decode_centers(
    centers: np.ndarray,
    sizes: np.ndarray,
    offsets: np.ndarray,
    *,
    stride: int,
    threshold: float,
    overlap: float,
) -> Found:
    """Decode a detector's maps to boxes: peaks of the centers, each with the box stored there, then NMS.

    Args:
        centers: (1, h, w) logits.
        sizes: (2, h, w) width and height in input pixels.
        offsets: (2, h, w) x and y from the middle of the cell to that of the box, in input pixels.
        stride: input pixels per cell.
        threshold: minimum score.
        overlap: IoU above which the worse of two boxes is dropped.

    Returns:
        boxes (N, 4) float32 xyxy in input pixels, not cut to the input, and scores (N,) float32, best first. A peak is
        at least as large as its 8 neighbors.

    Raises:
        ArgumentError: the maps are not finite.
    """
    padded = np.pad(centers[0].astype(np.float32), 1, constant_values=-np.inf)
    middle = padded[1:-1, 1:-1]
    highest = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    highest = np.maximum(np.maximum(highest[:-2], highest[1:-1]), highest[2:])
    with np.errstate(over="ignore"):  # exp of a logit below -88 is infinite, and the score 0
        scores = 1 / (1 + np.exp(-middle))
    ys, xs = np.nonzero((middle >= highest) & (scores >= threshold) & (middle > -np.inf))
    halves, scores = sizes[:, ys, xs].T.astype(np.float32) / 2, scores[ys, xs]
    middles = (np.stack([xs, ys], axis=1) + np.float32(0.5)) * stride + offsets[:, ys, xs].T
    boxes = np.concatenate([middles - halves, middles + halves], axis=1)
    _check_finite(middle, boxes)
    usable = (halves >= 0).all(axis=1)
    return best_of(boxes[usable], scores[usable], overlap)


__all__ = [
    "ULTRALYTICS",
    "YOLOX",
    "Format",
    "Found",
    "Preprocessing",
    "best_of",
    "class_names",
    "decode_centers",
    "person_class",
    "recognize",
    "stated_color",
    "stated_size",
]
