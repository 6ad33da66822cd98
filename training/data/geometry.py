"""Geometry of crops: the rule of oaks.ops.crop, extended by rotation, scale and mirroring."""

from __future__ import annotations

import cv2
import numpy as np


def window_of(box: np.ndarray, size: tuple[int, int], padding: float) -> tuple[np.ndarray, np.ndarray]:
    """Return center (2,) and extent (2,) of the window that a crop shows, in box coordinates.

    As in oaks.ops.crop, the side that is too short for the crop's aspect ratio is extended, then both are multiplied by
    `padding`.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box)
    aspect = size[0] / size[1]
    width, height = x2 - x1, y2 - y1
    if width < height * aspect:
        width = height * aspect
    else:
        height = width / aspect
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2]), np.array([width, height]) * padding


def crop_to_image(
    center: np.ndarray,
    extent: np.ndarray,
    size: tuple[int, int],
    *,
    scale: float = 1.0,
    rotation: float = 0.0,
    mirrored: bool = False,
) -> np.ndarray:
    """Return the transform (2, 3) float64 from crop pixel index to image pixel index.

    Without rotation, scale and mirroring: image = c - 1/2 + (crop + 1/2 - size/2)·extent/size.

    Args:
        center: (2,) center of the window, in box coordinates.
        extent: (2,) extent of the window.
        size: (width, height) of the crop.
        scale: factor on the extent; above 1 the person appears smaller.
        rotation: clockwise rotation of the window in degrees; the person turns anticlockwise.
        mirrored: whether the crop's columns are reversed.
    """
    angle = np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    step = np.asarray(extent) * scale / np.asarray(size)
    if mirrored:
        step = step * [-1, 1]
    linear = turn * step  # columns: image step per crop pixel in x and in y
    shift = np.asarray(center) - 0.5 + linear @ (0.5 - np.asarray(size) / 2)
    return np.concatenate([linear, shift[:, None]], axis=1)


def image_to_crop(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Convert image pixel indices (..., 2) to crop pixel indices, by the inverse of `affine` (2, 3)."""
    return (points - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T


def warp(image: np.ndarray, affine: np.ndarray, size: tuple[int, int], fill: int = 0) -> np.ndarray:
    """Return a bilinear crop (height, width, 3) uint8 with the gray level `fill` outside the image."""
    return cv2.warpAffine(
        image, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(fill, fill, fill),
    )  # fmt: skip


__all__ = ["crop_to_image", "image_to_crop", "warp", "window_of"]
