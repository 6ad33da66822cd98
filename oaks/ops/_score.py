"""Pose scores: OAKS (paper, equation 10) and the conventional one (equation 3)."""

from __future__ import annotations

from typing import Any

from oaks.errors import ArgumentError
from oaks.ops._arguments import (
    FLOAT32,
    address_of,
    float_array,
    is_device_array,
    output_array,
    prepare_run,
)


def score(
    similarity: Any, visibility: Any, box_scores: Any = None, *, out: Any = None, stream: int | None = None
) -> Any:
    """Return the OAKS score: the mean of predicted keypoint similarity, weighted by predicted visibility.

    Args:
        similarity: (N, K) float32, predicted keypoint similarity, 0 to 1.
        visibility: (N, K) float32, predicted visibility, 0 to 1.
        box_scores: (N,) float32, multiplied in if given.
        out: (N,) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N,) float32; 0 where the visibilities sum to less than 1e-6.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    return _score("similarity", similarity, visibility, box_scores, out, stream)


def conventional_score(
    heat: Any, box_scores: Any = None, *, out: Any = None, stream: int | None = None
) -> Any:
    """Return the conventional score: the mean of the heatmaps' maxima.

    Args:
        heat: (N, K) float32, as decode returns it.
        box_scores: (N,) float32, multiplied in if given.
        out: (N,) float32 to write into; required for device arrays.
        stream: handle of the CUDA stream to run on, instead of the arrays' own.

    Returns:
        (N,) float32.

    Raises:
        ArgumentError: an argument does not fit; nothing has been written then.
        BackendUnavailable: device arrays, and a build without CUDA or no device.
    """
    return _score("heat", heat, None, box_scores, out, stream)


def _score(name: str, values: Any, visibility: Any, box_scores: Any, out: Any, stream: int | None) -> Any:
    on_device = is_device_array(values)
    value = float_array(name, values, (None, None), on_device=on_device)
    count, keypoints = value.shape
    if keypoints < 1:
        raise ArgumentError(f"{name} must have at least one keypoint, got shape {value.shape}")
    weight = None
    if name == "similarity":
        weight = float_array("visibility", visibility, value.shape, on_device=on_device)
    box = None
    if box_scores is not None:
        box = float_array("box_scores", box_scores, (count,), on_device=on_device)
    scores = output_array("scores", out, FLOAT32, (count,), on_device=on_device)

    module, run = prepare_run([scores], [value, weight, box], stream)
    module.score(
        value.address, address_of(weight), address_of(box), scores.address, count, keypoints, run,
    )  # fmt: skip
    return scores.owner
