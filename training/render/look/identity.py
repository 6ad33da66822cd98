"""Identities: skin, face and hair of a person."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from oaks.training.render.body.anatomy import Proportions
from oaks.training.render.body.head import EYE_HEIGHT, EYE_TURN
from oaks.training.render.body.outfit import Outfit
from oaks.training.render.body.parts import ATLAS, PATCHES
from oaks.training.render.look.textures import Textures, flat, ink

# BGR, from light to dark.
_SKIN = np.array(
    [[196, 216, 240], [170, 198, 232], [140, 175, 218], [115, 152, 200], [84, 122, 172], [60, 92, 140],
     [42, 64, 102], [30, 44, 72]], np.float32,
)  # fmt: skip
_HAIR = np.array(
    [[18, 18, 20], [24, 28, 38], [30, 42, 62], [40, 66, 100], [70, 115, 160], [120, 175, 210], [60, 70, 150],
     [170, 172, 175], [215, 215, 215]], np.float32,
)  # fmt: skip
_IRIS = np.array([[40, 30, 20], [90, 70, 50], [30, 40, 60], [70, 90, 60]], np.float32)


@dataclass(frozen=True)
class Identity:
    """An atlas (uint8 BGR) of skin, face and hair without clothes, and the skin's color (3,)."""

    atlas: np.ndarray
    skin: np.ndarray


def paint_identity(
    rng: np.random.Generator, textures: Textures, body: Proportions, outfit: Outfit, faces: bool
) -> Identity:
    """Paint a person; without `faces`, the head is plain skin."""
    tone = float(rng.uniform(0, len(_SKIN) - 1.001))
    low = int(tone)
    skin = _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low])
    skin = skin * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    hair = _HAIR[int(rng.integers(6 if body.child or low > 4 else len(_HAIR)))] * rng.uniform(0.8, 1.2)
    atlas = flat(ATLAS, np.clip(skin, 0, 255))
    if faces:
        x, y, width, height = PATCHES["head"]
        face = atlas[y : y + height, x : x + width]
        if body.female < 0.5 and not body.child and rng.random() < 0.35:
            _beard(rng, face, skin, hair)
        for sign in (-1, 1):
            _eye(np.random.default_rng(rng.integers(1 << 31)), face, sign, skin, hair)
        _mouth(rng, face, skin)
        if rng.random() < 0.16:
            _glasses(face, rng.random() < 0.35)
        _paint_hair(rng, textures, atlas, face, outfit, hair)
    return Identity(atlas, skin)


def _beard(rng: np.random.Generator, face: np.ndarray, skin: np.ndarray, hair: np.ndarray) -> None:
    height, width = face.shape[:2]
    tone = ink(skin + rng.uniform(0.5, 0.95) * (hair - skin))
    _ellipse(face, (width / 2, height * 0.93), (width * 0.17, height * 0.2), tone)
    _ellipse(face, (width / 2, height * 0.745), (width * 0.05, height * 0.022), tone)


def _eye(rng: np.random.Generator, face: np.ndarray, sign: int, skin: np.ndarray, hair: np.ndarray) -> None:
    height, width = face.shape[:2]
    x, y = width * (0.5 + sign * EYE_TURN), height * (1 - EYE_HEIGHT)
    opening = rng.uniform(0.02, 0.032)
    _ellipse(face, (x, y), (width * 0.034, height * 0.05), ink(skin * 0.8))
    _ellipse(
        face, (x + sign * 4, y + height * 0.17), (width * 0.03, height * 0.05), ink(skin * [0.9, 0.9, 1.02])
    )
    _ellipse(face, (x, y), (width * 0.026, height * opening), (226, 229, 232))
    cv2.circle(
        face, _dot(x, y), round(height * 0.026 * 8), ink(_IRIS[int(rng.integers(4))]), -1, cv2.LINE_AA, 3
    )
    lash = (_dot(x, y), _dot(width * 0.028, height * opening))
    cv2.ellipse(face, *lash, 0, 180, 360, (25, 25, 30), 1, cv2.LINE_AA, 3)
    brow = (_dot(x, y - height * 0.065), _dot(width * 0.032, height * 0.018))
    cv2.ellipse(face, *brow, sign * 8, 180, 360, ink(hair * 0.6 + skin * 0.15), 2, cv2.LINE_AA, 3)


def _mouth(rng: np.random.Generator, face: np.ndarray, skin: np.ndarray) -> None:
    height, width = face.shape[:2]
    x, y = width / 2, height * 0.815
    lips = skin * [0.62, 0.62, 0.85] * rng.uniform(0.8, 1.05)
    _ellipse(face, (x, height * 0.68), (width * 0.022, height * 0.018), ink(skin * 0.72))
    _ellipse(face, (x, y), (width * 0.036, height * rng.uniform(0.02, 0.034)), ink(lips))
    if rng.random() < 0.35:
        teeth = (_dot(x, y), _dot(width * 0.03, height * 0.016))
        cv2.ellipse(face, *teeth, 0, 0, 180, (235, 238, 240), -1, cv2.LINE_AA, 3)
    else:
        corners = (_dot(x - width * 0.03, y), _dot(x + width * 0.03, y))
        cv2.line(face, *corners, ink(lips * 0.5), 1, cv2.LINE_AA, 3)


def _glasses(face: np.ndarray, dark: bool) -> None:
    height, width = face.shape[:2]
    y = height * (1 - EYE_HEIGHT)
    for sign in (-1, 1):
        x = width * (0.5 + sign * EYE_TURN)
        rim = (_dot(x, y + 1), _dot(width * 0.042, height * 0.07))
        cv2.ellipse(face, *rim, 0, 0, 360, (22, 20, 20), -1 if dark else 1, cv2.LINE_AA, 3)
        temple = (_dot(x + sign * width * 0.04, y), _dot(x + sign * width * 0.17, y))
        cv2.line(face, *temple, (22, 20, 20), 1, cv2.LINE_AA, 3)


def _paint_hair(
    rng: np.random.Generator,
    textures: Textures,
    atlas: np.ndarray,
    face: np.ndarray,
    outfit: Outfit,
    hair: np.ndarray,
) -> None:
    height, width = face.shape[:2]
    strands = np.clip(hair * (0.65 + 0.7 * rng.random((1, 64, 1), dtype=np.float32)), 0, 255)
    strands = np.broadcast_to(strands, (96, 64, 3)).astype(np.uint8)
    strands = cv2.multiply(strands, textures.creases(rng, (64, 96)), scale=1 / 190)
    x, y, hair_width, hair_height = PATCHES["hair"]
    atlas[y : y + hair_height, x : x + hair_width] = strands
    if outfit.hair != "none":
        line = height * (1 - outfit.hairline(np.linspace(0, 1, width)))
        over = np.arange(height)[:, None] < line[None]
        face[over] = cv2.resize(strands, (width, height))[over]


def _ellipse(
    image: np.ndarray, center: tuple[float, float], axes: tuple[float, float], tone: tuple[int, int, int]
) -> None:
    cv2.ellipse(image, _dot(*center), _dot(*axes), 0, 0, 360, tone, -1, cv2.LINE_AA, 3)


def _dot(x: float, y: float) -> tuple[int, int]:
    """Return a point with three fractional bits, as OpenCV takes it."""
    return round(x * 8), round(y * 8)
