"""Features of a second estimator's poses of the same people."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT32,
    address_of,
    check_sigmas,
    float_array,
    input_array,
    input_boxes,
    input_poses,
    is_device_array,
    left_flags,
    mirror_order,
    output_array,
    prepare_run,
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
        features: (N, K, F) float32, as map_features or pose_features return them; None for none.
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
    other = float_array("second_points", second_points, (*counts, 2), on_device=on_device)
    heat = float_array("second_heat", second_heat, counts, on_device=on_device)
    rectangle = input_boxes(boxes, count, on_device)
    own = None
    if features is not None:
        own = input_array("features", features, (FLOAT32,), (*counts, None), on_device=on_device)
    width = 0 if own is None else own.shape[2]
    values = check_sigmas(sigmas, keypoints, native.max_keypoints)
    mirror_order(flip_pairs, keypoints)
    shape = (*counts, width + len(SECOND_FEATURES))
    appended = output_array("features", out, FLOAT32, shape, on_device=on_device)

    module, run = prepare_run([appended], [own, pose, other, heat, rectangle], stream)
    module.opinion_features(
        address_of(own), pose.address, other.address, heat.address, rectangle.address, appended.address,
        count, keypoints, width, values, left_flags(flip_pairs, keypoints), run,
    )  # fmt: skip
    return appended.owner
