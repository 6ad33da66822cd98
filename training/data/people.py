"""Annotated people: the protocol of their sources, and COCO files as a source."""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from oaks import images
from oaks.box_files import read_boxes
from oaks.boxes import iou
from oaks.coco import estimated_areas, read_annotations
from oaks.coco_fields import first_of, indices_by
from oaks.errors import ArgumentError, OaksError
from oaks.images import ImageFolder, check_size
from oaks.skeleton import Skeleton
from oaks.skipping import skip


class Person(NamedTuple):
    """One annotated person, in pixel indices of the accompanying image."""

    keypoints: np.ndarray  # (K, 3) float32: x, y, v (0 not labeled, 1 hidden, 2 visible)
    box: np.ndarray  # (4,) float32 x1, y1, x2, y2; an edge at 0 is the image's outer edge
    area: float  # square pixels
    annotatable: np.ndarray  # (K,) bool: False if the keypoint's label must not be learned
    image_id: int
    person_id: int
    # (4,) float32 scale x, scale y, shift x, shift y: to pixel indices of the original image
    to_image: np.ndarray


class DamagedImage(OaksError, ValueError):
    """An image that cannot be decoded. The message names the file and the person."""


Label = TypeVar("Label", covariant=True)


class ImageSource(Protocol[Label]):
    """A source of labeled images. `name` identifies it in recipes, folds and metrics cards."""

    name: str
    skipped: Counter[str]  # reason -> number of skipped items

    @property
    def image_ids(self) -> np.ndarray:
        """(N,) int64, one for each index of `sample`."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Label]:
        """Return the image (H, W, 3) uint8 BGR and the label at `index`; `rng` chooses if several are possible.

        Raises:
            DamagedImage: the image cannot be decoded.
        """
        ...

    def digest(self) -> str:
        """Return a text that is equal for two sources with equal samples, if their image files are equal."""
        ...


class People(ImageSource[Person], Protocol):
    """A source of annotated people."""

    @property
    def person_ids(self) -> np.ndarray:
        """(P,) int64; for people that are rendered on the fly, the image's id."""
        ...

    def subset(self, rows: np.ndarray) -> People:
        """Return the source reduced to `rows` (indices or a mask)."""
        ...


def digest_of(*parts: np.ndarray | str) -> str:
    """Return the hexadecimal SHA-256 of texts and arrays, including the arrays' types and shapes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part.dtype}{part.shape}".encode() if isinstance(part, np.ndarray) else b"text")
        found.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part.encode())
    return found.hexdigest()


def fold_of(name: str, image_ids: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold (N,) int64 of each image. It depends only on the source's name and the image's id."""
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
    sizes: np.ndarray  # (P, 2) int64 width and height of the images by the file, or 0
    skipped: Counter[str] = field(default_factory=Counter)
    settings: dict[str, Any] = field(default_factory=dict)  # the renderer's settings, for rendered images

    def __post_init__(self) -> None:
        self._images = ImageFolder(self.folder)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:  # noqa: ARG002
        """Return the image and the person at `index`.

        Raises:
            DamagedImage: the file cannot be decoded to its end, or its size differs from that of the annotations.
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
        """Return the source reduced to `rows`."""
        columns = ("files", "keypoints", "boxes", "areas", "annotatable", "image_ids", "person_ids", "sizes")
        kept = {column: getattr(self, column)[rows] for column in columns}
        return replace(self, **kept)

    def digest(self) -> str:
        """Return the digest of the labels, the file names and the renderer's settings."""
        columns = ("keypoints", "boxes", "areas", "annotatable", "image_ids", "person_ids")
        names = json.dumps([self.settings, self.files.tolist()])
        return digest_of("images", names, *(getattr(self, column) for column in columns))


@functools.lru_cache(maxsize=2)  # people of one image are often read one after another
def read_image(path: Path) -> np.ndarray:
    """Return the image (H, W, 3) uint8 BGR, as oaks.images.read_image does."""
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
    """Return the people of a COCO keypoints file that a network can learn from.

    Skipped, and counted in `skipped`: crowd regions, other categories, people with fewer than `min_keypoints` labeled
    keypoints, annotations of images that are missing in the folder, and what oaks.coco.read_annotations skips. For an
    annotation without `area`, 0.53 times the area of the box is used; these are counted too.

    Args:
        name: name of the source.
        annotations: the JSON file.
        images: the folder of its images.
        skeleton: the expected keypoints; the file's keypoints are found by name if it names them.
        boxes: a COCO results file of detected boxes that replace the annotated ones: in descending order of scores, each
            is assigned to the person with the largest IoU of at least .5; people without one are skipped.
        never_labeled: keypoints that the file never labels; they count in no loss.
        trust_absence: False if a missing label does not mean that the keypoint is invisible.
        min_keypoints: smallest number of labeled keypoints of a person.
        category: name or id of the category of people; None: as oaks.coco.choose_category chooses.

    Raises:
        FileNotFoundError: the file is missing.
        ArgumentError: the file has another form; the message names the file and the annotation.
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
    needed = np.unique(found.image[~(found.crowd | without | few)])
    for image in needed.tolist():
        try:
            present[image] = folder.find(found.file_names[image]) is not None
        except ArgumentError as error:
            raise ArgumentError(f"{annotations}: image {found.image_ids[image]}: {error}") from error
    if missing := [found.file_names[image] for image in needed[~present[needed]]]:
        skip(f"images of {annotations} that are not in {images}", f"{len(missing)}: {first_of(missing)}")

    skipped = Counter({reason: len(ids) for reason, ids in found.skipped.items()})
    if found.others:
        skipped["annotations of another category"] = found.others
    if found.renumbered:
        skipped["people with duplicate ids, renumbered"] = found.renumbered
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
            f"{annotations} must have people to learn from with images in {images}, got none; skipped: {dict(skipped)}"
        )
    areas, image = found.areas[kept], found.image[kept]
    if unknown_areas := int(np.isnan(areas).sum()):
        skipped["annotations without area, estimated from the box"] = unknown_areas
    areas = np.where(np.isnan(areas), estimated_areas(found.boxes[kept, 2:]), areas)
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
