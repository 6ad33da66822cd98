"""Non-maximum suppression of boxes and of poses."""

from __future__ import annotations

from typing import Any

from oaks.ops import native
from oaks.ops._arguments import (
    INT64,
    CheckedArray,
    address_of,
    check_numbers,
    check_sigmas,
    input_areas,
    input_boxes,
    input_frame_index,
    input_poses,
    input_scores,
    is_device_array,
    output_array,
    prepare_run,
)

OKS_THRESHOLD = 0.9
"""OKS above which two poses of one frame count as the same person's, by default everywhere."""


def box_nms(
    boxes: Any,
    scores: Any,
    *,
    threshold: float,
    frame_index: Any = None,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Greedy non-maximum suppression of boxes by intersection over union (IoU).

    A box is dropped if its IoU with a better box that is kept exceeds threshold. A box without an area
    overlaps nothing.

    Args:
        boxes: (N, 4) float32 x1, y1, x2, y2. On a device, a box that is not finite is ranked last and overlaps
            nothing.
        scores: (N,) float32; ties go to the lower index. NaN is refused on the CPU and ranked last on a device.
        threshold: IoU above which the box with the lower score is dropped.
        frame_index: (N,) int32; only boxes of one frame compete. One frame by default. To keep classes apart
            too, give every pair of frame and class a number of its own.
        out: (N,) int64 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        Indices of the kept boxes, best first: on the CPU as many as are kept; on a device (N,), filled up
        with -1.

    Raises:
        ArgumentError: an argument does not fit, or (on the CPU) a box is not finite or ends before it starts;
            nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(boxes)
    rectangle = input_boxes(boxes, None, on_device)
    count = rectangle.shape[0]
    score = input_scores(scores, count, on_device=on_device)
    check_numbers("threshold", threshold, (), "a finite number")
    frames = input_frame_index(frame_index, count, on_device)
    kept = output_array("kept", out, INT64, (count,), on_device=on_device)

    module, run = prepare_run([kept], [rectangle, score, frames], stream)
    module.box_nms(
        rectangle.address, score.address, address_of(frames), kept.address,
        count, float(threshold), run,
    )  # fmt: skip
    return _indices(kept)


def oks_nms(
    points: Any,
    scores: Any,
    *,
    areas: Any,
    sigmas: Any,
    threshold: float = OKS_THRESHOLD,
    frame_index: Any = None,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Greedy non-maximum suppression of poses by object keypoint similarity (OKS).

    A pose is dropped if its OKS with a better pose that is kept exceeds threshold. The OKS of a pair uses the mean of
    their areas.

    Args:
        points: (N, K, 2) float32.
        scores: (N,) float32; ties go to the lower index. NaN is refused on the CPU and ranked last on a device.
        areas: (N,) float32, square pixels, at least 0.
        sigmas: (K,) positive numbers in host memory.
        threshold: OKS above which the pose with the lower score is dropped.
        frame_index: (N,) int32; only poses of one frame compete. One frame by default.
        out: (N,) int64 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        Indices of the kept poses, best first: on the CPU as many as are kept; on a device (N,), filled up
        with -1.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(points)
    poses, keypoints = input_poses("points", points, None, on_device)
    count = poses.shape[0]
    score = input_scores(scores, count, on_device=on_device)
    area = input_areas(areas, count, on_device)
    values = check_sigmas(sigmas, keypoints, native.max_keypoints)
    check_numbers("threshold", threshold, (), "a finite number")
    frames = input_frame_index(frame_index, count, on_device)
    kept = output_array("kept", out, INT64, (count,), on_device=on_device)

    module, run = prepare_run([kept], [poses, score, area, frames], stream)
    module.oks_nms(
        poses.address, score.address, area.address, address_of(frames), kept.address,
        count, keypoints, float(threshold), values, run,
    )  # fmt: skip
    return _indices(kept)


def _indices(kept: CheckedArray) -> Any:
    """Return the indices; on the host without the -1 behind them."""
    return kept.owner if kept.on_device else kept.owner[: int((kept.owner >= 0).sum())]
