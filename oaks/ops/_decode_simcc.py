"""Decoding of SimCC vectors to keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT16,
    FLOAT32,
    MAX_FRAME_SIDE,
    CheckedArray,
    address_of,
    check_keypoint_count,
    check_numbers,
    flip_order,
    float_array,
    input_array,
    is_device_array,
    output_array,
    prepare_run,
    split_outputs,
)


class DecodedSimcc(NamedTuple):
    """Result of decode_simcc.

    Attributes:
        points: (N, K, 2) float32 x, y in image pixels (without transforms: crop pixels); NaN for a keypoint with an
            axis that has no finite value.
        heat: (N, K) float32, the smaller of the two axes' largest finite values; NaN where the point is.
    """

    points: Any
    heat: Any


def decode_simcc(
    x: Any,
    y: Any,
    *,
    mirrored: tuple[Any, Any] | None = None,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    split: float = 2.0,
    transforms: Any = None,
    out: tuple[Any, Any] | None = None,
    stream: int | None = None,
) -> DecodedSimcc:
    """Find the keypoints of N people in SimCC vectors, as RTMPose gives them (Li et al., ECCV 2022, section 3).

    Bin i of an axis lies at crop pixel i / split. The point is where both axes have their largest finite value, ties
    to the lowest bin; infinities and NaN are never largest. As in mmpose, the heat is the smaller of the two values,
    and with mirrored the vectors are first averaged with those of the mirrored crop, x reversed. Bins that are
    reversed lie (1 - 1 / split) of a crop pixel beside the ones that they are averaged with.

    Args:
        x: (N, K, crop width times split) float32 or float16.
        y: (N, K, crop height times split), typed like x.
        mirrored: the network's raw (x, y) for the mirrored crops, shaped and typed like x and y.
        flip_pairs: (left, right) keypoints that a mirror exchanges; required with mirrored, () for none.
        split: bins per crop pixel.
        transforms: (N, 2, 3) float32 crop pixel -> image pixel, as crop gives them.
        out: (points, heat) to write into; an entry may be None on the CPU.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(x)
    across = _vectors("x", x, (FLOAT32, FLOAT16), (None, None, None), on_device)
    count, keypoints, _ = across.shape
    down = _vectors("y", y, (across.dtype,), (count, keypoints, None), on_device)
    check_keypoint_count(keypoints, native.max_keypoints)
    opposite = _mirrored(mirrored, across, down)
    pair = flip_order(flip_pairs, keypoints, mirrored=mirrored is not None)
    expected = "a number from 0.001 to 1000"
    if not 0.001 <= check_numbers("split", split, (), expected) <= 1000:
        raise ArgumentError(f"split must be {expected}, got {split!r}")
    matrix = None
    if transforms is not None:
        matrix = float_array("transforms", transforms, (count, 2, 3), on_device=on_device)

    points_out, heat_out = split_outputs(out, ("points", "heat"))
    points = output_array("points", points_out, FLOAT32, (count, keypoints, 2), on_device=on_device)
    heat = output_array("heat", heat_out, FLOAT32, (count, keypoints), on_device=on_device)

    module, run = prepare_run([points, heat], [across, down, *opposite, matrix], stream)
    module.decode_simcc(
        across.address, down.address, address_of(opposite[0]), address_of(opposite[1]), address_of(matrix),
        points.address, heat.address, count, keypoints,
        across.shape[2], down.shape[2], int(across.dtype == FLOAT16), 1 / float(split), pair, run,
    )  # fmt: skip
    return DecodedSimcc(points.owner, heat.owner)


def _vectors(
    name: str, value: Any, dtypes: Sequence[np.dtype], shape: tuple[int | None, ...], on_device: bool
) -> CheckedArray:
    array = input_array(name, value, dtypes, shape, on_device=on_device)
    if min(array.shape[1:]) < 1:
        raise ArgumentError(f"{name} must have at least one keypoint and bin, got shape {array.shape}")
    if array.shape[2] > MAX_FRAME_SIDE:
        raise ArgumentError(f"{name} must have at most {MAX_FRAME_SIDE} bins, got {array.shape[2]}")
    return array


def _mirrored(
    mirrored: tuple[Any, Any] | None, across: CheckedArray, down: CheckedArray
) -> list[CheckedArray | None]:
    if mirrored is None:
        return [None, None]
    if not isinstance(mirrored, (tuple, list)) or len(mirrored) != 2:
        raise ArgumentError(f"mirrored must be a tuple (x, y), got {type(mirrored).__name__}")
    return [
        input_array(f"mirrored {own.name}", value, (own.dtype,), own.shape, on_device=own.on_device)
        for value, own in zip(mirrored, (across, down), strict=True)
    ]
