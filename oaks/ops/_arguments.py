"""Checks of the operations' arguments: type, shape, memory and device of arrays, and single values.

Each check raises ArgumentError, which names the argument, if it fails.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._memory import empty

if TYPE_CHECKING:
    from oaks._native import _Operations

Shape = tuple[int | None, ...]

FLOAT32, FLOAT16 = np.dtype("float32"), np.dtype("float16")
INT32, INT64, UINT8, BOOL = np.dtype("int32"), np.dtype("int64"), np.dtype("uint8"), np.dtype("bool")

MAX_LENGTH = 2**31 - 1
"""Maximum entries along an axis of an array."""
MAX_SIDE = 16384
"""Maximum width and height of a crop and of a heatmap."""
MAX_FRAME_SIDE = 1 << 24
"""Maximum width and height of a frame; beyond it, float32 cannot tell neighboring pixels apart."""
_MAX_ADDRESS = 2**64 - 1


class CheckedArray(NamedTuple):
    """A C-contiguous array in host or device memory.

    `owner` is the caller's array, or a contiguous copy of it; it keeps the memory alive.
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
        """Return whether the two share memory."""
        return self.address < other.end and other.address < self.end


def is_device_array(value: object) -> bool:
    """Return whether a value is an array on a CUDA device, that is, has `__cuda_array_interface__`."""
    return hasattr(value, "__cuda_array_interface__")


def array_stream(value: Any) -> int | None:
    """Return the handle of the stream on which a device array is computed; None if it names none.

    The interface of torch's tensors names no stream; for them it is torch's current stream.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.is_cuda:
        return int(torch.cuda.current_stream(value.device).cuda_stream)
    return value.__cuda_array_interface__.get("stream")


def device_array(name: str, value: Any) -> CheckedArray:
    """Describe an object with `__cuda_array_interface__`; it must be C-contiguous and without a mask."""
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
        raise ArgumentError(f"{name} must be at a 64-bit address, got {address}")
    return CheckedArray(name, value, address, shape, dtype, True, not read_only, array_stream(value))


def host_array(name: str, value: Any, dtypes: Sequence[np.dtype], *, convert: bool) -> CheckedArray:
    """Describe a NumPy array, or a sequence converted to one; it is copied if it is not C-contiguous.

    Args:
        dtypes: the dtypes that the operation takes.
        convert: whether other real numbers are converted to the first of them; for small arguments.
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
                f"{name} must hold integers that fit {dtypes[0]}, got {array.dtype} with others"
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
    """Check an input of an operation: a NumPy array on the CPU, a device array on the device.

    Args:
        shape: its dimensions; None for any size.
    """
    check_device(name, value, on_device)
    array = device_array(name, value) if on_device else host_array(name, value, dtypes, convert=convert)
    if array.dtype not in dtypes:
        raise ArgumentError(f"{name} must be {' or '.join(map(str, dtypes))}, got {array.dtype}")
    _check_shape(array, shape)
    return array


def float_array(name: str, value: Any, shape: Shape, *, on_device: bool) -> CheckedArray:
    """Check a float32 input; on the host, other real numbers are converted."""
    return input_array(name, value, (FLOAT32,), shape, on_device=on_device, convert=True)


def check_device(name: str, value: Any, on_device: bool) -> None:
    """Refuse an array in host memory if the other arrays of the call are on a device, and the reverse."""
    if is_device_array(value) != on_device:
        places = {True: "on the device", False: "in host memory"}
        raise ArgumentError(
            f"{name} must be {places[on_device]} like the other arrays, got one {places[not on_device]}"
        )


def output_array(
    name: str, value: Any, dtype: np.dtype, shape: tuple[int, ...], *, on_device: bool
) -> CheckedArray:
    """Check an output of an operation, which must be writeable; on the CPU, None stands for a new array."""
    if value is None:
        if on_device:
            raise ArgumentError(
                f"out must hold {name} ({dtype}, shape {shape}) for arrays on a device, got None"
            )
        value = empty(shape, dtype)
    check_device(f"{name} in out", value, on_device)
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
    """Return the entries of `out`, one for each result; None means that a new array is allocated."""
    if out is None:
        return [None] * len(names)
    if not isinstance(out, (tuple, list)) or len(out) != len(names):
        got = f"{len(out)} of them" if isinstance(out, (tuple, list)) else type(out).__name__
        raise ArgumentError(
            f"out must be a tuple ({', '.join(names)}), with None for results to allocate, got {got}"
        )
    return list(out)


def check_no_overlap(written: Sequence[CheckedArray], read: Sequence[CheckedArray | None]) -> None:
    """Refuse outputs that share memory with an input or with one another."""
    for i, array in enumerate(written):
        for other in [*written[:i], *read]:
            if other is not None and array.overlaps(other):
                raise ArgumentError(
                    f"{array.name} in out must have memory of its own, got that of {other.name}"
                )


def check_numbers(name: str, value: Any, shape: Shape, expected: str, *, whole: bool = False) -> np.ndarray:
    """Check a few finite numbers in host memory, such as a size, a mean or a threshold.

    Args:
        expected: the requirement, for messages.
        whole: whether they must be integers.
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
    """Return the stream to run on: the given one, otherwise the first that an array names, otherwise the default.

    That stream is made to wait for every other stream that an array names.
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


def prepare_run(
    written: Sequence[CheckedArray], read: Sequence[CheckedArray | None], stream: int | None
) -> tuple[_Operations, int]:
    """Return the native functions for the arrays' device, and their last argument: the thread count or the stream.

    Outputs must not share memory with other arrays.

    Raises:
        BackendUnavailable: the arrays are on a device, and this build has no CUDA support or there is no device.
    """
    check_no_overlap(written, read)
    return native.target(written[0].on_device, common_stream([*read, *written], stream))


def address_of(array: CheckedArray | None) -> int:
    """Return an array's address; 0 for None."""
    return 0 if array is None else array.address


def check_sigmas(sigmas: Any, keypoints: int, limit: int) -> list[float]:
    """Return K positive finite numbers, as every operation with keypoint similarity takes them."""
    expected = f"one positive number for each of the {keypoints} keypoints"
    values = check_numbers("sigmas", sigmas, (keypoints,), expected)
    if not (values > 0).all():
        raise ArgumentError(f"sigmas must be {expected}, got {sigmas!r}")
    check_keypoint_count(keypoints, limit)
    return values.tolist()


def check_keypoint_count(keypoints: int, limit: int) -> None:
    """Refuse more keypoints than the native operations have room for."""
    if keypoints > limit:
        raise ArgumentError(f"the number of keypoints must be at most {limit}, got {keypoints}")


def check_flag(name: str, value: Any) -> None:
    """Refuse anything but True and False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} must be True or False, got {value!r}")


def input_maps(name: str, value: Any, *, on_device: bool) -> CheckedArray:
    """Check heatmaps (N, K, h, w), float32 or float16, of at least one keypoint, row and column."""
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
    """Refuse boxes (N, 4) that are not finite or end before they start."""
    for problem, bad in (
        ("be finite", ~np.isfinite(boxes).all(axis=1)),
        ("end where they start or after (x1 <= x2, y1 <= y2)", (boxes[:, :2] > boxes[:, 2:]).any(axis=1)),
    ):
        if bad.any():
            first = int(bad.argmax())
            raise ArgumentError(f"boxes must {problem}, got {boxes[first].tolist()} at index {first}")


def input_boxes(boxes: Any, count: int | None, on_device: bool) -> CheckedArray:
    """Check boxes (N, 4); on the host they must be finite and not end before they start."""
    array = float_array("boxes", boxes, (count, 4), on_device=on_device)
    if not on_device:
        check_boxes(array.owner)
    return array


def input_frame_index(frame_index: Any, count: int, on_device: bool) -> CheckedArray | None:
    """Check the frame (N,) of each box or pose; None stays."""
    if frame_index is None:
        return None
    return input_array("frame_index", frame_index, (INT32,), (count,), on_device=on_device, convert=True)


def flip_order(pairs: Sequence[tuple[int, int]] | None, keypoints: int, *, mirrored: bool) -> list[int]:
    """Return `mirror_order` of pairs that only a mirrored input needs."""
    if pairs is None and mirrored:
        raise ArgumentError(
            "flip_pairs must be given with mirrored, got None; pass (left, right) keypoint indices, () if there are none"
        )
    return mirror_order(() if pairs is None else pairs, keypoints)


def left_flags(pairs: Sequence[tuple[int, int]], keypoints: int) -> list[int]:
    """Return 1 for each keypoint that is the left one of a pair, otherwise 0."""
    left = {keypoint for keypoint, _ in pairs}
    return [int(keypoint in left) for keypoint in range(keypoints)]


def mirror_order(pairs: Sequence[tuple[int, int]], keypoints: int) -> list[int]:
    """Return the keypoint that each keypoint becomes in a mirror image; it may be in one (left, right) pair at most."""
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
    """Check poses (N, K, 2) of at least one keypoint; return them and K. `keypoints` is the K they must have, or None."""
    array = float_array(name, value, (None, keypoints, 2), on_device=on_device)
    if array.shape[1] < 1:
        raise ArgumentError(f"{name} must have at least one keypoint, got shape {array.shape}")
    return array, array.shape[1]


def input_areas(areas: Any, count: int, on_device: bool) -> CheckedArray:
    """Check areas (N,); on the host they must be finite and at least 0."""
    array = float_array("areas", areas, (count,), on_device=on_device)
    if not on_device and not (np.isfinite(array.owner).all() and (array.owner >= 0).all()):
        raise ArgumentError(f"areas must be finite and at least 0, got {array.owner.tolist()}")
    return array


def input_scores(scores: Any, count: int, *, on_device: bool) -> CheckedArray:
    """Check scores (N,); on the host they must not be NaN."""
    array = float_array("scores", scores, (count,), on_device=on_device)
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
