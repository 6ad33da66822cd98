"""Decoding of heatmaps to keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT16,
    FLOAT32,
    MAX_FRAME_SIDE,
    address_of,
    check_flag,
    check_keypoint_count,
    check_no_overlap,
    check_numbers,
    flip_order,
    float_array,
    input_array,
    input_maps,
    is_device_array,
    output_array,
    prepare_run,
    split_outputs,
)

REFINEMENTS = {"none": 0, "second_peak": 1, "gradient": 2, "dark": 3}
ALIGNMENTS = ("half_pixel", "hrnet", "udp")
_ELEMENTS = {FLOAT32: 0, FLOAT16: 1}
_DEFAULT_BLUR = 2.0
MIN_BLUR = 0.25
"""Below it, a neighbor's weight is under 4e-4: the map would not be blurred, as "dark" requires."""


class Decoded(NamedTuple):
    """Result of decode.

    Attributes:
        points: (N, K, 2) float32 x, y in image pixels (without transforms: crop pixels; without crop_size:
            heatmap pixels); NaN for a map without a finite value.
        heat: (N, K) float32, the largest finite value of each averaged map; NaN if there is none.
        heatmaps: (N, K, h, w), the averaged maps in the dtype of the input, if requested; otherwise None.
    """

    points: Any
    heat: Any
    heatmaps: Any


def decode(
    heatmaps: Any,
    mirrored: Any = None,
    *,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    refine: str = "second_peak",
    alignment: str = "half_pixel",
    crop_size: tuple[int, int] | None = None,
    transforms: Any = None,
    blur_sigma: float | None = None,
    average: bool = False,
    out: tuple[Any, Any, Any] | None = None,
    stream: int | None = None,
) -> Decoded:
    """Find the keypoints of N people in their heatmaps (paper, section 5.1; equations 5 and 6).

    Each map is first averaged with its mirrored counterpart, in float32. The peak is the largest finite
    value, ties to the lowest flat index; infinities and NaN are never peaks.

    Args:
        heatmaps: (N, K, h, w) float32 or float16.
        mirrored: the network's raw output for the mirrored crops, shaped and typed like heatmaps.
        flip_pairs: (left, right) keypoints that a mirror exchanges; required with mirrored, () for none.
        refine: "second_peak": a quarter pixel towards the second-highest cell (the paper); "gradient": a
            quarter pixel per axis by the sign of the neighbors' difference, none on that axis's border;
            "dark": a Newton step on the logarithm of the blurred map, at most one pixel per axis; "none".
        alignment: where heatmap index j lies in the crop at stride s: "half_pixel" s (j + 1/2) - 1/2;
            "hrnet" s j, and the mirrored-back map moves one pixel right, column 0 kept; "udp" j (W-1)/(w-1).
        crop_size: (width, height) of the crops; without it points stay in heatmap pixels.
        transforms: (N, 2, 3) float32 crop pixel -> image pixel, as crop returns them; requires crop_size.
        blur_sigma: standard deviation of dark's blur in heatmap pixels, 0.25 to 64; 2 by default.
        average: whether to return the averaged maps too.
        out: (points, heat, heatmaps) to write into; an entry may be None on the CPU. The averaged maps are written
            to the third, which may be the input `heatmaps` itself.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    on_device = is_device_array(heatmaps)
    maps = input_maps("heatmaps", heatmaps, on_device=on_device)
    count, keypoints, height, width = maps.shape
    check_keypoint_count(keypoints, native.max_keypoints)
    check_choice("refine", refine, REFINEMENTS)
    check_choice("alignment", alignment, ALIGNMENTS)
    mirror = None
    if mirrored is not None:
        mirror = input_array("mirrored", mirrored, (maps.dtype,), maps.shape, on_device=on_device)
    pair = flip_order(flip_pairs, keypoints, mirrored=mirror is not None)
    x, y = _axis_maps(alignment, crop_size, (width, height))
    matrix = None
    if transforms is not None:
        if crop_size is None:
            raise ArgumentError(
                "crop_size must be given with transforms, which map crop pixels to image pixels, got None"
            )
        matrix = float_array("transforms", transforms, (count, 2, 3), on_device=on_device)

    points_out, heat_out, maps_out = split_outputs(out, ("points", "heat", "heatmaps"))
    points = output_array("points", points_out, FLOAT32, (count, keypoints, 2), on_device=on_device)
    heat = output_array("heat", heat_out, FLOAT32, (count, keypoints), on_device=on_device)
    averaged = None
    check_flag("average", average)
    if average or maps_out is not None:
        averaged = output_array("heatmaps", maps_out, maps.dtype, maps.shape, on_device=on_device)
        # The averaged maps may replace the input, but must not overlap it otherwise.
        beside = [] if averaged.address == maps.address else [maps]
        check_no_overlap([averaged], [*beside, mirror, matrix])

    module, run = prepare_run([points, heat], [maps, mirror, matrix, averaged], stream)
    module.decode(
        maps.address, address_of(mirror), address_of(matrix),
        points.address, heat.address, address_of(averaged),
        count, keypoints, height, width,
        _ELEMENTS[maps.dtype], REFINEMENTS[refine], alignment == "hrnet", x, y,
        _blur(blur_sigma, refine), pair, run,
    )  # fmt: skip
    return Decoded(points.owner, heat.owner, averaged.owner if averaged else None)


def _blur(blur_sigma: float | None, refine: str) -> float:
    if blur_sigma is None:
        return _DEFAULT_BLUR
    if refine != "dark":
        raise ArgumentError(f"blur_sigma must come with refine='dark', got refine={refine!r}")
    expected = f"a number from {MIN_BLUR:g} to {native.max_blur_sigma:g}"
    if not (MIN_BLUR <= check_numbers("blur_sigma", blur_sigma, (), expected) <= native.max_blur_sigma):
        raise ArgumentError(f"blur_sigma must be {expected}, got {blur_sigma!r}")
    return float(blur_sigma)


def _axis_maps(
    alignment: str, crop_size: tuple[int, int] | None, map_size: tuple[int, int]
) -> list[tuple[float, float]]:
    """Return (scale, shift) from heatmap index to crop index, for x and for y."""
    if crop_size is None:
        return [(1.0, 0.0), (1.0, 0.0)]
    expected = f"(width, height), from 1 to {MAX_FRAME_SIDE} pixels each"
    sizes = check_numbers("crop_size", crop_size, (2,), expected).tolist()
    if min(sizes) < 1 or max(sizes) > MAX_FRAME_SIDE:
        raise ArgumentError(f"crop_size must be {expected}, got {crop_size!r}")
    maps = []
    for crop, heat in zip(sizes, map_size, strict=True):
        stride = crop / heat
        if alignment == "half_pixel":
            maps.append((stride, 0.5 * stride - 0.5))
        elif alignment == "hrnet":
            maps.append((stride, 0.0))
        else:
            maps.append(((crop - 1) / max(heat - 1, 1), 0.0))
    return maps
