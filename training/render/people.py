"""RenderedPeople: pictures of people with the labels that annotators would give, by seed and index."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.training.render.arguments import check_picture_size, check_shares, check_whole_number
from oaks.training.render.body.cast import BODIES, Cast
from oaks.training.render.body.figure import CameraView, Figure
from oaks.training.render.body.poses import PoseFile, PoseSource
from oaks.training.render.look.photo import Camera
from oaks.training.render.scene.drawing import Artist, Scene
from oaks.training.render.scene.labels import CLASS_RANGES
from oaks.training.render.scene.placement import Placed, Stage
from oaks.training.render.scene.sketch import Sketch

PAPER_CLASSES = (0.145, 0.279, 0.432, 0.144)
"""Shares of the occlusion levels in COCO val2017 (table 8): almost, largely, slightly, not occluded."""

_REDRAWS = 6


class RenderedPeople:
    """A data set of rendered people; `sample(index)` returns the same picture in any order and any process.

    Args:
        seed: random seed; a picture follows from (seed, index).
        size: (width, height) of the pictures in pixels, even numbers from 32 to 4096.
        classes: shares of the occlusion levels (1-5, 6-10, 11-15, 16-17 labeled keypoints) among people.
        poses: file of 2D poses as a source of poses and patterns of labels (kpt_xy, relative to the image's
            width and height, and COCO's flags kpt_v); None draws poses from the shipped statistics and from
            hand-written families.
        people: the probabilities of one, two, three ... people in a picture.
        texture: False gives clothes and occluders flat colors.
        faces: False leaves heads without eyes, mouth and hair color.
        occluders: False puts no objects in front of people.
        photograph: False leaves out blur, noise, color casts and JPEG artifacts.

    `texture`, `faces` and `photograph` change pictures only, never labels.

    Attributes:
        settings: the arguments, ready for JSON, with a checksum of the file of poses.

    Raises:
        ArgumentError: an argument is wrong.
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
        self.seed, self.size = check_whole_number("seed", seed), check_picture_size(size)
        self.classes = check_shares("classes", classes, 4)
        self.people = check_shares("people", people)
        self.occluders, self.photograph = bool(occluders), bool(photograph)
        self.settings: dict[str, Any] = {
            "seed": self.seed, "size": list(self.size), "classes": self.classes.tolist(),
            "poses": None if poses is None else _checked(Path(poses)), "people": self.people.tolist(),
            "texture": bool(texture), "faces": bool(faces), "occluders": self.occluders,
            "photograph": self.photograph,
        }  # fmt: skip
        self._arguments = (seed, size, classes, poses, people, texture, faces, occluders, photograph)
        self._poses = PoseSource() if poses is None else PoseFile(Path(poses))
        self._artist = Artist(self.seed, self.size, texture, faces)
        self._camera = Camera(self.seed)
        self._cast = Cast(self.seed)

    def __reduce__(self) -> tuple[type[RenderedPeople], tuple[Any, ...]]:
        """Pickle the arguments only; textures and bodies are made again."""
        return type(self), self._arguments

    def sample(self, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Return a picture and its annotations.

        Args:
            index: from 0, without an upper limit.

        Returns:
            (height, width, 3) uint8 BGR, and a COCO annotation of each visible person: keypoints in pixel indices,
            boxes with edges at pixel borders, ids from 1, `index` as image_id.

        Raises:
            ArgumentError: the index is below 0.
        """
        if index < 0:
            raise ArgumentError(f"index must be 0 or more, got {index}")
        drawing = self._artist.draw(self.scene(index))
        annotations = [
            {"id": number, "image_id": int(index), **entry}
            for number, (_, entry) in enumerate(drawing.annotations(), 1)
        ]
        image = drawing.picture()
        if self.photograph:
            image = self._camera.photograph(np.random.default_rng([self.seed, index, 1]), image)
        return image, annotations

    def scene(self, index: int) -> Scene:
        """Return the content of a picture before it is drawn."""
        rng = np.random.default_rng([self.seed, index, 0])
        count = 1 + int(rng.choice(len(self.people), p=self.people))
        horizon = float(self.size[1] * np.clip(rng.normal(0.45, 0.16), 0.1, 0.9))
        stage = Stage(self.size, horizon, float(np.clip(rng.normal(1.45, 0.3), 0.6, 2.2)), self.occluders)
        pitch, roll = _camera_angles(rng)
        distance = float(np.clip(np.exp(rng.normal(1.5, 0.5)), 1.6, 15))
        tall = float(self.size[1] * np.clip(np.exp(rng.normal(-0.3, 0.45)), 0.25, 2.2))
        levels = rng.choice(4, count, p=self.classes)
        # People who are to be seen well tend to be in front of the others.
        levels = levels[np.argsort(-levels - 2 * rng.random(count))].tolist()
        placed: list[Placed] = []
        for level in levels:
            share = float(rng.uniform(0.5, 1.0)) if placed else 1.0
            body = self._cast.body(int(rng.integers(BODIES)))
            for _ in range(_REDRAWS):
                pose, yaw, pattern = self._poses.draw(rng, level)
                figure = Figure(body, pose, CameraView(yaw, pitch, roll, distance))
                scale = self._scale(rng, figure, level, tall * share)
                sketch = Sketch(figure, scale)
                if sketch.whole.sum() >= CLASS_RANGES[level][0]:
                    break
            placed.append(stage.place(rng, sketch, scale, level, pattern))
        return Scene(placed, horizon, int(rng.integers(1 << 31)))

    def _scale(self, rng: np.random.Generator, figure: Figure, level: int, tall: float) -> float:
        """Return pixels per meter for an adult `tall` pixels high; people who are to be seen whole fit the frame."""
        extent = np.diff(figure.bounds, axis=0)[0]
        fit = float((np.array(self.size) / extent).min())
        if level < 2:
            tall *= rng.uniform(1.0, 1.8)
        # Children are rendered a little nearer than adults.
        scale = (
            tall / figure.body.proportions.stature * np.clip(figure.body.proportions.stature / 1.7, 0.7, 1.1)
        )
        return float(min(scale, 0.97 * fit if level == 3 else 3.0 * fit))


def _camera_angles(rng: np.random.Generator) -> tuple[float, float]:
    """Draw pitch (positive: from above) and roll in radians: mostly near level, sometimes steep and tilted."""
    if rng.random() < 0.12:
        return float(np.radians(rng.uniform(-30, 55))), float(np.radians(rng.normal(0, 15)))
    return float(np.radians(rng.normal(7, 8))), float(np.radians(rng.normal(0, 3)))


def _checked(path: Path) -> str:
    """Return a file's name and checksum."""
    try:
        return f"{path.name} {zlib.crc32(path.read_bytes()):08x}"
    except OSError as error:
        raise ArgumentError(f"poses must be a readable file, got {path}: {error}") from error
