"""RenderedPeople: pictures of people with the labels that annotators would write, from a seed and an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from oaks.training.render import raster
from oaks.training.render.anatomy import draw_proportions
from oaks.training.render.backdrop import backdrop
from oaks.training.render.body import Body
from oaks.training.render.figure import Figure, View
from oaks.training.render.labels import CLASS_RANGES, OCCLUDER, PERSON_CODES, annotation, visibility
from oaks.training.render.occluders import Occluder
from oaks.training.render.outfit import draw_outfit
from oaks.training.render.parts import ATLAS
from oaks.training.render.photo import Camera
from oaks.training.render.plan import Placed, Stage
from oaks.training.render.poses import PoseFile, PoseSource
from oaks.training.render.sketch import Sketch
from oaks.training.render.textures import Textures, colour
from oaks.training.render.wardrobe import Painter

PAPER_CLASSES = (0.145, 0.279, 0.432, 0.144)
"""Shares of the occlusion classes in COCO val2017: almost, largely, slightly, not occluded (the paper's table 8)."""

OVERSAMPLING = 1.5
"""Pixels drawn per pixel of the picture, in each direction: enough to smooth outlines."""
_BODIES = 192
_REDRAWS = 6


@dataclass(frozen=True)
class Scene:
    """The people of a picture, nearest first, and the row of its horizon."""

    people: list[Placed]
    horizon: float


class RenderedPeople:
    """A data set of rendered people; `sample(index)` gives the same picture on every machine, in any order.

    Args:
        seed: every picture follows from (seed, index).
        size: (width, height) of the pictures in pixels, even numbers.
        classes: shares of the four occlusion classes (1-5, 6-10, 11-15, 16-17 labelled keypoints) among the people.
        poses: a file of 2D poses (kpt_xy, kpt_v as COCO's labels, normalised) to take poses and label patterns from;
            None draws them from the shipped statistics and from families of poses written by hand.
        people: the chances of one, two, three ... people in a picture.
        texture: False gives clothes and occluders flat colours.
        faces: False leaves heads without eyes, mouth and hair colour.
        occluders: False puts nothing before people but other people.
        photograph: False leaves out blur, noise, colour casts and JPEG artefacts.

    `texture`, `faces` and `photograph` change pictures only, never labels.

    Raises:
        ValueError: an argument that does not fit.
    """

    def __init__(
        self,
        seed: int,
        size: tuple[int, int] = (320, 320),
        classes: Sequence[float] = PAPER_CLASSES,
        poses: str | Path | None = None,
        people: Sequence[float] = (0.36, 0.36, 0.18, 0.10),
        texture: bool = True,
        faces: bool = True,
        occluders: bool = True,
        photograph: bool = True,
    ) -> None:
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed: wanted an integer from 0, got {seed!r}")
        if len(size) != 2 or min(size) < 32 or max(size) > 4096 or any(side % 2 for side in size):
            raise ValueError(f"size: wanted an even width and height from 32 to 4096 pixels, got {size!r}")
        self.classes = _shares("classes", classes, 4)
        self.people = _shares("people", people, None)
        self.seed = seed
        self.size = (int(size[0]), int(size[1]))
        self.texture, self.faces, self.occluders, self.photograph = texture, faces, occluders, photograph
        self.poses = PoseSource() if poses is None else PoseFile(Path(poses))
        self.settings = {
            "seed": seed, "size": list(self.size), "classes": self.classes.tolist(), "people": self.people.tolist(),
            "poses": None if poses is None else Path(poses).name, "texture": texture, "faces": faces,
            "occluders": occluders, "photograph": photograph,
        }  # fmt: skip
        self._textures = Textures(seed)
        self._painter = Painter(seed, self._textures, texture, faces)
        self._camera = Camera(seed)
        self._bodies: dict[int, Body] = {}

    def sample(self, index: int) -> tuple[np.ndarray, list[dict]]:
        """One picture.

        Args:
            index: from 0; there is no last one.

        Returns:
            (height, width, 3) uint8 BGR, and a COCO annotation for each person of whom anything shows (keypoints in
            pixel indices, boxes with edges at pixel borders; ids count from 1 within the picture, image_id is `index`).
        """
        scene = self._arrange(np.random.default_rng([self.seed, index, 0]))
        look = np.random.default_rng([self.seed, index, 1])
        canvas, codes, distances = self._draw(look, scene)
        annotations = []
        for number, person in enumerate(scene.people):
            scale = person.scale * OVERSAMPLING
            subject_shift = (person.shift + 0.5) * OVERSAMPLING - 0.5
            subject = person.figure.subject(number, scale, subject_shift)
            low, high = (person.figure.bounds * scale + subject_shift).round().astype(int) + [[-2], [3]]
            low, high = np.maximum(low, 0), np.maximum(high, 0)
            first = number * PERSON_CODES + 1
            block = codes[low[1] : high[1], low[0] : high[0]]
            mask = (block >= first) & (block < first + PERSON_CODES)
            flags = visibility(subject, codes, distances)
            if (
                entry := annotation(subject, flags, mask, (int(low[0]), int(low[1])), OVERSAMPLING)
            ) is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": index, **entry})
        image = cv2.resize(canvas, self.size, interpolation=cv2.INTER_LINEAR)
        if self.photograph:
            image = self._camera.photograph(np.random.default_rng([self.seed, index, 2]), image)
        return image, annotations

    # ---- what is where

    def _arrange(self, rng: np.random.Generator) -> Scene:
        """Who is where in a picture."""
        count = 1 + int(rng.choice(len(self.people), p=self.people))
        horizon = float(self.size[1] * np.clip(rng.normal(0.45, 0.16), 0.1, 0.9))
        stage = Stage(self.size, horizon, float(np.clip(rng.normal(1.45, 0.3), 0.6, 2.2)), self.occluders)
        pitch, roll = _camera_angles(rng)
        distance = float(np.clip(np.exp(rng.normal(1.5, 0.5)), 1.6, 15))
        placed: list[Placed] = []
        reference = float(self.size[1] * np.clip(np.exp(rng.normal(-0.3, 0.45)), 0.25, 2.2))
        levels = rng.choice(4, count, p=self.classes)
        # Those of whom much is to be seen rather stand before the others.
        levels = levels[np.argsort(-levels - 2 * rng.random(count))].tolist()
        for number, level in enumerate(levels):
            slot = int(rng.integers(_BODIES))
            tall = reference * (rng.uniform(0.5, 1.0) if number else 1.0)
            for _ in range(_REDRAWS):
                pose, yaw, pattern = self.poses.draw(rng, level)
                figure = Figure(self._body(slot), pose, View(yaw, pitch, roll, distance))
                scale = self._scale(rng, figure, level, tall)
                sketch = Sketch(figure, scale)
                if sketch.whole.sum() >= CLASS_RANGES[level][0]:
                    break
            placed.append(stage.place(rng, sketch, scale, level, pattern))
        return Scene(placed, horizon)

    def _scale(self, rng: np.random.Generator, figure: Figure, level: int, tall: float) -> float:
        """Pixels per metre for a person about `tall` pixels high, who fits the frame unless much is to be hidden."""
        extent = np.diff(figure.bounds, axis=0)[0]
        if level < 2:
            tall *= rng.uniform(1.0, 1.8)
        scale = (
            tall
            / figure.body.proportions.stature
            * float(np.clip(figure.body.proportions.stature / 1.7, 0.7, 1.1))
        )
        fit = float((np.array(self.size) / extent).min())
        if level == 3:
            return min(scale, 0.97 * fit)
        return min(scale, 3.0 * fit)

    def _body(self, slot: int) -> Body:
        if slot not in self._bodies:
            rng = np.random.default_rng([self.seed, 1_000_006, slot])
            proportions = draw_proportions(rng)
            outfit = draw_outfit(rng, proportions.female, proportions.child)
            self._bodies[slot] = Body(proportions, outfit, slot)
        return self._bodies[slot]

    # ---- how it looks

    def _draw(self, rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width, height = (int(side * OVERSAMPLING) for side in self.size)
        background = backdrop(rng, self._textures, self.size, scene.horizon)
        _shadows(background, scene, float(rng.uniform(0.2, 0.6)))
        canvas = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
        codes = np.zeros((height, width), np.uint16)
        distances = np.zeros((height, width), np.float32)
        light = _light(rng)
        for number in range(len(scene.people) - 1, -1, -1):
            person = scene.people[number]
            surface, points = person.figure.surface(
                (width, height), person.scale * OVERSAMPLING, (person.shift + 0.5) * OVERSAMPLING - 0.5
            )
            person.figure.stamp(codes, distances, surface, number)
            self._colour(
                np.random.default_rng([self.seed, int(rng.integers(1 << 31))]),
                canvas,
                person.figure,
                surface,
                points,
                light,
            )
            for occluder in person.occluders:
                self._stand(canvas, codes, occluder)
        return canvas, codes, distances

    def _colour(
        self,
        rng: np.random.Generator,
        canvas: np.ndarray,
        figure: Figure,
        surface: raster.Surface,
        points: np.ndarray,
        light: np.ndarray,
    ) -> None:
        """Paints a person's pixels: the atlas's colour times the light on the surface."""
        body = figure.body
        atlas = self._painter.dress(rng, body)
        direction, ambient, key, rim = light[:3], light[3], light[4], light[5]
        shade = ambient * (0.8 + 0.2 * figure.normals[1]) + key * np.clip(direction @ figure.normals, 0, 1)
        shade += rim * np.clip(1 - np.abs(figure.normals[2]), 0, 1) ** 3
        values = np.concatenate([body.texture, shade[:, None]], 1).astype(np.float32)
        values = raster.interpolate(surface, points, body.triangles, values)
        texel = values[:, 1].astype(np.int32) * ATLAS[0] + values[:, 0].astype(np.int32)
        colours = np.take(atlas.reshape(-1, 3), texel, axis=0, mode="clip").astype(np.float32)
        colours *= values[:, 2:]
        canvas.reshape(-1, 3)[surface.pixels] = np.clip(colours, 0, 255).astype(np.uint8)

    def _stand(self, canvas: np.ndarray, codes: np.ndarray, occluder: Occluder) -> None:
        """Puts an occluder before all that has been drawn."""
        rows, columns = occluder.bounds(canvas.shape[1::-1], OVERSAMPLING)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        if min(size) <= 0:
            return
        mask = occluder.mask(size, OVERSAMPLING, (columns.start, rows.start))
        codes[rows, columns][mask > 0] = OCCLUDER
        material = self._material(np.random.default_rng([self.seed, occluder.look]), occluder.kind, size)
        occluder.paint(canvas[rows, columns], mask, material)

    def _material(self, rng: np.random.Generator, kind: str, size: tuple[int, int]) -> np.ndarray:
        """(height, width, 3) uint8: what an occluder is made of."""
        flat = colour(rng)
        if kind == "foliage":
            flat = np.array([rng.uniform(20, 70), rng.uniform(70, 170), rng.uniform(30, 120)], np.float32)
        if self.texture and kind != "foliage" and rng.random() > 0.3:
            return self._textures.patch(rng, size, (0.4, 1.4))
        material = np.empty((size[1], size[0], 3), np.uint8)
        material[:] = flat
        return material


def _shadows(background: np.ndarray, scene: Scene, depth: float) -> None:
    """Darkens the ground under people, softly."""
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
        light = 1 - np.float32(depth) * np.exp(-(across[None] + down[:, None]))
        block = background[top:bottom, left:right]
        block[:] = cv2.multiply(block, cv2.merge([light] * 3), dtype=cv2.CV_8U)


def _camera_angles(rng: np.random.Generator) -> tuple[float, float]:
    """Pitch (positive: from above) and roll in degrees' spread, as radians."""
    if rng.random() < 0.12:
        return float(np.radians(rng.uniform(-30, 55))), float(np.radians(rng.normal(0, 15)))
    return float(np.radians(rng.normal(7, 8))), float(np.radians(rng.normal(0, 3)))


def _light(rng: np.random.Generator) -> np.ndarray:
    """(6,): the way to the light, then the strengths of ambient, direct and grazing light."""
    direction = np.array([rng.normal(0, 0.7), abs(rng.normal(0.7, 0.5)), abs(rng.normal(0.5, 0.5))])
    direction /= np.sqrt(direction @ direction)
    ambient = rng.uniform(0.35, 0.75)
    return np.array([*direction, ambient, rng.uniform(0.75, 1.15) - 0.5 * ambient, rng.uniform(-0.15, 0.25)])


def _shares(name: str, values: Sequence[float], count: int | None) -> np.ndarray:
    shares = np.asarray(values, np.float64)
    if (
        shares.ndim != 1
        or len(shares) == 0
        or (count and len(shares) != count)
        or (shares < 0).any()
        or not shares.sum() > 0
    ):
        wanted = f"{count} numbers" if count else "numbers"
        raise ValueError(f"{name}: wanted {wanted} from 0, not all 0, got {values!r}")
    return shares / shares.sum()
