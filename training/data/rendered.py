"""Rendered people as a source: drawn anew at every draw, or rendered once into a folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks.boxes import to_xyxy
from oaks.errors import ArgumentError
from oaks.skeleton import COCO17, Skeleton
from oaks.training.data.people import People, Person, digest_of, read_coco
from oaks.training.recipe import RenderedSource
from oaks.training.render import RenderedPeople, write_dataset


@dataclass
class OnlineRenderedPeople:
    """One labeled person of each rendered picture, rendered whenever it is drawn.

    Attributes:
        name: of the source.
        pictures: the renderer.
        image_ids: (P,) numbers of the pictures.
    """

    name: str
    pictures: RenderedPeople
    image_ids: np.ndarray
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def person_ids(self) -> np.ndarray:
        """(P,) the pictures' numbers: who of a picture is drawn is not fixed."""
        return self.image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:
        """The picture at `index`, or the next one with a labeled person, and one of its people."""
        rng = rng or np.random.default_rng(index)
        number = int(self.image_ids[index])
        while True:
            image, annotations = self.pictures.sample(number)
            labeled = [annotation for annotation in annotations if annotation["num_keypoints"] > 0]
            if labeled:
                return image, _person(labeled[rng.integers(len(labeled))], number)
            # Beyond every source of this many pictures, so that no validated picture is drawn.
            number += 1 << 40

    def subset(self, rows: np.ndarray) -> OnlineRenderedPeople:
        """The same source with the pictures at `rows` alone."""
        return OnlineRenderedPeople(self.name, self.pictures, self.image_ids[rows], self.skipped)

    def digest(self) -> str:
        """Of the renderer's settings and the pictures' numbers."""
        return digest_of("drawn", json.dumps(self.pictures.settings), self.image_ids)


def _person(annotation: dict[str, Any], number: int) -> Person:
    return Person(
        np.asarray(annotation["keypoints"], np.float32).reshape(-1, 3),
        to_xyxy(annotation["bbox"]).astype(np.float32),
        float(annotation["area"]),
        np.ones(COCO17.count, bool),
        number,
        number,
        np.array([1, 1, 0, 0], np.float32),
    )


def open_rendered(source: RenderedSource, skeleton: Skeleton, folder: Path | None) -> People:
    """Rendered people, live or from `folder`/<name>, where they are rendered first if they are not there yet.

    Raises:
        ArgumentError: settings that the renderer refuses, not COCO's skeleton, or no folder to store in.
    """
    if skeleton != COCO17:
        raise ArgumentError(f"{source.name}: rendered people have COCO's keypoints, not {skeleton.name!r}")
    try:
        pictures = RenderedPeople(source.seed, **source.settings)
    except TypeError as error:
        raise ArgumentError(f"{source.name}: settings: {error}") from error
    if not source.stored:
        return OnlineRenderedPeople(source.name, pictures, np.arange(source.count, dtype=np.int64))
    if folder is None:
        raise ArgumentError(f"{source.name}: stored people need a folder to be stored in")
    annotations = write_dataset(
        folder / source.name,
        source.count,
        workers=min(len(os.sched_getaffinity(0)), 8) if hasattr(os, "sched_getaffinity") else 2,
        seed=source.seed,
        **source.settings,
    )
    people = read_coco(source.name, annotations, annotations.parent / "images", skeleton)
    return replace(people, settings=pictures.settings)


__all__ = ["OnlineRenderedPeople", "open_rendered"]
