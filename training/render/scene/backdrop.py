"""Backgrounds: outlines of rooms, streets and fields, plain textures, clutter without people."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from oaks.training.render.look.textures import Textures, color, ink

_LEAVES, _GRASS, _CLOUDS = 6, 7, 0


def backdrop(
    rng: np.random.Generator, textures: Textures, size: tuple[int, int], horizon: float
) -> np.ndarray:
    """Draw a background (height, width, 3) uint8 BGR; a ground begins at or above the row `horizon`."""
    kind = rng.choice(5, p=[0.34, 0.34, 0.16, 0.06, 0.10])
    if kind == 0:
        image = _room(rng, textures, size, int(horizon))
    elif kind == 1:
        image = _outdoors(rng, textures, size, int(horizon))
    elif kind == 2:
        image = _texture(rng, textures, size, int(horizon))
    elif kind == 3:
        image = _vertical(size, color(rng, 0.5), color(rng, 0.5))
    else:
        image = _crowded(rng, textures, size)
    if rng.random() < 0.45:
        spread = float(rng.uniform(0.6, 4.0))
        small = cv2.resize(image, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), spread / 2)
        image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    return image


def _vertical(size: tuple[int, int], top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return a vertical gradient (height, width, 3) uint8 from one color to another."""
    width, height = size
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = np.clip(top + ramp * (bottom - top), 0, 255).astype(np.uint8)
    return cv2.resize(rows, (width, height), interpolation=cv2.INTER_NEAREST)


def _floor(
    rng: np.random.Generator, textures: Textures, image: np.ndarray, horizon: int, kinds: tuple[int, ...]
) -> None:
    """Fill everything below `horizon` with a tile in perspective."""
    height, width = image.shape[:2]
    if horizon >= height - 4:
        return
    kind = int(rng.choice(kinds)) + 12 * int(rng.integers(textures.count // 12))
    tile = textures.tile(kind)
    shrink = rng.uniform(0.08, 0.35) * width
    target = np.array(
        [[-shrink, height], [width + shrink, height], [width * 0.75, horizon], [width * 0.25, horizon]],
        np.float32,
    )
    # Continue the sides beyond the corners, so that the whole floor is covered.
    target[:, 0] = (target[:, 0] - width / 2) * 3 + width / 2
    source = np.array(
        [[0, tile.shape[0]], [tile.shape[1], tile.shape[0]], [tile.shape[1], 0], [0, 0]], np.float32
    )
    matrix = cv2.getPerspectiveTransform(source, target - np.array([0, horizon], np.float32))
    floor = cv2.warpPerspective(
        tile, matrix, (width, height - horizon), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    light: Any = (*rng.uniform(0.6, 1.2, 3).tolist(), 0.0)
    image[horizon:] = cv2.multiply(floor, light)


def _room(rng: np.random.Generator, textures: Textures, size: tuple[int, int], horizon: int) -> np.ndarray:
    width, height = size
    horizon = min(int(horizon + height * rng.uniform(0.05, 0.3)), height)
    if rng.random() < 0.6:
        tone = color(rng, 0.6)
        image = _vertical(size, tone * 1.05, tone * rng.uniform(0.7, 1.0))
    else:
        image = textures.patch(rng, size).copy()
    _floor(rng, textures, image, horizon, (2, 4, 5, 1, 0))
    cv2.line(image, (0, horizon), (width, horizon), ink(color(rng, 0.3)), int(rng.integers(1, 6)))
    for _ in range(int(rng.integers(1, 7))):
        _furniture(rng, textures, image, horizon)
    return image


def _furniture(rng: np.random.Generator, textures: Textures, image: np.ndarray, horizon: int) -> None:
    height, width = image.shape[:2]
    kind = int(rng.integers(6))
    w, h = int(width * rng.uniform(0.08, 0.4)), int(height * rng.uniform(0.08, 0.5))
    x = int(rng.uniform(-0.2, 0.95) * width)
    y = int(rng.uniform(-0.1, 0.6) * height) if kind < 3 else horizon - h + int(rng.uniform(0, 0.15) * height)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return
    block = image[y0:y1, x0:x1]
    if kind == 0:  # window
        block[:] = np.clip(rng.uniform(150, 255, 3), 0, 255)
        cv2.rectangle(block, (0, 0), (x1 - x0 - 1, y1 - y0 - 1), ink(color(rng, 0.3)), 3)
        cv2.line(block, ((x1 - x0) // 2, 0), ((x1 - x0) // 2, y1 - y0), ink(color(rng, 0.3)), 2)
    elif kind in (1, 3, 5):  # picture, shelf, cupboard
        block[:] = textures.patch(rng, (x1 - x0, y1 - y0))
        cv2.rectangle(block, (0, 0), (x1 - x0 - 1, y1 - y0 - 1), ink(color(rng, 0.3)), 2)
    elif kind == 2:  # lamp
        cv2.ellipse(image, (x, y), (w // 4, h // 6), 0, 0, 360, (225, 240, 250), -1, cv2.LINE_AA)
        cv2.line(image, (x, y), (x, height), (60, 60, 60), 2, cv2.LINE_AA)
    else:  # seat
        tone = color(rng)
        cv2.rectangle(image, (x, y), (x + w, y + h), ink(tone), -1)
        cv2.rectangle(image, (x, y + h // 2), (x + w, y + h), ink(tone * 0.7), -1)


def _outdoors(
    rng: np.random.Generator, textures: Textures, size: tuple[int, int], horizon: int
) -> np.ndarray:
    width, height = size
    sky = np.array([rng.uniform(170, 255), rng.uniform(150, 230), rng.uniform(110, 230)], np.float32)
    image = _vertical(size, sky * rng.uniform(0.6, 1.0), np.minimum(sky * 1.15, 255))
    if rng.random() < 0.4:
        image = cv2.addWeighted(
            image, 0.7, textures.cut(rng, textures.tile(12 * int(rng.integers(4))), size, (0.4, 1.2)), 0.3, 0
        )
    for _ in range(int(rng.integers(0, 6))):  # buildings
        w, h = int(width * rng.uniform(0.1, 0.5)), int(height * rng.uniform(0.15, 0.8))
        x = int(rng.uniform(-0.2, 1) * width)
        tone = color(rng, 0.5)
        x0, y0, x1 = max(x, 0), max(horizon - h, 0), min(x + w, width)
        if x1 <= x0 or horizon <= y0:
            continue
        image[y0:horizon, x0:x1] = np.clip(tone, 0, 255)
        step = int(rng.integers(8, 22))
        lit = ink(tone * 0.5 if rng.random() < 0.6 else np.minimum(tone * 1.7 + 30, 255))
        for row in range(y0 + 4, horizon - step // 2, step):
            for column in range(x0 + 3, x1 - step // 2, step):
                cv2.rectangle(image, (column, row), (column + step // 2, row + step // 2), lit, -1)
    leaves = textures.cut(rng, textures.tile(_LEAVES + 12 * int(rng.integers(4))), size, (0.5, 1.5))
    for _ in range(int(rng.integers(0, 7))):  # trees and bushes
        x, y = int(rng.uniform(0, 1) * width), horizon - int(rng.uniform(-0.02, 0.35) * height)
        radius = int(width * rng.uniform(0.04, 0.2))
        cv2.line(image, (x, y), (x, horizon + 3), (40, 55, 75), max(radius // 6, 1))
        mask = np.zeros((height, width), np.uint8)
        for _ in range(6):
            center = (x + int(rng.normal(0, 0.5) * radius), y + int(rng.normal(0, 0.4) * radius))
            cv2.circle(mask, center, max(int(radius * rng.uniform(0.4, 0.8)), 2), 255, -1)
        cv2.copyTo(leaves, mask, image)
    _floor(rng, textures, image, horizon, (_GRASS, _CLOUDS, 3, _GRASS, 1, 10))
    for _ in range(int(rng.integers(0, 4))):  # posts, kerbs, cars' outlines
        paint = ink(color(rng))
        x = int(rng.uniform(0, width))
        if rng.random() < 0.5:
            top, bottom = (
                horizon - int(rng.uniform(0.1, 0.6) * height),
                horizon + int(rng.uniform(0, 0.2) * height),
            )
            cv2.line(image, (x, top), (x, bottom), paint, int(rng.integers(1, 6)))
        else:
            w, h = int(width * rng.uniform(0.1, 0.35)), int(height * rng.uniform(0.04, 0.12))
            cv2.rectangle(image, (x, horizon - h), (x + w, horizon + h // 2), paint, -1)
            cv2.ellipse(image, (x + w // 2, horizon - h), (w // 3, h), 0, 180, 360, paint, -1, cv2.LINE_AA)
            for wheel in (x + w // 5, x + 4 * w // 5):
                cv2.circle(image, (wheel, horizon + h // 2), max(h // 3, 2), (25, 25, 25), -1, cv2.LINE_AA)
    return image


def _texture(rng: np.random.Generator, textures: Textures, size: tuple[int, int], horizon: int) -> np.ndarray:
    image = textures.patch(rng, size, (0.4, 2.0)).copy()
    if rng.random() < 0.5:
        cut = int(np.clip(horizon, 0.2 * size[1], 0.9 * size[1]))
        image[cut:] = textures.patch(rng, (size[0], size[1] - cut))
    return image


def _crowded(rng: np.random.Generator, textures: Textures, size: tuple[int, int]) -> np.ndarray:
    """Draw clutter of round and long shapes in the colors of skin and cloth, which a network must not take for people."""
    image = textures.cut(rng, textures.tile(8 + 12 * int(rng.integers(4))), size, (0.4, 1.3)).copy()
    width, height = size
    for _ in range(int(rng.integers(4, 16))):
        tone = (
            np.array([130, 165, 215], np.float32) * rng.uniform(0.4, 1.1)
            if rng.random() < 0.4
            else color(rng)
        )
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        long, thick = int(rng.uniform(0.05, 0.3) * width), int(rng.uniform(0.01, 0.06) * width) + 1
        turn = rng.uniform(0, np.pi)
        end = (x + int(long * np.cos(turn)), y + int(long * np.sin(turn)))
        cv2.line(image, (x, y), end, ink(tone), thick, cv2.LINE_AA)
        if rng.random() < 0.5:
            cv2.circle(image, end, thick, ink(tone * 0.85), -1, cv2.LINE_AA)
    return image
