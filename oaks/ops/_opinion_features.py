"""Features of what a second estimator says about the same people."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT32,
    check_apart,
    check_boxes,
    check_sigmas,
    common_stream,
    input_array,
    input_poses,
    is_device_array,
    mirror_order,
    output_array,
)

SECOND_FEATURES = MappingProxyType(
    {
        "second_dx": "x of the second estimator's keypoint less x of this one, over twice sigma times scale",
        "second_dy": "y of the second estimator's keypoint less y of this one, over twice sigma times scale",
        "second_reach": "distance of the two",
        "second_heat_of": "heat that the second estimator gives the keypoint",
        "second_heat_over_mean": "that less the mean of the person's",
    }
)
"""Name and definition of the features of a second opinion, in their order.

The scale is the square root of .53 times the box's area, an annotated person's area; a side below a pixel counts as a pixel.
Differences are at most 99; a keypoint of the second estimator that is not finite is -99 away in x and y, with heat 0.
"""


def opinion_features(
    features: Any,
    points: Any,
    second_points: Any,
    second_heat: Any,
    *,
    boxes: Any,
    sigmas: Any,
    flip_pairs: Sequence[tuple[int, int]],
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Append SECOND_FEATURES to the features of N poses; those of left keypoints are of the mirrored person.

    Args:
        features: (N, K, F) float32, as map_features or pose_features give them; None for none.
        points: (N, K, 2) float32 x, y in image pixels.
        second_points: (N, K, 2) float32, where another estimator places the same people's keypoints.
        second_heat: (N, K) float32, its scores of them.
        boxes: (N, 4) float32 x1, y1, x2, y2.
        sigmas: (K,) positive numbers in host memory, half the k of equation 2.
        flip_pairs: (left, right) keypoint indices; () if there are none.
        out: (N, K, F + 5) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N, K, F + 5) float32.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(points)
    pose, keypoints = input_poses("points", points, None, on_device)
    count = pose.shape[0]
    counts = (count, keypoints)
    other = input_array(
        "second_points", second_points, (FLOAT32,), (*counts, 2), on_device=on_device, convert=True
    )
    heat = input_array("second_heat", second_heat, (FLOAT32,), counts, on_device=on_device, convert=True)
    rectangle = input_array("boxes", boxes, (FLOAT32,), (count, 4), on_device=on_device, convert=True)
    if not on_device:
        check_boxes(rectangle.owner)
    own = None
    if features is not None:
        own = input_array("features", features, (FLOAT32,), (*counts, None), on_device=on_device)
    width = 0 if own is None else own.shape[2]
    values = check_sigmas(sigmas, keypoints, native.max_keypoints)
    mirror_order(flip_pairs, keypoints)
    left = np.zeros(keypoints, int)
    left[[keypoint for keypoint, _ in flip_pairs]] = 1
    shape = (*counts, width + len(SECOND_FEATURES))
    appended = output_array("features", out, FLOAT32, shape, on_device=on_device)
    inputs = [own, pose, other, heat, rectangle]
    check_apart([appended], inputs)

    module, run = native.target(on_device, common_stream([*inputs, appended], stream))
    module.opinion_features(
        own.address if own else 0, pose.address, other.address, heat.address, rectangle.address, appended.address,
        count, keypoints, width, values, left.tolist(), run,
    )  # fmt: skip
    return appended.owner
