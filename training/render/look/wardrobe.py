"""Clothes: paints cloth over an identity's skin in a person's atlas (parts.PATCHES)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from oaks.training.render.body.mesh import Body
from oaks.training.render.body.parts import PATCHES
from oaks.training.render.look.identity import Identity, paint_identity
from oaks.training.render.look.textures import Textures, color, flat, ink, mix

_FABRIC = (128, 160)
_FABRICS = 72
_CLOTHED = 288
# Rows of the atlas above the head's; creases and the darkness between limbs fall on these.


class Painter:
    """Paints people and their clothes; fabrics and identities are made once from the seed.

    Args:
        seed: random seed of all fabrics.
        textures: tiles for prints and creases.
        pattern: False gives every garment one flat color and no creases.
        faces: False leaves out eyes, mouth and hair.
    """

    def __init__(self, seed: int, textures: Textures, pattern: bool = True, faces: bool = True) -> None:
        self.pattern = pattern
        self.faces = faces
        self._seed = seed
        self._textures = textures
        self._fabrics: dict[int, np.ndarray] = {}
        self._identities: dict[int, Identity] = {}
        self._dark = _darkness()

    def dress(self, rng: np.random.Generator, body: Body) -> np.ndarray:
        """Return the atlas (height, width, 3) uint8 BGR of a body in clothes drawn by `rng`."""
        identity = self._identity(body)
        atlas = identity.atlas.copy()
        outfit = body.outfit
        shirt, trousers = self._cloth(rng), self._cloth(rng, printed=False)
        bare = rng.random() < (0.12 if body.proportions.female < 0.5 and outfit.leg < 0.5 else 0.01)
        self._trunk(rng, atlas, shirt, trousers, identity.skin, outfit.skirt is not None, bare)
        for name in ("left_arm", "right_arm"):
            x, y, width, height = PATCHES[name]
            end = 0 if bare else int(outfit.sleeve * height)
            atlas[y : y + end, x : x + width] = shirt[:end, :width]
            if end > 4:
                atlas[y + end - 2 : y + end, x : x + width] //= 2
        self._legs(rng, atlas, trousers, outfit.skirt is not None, outfit.leg)
        worn = {"skirt": outfit.skirt is not None, "hat": outfit.hat != "none", "bag": outfit.bag}
        for name in (name for name, is_worn in worn.items() if is_worn):
            cloth = shirt if name == "skirt" and rng.random() < 0.5 else self._cloth(rng)
            x, y, width, height = PATCHES[name]
            atlas[y : y + height, x : x + width] = cloth[:height, :width]
        if self.pattern:
            creases = cv2.multiply(self._textures.creases(rng, (256, _CLOTHED)), self._dark, scale=1 / 255)
            atlas[:_CLOTHED] = cv2.multiply(atlas[:_CLOTHED], creases, scale=1 / 200)
        return atlas

    def _identity(self, body: Body) -> Identity:
        if body.number not in self._identities:
            rng = np.random.default_rng([self._seed, 1_000_007, body.number])
            painted = paint_identity(rng, self._textures, body.proportions, body.outfit, self.faces)
            self._identities[body.number] = painted
        return self._identities[body.number]

    def _cloth(self, rng: np.random.Generator, printed: bool = True) -> np.ndarray:
        """Return cloth (160, 128, 3) uint8: plain or a fabric in other colors; without `printed`, no print."""
        plain, number, tone = rng.random() < 0.42, int(rng.integers(_FABRICS)), color(rng)
        if plain or not self.pattern:
            return flat(_FABRIC, tone)
        number = number if printed else number | 1
        if number not in self._fabrics:
            own = np.random.default_rng([self._seed, 1_000_008, number])
            self._fabrics[number] = _weave(own, self._textures, number % 2 == 0)
        light: Any = (*(0.45 + tone / 300).tolist(), 0.0)
        return cv2.multiply(self._fabrics[number], light)

    @staticmethod
    def _trunk(
        rng: np.random.Generator, atlas: np.ndarray, shirt: np.ndarray, trousers: np.ndarray,
        skin: np.ndarray, skirt: bool, bare: bool,
    ) -> None:  # fmt: skip
        trunk = shirt[:128].copy()
        tone = ink(skin)
        kind = int(rng.integers(5))
        if bare:
            trunk[:] = tone
        elif kind == 0:  # a pointed neck
            cv2.fillConvexPoly(trunk, np.array([[48, 0], [80, 0], [64, int(rng.integers(14, 40))]]), tone)
        elif kind == 1:  # a jacket, open over a shirt
            cv2.fillConvexPoly(trunk, np.array([[52, 0], [76, 0], [70, 127], [58, 127]]), ink(color(rng)))
            cv2.ellipse(trunk, (64, 0), (11, 9), 0, 0, 360, tone, -1)
        elif kind == 2:  # a collar and buttons
            dark = ink(trunk[20, 64] * 0.6)
            cv2.line(trunk, (64, 4), (64, 127), dark, 1)
            cv2.fillConvexPoly(trunk, np.array([[54, 0], [74, 0], [64, 10]]), tone)
            cv2.polylines(trunk, [np.array([[50, 0], [56, 12], [64, 8], [72, 12], [78, 0]])], False, dark, 2)
        else:
            axes = (int(rng.integers(8, 24)), int(rng.integers(5, 20)))
            cv2.ellipse(trunk, (64, 0), axes, 0, 0, 360, tone, -1)
        hem = int(128 * rng.uniform(0.7, 0.87))
        if not skirt or rng.random() < 0.5:
            trunk[hem:] = trousers[: 128 - hem]
            cv2.rectangle(trunk, (0, hem - 1), (127, hem + 1), ink(trunk[hem, 0] * 0.35), -1)
        x, y, width, height = PATCHES["trunk"]
        atlas[y : y + height, x : x + width] = trunk

    @staticmethod
    def _legs(
        rng: np.random.Generator, atlas: np.ndarray, trousers: np.ndarray, skirt: bool, leg: float
    ) -> None:
        shoe, sole, sock = color(rng), color(rng, 0.3), color(rng)
        socks, barefoot = rng.random() < 0.5, rng.random() < 0.1
        for name in ("left_leg", "right_leg"):
            x, y, width, height = PATCHES[name]
            if socks and not barefoot:
                atlas[y + int(height * 0.86) : y + height, x : x + width] = sock
            end = int(height * (0.12 if skirt else leg))
            atlas[y : y + end, x : x + width] = trousers[:end, :width]
        for name in ("left_foot", "right_foot") if not barefoot else ():
            x, y, width, height = PATCHES[name]
            atlas[y : y + height, x : x + width] = shoe
            atlas[y : y + height, x : x + 7] = sole
            atlas[y : y + height, x + width - 7 : x + width] = sole
            atlas[y + 12 : y + 26 : 3, x + 11 : x + 21] = sole  # laces


def _weave(rng: np.random.Generator, textures: Textures, printed: bool) -> np.ndarray:
    """Return a fabric (160, 128, 3) uint8: stripes, checks, dots, a gradient, camouflage, a tile or, if `printed`, a
    print on the chest."""
    width, height = _FABRIC
    base, other = np.maximum(color(rng), 90), color(rng)
    period = float(rng.uniform(5, 26))
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    even = np.zeros((height, width), np.float32)
    kind = int(rng.integers(9 if printed else 7))
    share: np.ndarray
    if kind == 0:
        share = even + (y % period < period * rng.uniform(0.3, 0.6))
    elif kind == 1:
        share = even + (x % period < period * rng.uniform(0.3, 0.6))
    elif kind == 2:
        share = 0.5 * (x % period < period / 2) + 0.5 * (y % period < period / 2)
    elif kind == 3:
        share = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < period**2 / 10
    elif kind == 4:
        share = even + y / height
    elif kind == 5:
        share = textures.grain(rng, _FABRIC) > 0.5
    elif kind == 6:
        return textures.patch(rng, _FABRIC, (0.3, 1.2))
    else:
        image = flat(_FABRIC, base)
        for _ in range(int(rng.integers(1, 5))):
            center = (int(rng.uniform(50, 78)), int(rng.uniform(24, 64)))
            axes = (int(rng.integers(4, 16)), int(rng.integers(3, 16)))
            cv2.ellipse(
                image, center, axes, rng.uniform(0, 180), 0, 360, color(rng).tolist(), -1, cv2.LINE_AA
            )
        return image
    return np.clip(mix(np.asarray(share, np.float32), base, other), 0, 255).astype(np.uint8)


def _darkness() -> np.ndarray:
    """Return how much light reaches each place, (_CLOTHED, 256, 3) uint8: less between the thighs and inside the arms."""
    light = np.ones((_CLOTHED, 256), np.float32)

    def shade(name: str, u: float, wide: float, v: tuple[float, float], depth: float) -> None:
        x, y, width, height = PATCHES[name]
        across = np.exp(-((((np.arange(width) / width) - u) / wide) ** 2))[None]
        along = np.arange(height)[:, None] / height
        fade = np.clip(np.minimum(along - v[0], v[1] - along) * 8 + 1, 0, 1)
        light[y : y + height, x : x + width] *= (1 - depth * across * fade).astype(np.float32)

    for side, inner in (("left", 0.25), ("right", 0.75)):
        shade(f"{side}_leg", inner, 0.16, (0.0, 0.3), 0.42)
        shade(f"{side}_arm", inner, 0.18, (0.0, 0.3), 0.38)
        shade("trunk", 1 - inner, 0.1, (0.2, 0.5), 0.3)
    shade("trunk", 0.5, 0.2, (0.9, 1.2), 0.35)
    shade("skin", 0.5, 0.4, (0.0, 0.4), 0.3)
    return cv2.merge([np.rint(light * 255).astype(np.uint8)] * 3)
