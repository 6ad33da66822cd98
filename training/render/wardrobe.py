"""What a person looks like: an atlas with skin, a face, hair and clothes, painted for the surfaces of parts.PATCHES."""

from __future__ import annotations

import cv2
import numpy as np

from oaks.training.render.head import EYE_HEIGHT, EYE_TURN
from oaks.training.render.outfit import Outfit
from oaks.training.render.parts import ATLAS, PATCHES
from oaks.training.render.textures import Textures, colour, mix

_SKIN = np.array(
    [
        [196, 216, 240],
        [170, 198, 232],
        [140, 175, 218],
        [115, 152, 200],
        [84, 122, 172],
        [60, 92, 140],
        [42, 64, 102],
        [30, 44, 72],
    ],
    np.float32,
)
_HAIR = np.array(
    [[18, 18, 20], [24, 28, 38], [30, 42, 62], [40, 66, 100], [70, 115, 160], [120, 175, 210], [60, 70, 150], [170, 172, 175], [215, 215, 215]],
    np.float32,
)  # fmt: skip


class Painter:
    """Paints atlases.

    Attributes:
        textures: tiles for prints and creases.
        pattern: False gives every garment one flat colour.
        faces: False leaves eyes, mouth and hair out: heads are skin all over.
    """

    def __init__(self, textures: Textures, pattern: bool = True, faces: bool = True) -> None:
        self.textures = textures
        self.pattern = pattern
        self.faces = faces

    def paint(self, rng: np.random.Generator, outfit: Outfit, female: float, child: float) -> np.ndarray:
        """(ATLAS height, width, 3) uint8 BGR for a person who wears `outfit`."""
        width, height = ATLAS
        atlas = np.empty((height, width, 3), np.uint8)
        tone = rng.uniform(0, len(_SKIN) - 1)
        low = int(tone)
        skin = _SKIN[low] + (tone - low) * (_SKIN[min(low + 1, len(_SKIN) - 1)] - _SKIN[low])
        skin = skin * rng.uniform(0.94, 1.06, 3).astype(np.float32)
        hair = _HAIR[int(rng.integers(len(_HAIR) - (3 if child else 0)))] * rng.uniform(0.8, 1.2)
        atlas[:] = np.clip(skin, 0, 255)
        shirt, trousers = self._cloth(rng, (128, 128)), self._cloth(rng, (64, 160))
        self._shirt(rng, atlas, shirt, trousers, outfit, skin)
        self._legs(rng, atlas, trousers, outfit)
        cloth = (
            shirt if rng.random() < 0.4 else trousers if rng.random() < 0.3 else self._cloth(rng, (128, 64))
        )
        _put(atlas, "skirt", cv2.resize(cloth, (128, 64)))
        _put(atlas, "hat", cv2.resize(self._cloth(rng, (64, 48)), (64, 48)))
        _put(atlas, "bag", self._cloth(rng, (64, 48)))
        if self.pattern:
            # Creases over the cloth, lighter ones over the skin; heads keep their own.
            creases = 0.78 + 0.4 * self.textures.grain(rng, (256, 288))
            atlas[:288] = cv2.multiply(atlas[:288], cv2.merge([creases] * 3), dtype=cv2.CV_8U)
        self._head(rng, atlas, outfit, skin, hair, female, child)
        return atlas

    def _cloth(self, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        """(height, width, 3) uint8: one fabric."""
        width, height = size
        base, other = colour(rng), colour(rng)
        kind = int(rng.integers(12))
        period = float(rng.uniform(5, 28))
        start = float(rng.uniform(0, 100))
        image = np.empty((height, width, 3), np.float32)
        image[:] = base
        if not self.pattern or kind <= 3:
            return image.astype(np.uint8)
        x = np.arange(width, dtype=np.float32)[None] + start
        y = np.arange(height, dtype=np.float32)[:, None] + start
        if kind == 4:
            image = mix(
                np.broadcast_to((y % period < period / 2), (height, width)).astype(np.float32), base, other
            )
        elif kind == 5:
            image = mix(
                np.broadcast_to((x % period < period / 2), (height, width)).astype(np.float32), base, other
            )
        elif kind == 6:
            image = mix(
                ((x % period < period / 2) * 0.5 + (y % period < period / 2) * 0.5).astype(np.float32),
                base,
                other,
            )
        elif kind == 7:
            image = mix(
                ((x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < period**2 / 10).astype(
                    np.float32
                ),
                base,
                other,
            )
        elif kind == 8:
            image = mix(
                np.broadcast_to((y - start) / height, (height, width)).astype(np.float32), base, other
            )
        elif kind == 9:
            return self.textures.patch(rng, size, (0.3, 1.2))
        elif kind == 10:
            image = mix((self.textures.grain(rng, size) > 0.5).astype(np.float32), base, other)
        else:
            flat = image.astype(np.uint8)
            for _ in range(int(rng.integers(1, 4))):
                centre = (int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.2, 0.5)))
                axes = (int(rng.integers(4, 16)), int(rng.integers(3, 16)))
                cv2.ellipse(
                    flat,
                    centre,
                    axes,
                    float(rng.uniform(0, 180)),
                    0,
                    360,
                    tuple(int(v) for v in colour(rng)),
                    -1,
                )
            return flat
        return np.clip(image, 0, 255).astype(np.uint8)

    def _shirt(
        self,
        rng: np.random.Generator,
        atlas: np.ndarray,
        shirt: np.ndarray,
        trousers: np.ndarray,
        outfit: Outfit,
        skin: np.ndarray,
    ) -> None:
        trunk = shirt.copy()
        depth, wide = int(rng.integers(4, 26)), int(rng.integers(8, 26))
        cv2.ellipse(trunk, (64, 0), (wide, depth), 0, 0, 360, tuple(int(v) for v in skin), -1)
        if rng.random() < 0.25:
            tone = tuple(int(v) for v in colour(rng))
            cv2.rectangle(trunk, (60, 0), (68, 127), tone, -1)
        hem = int(128 * rng.uniform(0.7, 0.86))
        if outfit.skirt is None or rng.random() < 0.5:
            trunk[hem:] = cv2.resize(trousers[:48], (128, 128 - hem))
            cv2.rectangle(trunk, (0, hem - 1), (127, hem + 1), tuple(int(v * 0.4) for v in trunk[hem, 0]), -1)
        if rng.random() < 0.04:
            trunk[:hem] = np.clip(skin, 0, 255)
            bare = True
        else:
            bare = False
        _put(atlas, "trunk", trunk)
        for name in ("left_arm", "right_arm"):
            x, y, width, height = PATCHES[name]
            end = 0 if bare else int(outfit.sleeve * height)
            atlas[y : y + end, x : x + width] = shirt[:end, :width]
            if end > 4:
                atlas[y + end - 2 : y + end, x : x + width] = atlas[y + end - 2 : y + end, x : x + width] // 2

    def _legs(
        self, rng: np.random.Generator, atlas: np.ndarray, trousers: np.ndarray, outfit: Outfit
    ) -> None:
        shoe, sole = colour(rng), colour(rng, 0.3)
        sock = colour(rng) if rng.random() < 0.5 else None
        barefoot = rng.random() < 0.1
        for name in ("left_leg", "right_leg"):
            x, y, width, height = PATCHES[name]
            if sock is not None and not barefoot:
                atlas[y + int(height * 0.86) : y + height, x : x + width] = sock
            end = int(height * (0.12 if outfit.skirt is not None else outfit.leg))
            atlas[y : y + end, x : x + width] = trousers[:end]
        if not barefoot:
            for name in ("left_foot", "right_foot"):
                x, y, width, height = PATCHES[name]
                atlas[y : y + height, x : x + width] = shoe
                atlas[y : y + height, x : x + 7] = sole
                atlas[y : y + height, x + width - 7 : x + width] = sole

    def _head(
        self,
        rng: np.random.Generator,
        atlas: np.ndarray,
        outfit: Outfit,
        skin: np.ndarray,
        hair: np.ndarray,
        female: float,
        child: float,
    ) -> None:
        x0, y0, width, height = PATCHES["head"]
        head = np.empty((height, width, 3), np.uint8)
        head[:] = np.clip(skin, 0, 255)
        if not self.faces:
            atlas[y0 : y0 + height, x0 : x0 + width] = head
            _put(atlas, "hair", head[:, :64])
            return
        centre = width / 2
        lips = np.clip(skin * [0.62, 0.62, 0.85] * rng.uniform(0.8, 1.05), 0, 255)
        if female < 0.5 and not child and rng.random() < 0.3:
            beard = mix(np.full((1, 1), rng.uniform(0.5, 0.95), np.float32), skin, hair)[0, 0]
            cv2.ellipse(
                head,
                _dot(centre, height * 0.92),
                _dot(width * 0.17, height * 0.26),
                0,
                0,
                360,
                _ink(beard),
                -1,
                cv2.LINE_AA,
                3,
            )
            cv2.ellipse(
                head,
                _dot(centre, height * 0.76),
                _dot(width * 0.05, height * 0.03),
                0,
                0,
                360,
                _ink(beard),
                -1,
                cv2.LINE_AA,
                3,
            )
        blush = np.clip(skin * [0.9, 0.9, 1.02], 0, 255)
        brow = _ink(hair * 0.6 + skin * 0.15)
        iris = _ink(
            np.array([[40, 30, 20], [90, 70, 50], [30, 40, 60], [70, 90, 60]], np.float32)[
                int(rng.integers(4))
            ]
        )
        glasses = rng.random() < 0.16
        dark = rng.random() < 0.4
        open_eye = rng.uniform(0.018, 0.034)
        eye_y = height * (1 - EYE_HEIGHT)
        for sign in (-1, 1):
            eye_x = centre + sign * EYE_TURN * width
            socket = np.clip(skin * 0.82, 0, 255)
            cv2.ellipse(
                head,
                _dot(eye_x, eye_y),
                _dot(width * 0.034, height * 0.045),
                0,
                0,
                360,
                _ink(socket),
                -1,
                cv2.LINE_AA,
                3,
            )
            cv2.ellipse(
                head,
                _dot(eye_x + sign * 4, eye_y + height * 0.17),
                _dot(width * 0.03, height * 0.05),
                0,
                0,
                360,
                _ink(blush),
                -1,
                cv2.LINE_AA,
                3,
            )
            cv2.ellipse(
                head,
                _dot(eye_x, eye_y),
                _dot(width * 0.026, height * open_eye),
                0,
                0,
                360,
                (228, 230, 232),
                -1,
                cv2.LINE_AA,
                3,
            )
            cv2.circle(head, _dot(eye_x, eye_y), int(height * 0.027 * 8), iris, -1, cv2.LINE_AA, 3)
            cv2.ellipse(
                head,
                _dot(eye_x, eye_y),
                _dot(width * 0.028, height * open_eye),
                0,
                180,
                360,
                (25, 25, 30),
                1,
                cv2.LINE_AA,
                3,
            )
            tilt = float(rng.uniform(-6, 6))
            cv2.ellipse(
                head,
                _dot(eye_x, eye_y - height * 0.06),
                _dot(width * 0.032, height * 0.018),
                sign * (8 + tilt),
                180,
                360,
                brow,
                2,
                cv2.LINE_AA,
                3,
            )
            if glasses:
                fill = -1 if dark else 1
                cv2.ellipse(
                    head,
                    _dot(eye_x, eye_y + 1),
                    _dot(width * 0.042, height * 0.07),
                    0,
                    0,
                    360,
                    (22, 20, 20),
                    fill,
                    cv2.LINE_AA,
                    3,
                )
                side = eye_x + sign * width * 0.17
                cv2.line(
                    head,
                    _dot(eye_x + sign * width * 0.04, eye_y),
                    _dot(side, eye_y),
                    (22, 20, 20),
                    1,
                    cv2.LINE_AA,
                    3,
                )
        mouth = (centre, height * 0.815)
        cv2.ellipse(
            head,
            _dot(*mouth),
            _dot(width * 0.034, height * rng.uniform(0.016, 0.03)),
            0,
            0,
            360,
            _ink(lips),
            -1,
            cv2.LINE_AA,
            3,
        )
        smile = rng.random()
        if smile < 0.35:
            cv2.ellipse(
                head,
                _dot(*mouth),
                _dot(width * 0.03, height * 0.016),
                0,
                0,
                180,
                (235, 238, 240),
                -1,
                cv2.LINE_AA,
                3,
            )
        else:
            cv2.line(
                head,
                _dot(mouth[0] - width * 0.03, mouth[1]),
                _dot(mouth[0] + width * 0.03, mouth[1]),
                _ink(lips * 0.5),
                1,
                cv2.LINE_AA,
                3,
            )
        cv2.ellipse(
            head,
            _dot(centre, height * 0.68),
            _dot(width * 0.022, height * 0.018),
            0,
            0,
            180,
            _ink(skin * 0.55),
            1,
            cv2.LINE_AA,
            3,
        )
        self._hair(rng, atlas, head, outfit, hair)
        atlas[y0 : y0 + height, x0 : x0 + width] = head

    def _hair(
        self, rng: np.random.Generator, atlas: np.ndarray, head: np.ndarray, outfit: Outfit, hair: np.ndarray
    ) -> None:
        height, width = head.shape[:2]
        strands = np.clip(hair * (0.65 + 0.7 * rng.random((1, 64, 1), dtype=np.float32)), 0, 255)
        strands = np.broadcast_to(strands, (96, 64, 3)).astype(np.uint8)
        strands = cv2.multiply(
            strands, cv2.merge([0.7 + 0.6 * self.textures.grain(rng, (64, 96))] * 3), dtype=cv2.CV_8U
        )
        _put(atlas, "hair", strands)
        if outfit.hair != "none":
            line = height * (1 - outfit.hairline(np.linspace(0, 1, width)))
            over = np.arange(height)[:, None] < line[None]
            head[over] = cv2.resize(strands, (width, height))[over]


def _put(atlas: np.ndarray, name: str, image: np.ndarray) -> None:
    x, y, width, height = PATCHES[name]
    atlas[y : y + height, x : x + width] = image[:height, :width]


def _dot(x: float, y: float) -> tuple[int, int]:
    """A point with three bits of fraction, as OpenCV takes it."""
    return round(x * 8), round(y * 8)


def _ink(tone: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(v) for v in np.clip(tone, 0, 255))
