"""Tiles of procedural texture for walls, floors, cloth and leaves, each made once from the seed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

TILE = 384
_FIELD = 768


def fractal(
    rng: np.random.Generator, size: tuple[int, int], coarse: int = 3, octaves: int = 5, gain: float = 0.55
) -> np.ndarray:
    """Return noise (height, width) float32 from 0 to 1, with detail at `octaves` scales from `coarse` cells on."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = min(coarse << octave, max(size))
        grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
        total += gain**octave * cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def color(rng: np.random.Generator, saturation: float = 1.0) -> np.ndarray:
    """Draw a color (3,) float32 BGR from 0 to 255, mostly grays and muted tones, as of paint and cloth."""
    hue = rng.uniform(0, 180)
    strength = 255 * saturation * float(rng.beta(1.0, 2.1))
    value = 255 * float(rng.beta(1.6, 1.2))
    pixel = np.array([[[hue, strength, max(value, 12)]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def ink(tone: np.ndarray) -> tuple[int, int, int]:
    """Return a color as OpenCV draws with it."""
    blue, green, red = (int(value) for value in np.clip(tone, 0, 255))
    return blue, green, red


def flat(size: tuple[int, int], tone: Any) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 of one color."""
    return np.full((size[1], size[0], 3), tone, np.uint8)


def mix(share: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return colors (H, W, 3) float32 between two colors, by shares (H, W)."""
    return low + share[..., None] * (high - low)


class Textures:
    """Tiles (TILE, TILE, 3) uint8, the same for the same seed; a tile is made on first use."""

    def __init__(self, seed: int, count: int = 48) -> None:
        self.count = count
        self._seed = seed
        self._tiles: dict[int, np.ndarray] = {}
        self._grain: list[np.ndarray] = []

    def tile(self, index: int) -> np.ndarray:
        """Return a tile; the kinds repeat in the order of KINDS."""
        index %= self.count
        if index not in self._tiles:
            rng = np.random.default_rng([self._seed, 1_000_003, index])
            self._tiles[index] = KINDS[index % len(KINDS)](rng)
        return self._tiles[index]

    def patch(
        self, rng: np.random.Generator, size: tuple[int, int], zoom: tuple[float, float] = (0.5, 1.6)
    ) -> np.ndarray:
        """Return a window (height, width, 3) uint8 of a random tile."""
        tile = self.tile(int(rng.integers(self.count)))
        return self.cut(rng, tile, size, zoom)

    def cut(
        self, rng: np.random.Generator, tile: np.ndarray, size: tuple[int, int], zoom: tuple[float, float]
    ) -> np.ndarray:
        """Return a window (height, width, 3) uint8 of an image, scaled, perhaps mirrored, with shifted colors."""
        width, height = size
        scale = rng.uniform(*zoom)
        full_height, full_width = tile.shape[:2]
        fit = min(full_width / width, full_height / height, 1 / scale)
        cut_w, cut_h = max(int(width * fit), 2), max(int(height * fit), 2)
        x, y = int(rng.integers(full_width - cut_w + 1)), int(rng.integers(full_height - cut_h + 1))
        part = tile[y : y + cut_h, x : x + cut_w]
        flip = int(rng.integers(2))
        part = cv2.resize(part[:, ::-1] if flip else part, size, interpolation=cv2.INTER_LINEAR)
        shift = rng.uniform(0.6, 1.25, 3) * rng.uniform(0.6, 1.2)
        light: Any = (*shift.tolist(), 0.0)
        return cv2.convertScaleAbs(part) if rng.random() < 0.2 else cv2.multiply(part, light)

    def grain(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """Return a window (height, width) float32 of fractal noise from 0 to 1."""
        return self._window(rng, size)[..., 0] * np.float32(1 / 255)

    def creases(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """Return folds and dirt to multiply cloth by: (height, width, 3) uint8 around 200, three equal channels."""
        return cv2.convertScaleAbs(self._window(rng, size), alpha=0.4, beta=150)

    def _window(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        if not self._grain:
            own = np.random.default_rng([self._seed, 1_000_004])
            fields = [fractal(own, (_FIELD, _FIELD), 6, 6, 0.6) for _ in range(3)]
            self._grain = [cv2.merge([np.rint(field * 255).astype(np.uint8)] * 3) for field in fields]
        field = self._grain[int(rng.integers(len(self._grain)))]
        width, height = size
        x, y = int(rng.integers(_FIELD - width)), int(rng.integers(_FIELD - height))
        return field[y : y + height, x : x + width]


def _finish(rng: np.random.Generator, image: np.ndarray, roughness: float = 8) -> np.ndarray:
    noise = rng.normal(0, roughness, image.shape[:2]).astype(np.float32)
    return np.clip(image + noise[..., None], 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    return _finish(rng, mix(fractal(rng, (TILE, TILE)), color(rng), color(rng)), 4)


def _marble(rng: np.random.Generator) -> np.ndarray:
    field = fractal(rng, (TILE, TILE), 2, 6)
    veins = 0.5 + 0.5 * np.sin(field * rng.uniform(15, 40))
    return _finish(rng, mix(veins, color(rng), color(rng)), 5)


def _wood(rng: np.random.Generator) -> np.ndarray:
    across = fractal(rng, (TILE, TILE), 2, 4)
    lines = np.linspace(0, rng.uniform(6, 30), TILE, dtype=np.float32)[:, None] + across * 1.5
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * lines)
    dark = np.array([30, 60, 100], np.float32) * rng.uniform(0.5, 1.3)
    image = mix(grain, dark, dark * rng.uniform(1.3, 2.0))
    boards = int(rng.integers(3, 9))
    image[:: TILE // boards] *= 0.5
    return _finish(rng, image, 6)


def _bricks(rng: np.random.Generator) -> np.ndarray:
    high = int(rng.integers(14, 40))
    wide = high * int(rng.integers(2, 4))
    image = np.full((TILE, TILE, 3), color(rng, 0.3), np.float32)
    base = color(rng, 0.8)
    for row, y in enumerate(range(0, TILE, high)):
        for x in range(-(row % 2) * wide // 2, TILE, wide):
            image[y + 2 : y + high, max(x + 2, 0) : x + wide] = base * rng.uniform(0.75, 1.2)
    return _finish(rng, image * (0.8 + 0.3 * fractal(rng, (TILE, TILE)))[..., None], 8)


def _tiles(rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(20, 90))
    first, second = color(rng), color(rng)
    y, x = np.mgrid[0:TILE, 0:TILE]
    share = (((x // size) + (y // size)) % 2).astype(np.float32)
    image = mix(share, first, second)
    image[(x % size < 2) | (y % size < 2)] *= 0.6
    return _finish(rng, image, 5)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    period = rng.uniform(5, 40, 2)
    weave = (np.sin(x / period[0] * 2 * np.pi) > rng.uniform(-0.8, 0.8)) * 0.5 + (
        np.sin(y / period[1] * 2 * np.pi) > 0
    ) * 0.5
    folds = fractal(rng, (TILE, TILE), 3, 3)
    return _finish(
        rng, mix(weave.astype(np.float32), color(rng), color(rng)) * (0.6 + 0.5 * folds)[..., None], 6
    )


def _leaves(rng: np.random.Generator) -> np.ndarray:
    image = flat((TILE, TILE), (15, 30, 18))
    for _ in range(700):
        green = (int(rng.integers(10, 70)), int(rng.integers(60, 190)), int(rng.integers(20, 120)))
        center = (int(rng.integers(TILE)), int(rng.integers(TILE)))
        axes = (int(rng.integers(4, 18)), int(rng.integers(2, 7)))
        cv2.ellipse(image, center, axes, float(rng.uniform(0, 360)), 0, 360, green, -1, cv2.LINE_AA)
    return _finish(rng, image.astype(np.float32), 6)


def _grass(rng: np.random.Generator) -> np.ndarray:
    blades = cv2.resize(rng.random((TILE // 8, TILE), dtype=np.float32), (TILE, TILE))
    dark = np.array([rng.uniform(20, 60), rng.uniform(60, 110), rng.uniform(40, 90)], np.float32)
    return _finish(rng, mix(0.5 * blades + 0.5 * fractal(rng, (TILE, TILE), 4), dark, dark * 1.7), 10)


def _clutter(rng: np.random.Generator) -> np.ndarray:
    image = flat((TILE, TILE), color(rng))
    for _ in range(90):
        tone = ink(color(rng))
        x, y = (int(value) for value in rng.integers(0, TILE, 2))
        w, h = (int(value) for value in rng.integers(6, 90, 2))
        kind = int(rng.integers(4))
        if kind == 0:
            cv2.rectangle(image, (x, y), (x + w, y + h), tone, -1)
        elif kind == 1:
            cv2.ellipse(
                image, (x, y), (w // 2, h // 2), float(rng.uniform(0, 360)), 0, 360, tone, -1, cv2.LINE_AA
            )
        elif kind == 2:
            cv2.line(image, (x, y), (x + w - 45, y + h), tone, int(rng.integers(1, 12)), cv2.LINE_AA)
        else:
            points = np.rint(rng.normal((x, y), 25, (6, 2))).astype(np.int32)
            cv2.fillConvexPoly(image, cv2.convexHull(points), tone, cv2.LINE_AA)
    return _finish(rng, image.astype(np.float32) * (0.7 + 0.4 * fractal(rng, (TILE, TILE)))[..., None], 5)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    phase = (x * np.cos(turn) + y * np.sin(turn)) / rng.uniform(8, 60)
    return _finish(
        rng, mix((phase % 1 > rng.uniform(0.3, 0.7)).astype(np.float32), color(rng), color(rng)), 5
    )


def _blotches(rng: np.random.Generator) -> np.ndarray:
    palette = np.stack([color(rng) for _ in range(4)])
    field = fractal(rng, (TILE, TILE), int(rng.integers(3, 12)), 4)
    return _finish(rng, palette[np.clip((field * 6 - 1).astype(int), 0, 3)], 6)


def _shelves(rng: np.random.Generator) -> np.ndarray:
    image = flat((TILE, TILE), color(rng, 0.4) * 0.5)
    high = int(rng.integers(40, 90))
    for y in range(0, TILE, high):
        x = 0
        while x < TILE:
            wide = int(rng.integers(5, 26))
            tall = int(rng.integers(high // 2, high - 6))
            cv2.rectangle(image, (x, y + high - tall), (x + wide - 2, y + high - 6), ink(color(rng)), -1)
            x += wide
        cv2.rectangle(image, (0, y + high - 6), (TILE, y + high - 1), (60, 80, 110), -1)
    return _finish(rng, image.astype(np.float32), 5)


KINDS = (
    _clouds, _marble, _wood, _bricks, _tiles, _cloth, _leaves, _grass, _clutter, _stripes, _blotches, _shelves
)  # fmt: skip
