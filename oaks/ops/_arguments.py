"""The arguments of the operations, checked once: what an array is, where it lies, and whether it fits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from operator import index
from typing import Any, NamedTuple

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._memory import empty

Shape = tuple[int | None, ...]

FLOAT32, FLOAT16 = np.dtype("float32"), np.dtype("float16")
INT32, INT64, UINT8, BOOL = np.dtype("int32"), np.dtype("int64"), np.dtype("uint8"), np.dtype("bool")

MAX_LENGTH = 2**31 - 1
"""The most entries along an axis of an array."""
MAX_SIDE = 16384
"""The largest width and height of a crop and of a heatmap."""
MAX_FRAME_SIDE = 1 << 24
"""The largest width and height of a frame: beyond it, float32 does not tell neighboring pixels apart."""
_MAX_ADDRESS = 2**64 - 1


class CheckedArray(NamedTuple):
    """A C-contiguous array in host or device memory.

    `owner` is what the caller gave, or a contiguous copy of it, and keeps the memory alive.
    """

    name: str
    owner: Any
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    on_device: bool
    writeable: bool
    stream: int | None = None

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.address + prod(self.shape) * self.dtype.itemsize

    def overlaps(self, other: CheckedArray) -> bool:
        """Whether the two share memory."""
        return self.address < other.end and other.address < self.end


def is_device_array(value: object) -> bool:
    """Whether a value lies on a CUDA device, as `__cuda_array_interface__` says."""
    return hasattr(value, "__cuda_array_interface__")


def array_stream(value: Any) -> int | None:
    """The handle of the stream on which a device array's content is made; None where it names none.

    The interface of torch's tensors has no stream: theirs is torch's current stream.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.is_cuda:
        return int(torch.cuda.current_stream(value.device).cuda_stream)
    return value.__cuda_array_interface__.get("stream")


def device_array(name: str, value: Any) -> CheckedArray:
    """Describes an object with `__cuda_array_interface__`.

    Raises:
        ArgumentError: it is not C-contiguous, has a mask, or describes no memory.
    """
    interface = value.__cuda_array_interface__
    shape, dtype = tuple(int(n) for n in interface["shape"]), np.dtype(interface["typestr"])
    _check_lengths(name, shape)
    strides = interface.get("strides")
    if interface.get("mask") is not None:
        raise ArgumentError(f"{name} must be without a mask, got one")
    if strides is not None and tuple(strides) != _contiguous_strides(shape, dtype) and 0 not in shape:
        raise ArgumentError(
            f"{name} must be C-contiguous on the device, got strides {tuple(strides)} for shape {shape}"
        )
    address, read_only = interface["data"]
    address = int(address or 0)
    if not 0 <= address <= _MAX_ADDRESS:
        raise ArgumentError(f"{name} must lie at an address of 64 bits, got {address}")
    return CheckedArray(name, value, address, shape, dtype, True, not read_only, array_stream(value))


def host_array(name: str, value: Any, dtypes: Sequence[np.dtype], *, convert: bool) -> CheckedArray:
    """Describes a NumPy array, or what NumPy makes of a sequence; copied if it is not C-contiguous.

    Args:
        dtypes: the dtypes that the operation takes.
        convert: whether other real numbers become the first of them; for small arguments.

    Raises:
        ArgumentError: no such numbers are in it.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentError(f"{name} must be without a mask, got one")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ArgumentError(
            f"{name} must be an array of numbers, got {type(value).__name__}: {error}"
        ) from None
    _check_lengths(name, array.shape)
    if array.dtype not in dtypes:
        if not convert or array.dtype.kind not in "buif":
            raise ArgumentError(f"{name} must be {' or '.join(map(str, dtypes))}, got {array.dtype}")
        with np.errstate(over="ignore"):
            converted = array.astype(dtypes[0])
        if dtypes[0].kind in "iu" and not np.array_equal(converted, array):
            raise ArgumentError(
                f"{name} must hold whole numbers that fit {dtypes[0]}, got {array.dtype} with others"
            )
        array = converted
    writeable = array.flags.writeable
    if not array.flags.c_contiguous:
        array = np.array(array, order="C")
    return CheckedArray(
        name, array, array.__array_interface__["data"][0], array.shape, array.dtype, False, writeable
    )


def input_array(
    name: str, value: Any, dtypes: Sequence[np.dtype], shape: Shape, *, on_device: bool, convert: bool = False
) -> CheckedArray:
    """An input of an operation: NumPy on the CPU, a device array on the device.

    Args:
        shape: its dimensions; None where any size will do.

    Raises:
        ArgumentError: it lies elsewhere, or its dtype or shape does not fit.
    """
    if is_device_array(value) != on_device:
        places = {True: "on the device", False: "in host memory"}
        raise ArgumentError(
            f"{name} must lie {places[on_device]} like the other arrays, got one {places[not on_device]}"
        )
    array = device_array(name, value) if on_device else host_array(name, value, dtypes, convert=convert)
    if array.dtype not in dtypes:
        raise ArgumentError(f"{name} must be {' or '.join(map(str, dtypes))}, got {array.dtype}")
    _check_shape(array, shape)
    return array


def output_array(
    name: str, value: Any, dtype: np.dtype, shape: tuple[int, ...], *, on_device: bool
) -> CheckedArray:
    """An output of an operation: the caller's, or on the CPU a new one if `value` is None.

    Raises:
        ArgumentError: none was given for the device; it cannot be written to; it does not fit.
    """
    if value is None:
        if on_device:
            raise ArgumentError(
                f"out must hold {name} ({dtype}, shape {shape}) for arrays on a device, got None"
            )
        value = empty(shape, dtype)
    if is_device_array(value) != on_device:
        here, there = ("the host", "the device") if on_device else ("the device", "the host")
        raise ArgumentError(f"{name} in out must lie on {there} as the other arrays do, got one on {here}")
    if not on_device and not isinstance(value, np.ndarray):
        raise ArgumentError(f"{name} in out must be a NumPy array, got {type(value).__name__}")
    if not on_device and not value.flags.c_contiguous:
        raise ArgumentError(
            f"{name} in out must be C-contiguous, got strides {value.strides} for shape {value.shape}"
        )
    array = device_array(name, value) if on_device else host_array(name, value, [value.dtype], convert=False)
    if array.dtype != dtype:
        raise ArgumentError(f"{name} in out must be {dtype}, got {array.dtype}")
    if array.shape != shape:
        raise ArgumentError(f"{name} in out must have shape {shape}, got {array.shape}")
    if not array.writeable:
        raise ArgumentError(f"{name} in out must be writeable, got a read-only array")
    return array


def split_outputs(out: Any, names: Sequence[str]) -> list[Any]:
    """The entries of `out`, one for each result; None stands for "allocate it".

    Raises:
        ArgumentError: out is not a sequence of that length.
    """
    if out is None:
        return [None] * len(names)
    if not isinstance(out, (tuple, list)) or len(out) != len(names):
        came = f"{len(out)} of them" if isinstance(out, (tuple, list)) else type(out).__name__
        raise ArgumentError(
            f"out must be a tuple ({', '.join(names)}), with None where it may be left out, got {came}"
        )
    return list(out)


def check_apart(written: Sequence[CheckedArray], read: Sequence[CheckedArray | None]) -> None:
    """Refuses outputs that share memory with an input or with one another.

    Raises:
        ArgumentError: two arrays overlap.
    """
    for i, array in enumerate(written):
        for other in [*written[:i], *read]:
            if other is not None and array.overlaps(other):
                raise ArgumentError(
                    f"{array.name} in out must have memory of its own, got that of {other.name}"
                )


def check_numbers(name: str, value: Any, shape: Shape, expected: str, *, whole: bool = False) -> np.ndarray:
    """A few finite numbers in host memory, such as a size, a mean or a threshold.

    Args:
        expected: the requirement for messages.
        whole: whether they must be whole numbers.

    Raises:
        ArgumentError: it is something else.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    fits = array.dtype.kind in ("iu" if whole else "iuf") and len(array.shape) == len(shape)
    fits = fits and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be {expected}, got {value!r}")
    return array


def common_stream(arrays: Sequence[CheckedArray | None], stream: int | None) -> int:
    """The stream to run on: the one asked for, else the first that an array names, else the default.

    It waits, by events, for every other stream that an array names.

    Raises:
        ArgumentError: stream is not a handle.
    """
    if stream is None:
        stream = next((a.stream for a in arrays if a is not None and a.stream is not None), 0)
    elif not isinstance(stream, int) or isinstance(stream, bool) or not 0 <= stream <= _MAX_ADDRESS:
        raise ArgumentError(f"stream must be a stream's handle, an integer, got {stream!r}")
    if native.cuda is not None and native.cuda.device_count():
        for array in arrays:
            if array is not None and array.stream not in (None, stream):
                native.cuda.wait_for(stream, array.stream, array.address)
    return stream


def check_sigmas(sigmas: Any, keypoints: int, limit: int) -> list[float]:
    """K positive finite numbers, as every operation with keypoint similarity takes them.

    Raises:
        ArgumentError: another count, or a sigma that is not positive.
    """
    expected = f"one positive number for each of the {keypoints} keypoints"
    values = check_numbers("sigmas", sigmas, (keypoints,), expected)
    if not (values > 0).all():
        raise ArgumentError(f"sigmas must be {expected}, got {sigmas!r}")
    check_keypoint_count(keypoints, limit)
    return values.tolist()


def check_keypoint_count(keypoints: int, limit: int) -> None:
    """Refuses more keypoints than the native operations hold room for.

    Raises:
        ArgumentError: there are more.
    """
    if keypoints > limit:
        raise ArgumentError(f"the number of keypoints must be at most {limit}, got {keypoints}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} must be True or False, got {value!r}")


def take_maps(name: str, value: Any, *, on_device: bool) -> CheckedArray:
    """Heatmaps (N, K, h, w), float32 or float16, of at least one keypoint, row and column.

    Raises:
        ArgumentError: they are something else, or larger than the native operations are made for.
    """
    if isinstance(value, np.ndarray):
        _check_map_size(name, value.shape)  # before an array that is not contiguous is copied
    array = input_array(name, value, (FLOAT32, FLOAT16), (None,) * 4, on_device=on_device)
    if min(array.shape[1:]) < 1:
        raise ArgumentError(
            f"{name} must have at least one keypoint, row and column, got shape {array.shape}"
        )
    _check_map_size(name, array.shape)
    return array


def _check_map_size(name: str, shape: tuple[int, ...]) -> None:
    if max(shape[-2:], default=0) > MAX_SIDE:
        raise ArgumentError(f"{name} must have at most {MAX_SIDE} rows and columns, got shape {shape}")


def check_boxes(boxes: np.ndarray) -> None:
    """Refuses boxes (N, 4) that are not finite or end before they start.

    Raises:
        ArgumentError: there is one.
    """
    for problem, bad in (
        ("be finite", ~np.isfinite(boxes).all(axis=1)),
        ("end where they start or after (x1 <= x2, y1 <= y2)", (boxes[:, :2] > boxes[:, 2:]).any(axis=1)),
    ):
        if bad.any():
            first = int(bad.argmax())
            raise ArgumentError(f"boxes must {problem}, got {boxes[first].tolist()} at index {first}")


def mirror_order(pairs: Sequence[tuple[int, int]], keypoints: int) -> list[int]:
    """The keypoint that each keypoint becomes in a mirror, from (left, right) pairs.

    Raises:
        ArgumentError: a pair is not two keypoints, or a keypoint is in several.
    """
    expected = f"(left, right) pairs of keypoint indices from 0 to {keypoints - 1}"
    try:
        listed = [(index(left), index(right)) for left, right in pairs]
    except (TypeError, ValueError):
        raise ArgumentError(f"flip_pairs must be {expected}, got {pairs!r}") from None
    order = list(range(keypoints))
    for left, right in listed:
        if not (0 <= left < keypoints and 0 <= right < keypoints):
            raise ArgumentError(f"flip_pairs must be {expected}, got {(left, right)}")
        if left == right or order[left] != left or order[right] != right:
            raise ArgumentError(
                f"flip_pairs must name each keypoint once at most, got {(left, right)} as well"
            )
        order[left], order[right] = right, left
    return order


def input_poses(name: str, value: Any, keypoints: int | None, on_device: bool) -> tuple[CheckedArray, int]:
    """Poses (N, K, 2) of as many keypoints as given, at least one, and their K."""
    array = input_array(name, value, (FLOAT32,), (None, keypoints, 2), on_device=on_device, convert=True)
    if array.shape[1] < 1:
        raise ArgumentError(f"{name} must have at least one keypoint, got shape {array.shape}")
    return array, array.shape[1]


def input_areas(areas: Any, count: int, on_device: bool) -> CheckedArray:
    """Areas (N,), on the host finite and at least 0."""
    array = input_array("areas", areas, (FLOAT32,), (count,), on_device=on_device, convert=True)
    if not on_device and not (np.isfinite(array.owner).all() and (array.owner >= 0).all()):
        raise ArgumentError(f"areas must be finite and at least 0, got {array.owner.tolist()}")
    return array


def input_scores(scores: Any, count: int, *, on_device: bool) -> CheckedArray:
    """Scores (N,), on the host without NaN."""
    array = input_array("scores", scores, (FLOAT32,), (count,), on_device=on_device, convert=True)
    if not on_device and np.isnan(array.owner).any():
        raise ArgumentError(f"scores must not be NaN, got one at index {int(np.isnan(array.owner).argmax())}")
    return array


def _check_lengths(name: str, shape: tuple[int, ...]) -> None:
    if any(not 0 <= n <= MAX_LENGTH for n in shape):
        raise ArgumentError(f"{name} must have at most {MAX_LENGTH} entries along an axis, got shape {shape}")


def _check_shape(array: CheckedArray, shape: Shape) -> None:
    fits = len(array.shape) == len(shape) and all(
        expected is None or n == expected for n, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise ArgumentError(f"{array.name} must have shape ({expected}), got {array.shape}")


def _contiguous_strides(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    strides, step = [], dtype.itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
