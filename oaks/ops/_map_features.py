"""Features of poses and their heatmaps, from which a scorer predicts keypoint similarity and visibility.

All features of a left keypoint are those of the person's mirror image, in which it is a right one: x differences
change their sign, left and right borders and keypoints change places. So one model serves both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT16,
    FLOAT32,
    CheckedArray,
    address_of,
    check_keypoint_count,
    float_array,
    input_array,
    input_boxes,
    input_maps,
    input_poses,
    is_device_array,
    left_flags,
    mirror_order,
    output_array,
    prepare_run,
)
from oaks.ops._decode import ALIGNMENTS

POSE_FEATURES = MappingProxyType(
    {
        "joint": "index of the keypoint; of its right counterpart for a left one",
        "heat": "heat of the keypoint",
        "box_x": "x of the keypoint across the box: 0 at its left edge, 1 at its right edge",
        "box_y": "y of the keypoint across the box: 0 at its top edge, 1 at its bottom edge",
        "box_border": "distance to the nearest edge of the box, negative outside it, over scale",
        "frame_left": "distance to the picture's left edge, negative outside it, over scale",
        "frame_top": "distance to the picture's top edge, over scale",
        "frame_right": "distance to the picture's right edge, over scale",
        "frame_bottom": "distance to the picture's bottom edge, over scale",
        "scale": "square root of the box's area in pixels; a side below a pixel counts as a pixel",
        "aspect": "the box's width over its height",
        "heat_min": "lowest heat of the person's keypoints",
        "heat_lower_quartile": "lower quartile of the heats, linear between two of them",
        "heat_median": "median of the heats",
        "heat_upper_quartile": "upper quartile of the heats",
        "heat_max": "highest heat",
        "heat_mean": "mean heat, which is the conventional score",
    }
)
"""Name and definition of the features that every keypoint has, in their order."""

JOINT_FEATURES = MappingProxyType(
    {
        "heat_of": "heat of keypoint i",
        "dx_to": "x of keypoint i less x of this keypoint, over scale",
        "dy_to": "y of keypoint i less y of this keypoint, over scale",
    }
)
"""Features that follow for every keypoint i of the person: first all of the first name, and so on."""

MAP_FEATURES = MappingProxyType(
    {
        "second_heat": "value of the highest local peak beside the peak; 0 if there is none above 0",
        "second_ratio": "second_heat over heat",
        "second_x": "x of that local peak less x of the peak, in cells",
        "second_y": "y of that local peak less y of the peak, in cells",
        "second_distance": "distance of that local peak from the peak, in cells",
        "mass": "sum of the map's positive values, over heat",
        "mass_near": "share of the mass in the 5 x 5 cells around the peak",
        "center_x": "x of the center of mass less x of the peak, in cells",
        "center_y": "y of the center of mass less y of the peak, in cells",
        "spread": "root of the mean squared distance of the mass from the peak, in cells",
        "local_spread": "the same in the 9 x 9 cells around the peak",
        "entropy": "collision entropy: -log of the sum of squared shares of the mass (Renyi entropy of order 2)",
        "peaks": "number of local peaks of at least a quarter of the heat, the peak among them",
        "ring": "mean positive value of the cells at a distance of 3 along x or y (the border of 7 x 7), over heat",
        "half_area": "number of cells of at least half the heat",
        "pair_at_peak": "value of the counterpart's map at this peak; 0 without a counterpart",
        "at_pair_peak": "value of this map at the counterpart's peak; 0 without a counterpart",
        "others_at_peak": "highest value at this peak of all maps but this one and the counterpart's",
    }
)
"""Name and definition of the features of the averaged heatmap, in their order.

A local peak is a cell above 0 that comes before its eight neighbors: the larger value, ties to the lowest flat
index. A map whose largest value is below 1e-30 is empty: all but the last three features are 0.
"""

FLIP_FEATURES = MappingProxyType(
    {
        "flip_distance": "distance between the peaks of the map and of the mirrored-back map, in cells",
        "flip_difference": "difference of the two maps' values at the peak of their average, without sign",
        "flip_heat": "largest value of the mirrored-back map",
    }
)
"""Name and definition of the features that need the mirrored crop's maps, in their order."""


def feature_names(keypoints: int, *, maps: bool = True, mirrored: bool = False) -> tuple[str, ...]:
    """Return the names of the features along the last axis of pose_features or map_features.

    Args:
        keypoints: K; the features of a keypoint i are called heat_of_0, heat_of_1 and so on.
        maps: whether heatmaps are given (map_features), or poses alone (pose_features).
        mirrored: whether the mirrored crop's maps are given too.
    """
    joints = [f"{name}_{i}" for name in JOINT_FEATURES for i in range(keypoints)]
    names = [*POSE_FEATURES, *joints]
    if maps:
        names += MAP_FEATURES
    if maps and mirrored:
        names += FLIP_FEATURES
    return tuple(names)


def pose_features(
    points: Any,
    heat: Any,
    *,
    boxes: Any,
    frame_sizes: Any,
    flip_pairs: Sequence[tuple[int, int]],
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Compute the features of N poses without their heatmaps: POSE_FEATURES, then JOINT_FEATURES.

    Args:
        points: (N, K, 2) float32 x, y in image pixels.
        heat: (N, K) float32, the keypoints' own scores.
        boxes: (N, 4) float32 x1, y1, x2, y2.
        frame_sizes: (N, 2) float32 width and height of each person's picture.
        flip_pairs: (left, right) keypoint indices; () if there are none.
        out: (N, K, F) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N, K, F) float32; `feature_names(K, maps=False)` names them. On a device, a person of whom any number is
        not finite gets NaN features.

    Raises:
        ArgumentError: an argument does not fit, or (on the CPU) a number is not finite; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(points)
    pose, _ = input_poses("points", points, None, on_device)
    values = float_array("heat", heat, pose.shape[:2], on_device=on_device)
    if not on_device:
        _check_finite(pose)
        _check_finite(values)
    return _features(pose, None, None, values, boxes, frame_sizes, flip_pairs, "half_pixel", out, stream)


def map_features(
    heatmaps: Any,
    mirrored: Any = None,
    *,
    points: Any,
    boxes: Any,
    frame_sizes: Any,
    flip_pairs: Sequence[tuple[int, int]],
    alignment: str = "half_pixel",
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Compute the features of N poses and their heatmaps.

    They are POSE_FEATURES and JOINT_FEATURES with the heatmaps' largest values as heat, then MAP_FEATURES, then
    with mirrored FLIP_FEATURES. Each map is first averaged with its mirrored counterpart, as decode does.

    Args:
        heatmaps: (N, K, h, w) float32 or float16.
        mirrored: the network's raw output for the mirrored crops, shaped and typed like heatmaps.
        points: (N, K, 2) float32 x, y in image pixels, as decode gives them.
        boxes: (N, 4) float32 x1, y1, x2, y2.
        frame_sizes: (N, 2) float32 width and height of each person's picture.
        flip_pairs: (left, right) keypoint indices; () if there are none.
        alignment: as decode's.
        out: (N, K, F) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N, K, F) float32; `feature_names(K, mirrored=...)` names them. On a device, a person of whom any number is
        not finite, averaged maps included, gets NaN features.

    Raises:
        ArgumentError: an argument does not fit, or (on the CPU) a number is not finite; nothing has been written then,
            except that features in out of a person whose heatmaps are not finite are NaN.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(heatmaps)
    maps = input_maps("heatmaps", heatmaps, on_device=on_device)
    count, keypoints = maps.shape[:2]
    mirror = None
    if mirrored is not None:
        mirror = input_array("mirrored", mirrored, (maps.dtype,), maps.shape, on_device=on_device)
    check_choice("alignment", alignment, ALIGNMENTS)
    pose = float_array("points", points, (count, keypoints, 2), on_device=on_device)
    if not on_device:
        _check_finite(pose)
    features = _features(pose, maps, mirror, None, boxes, frame_sizes, flip_pairs, alignment, out, stream)
    if not on_device and np.isnan(features[:, 0, 0]).any():
        raise ArgumentError(
            f"heatmaps must be finite, got others for person {int(np.isnan(features[:, 0, 0]).argmax())}"
        )
    return features


def _features(
    pose: CheckedArray,
    maps: CheckedArray | None,
    mirror: CheckedArray | None,
    heat: CheckedArray | None,
    boxes: Any,
    frame_sizes: Any,
    flip_pairs: Sequence[tuple[int, int]],
    alignment: str,
    out: Any,
    stream: int | None,
) -> Any:
    on_device = pose.on_device
    count, keypoints, _ = pose.shape
    check_keypoint_count(keypoints, native.max_keypoints)
    rectangle = input_boxes(boxes, count, on_device)
    sizes = float_array("frame_sizes", frame_sizes, (count, 2), on_device=on_device)
    if not on_device and not (np.isfinite(sizes.owner).all() and (sizes.owner > 0).all()):
        raise ArgumentError(
            f"frame_sizes must be finite and above 0 (width, height), got {sizes.owner.tolist()}"
        )
    pair = mirror_order(flip_pairs, keypoints)
    names = feature_names(keypoints, maps=maps is not None, mirrored=mirror is not None)
    features = output_array("features", out, FLOAT32, (count, keypoints, len(names)), on_device=on_device)

    module, run = prepare_run([features], [maps, mirror, pose, heat, rectangle, sizes], stream)
    height, width = maps.shape[2:] if maps else (0, 0)
    half = maps is not None and maps.dtype == FLOAT16
    module.map_features(
        address_of(maps), address_of(mirror), pose.address, address_of(heat), rectangle.address, sizes.address,
        features.address, count, keypoints, height, width,
        int(half), alignment == "hrnet", pair, left_flags(flip_pairs, keypoints), run,
    )  # fmt: skip
    return features.owner


def _check_finite(array: CheckedArray) -> None:
    bad = ~np.isfinite(array.owner).all(axis=tuple(range(1, len(array.shape))))
    if bad.any():
        raise ArgumentError(f"{array.name} must be finite, got others for person {int(bad.argmax())}")
