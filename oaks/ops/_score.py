"""Pose scores: OAKS (paper, equation 10) and the conventional one (equation 3)."""

from __future__ import annotations

from typing import Any

from oaks.errors import ArgumentError
from oaks.ops import native
from oaks.ops._arguments import (
    FLOAT32,
    check_apart,
    common_stream,
    input_array,
    is_device_array,
    output_array,
)


def score(
    similarity: Any, visibility: Any, box_scores: Any = None, *, out: Any = None, stream: int | None = None
) -> Any:
    """The OAKS score: the mean of predicted keypoint similarity, weighted by predicted visibility.

    Args:
        similarity: (N, K) float32, predicted keypoint similarity, 0 to 1.
        visibility: (N, K) float32, predicted visibility, 0 to 1.
        box_scores: (N,) float32, multiplied in if given.
        out: (N,) float32 to write into; needed for device arrays.
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
    """The conventional score: the mean of the heatmaps' maxima.

    Args:
        heat: (N, K) float32, as decode gives it.
        box_scores: (N,) float32, multiplied in if given.
        out: (N,) float32 to write into; needed for device arrays.
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
    value = input_array(name, values, (FLOAT32,), (None, None), on_device=on_device, convert=True)
    count, keypoints = value.shape
    if keypoints < 1:
        raise ArgumentError(f"{name} must have at least one keypoint, got shape {value.shape}")
    weight = None
    if name == "similarity":
        weight = input_array(
            "visibility", visibility, (FLOAT32,), value.shape, on_device=on_device, convert=True
        )
    box = None
    if box_scores is not None:
        box = input_array("box_scores", box_scores, (FLOAT32,), (count,), on_device=on_device, convert=True)
    scores = output_array("scores", out, FLOAT32, (count,), on_device=on_device)
    check_apart([scores], [value, weight, box])

    module, run = native.target(on_device, common_stream([value, weight, box, scores], stream))
    module.score(
        value.address,
        weight.address if weight else 0,
        box.address if box else 0,
        scores.address,
        count,
        keypoints,
        run,
    )
    return scores.owner
