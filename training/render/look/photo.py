"""Flaws of a camera: exposure, color casts, blur, noise, lost detail, JPEG artifacts."""

from __future__ import annotations

import cv2
import numpy as np

_NOISE_SIDE = 640


class Camera:
    """Adds a camera's flaws to pictures; its noise comes from fields that are made once from the seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1_000_005])
        fine = rng.normal(0, 64, (_NOISE_SIDE, _NOISE_SIDE, 3)).astype(np.float32)
        coarse = cv2.resize(
            rng.normal(0, 64, (_NOISE_SIDE // 2,) * 2 + (3,)).astype(np.float32), (_NOISE_SIDE,) * 2
        )
        self._noise = [
            np.clip(field, -255, 255).astype(np.int16)
            for field in (fine, coarse, fine * 0.6 + fine[..., :1] * 0.6)
        ]

    def photograph(
        self, rng: np.random.Generator, image: np.ndarray, moment: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return a picture (H, W, 3) uint8 with the flaws of this camera.

        Args:
            rng: draws the exposure, and the kind and strength of every flaw. The frames of a video share them.
            image: (H, W, 3) uint8.
            moment: draws the place of the noise; None: `rng` draws it too.
        """
        image = self._expose(rng, image)
        height, width = image.shape[:2]
        kind = rng.random()
        if kind < 0.25:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.6)))
        elif kind < 0.32:
            image = cv2.filter2D(image, -1, _motion(rng))
        elif kind < 0.45:
            share = float(rng.uniform(0.4, 0.85))
            small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.55:
            image = self._grain(rng, image, moment or rng)
        if rng.random() < 0.45:
            quality = int(rng.uniform(25, 92))
            _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
            assert decoded is not None
            image = decoded
        return image

    def _expose(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        level = np.arange(256, dtype=np.float32) / 255
        gamma = float(np.exp(rng.normal(0, 0.22)))
        gain = float(np.exp(rng.normal(0, 0.16)))
        cast = np.exp(rng.normal(0, 0.07, 3)).astype(np.float32)
        lift = float(max(rng.normal(0, 0.03), -0.05))
        table = np.clip((level[:, None] ** gamma) * gain * cast + lift, 0, 1) * 255
        image = cv2.LUT(image, table[:, None].astype(np.uint8))
        if rng.random() < 0.06:
            gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            image = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
        return image

    def _grain(self, rng: np.random.Generator, image: np.ndarray, moment: np.random.Generator) -> np.ndarray:
        height, width = image.shape[:2]
        field = self._noise[int(rng.integers(len(self._noise)))]
        strength = float(rng.gamma(2.0, 3.5)) / 64
        if height > _NOISE_SIDE or width > _NOISE_SIDE:
            field = np.tile(field, (height // _NOISE_SIDE + 2, width // _NOISE_SIDE + 2, 1))
        y = int(moment.integers(field.shape[0] - height + 1))
        x = int(moment.integers(field.shape[1] - width + 1))
        return cv2.addWeighted(image, 1.0, field[y : y + height, x : x + width], strength, 0, dtype=cv2.CV_8U)


def _motion(rng: np.random.Generator) -> np.ndarray:
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    turn = rng.uniform(0, np.pi)
    middle = (length - 1) / 2
    step = np.array([np.cos(turn), np.sin(turn)]) * middle
    start, end = np.rint(middle - step).astype(int), np.rint(middle + step).astype(int)
    cv2.line(kernel, tuple(int(v) for v in start), tuple(int(v) for v in end), 1.0, 1)
    return kernel / kernel.sum()
