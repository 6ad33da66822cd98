"""What may be handed in as pictures and boxes, brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oaks.ops import is_device_array

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
"""Of files that a folder of pictures is searched for."""


def read_image(path: str | Path) -> np.ndarray:
    """An image file as OpenCV reads it: (H, W, 3) uint8 BGR, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no image.
    """
    import cv2

    if not Path(path).is_file():
        raise FileNotFoundError(f"no such image: {path}")
    # Through memory: OpenCV cannot open every path on every system.
    content = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"{path}: damaged, or not an image that OpenCV reads")
    return image


def is_single(frames: Any) -> bool:
    """Whether this is one picture (or what should be one), not several."""
    if isinstance(frames, str | Path | Mapping) or _is_pil(frames):
        return True
    shape = getattr(frames, "shape", None)
    return len(shape) != 4 if shape is not None else not isinstance(frames, Iterable)


def in_order(image: np.ndarray, color: str) -> np.ndarray:
    """A BGR image (H, W, 3) in the order `color`, "bgr" or "rgb"."""
    return image if color == "bgr" else np.ascontiguousarray(image[..., ::-1])


def as_frame(name: str, frame: Any, color: str, *, on_device: bool) -> Any:
    """One picture as (H, W, 3) uint8 in the colour order `color`.

    Args:
        frame: an array in that order already, a path, a PIL image, or, if `on_device`, a device array.

    Raises:
        ValueError: it is none of these.
        FileNotFoundError: a path leads nowhere.
    """
    if isinstance(frame, str | Path):
        return in_order(read_image(frame), color)
    if _is_pil(frame):
        image = np.asarray(frame.convert("RGB"))
        return image if color == "rgb" else np.ascontiguousarray(image[..., ::-1])
    if is_device_array(frame):
        if not on_device:
            raise ValueError(f"{name}: this Engine runs on the CPU and wants host arrays, got a device array")
        _check_image(name, tuple(frame.shape), np.dtype(frame.__cuda_array_interface__["typestr"]))
        return frame
    if frame is None:
        raise ValueError(
            f"{name}: an image wanted, got None, which cv2.imread gives for a file that it cannot read"
        )
    try:
        array = np.asarray(frame)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: an image wanted, got {type(frame).__name__}: {error}") from error
    _check_image(name, array.shape, array.dtype)
    return array


def as_boxes(name: str, boxes: Any) -> np.ndarray:
    """Boxes as (N, 4) float32 x1, y1, x2, y2.

    Raises:
        ValueError: another shape, numbers that are not finite, or a box that ends before it starts.
    """
    try:
        array = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: (N, 4) numbers x1, y1, x2, y2 wanted: {error}") from error
    if array.size == 0:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{name}: shape (N, 4) x1, y1, x2, y2 wanted, got {array.shape}")
    for problem, bad in (
        ("finite numbers", ~np.isfinite(array).all(axis=1)),
        ("x1 <= x2 and y1 <= y2", (array[:, 2:] < array[:, :2]).any(axis=1)),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"{name}: {problem} wanted, got {array[row].tolist()} in row {row}")
    return array


def as_box_scores(
    name: str, scores: Any, count: int, *, or_shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Box scores as (N,) float32; 1 where none are given.

    Args:
        or_shape: a shape, of `count` elements too, that is taken beside (count,).

    Raises:
        ValueError: another length, or numbers that are not finite.
    """
    if scores is None:
        return np.ones(count, np.float32)
    try:
        array = np.array(scores, np.float32)  # a copy: Poses keep it
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {count} numbers wanted, one for each box: {error}") from error
    if array.shape not in ((count,), or_shape) or not np.isfinite(array).all():
        raise ValueError(f"{name}: {count} finite numbers wanted, one for each box, got {scores!r}")
    return array.reshape(count)


def per_frame(name: str, values: Any, count: int, *, single: bool) -> list[Any]:
    """An argument that comes once per frame, or bare if there is a single frame."""
    if single:
        return [values]
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) != count:
        came = f"{len(values)}" if hasattr(values, "__len__") else type(values).__name__
        raise ValueError(f"{name}: one entry for each of the {count} frames wanted, got {came}")
    return list(values)


def _is_pil(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "getbands")


def _check_image(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or dtype != np.uint8:
        raise ValueError(f"{name}: an image (H, W, 3) of uint8 wanted, got {shape} of {dtype}")


__all__ = [
    "SUFFIXES",
    "as_box_scores",
    "as_boxes",
    "as_frame",
    "in_order",
    "is_single",
    "per_frame",
    "read_image",
]
