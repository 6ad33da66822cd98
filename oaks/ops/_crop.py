"""Crops of person boxes in frames, as network input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops._arguments import (
    FLOAT16,
    FLOAT32,
    MAX_FRAME_SIDE,
    MAX_SIDE,
    CheckedArray,
    address_of,
    check_device,
    check_flag,
    check_numbers,
    device_array,
    input_boxes,
    input_frame_index,
    is_device_array,
    output_array,
    prepare_run,
    split_outputs,
)

MAX_FRAMES = 65536
"""Maximum frames of one call."""
MAX_PADDING = 1000
"""Maximum padding of a box."""


class Crops(NamedTuple):
    """Result of crop.

    Attributes:
        pixels: (N, 3, height, width), or (2N, 3, height, width) with the mirrored crops last; normalized RGB.
        transforms: (N, 2, 3) float32, crop pixel index -> image pixel index.
    """

    pixels: Any
    transforms: Any


def crop(
    frames: Any,
    boxes: Any,
    *,
    size: tuple[int, int],
    frame_index: Any = None,
    padding: float = 1.25,
    mean: Sequence[float],
    std: Sequence[float],
    color: str = "bgr",
    mirrored: bool = False,
    dtype: Any = None,
    out: tuple[Any, Any] | None = None,
    stream: int | None = None,
) -> Crops:
    """Cut N boxes out of frames, resample them bilinearly to one size, and normalize them.

    The box's center c is kept. The side that is too short for the crop's aspect is enlarged; then both sides are
    multiplied by padding. Per axis: image index = c - 1/2 + (crop index + 1/2 - size / 2) window / size. Pixels outside
    the image are black before normalization.

    Args:
        frames: (H, W, 3) or (F, H, W, 3) uint8, or a sequence of (H, W, 3) that may differ in size.
        boxes: (N, 4) float32 x1, y1, x2, y2; edges of pixels, so that a whole frame is 0, 0, W, H. They may reach
            outside the frame. On a device, a box that is not finite gives a black crop and a NaN transform.
        size: (width, height) of a crop.
        frame_index: (N,) int32, the frame of each box; optional if there is one frame.
        mean, std: 3 values each, red, green, blue, on the scale 0 to 255; pixels = (value - mean) / std.
        color: the frames' channel order, "bgr" or "rgb"; crops are RGB.
        mirrored: whether the mirrored crops, with reversed columns, follow.
        dtype: "float32" (default) or "float16" pixels.
        out: (pixels, transforms) to write into; an entry may be None on the CPU.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Raises:
        ArgumentError: an argument does not fit, or (on the CPU) a box is not finite or ends before it starts, or
            a frame_index names no frame; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    views, on_device, owners = _frame_views(frames)
    width, height = _crop_size(size)
    rectangle = input_boxes(boxes, None, on_device)
    count = rectangle.shape[0]
    index = _frame_index(frame_index, count, len(views), on_device)
    scale, bias = _normalization(mean, std)
    if color not in ("bgr", "rgb"):
        raise ArgumentError(f"color must be 'bgr' or 'rgb', got {color!r}")
    expected = f"a number above 0, at most {MAX_PADDING}"
    if not 0 < check_numbers("padding", padding, (), expected) <= MAX_PADDING:
        raise ArgumentError(f"padding must be {expected}, got {padding!r}")

    pixels_out, transforms_out = split_outputs(out, ("pixels", "transforms"))
    check_flag("mirrored", mirrored)
    shape = (2 * count if mirrored else count, 3, height, width)
    pixels = output_array("pixels", pixels_out, _pixel_dtype(dtype, pixels_out), shape, on_device=on_device)
    transforms = output_array("transforms", transforms_out, FLOAT32, (count, 2, 3), on_device=on_device)

    module, run = prepare_run([pixels, transforms], [*owners, rectangle, index], stream)
    module.crop(
        views, rectangle.address, address_of(index), pixels.address, transforms.address,
        count, height, width, pixels.dtype == np.float16, mirrored, color == "bgr",
        float(padding), scale, bias, run,
    )  # fmt: skip
    return Crops(pixels.owner, transforms.owner)


FrameView = tuple[int, int, int, int]
"""A frame for the native module: address, bytes from row to row, height, width."""


def _frame_views(frames: Any) -> tuple[list[FrameView], bool, list[CheckedArray]]:
    """Return the frames for the native module, whether they lie on a device, and the arrays that keep them alive."""
    single = hasattr(frames, "shape") or is_device_array(frames)
    if not single and not isinstance(frames, Sequence):
        raise ArgumentError(f"frames must be an array or a sequence of arrays, got {type(frames).__name__}")
    listed = [frames] if single else list(frames)
    if not listed:
        raise ArgumentError("frames must hold at least one frame, got none")
    if len(listed) > MAX_FRAMES:
        raise ArgumentError(f"frames must hold at most {MAX_FRAMES} frames, got {len(listed)}")
    on_device = is_device_array(listed[0])
    views: list[FrameView] = []
    owners = []
    for i, frame in enumerate(listed):
        name = "frames" if single else f"frames[{i}]"
        array = _frame_array(name, frame, on_device, 4 if single else 3)
        owners.append(array)
        views += _views_of(array)
    return views, on_device, owners


def _check_frame_shape(name: str, shape: tuple[int, ...], largest_rank: int) -> None:
    if len(shape) not in (3, largest_rank) or shape[-1] != 3 or min(shape) < 1:
        expected = "(H, W, 3) or (F, H, W, 3)" if largest_rank == 4 else "(H, W, 3)"
        raise ArgumentError(f"{name} must have shape {expected} with no size of 0, got {shape}")
    if max(shape[-3:-1]) > MAX_FRAME_SIDE:
        raise ArgumentError(f"{name} must have at most {MAX_FRAME_SIDE} rows and columns, got {shape}")
    if len(shape) == 4 and shape[0] > MAX_FRAMES:
        raise ArgumentError(f"{name} must hold at most {MAX_FRAMES} frames, got {shape[0]}")


def _frame_array(name: str, frame: Any, on_device: bool, largest_rank: int) -> CheckedArray:
    """Check a frame. Pixels of a row must be adjacent; host rows need not be, as in a view of a larger image."""
    check_device(name, frame, on_device)
    if on_device:
        array = device_array(name, frame)
        if array.dtype != np.uint8:
            raise ArgumentError(f"{name} must be uint8, got {array.dtype}")
        _check_frame_shape(name, array.shape, largest_rank)
        return array
    pixels = np.asarray(frame)
    if pixels.dtype != np.uint8:
        raise ArgumentError(f"{name} must be uint8, got {pixels.dtype}")
    _check_frame_shape(name, pixels.shape, largest_rank)
    side_by_side = (
        pixels.ndim >= 3 and pixels.strides[-2:] == (3, 1) and pixels.strides[-3] >= 3 * pixels.shape[-2]
    )
    if not side_by_side or any(stride < 0 for stride in pixels.strides):
        pixels = np.ascontiguousarray(pixels)
    return CheckedArray(
        name, pixels, pixels.__array_interface__["data"][0], pixels.shape, pixels.dtype, False, False
    )


def _views_of(array: CheckedArray) -> list[FrameView]:
    height, width = array.shape[-3:-1]
    row = 3 * width if array.on_device else array.owner.strides[-3]
    if len(array.shape) == 3:
        return [(array.address, row, height, width)]
    step = row * height if array.on_device else array.owner.strides[0]
    return [(array.address + f * step, row, height, width) for f in range(array.shape[0])]


def _crop_size(size: tuple[int, int]) -> tuple[int, int]:
    expected = f"(width, height), integers from 1 to {MAX_SIDE}"
    width, height = check_numbers("size", size, (2,), expected, whole=True).tolist()
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ArgumentError(f"size must be {expected}, got {size!r}")
    return width, height


def _frame_index(frame_index: Any, count: int, frame_count: int, on_device: bool) -> CheckedArray | None:
    if frame_index is None:
        if frame_count != 1:
            raise ArgumentError(
                f"frame_index must say which of the {frame_count} frames each box lies in, got None"
            )
        return None
    index = input_frame_index(frame_index, count, on_device)
    assert index is not None
    if not on_device and count and not (index.owner.min() >= 0 and index.owner.max() < frame_count):
        raise ArgumentError(f"frame_index must be from 0 to {frame_count - 1}, got {index.owner.tolist()}")
    return index


def _normalization(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    means = check_numbers("mean", mean, (3,), "3 finite numbers (red, green, blue; 0 to 255)")
    stds = check_numbers("std", std, (3,), "3 positive numbers (red, green, blue; 0 to 255)")
    if not (stds > 0).all():
        raise ArgumentError(f"std must be 3 positive numbers (red, green, blue; 0 to 255), got {std!r}")
    return (1.0 / stds).tolist(), (-means / stds).tolist()


def _pixel_dtype(dtype: Any, pixels: Any) -> np.dtype:
    """Return the dtype of the pixels: the given one, otherwise that of `out`, otherwise float32."""
    name = "dtype"
    if dtype is None and pixels is not None:
        interface = getattr(pixels, "__cuda_array_interface__", None)
        dtype = interface["typestr"] if interface else getattr(pixels, "dtype", "float32")
        name = "pixels in out"
    try:
        expected = np.dtype("float32" if dtype is None else dtype)
    except TypeError:
        expected = np.dtype(object)
    if expected not in (FLOAT32, FLOAT16):
        raise ArgumentError(f"{name} must be float32 or float16, got {dtype!r}")
    return expected
