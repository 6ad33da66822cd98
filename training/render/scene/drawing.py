"""Draws scenes from far to near: background, people and the objects in front of them; labels what is visible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from oaks.training.render.body.figure import Figure
from oaks.training.render.body.parts import ATLAS
from oaks.training.render.look.textures import Textures, color, flat
from oaks.training.render.look.wardrobe import Painter
from oaks.training.render.scene import raster
from oaks.training.render.scene.backdrop import backdrop
from oaks.training.render.scene.labels import OCCLUDER, PERSON_CODES, annotation, visibility
from oaks.training.render.scene.occluders import Occluder
from oaks.training.render.scene.placement import Placed

OVERSAMPLING = 1.5
"""Pixels drawn per pixel of the picture, in each direction: enough to smooth outlines."""
_EDGE = np.array([[-2], [3]])


@dataclass(frozen=True)
class Scene:
    """The content of a picture.

    Attributes:
        people: nearest first.
        horizon: row of the horizon.
        look: random seed of background and light.
        scenery: objects behind all people, farthest first.
    """

    people: list[Placed]
    horizon: float
    look: int
    scenery: tuple[Occluder, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A scene that is drawn OVERSAMPLING times as large as the picture.

    Attributes:
        canvas: (H, W, 3) uint8 BGR.
        codes: (H, W) uint16: content of each pixel (see labels).
        distances: (H, W) float32: meters from the camera, where a person is visible.
    """

    scene: Scene
    canvas: np.ndarray
    codes: np.ndarray
    distances: np.ndarray

    def picture(self) -> np.ndarray:
        """Return the picture (height, width, 3) uint8 BGR without the camera's flaws."""
        height, width = self.codes.shape
        size = (round(width / OVERSAMPLING), round(height / OVERSAMPLING))
        return cv2.resize(self.canvas, size, interpolation=cv2.INTER_LINEAR)

    def window(self, corner: np.ndarray, size: tuple[int, int]) -> Drawing:
        """Return the part of `size` (width, height) that begins at `corner` (2,), both in the picture's pixels."""
        shift = np.asarray(corner, np.float64) * OVERSAMPLING
        matrix = np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]])
        extent = tuple(int(side * OVERSAMPLING) for side in size)
        people = [replace(person, shift=person.shift - corner) for person in self.scene.people]
        return Drawing(
            replace(self.scene, people=people, horizon=self.scene.horizon - corner[1]),
            cv2.warpAffine(self.canvas, matrix, extent, flags=cv2.INTER_LINEAR),
            cv2.warpAffine(self.codes, matrix, extent, flags=cv2.INTER_NEAREST),
            cv2.warpAffine(self.distances, matrix, extent, flags=cv2.INTER_NEAREST),
        )

    def mask(self, number: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return where a person is visible, (h, w) bool, and the column and row of the codes that this mask begins at."""
        person = self.scene.people[number]
        scale, shift = enlarged(person)
        low, high = np.maximum(np.rint(person.figure.bounds * scale + shift + _EDGE).astype(int), 0)
        part = self.codes[low[1] : high[1], low[0] : high[0]]
        first = number * PERSON_CODES + 1
        return (part >= first) & (part < first + PERSON_CODES), (int(low[0]), int(low[1]))

    def annotations(self) -> list[tuple[int, dict]]:
        """Return number and COCO annotation, without ids, of each visible person."""
        entries = []
        for number, person in enumerate(self.scene.people):
            subject = person.figure.subject(number, *enlarged(person))
            flags = visibility(subject, self.codes, self.distances)
            entry = annotation(subject, flags, *self.mask(number), OVERSAMPLING)
            if entry is not None:
                entries.append((number, entry))
        return entries


def enlarged(person: Placed) -> tuple[float, np.ndarray]:
    """Return a person's scale and shift in the drawing, from those in the picture."""
    return person.scale * OVERSAMPLING, (person.shift + 0.5) * OVERSAMPLING - 0.5


class Artist:
    """Draws scenes; drawing a scene again gives the same picture.

    Args:
        seed: random seed of textures, fabrics and faces.
        size: the picture's (width, height).
        texture: False gives clothes and occluders flat colors.
        faces: False leaves heads without eyes, mouth and hair color.
    """

    def __init__(self, seed: int, size: tuple[int, int], texture: bool = True, faces: bool = True) -> None:
        self.size = size
        self.texture = texture
        self._seed = seed
        self._textures = Textures(seed)
        self._painter = Painter(seed, self._textures, texture, faces)

    def draw(self, scene: Scene) -> Drawing:
        """Draw a scene."""
        rng = np.random.default_rng([self._seed, scene.look])
        width, height = (int(side * OVERSAMPLING) for side in self.size)
        background = backdrop(rng, self._textures, self.size, scene.horizon)
        _shadows(background, scene, float(rng.uniform(0.2, 0.6)))
        canvas = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
        codes = np.zeros((height, width), np.uint16)
        distances = np.zeros((height, width), np.float32)
        light = _light(rng)
        for occluder in scene.scenery:
            self._stand(canvas, codes, occluder)
        for number in range(len(scene.people) - 1, -1, -1):
            person = scene.people[number]
            surface, points = person.figure.surface((width, height), *enlarged(person))
            person.figure.stamp(codes, distances, surface, number)
            own = np.random.default_rng([self._seed, person.clothes])
            atlas = self._painter.dress(own, person.figure.body)
            _color(canvas, person.figure, surface, points, atlas, light)
            for occluder in person.occluders:
                self._stand(canvas, codes, occluder)
        return Drawing(scene, canvas, codes, distances)

    def _stand(self, canvas: np.ndarray, codes: np.ndarray, occluder: Occluder) -> None:
        """Draw an occluder in front of everything so far."""
        rows, columns = occluder.bounds(canvas.shape[1::-1], OVERSAMPLING)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        if min(size) <= 0:
            return
        mask = occluder.mask(size, OVERSAMPLING, (columns.start, rows.start))
        codes[rows, columns][mask > 0] = OCCLUDER
        material = self._material(np.random.default_rng([self._seed, occluder.look]), occluder.kind, size)
        occluder.paint(canvas[rows, columns], mask, material)

    def _material(self, rng: np.random.Generator, kind: str, size: tuple[int, int]) -> np.ndarray:
        """Return the material of an occluder, (height, width, 3) uint8."""
        tone = color(rng)
        if kind == "foliage":
            tone = np.array([rng.uniform(20, 70), rng.uniform(70, 170), rng.uniform(30, 120)], np.float32)
        if self.texture and kind != "foliage" and rng.random() > 0.3:
            return self._textures.patch(rng, size, (0.4, 1.4))
        return flat(size, tone)


def _color(
    canvas: np.ndarray,
    figure: Figure,
    surface: raster.Surface,
    points: np.ndarray,
    atlas: np.ndarray,
    light: np.ndarray,
) -> None:
    """Paint a person's pixels: the atlas's color times the light on the surface."""
    body = figure.body
    direction, ambient, key, rim = light[:3], light[3], light[4], light[5]
    shade = ambient * (0.8 + 0.2 * figure.normals[1]) + key * np.clip(direction @ figure.normals, 0, 1)
    shade += rim * np.clip(1 - np.abs(figure.normals[2]), 0, 1) ** 3
    values = np.concatenate([body.texture, shade[:, None]], 1).astype(np.float32)
    values = raster.interpolate(surface, points, body.triangles, values)
    texel = values[:, 1].astype(np.int32) * ATLAS[0] + values[:, 0].astype(np.int32)
    colors = np.take(atlas.reshape(-1, 3), texel, axis=0, mode="clip").astype(np.float32)
    colors *= values[:, 2:]
    canvas.reshape(-1, 3)[surface.pixels] = np.clip(colors, 0, 255).astype(np.uint8)


def _shadows(background: np.ndarray, scene: Scene, depth: float) -> None:
    """Darken the ground under people."""
    height, width = background.shape[:2]
    for person in scene.people:
        low, high = person.figure.bounds * person.scale + person.shift
        wide = 0.16 * person.scale + 0.3 * (high[0] - low[0])
        x, y, tall = (low[0] + high[0]) / 2, high[1], 0.22 * wide
        top, bottom = int(np.clip(y - 2 * tall, 0, height)), int(np.clip(y + 2 * tall, 0, height))
        left, right = int(np.clip(x - 2 * wide, 0, width)), int(np.clip(x + 2 * wide, 0, width))
        if bottom - top < 2 or right - left < 2 or y < scene.horizon:
            continue
        across = ((np.arange(left, right, dtype=np.float32) - x) / wide) ** 2
        down = ((np.arange(top, bottom, dtype=np.float32) - y) / tall) ** 2
        light = 1 - np.float32(depth) * np.exp(-(across[None] + down[:, None])).astype(np.float32)
        block = background[top:bottom, left:right]
        block[:] = cv2.multiply(block, cv2.merge([light] * 3), dtype=cv2.CV_8U)


def _light(rng: np.random.Generator) -> np.ndarray:
    """Draw the light, (6,): direction to its source, then the strengths of ambient, direct and grazing light."""
    direction = np.array([rng.normal(0, 0.7), abs(rng.normal(0.7, 0.5)), abs(rng.normal(0.5, 0.5))])
    direction /= np.sqrt(direction @ direction)
    ambient = rng.uniform(0.35, 0.75)
    return np.array([*direction, ambient, rng.uniform(0.75, 1.15) - 0.5 * ambient, rng.uniform(-0.15, 0.25)])
