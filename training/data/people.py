"""Annotated people, whatever they are read from: what a source of them gives, and COCO files as a source."""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from oaks import images
from oaks.box_files import read_boxes
from oaks.boxes import iou
from oaks.coco import AREA_OF_BOX, read_annotations
from oaks.coco_fields import indices_by
from oaks.errors import ArgumentError, OaksError
from oaks.images import ImageFolder, check_size
from oaks.skeleton import Skeleton


class Person(NamedTuple):
    """One annotated person, in pixel indices of the image that comes with it."""

    keypoints: np.ndarray  # (K, 3) float32: x, y, v (0 not labeled, 1 hidden, 2 seen)
    box: np.ndarray  # (4,) float32 x1, y1, x2, y2; an edge at 0 is the image's outer edge
    area: float  # square pixels
    annotatable: np.ndarray  # (K,) bool: False where nothing may be learnt from the keypoint's label
    image_id: int
    person_id: int
    to_image: (
        np.ndarray
    )  # (4,) float32 scale x, scale y, shift x, shift y: to the original image's pixel indices


class DamagedImage(OaksError, ValueError):
    """An image that cannot be decoded. The message names the file and the person."""


class People(Protocol):
    """A source of annotated people. `name` is what recipes, folds and metrics cards call it."""

    name: str
    skipped: Counter[str]  # what was left out, and how often

    @property
    def image_ids(self) -> np.ndarray:
        """(P,) int64, one for each index of `sample`."""
        ...

    @property
    def person_ids(self) -> np.ndarray:
        """(P,) int64; where people are made on the fly, of the image."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:
        """The image (H, W, 3) uint8 BGR and the person at `index`; `rng` chooses if several are possible."""
        ...

    def subset(self, rows: np.ndarray) -> People:
        """The same source with the people at `rows` (indices or a mask) alone."""
        ...

    def digest(self) -> str:
        """The same for two sources whose samples are the same, provided that the files of images are."""
        ...


def digest_of(*parts: np.ndarray | str) -> str:
    """SHA-256 of arrays, with their types and shapes, and texts, in hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part.dtype}{part.shape}".encode() if isinstance(part, np.ndarray) else b"text")
        found.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part.encode())
    return found.hexdigest()


def fold_of(name: str, image_ids: np.ndarray, folds: int) -> np.ndarray:
    """(P,) int: the fold of each image, the same wherever and in whatever order the people are read."""
    return np.array(
        [zlib.crc32(f"{name}/{int(image)}".encode()) % folds for image in image_ids], dtype=np.int64
    )


@dataclass
class CocoPeople:
    """People of a COCO keypoints file and a folder of images; made by `read_coco`."""

    name: str
    folder: Path
    files: np.ndarray  # (P,) str, below folder
    keypoints: np.ndarray  # (P, K, 3) float32
    boxes: np.ndarray  # (P, 4) float32 xyxy
    areas: np.ndarray  # (P,) float32
    annotatable: np.ndarray  # (P, K) bool
    image_ids: np.ndarray
    person_ids: np.ndarray
    sizes: np.ndarray  # (P, 2) int64 width and height that the file says the images have; 0 where it does not
    skipped: Counter[str] = field(default_factory=Counter)
    settings: dict[str, Any] = field(default_factory=dict)  # of the renderer, if it drew the images

    def __post_init__(self) -> None:
        self._images = ImageFolder(self.folder)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:  # noqa: ARG002
        """The image and the person at `index`.

        Raises:
            DamagedImage: the file cannot be decoded to its end, or is of another size than its labels are for.
        """
        try:
            path = self._images.path(str(self.files[index]))
            image = read_image(path)
            check_size(path, image.shape[1::-1], self.sizes[index].tolist())
        except (OSError, ArgumentError) as error:
            raise DamagedImage(
                f"{error} (image {self.image_ids[index]}, person {self.person_ids[index]} of {self.name})"
            ) from error
        return image, Person(
            self.keypoints[index],
            self.boxes[index],
            float(self.areas[index]),
            self.annotatable[index],
            int(self.image_ids[index]),
            int(self.person_ids[index]),
            np.array([1, 1, 0, 0], np.float32),
        )

    def subset(self, rows: np.ndarray) -> CocoPeople:
        """The same source with the people at `rows` alone."""
        columns = ("files", "keypoints", "boxes", "areas", "annotatable", "image_ids", "person_ids", "sizes")
        kept = {column: getattr(self, column)[rows] for column in columns}
        return replace(self, **kept)

    def digest(self) -> str:
        """Of the labels, the files' names below the folder, and the renderer's settings."""
        arrays = (
            self.keypoints, self.boxes, self.areas, self.annotatable, self.image_ids, self.person_ids,
        )  # fmt: skip
        return digest_of("images", json.dumps([self.settings, self.files.tolist()]), *arrays)


@functools.lru_cache(maxsize=2)  # people of one image follow each other where all of them are read in turn
def read_image(path: Path) -> np.ndarray:
    """The image (H, W, 3) uint8 BGR: oaks.images.read_image."""
    return images.read_image(path)


def read_coco(
    name: str,
    annotations: Path,
    images: Path,
    skeleton: Skeleton,
    *,
    boxes: Path | None = None,
    never_labeled: Sequence[str] = (),
    trust_absence: bool = True,
    min_keypoints: int = 1,
    category: str | int | None = None,
) -> CocoPeople:
    """The people of a COCO keypoints file that can be learnt from.

    Left out, and counted in `skipped`: crowd regions, other categories, people with fewer than
    `min_keypoints` labeled keypoints, annotations of images that the folder lacks, and what
    oaks.coco.read_annotations skips. An annotation without `area` gets 0.53 times its box's, and is counted too.

    Args:
        name: what to call the source.
        annotations: the JSON file.
        images: the folder of its images.
        skeleton: whose keypoints, by name where the file names its own.
        boxes: a COCO results file of detected boxes, used instead of the annotated ones: best scores first,
            each goes to the person it overlaps most, with IoU .5 or more; people without one are left out.
        never_labeled: keypoints that the file never labels; nothing is learnt about them.
        trust_absence: False where a missing label does not mean an invisible keypoint.
        min_keypoints: people with fewer labeled keypoints are left out.
        category: name or id of the category of people; None as oaks.coco.choose_category says.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: the file is not of this form; the message names the file and the annotation.
    """
    if unknown := set(never_labeled) - set(skeleton.keypoints):
        raise ArgumentError(
            f"never_labeled must be keypoints of skeleton {skeleton.name!r}, got {sorted(unknown)}"
        )
    found = read_annotations(annotations, skeleton=skeleton, category=category, renumber=True)
    learnable = np.array([keypoint not in never_labeled for keypoint in skeleton.keypoints])
    assert found.keypoints is not None
    labels = found.keypoints.astype(np.float32)
    without = ~(labels[..., 2] > 0).any(axis=1)
    labels[:, ~learnable] = 0
    few = np.count_nonzero(labels[..., 2], axis=1) < min_keypoints
    folder = ImageFolder(images)
    present = np.zeros(len(found.image_ids), bool)
    for image in np.unique(found.image[~(found.crowd | without | few)]).tolist():
        try:
            present[image] = folder.find(found.file_names[image]) is not None
        except ArgumentError as error:
            raise ArgumentError(f"{annotations}: image {found.image_ids[image]}: {error}") from error

    skipped = Counter({reason: len(ids) for reason, ids in found.skipped.items()})
    if found.others:
        skipped["annotations of another category"] = found.others
    if found.renumbered:
        skipped["people whose ids stood twice in the file, renumbered"] = found.renumbered
    kept = np.ones(len(found.ids), bool)
    for reason, unfit in (
        ("crowd regions", found.crowd),
        ("people without keypoints", without),
        ("people with too few labeled keypoints", few),
        ("people in images that are missing on disk", ~present[found.image]),
    ):
        if count := int((kept & unfit).sum()):
            skipped[reason] = count
            kept &= ~unfit
    if not kept.any():
        raise ArgumentError(
            f"{annotations}: no people to learn from with images in {images}; left out: {dict(skipped)}"
        )
    areas, image = found.areas[kept], found.image[kept]
    if unknown_areas := int(np.isnan(areas).sum()):
        skipped["annotations without area, estimated from the box"] = unknown_areas
    areas = np.where(np.isnan(areas), AREA_OF_BOX * found.boxes[kept, 2:].prod(axis=1), areas)
    labels = labels[kept]
    annotatable = np.broadcast_to(learnable, labels.shape[:2]).copy()
    if not trust_absence:
        annotatable &= labels[..., 2] > 0
    people = CocoPeople(
        name, images, np.array([found.file_names[i] for i in image]), labels,
        found.corners[kept].astype(np.float32), areas.astype(np.float32), annotatable,
        found.image_ids[image], found.ids[kept], found.sizes[image], skipped,
    )  # fmt: skip
    return people if boxes is None else _with_detected_boxes(people, boxes, found.category_id)


def _with_detected_boxes(people: CocoPeople, path: Path, category: int) -> CocoPeople:
    detected = read_boxes(path, category)
    found = np.zeros(len(people), bool)
    members = indices_by(people.image_ids)
    for image_id in detected.boxes.keys() & members.keys():
        boxes, scores = detected.of(image_id)
        here = members[image_id]
        truths = people.boxes[here].copy()
        for box in boxes[np.argsort(-scores, kind="stable")]:
            overlap = np.where(found[here], 0, iou(truths, box[None])[:, 0])
            if len(here) and overlap.max() >= 0.5:
                people.boxes[here[overlap.argmax()]] = box
                found[here[overlap.argmax()]] = True
    people.skipped["people without a detected box"] += int((~found).sum())
    return people.subset(found)


__all__ = [
    "CocoPeople",
    "DamagedImage",
    "People",
    "Person",
    "digest_of",
    "fold_of",
    "read_coco",
    "read_image",
]
