"""Object keypoint similarity (paper, equations 1 and 2) and the suppression of repeated poses by it."""

from __future__ import annotations

from typing import Any

import numpy as np

from oaks.ops import native
from oaks.ops._arguments import (
    BOOL,
    FLOAT32,
    INT32,
    INT64,
    UINT8,
    Array,
    check_apart,
    give,
    is_device_array,
    numbers,
    sigma_values,
    stream_of,
    take,
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
    """The object keypoint similarity of every pose of `a` with every pose of `b`.

    Args:
        a: (N, K, 2) float32 points; one that is not finite is similar to nothing.
        b: (M, K, 2) float32 points.
        areas: (M,) float32, the areas of b's people in square pixels, at least 0.
        sigmas: (K,) positive numbers in host memory; k = 2 sigma.
        visible: (M, K) bool or uint8: which of b's keypoints count; all of them by default.
        out: (N, M) float32 to write into; needed for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N, M) float32, 0 to 1; 0 for a person of whom no keypoint counts.

    Raises:
        ValueError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(a)
    first, keypoints = _poses("a", a, None, on_device)
    second, _ = _poses("b", b, keypoints, on_device)
    count = second.shape[0]
    area = _areas(areas, count, on_device)
    values = sigma_values(sigmas, keypoints, native.max_keypoints)
    counts = None
    if visible is not None:
        if not on_device:
            visible = _as_flags(visible)
        counts = take("visible", visible, (UINT8, BOOL), (count, keypoints), on_device=on_device)
    similarity = give("similarity", out, FLOAT32, (first.shape[0], count), on_device=on_device)
    check_apart([similarity], [first, second, area, counts])

    module, run = native.target(on_device, stream_of([first, second, area, counts, similarity], stream))
    module.oks(
        first.address, second.address, area.address, counts.address if counts else 0, similarity.address,
        first.shape[0], count, keypoints, values, run,
    )  # fmt: skip
    return similarity.owner


def nms(
    points: Any,
    scores: Any,
    *,
    areas: Any,
    sigmas: Any,
    threshold: float = 0.9,
    frame_index: Any = None,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Keeps the best of poses that repeat one another: greedy suppression by object keypoint similarity.

    A pose is dropped if its similarity with a better one that is kept exceeds threshold; the similarity of a
    pair is taken with the mean of their areas.

    Args:
        points: (N, K, 2) float32.
        scores: (N,) float32; ties go to the lower index. NaN is refused on the CPU, and last on a device.
        areas: (N,) float32, square pixels, at least 0.
        sigmas: (K,) positive numbers in host memory.
        threshold: similarity above which the lower score goes.
        frame_index: (N,) int32; only poses of one frame compete. One frame by default.
        out: (N,) int64 to write into; needed for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        Indices of the kept poses, best first: on the CPU as many as there are; on a device (N,), then -1.

    Raises:
        ValueError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(points)
    poses, keypoints = _poses("points", points, None, on_device)
    count = poses.shape[0]
    score = take("scores", scores, (FLOAT32,), (count,), on_device=on_device, convert=True)
    if not on_device and np.isnan(score.owner).any():
        raise ValueError(f"scores must not be NaN, got one at index {int(np.isnan(score.owner).argmax())}")
    area = _areas(areas, count, on_device)
    values = sigma_values(sigmas, keypoints, native.max_keypoints)
    numbers("threshold", threshold, (), "a finite number")
    frames = None
    if frame_index is not None:
        frames = take("frame_index", frame_index, (INT32,), (count,), on_device=on_device, convert=True)
    kept = give("kept", out, INT64, (count,), on_device=on_device)
    check_apart([kept], [poses, score, area, frames])

    module, run = native.target(on_device, stream_of([poses, score, area, frames, kept], stream))
    module.oks_nms(
        poses.address, score.address, area.address, frames.address if frames else 0, kept.address,
        count, keypoints, float(threshold), values, run,
    )  # fmt: skip
    return kept.owner if on_device else kept.owner[: int((kept.owner >= 0).sum())]


def _poses(name: str, value: Any, keypoints: int | None, on_device: bool) -> tuple[Array, int]:
    array = take(name, value, (FLOAT32,), (None, keypoints, 2), on_device=on_device, convert=True)
    if array.shape[1] < 1:
        raise ValueError(f"{name} must have at least one keypoint, got shape {array.shape}")
    return array, array.shape[1]


def _areas(areas: Any, count: int, on_device: bool) -> Array:
    array = take("areas", areas, (FLOAT32,), (count,), on_device=on_device, convert=True)
    if not on_device and not (np.isfinite(array.owner).all() and (array.owner >= 0).all()):
        raise ValueError(f"areas must be finite and at least 0, got {array.owner.tolist()}")
    return array


def _as_flags(visible: Any) -> np.ndarray:
    flags = np.asarray(visible)
    if flags.dtype.kind not in "bui":
        raise ValueError(f"visible must be bool or whole numbers, got {flags.dtype}")
    return flags != 0
