"""Object keypoint similarity (paper, equations 1 and 2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._arguments import (
    BOOL,
    FLOAT32,
    UINT8,
    address_of,
    check_sigmas,
    input_areas,
    input_array,
    input_poses,
    is_device_array,
    output_array,
    prepare_run,
)


def oks(
    a: Any,
    b: Any,
    *,
    areas: Any,
    sigmas: Any,
    visible: Any = None,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Object keypoint similarity of every pose of `a` with every pose of `b`.

    Args:
        a: (N, K, 2) float32 points; the similarity of a point that is not finite is 0.
        b: (M, K, 2) float32 points.
        areas: (M,) float32, the areas of b's people in square pixels, at least 0.
        sigmas: (K,) positive numbers in host memory; k = 2 sigma.
        visible: (M, K) bool or uint8: which of b's keypoints count; all by default.
        out: (N, M) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N, M) float32, 0 to 1; 0 for a person without a keypoint that counts.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(a)
    first, keypoints = input_poses("a", a, None, on_device)
    second, _ = input_poses("b", b, keypoints, on_device)
    count = second.shape[0]
    area = input_areas(areas, count, on_device)
    values = check_sigmas(sigmas, keypoints, native.max_keypoints)
    counts = None
    if visible is not None:
        if not on_device:
            visible = _as_flags(visible)
        counts = input_array("visible", visible, (UINT8, BOOL), (count, keypoints), on_device=on_device)
    similarity = output_array("similarity", out, FLOAT32, (first.shape[0], count), on_device=on_device)

    module, run = prepare_run([similarity], [first, second, area, counts], stream)
    module.oks(
        first.address, second.address, area.address, address_of(counts), similarity.address,
        first.shape[0], count, keypoints, values, run,
    )  # fmt: skip
    return similarity.owner


def _as_flags(visible: Any) -> np.ndarray:
    flags = np.asarray(visible)
    if flags.dtype.kind not in "bui":
        raise ArgumentError(f"visible must be bool or integers, got {flags.dtype}")
    return flags != 0
