"""Rendered people as a source: rendered whenever they are drawn, or once into a folder."""

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
        name: name of the source.
        pictures: the renderer.
        image_ids: (P,) numbers of the pictures.
    """

    name: str
    pictures: RenderedPeople
    image_ids: np.ndarray
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def person_ids(self) -> np.ndarray:
        """(P,) numbers of the pictures; the person within the picture is chosen at random."""
        return self.image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:
        """Return the picture at `index` and one of its labeled people; another picture if it has none."""
        rng = rng or np.random.default_rng(index)
        number = int(self.image_ids[index])
        while True:
            image, annotations = self.pictures.sample(number)
            labeled = [annotation for annotation in annotations if annotation["num_keypoints"] > 0]
            if labeled:
                return image, _person(labeled[rng.integers(len(labeled))], number)
            number += 1 << 40  # larger than any source, so that no picture of the validation is drawn

    def subset(self, rows: np.ndarray) -> OnlineRenderedPeople:
        """Return the source reduced to the pictures at `rows`."""
        return replace(self, image_ids=self.image_ids[rows])

    def digest(self) -> str:
        """Return the digest of the renderer's settings and the pictures' numbers."""
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
    """Return rendered people: live, or stored in `folder`/<name> and rendered now if they are missing there.

    Raises:
        ArgumentError: the renderer refuses the settings, the skeleton is not COCO's, or `folder` is missing.
    """
    if skeleton != COCO17:
        raise ArgumentError(
            f"skeleton must be {COCO17.name!r} for rendered people ({source.name}), got {skeleton.name!r}"
        )
    try:
        pictures = RenderedPeople(source.seed, **source.settings)
    except TypeError as error:
        raise ArgumentError(f"{source.name}: settings: {error}") from error
    if not source.stored:
        return OnlineRenderedPeople(source.name, pictures, np.arange(source.count, dtype=np.int64))
    if folder is None:
        raise ArgumentError(f"folder must be given for stored people ({source.name}), got None")
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
