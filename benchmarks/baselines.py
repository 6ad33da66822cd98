"""Common ways to compute the operations, in NumPy, OpenCV and torch, and inputs for them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from oaks import COCO17

PAIRS, ORDER, KEYPOINTS = COCO17.pairs, COCO17.mirror, COCO17.count


def heatmaps(count: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return maps with one peak of unequal flanks each, over noise, and the maps of mirrored crops, a little lower."""
    random = np.random.default_rng(seed)
    maps = random.random((count, KEYPOINTS, height, width), np.float32) * np.float32(0.05)
    y, x = random.uniform(8, height - 9, (2, count, KEYPOINTS, 1, 1)) * [[[[[1]]]], [[[[width / height]]]]]
    rows, columns = np.mgrid[:height, :width]
    maps += np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8).astype(np.float32)
    return maps, np.ascontiguousarray(maps[:, ORDER, :, ::-1]) * np.float32(0.9)


def boxes(
    random: np.random.Generator, count: int, frame: tuple[int, int], heights: tuple[float, float]
) -> np.ndarray:
    """Return boxes (count, 4) of people in a frame (width, height), with heights in a range of pixels."""
    h = random.uniform(*heights, count)
    w = h * random.uniform(0.3, 0.8, count)
    x, y = random.uniform(0, frame[0] - w), random.uniform(0, frame[1] - h)
    return np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)


def average_numpy(heatmaps: np.ndarray, mirrored: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the flip average of maps (N, K, h, w); `order` is the keypoint that each becomes in a mirror."""
    return 0.5 * (heatmaps + mirrored[:, order, :, ::-1])


def peaks_numpy(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places (N, K, 2) float32 x, y and values (N, K) of the maxima."""
    count, keypoints, _, width = heatmaps.shape
    flat = heatmaps.reshape(count, keypoints, -1)
    index = flat.argmax(axis=2)
    points = np.stack([index % width, index // width], axis=2).astype(np.float32)
    return points, flat.max(axis=2)


def decode_second_peak_numpy(heatmaps: np.ndarray, mirrored: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Decode: flip, average, highest and second-highest cell, and the step between them, person by person."""
    averaged = average_numpy(heatmaps, mirrored, order)
    points, _ = peaks_numpy(averaged)
    width = averaged.shape[3]
    for person, maps in enumerate(averaged):
        for keypoint, heat in enumerate(maps):
            x, y = points[person, keypoint]
            rest = heat.copy()
            rest[int(y), int(x)] = -np.inf
            second = int(rest.argmax())
            step = np.array([second % width - x, second // width - y])
            points[person, keypoint] += 0.25 * step / np.linalg.norm(step)
    return points


def decode_gradient_numpy(heatmaps: np.ndarray, mirrored: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Decode: flip, average, highest cell, and a quarter pixel by the neighbors' sign, person by person."""
    averaged = average_numpy(heatmaps, mirrored, order)
    points, _ = peaks_numpy(averaged)
    height, width = averaged.shape[2:]
    for person, maps in enumerate(averaged):
        for keypoint, heat in enumerate(maps):
            x, y = (int(c) for c in points[person, keypoint])
            if 0 < x < width - 1:
                points[person, keypoint, 0] += 0.25 * np.sign(heat[y, x + 1] - heat[y, x - 1])
            if 0 < y < height - 1:
                points[person, keypoint, 1] += 0.25 * np.sign(heat[y + 1, x] - heat[y - 1, x])
    return points


def decode_dark_numpy(
    heatmaps: np.ndarray, mirrored: np.ndarray, order: np.ndarray, kernel: int = 11
) -> np.ndarray:
    """Decode: flip, average, highest cell, then blur every map, take logarithms and one Newton step for all."""
    averaged = average_numpy(heatmaps, mirrored, order)
    points, _ = peaks_numpy(averaged)
    count, keypoints, height, width = averaged.shape
    for maps in averaged:
        for heat in maps:
            cv2.GaussianBlur(heat, (kernel, kernel), 0, heat)
    np.clip(averaged, 1e-3, 50, averaged)
    np.log(averaged, averaged)
    padded = np.pad(averaged, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge").reshape(-1)
    x, y = points[..., 0].astype(int) + 1, points[..., 1].astype(int) + 1
    base = np.arange(count * keypoints).reshape(count, keypoints) * (width + 2) * (height + 2)
    at = base + y * (width + 2) + x

    def value(dy: int, dx: int) -> np.ndarray:
        return padded[at + dy * (width + 2) + dx]

    center, left, right, up, down = value(0, 0), value(0, -1), value(0, 1), value(-1, 0), value(1, 0)
    gradient = np.stack([0.5 * (right - left), 0.5 * (down - up)], axis=-1)
    xx, yy = right - 2 * center + left, down - 2 * center + up
    xy = 0.5 * (value(1, 1) - right - down + 2 * center - left - up + value(-1, -1))
    hessian = np.stack([xx, xy, xy, yy], axis=-1).reshape(count, keypoints, 2, 2)
    inverse = np.linalg.inv(hessian + np.finfo(np.float32).eps * np.eye(2))
    return points - np.einsum("nkij,nkj->nki", inverse, gradient)


def decode_gradient_torch(heatmaps: Any, mirrored: Any, order: Any) -> Any:
    """Decode as decode_gradient_numpy does, in torch operations, all people at once."""
    import torch

    averaged = 0.5 * (heatmaps + mirrored[:, order].flip(3))
    count, keypoints, height, width = averaged.shape
    flat = averaged.reshape(count, keypoints, -1)
    index = flat.argmax(dim=2)
    x, y = index % width, index // width

    def value(dy: int, dx: int) -> Any:
        at = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        return flat.gather(2, at.unsqueeze(2)).squeeze(2)

    inside_x, inside_y = (x > 0) & (x < width - 1), (y > 0) & (y < height - 1)
    step_x = torch.where(inside_x, torch.sign(value(0, 1) - value(0, -1)), 0.0)
    step_y = torch.where(inside_y, torch.sign(value(1, 0) - value(-1, 0)), 0.0)
    return torch.stack([x + 0.25 * step_x, y + 0.25 * step_y], dim=2)


def map_figures_numpy(heatmaps: np.ndarray, mirrored: np.ndarray, order: np.ndarray) -> dict[str, np.ndarray]:
    """Return some of the features of map_features, by name, computed on whole arrays of the batch."""
    averaged = average_numpy(heatmaps, mirrored, order)
    count, keypoints, height, width = averaged.shape
    flat = averaged.reshape(count, keypoints, -1)
    peak, heat = flat.argmax(axis=2), flat.max(axis=2)
    part = np.maximum(flat, 0) / heat[..., None]
    mass = part.sum(axis=2)
    cells = np.arange(height * width)
    far_x, far_y = cells % width - (peak % width)[..., None], cells // width - (peak // width)[..., None]
    padded = np.pad(averaged, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    highest = np.ones(averaged.shape, bool)
    for j in range(3):
        for i in range(3):
            if (j, i) != (1, 1):
                highest &= averaged > padded[:, :, j : j + height, i : i + width]
    return {
        "heat": heat,
        "mass": mass,
        "spread": np.sqrt((part * (far_x**2 + far_y**2)).sum(axis=2) / mass),
        "entropy": -np.log(((part / mass[..., None]) ** 2).sum(axis=2)),
        "peaks": (highest.reshape(flat.shape) & (part >= 0.25)).sum(axis=2),
    }


def crop_opencv(
    frame: np.ndarray,
    transforms: np.ndarray,
    size: tuple[int, int],
    mean: np.ndarray,
    std: np.ndarray,
) -> np.ndarray:
    """Return crops (N, 3, H, W) float32: cv2.warpAffine for each box, then channels, scale and layout in NumPy."""
    width, height = size
    crops = np.empty((len(transforms), 3, height, width), np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for crop, transform in zip(crops, transforms, strict=True):
        warped = cv2.warpAffine(frame, transform, size, flags=flags)
        normalized = (warped[:, :, ::-1].astype(np.float32) - mean) / std
        crop[:] = normalized.transpose(2, 0, 1)
    return crops
