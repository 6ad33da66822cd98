"""Annotated people, whatever they are read from: what a source of them gives, and COCO files as a source."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from oaks.coco import AREA_OF_BOX, are_numbers, read_boxes
from oaks.errors import OaksError
from oaks.skeleton import Skeleton


class Person(NamedTuple):
    """One annotated person, in pixel indices of the image that comes with it."""

    keypoints: np.ndarray  # (K, 3) float32: x, y, v (0 not labelled, 1 hidden, 2 seen)
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
    image_ids: np.ndarray  # (P,) int64, one for each index of `sample`
    person_ids: np.ndarray  # (P,) int64; where people are made on the fly, of the image
    skipped: Counter[str]  # what was left out, and how often

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

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Person]:  # noqa: ARG002
        """The image and the person at `index`.

        Raises:
            DamagedImage: the file cannot be decoded to its end, or is of another size than its labels are for.
        """
        path = self.folder / str(self.files[index])
        image, wanted = read_image(path), tuple(self.sizes[index])
        problem = "cannot be decoded" if image is None else None
        if image is not None and all(wanted) and image.shape[1::-1] != wanted:
            problem = f"is {image.shape[1]}×{image.shape[0]}, and labelled as {wanted[0]}×{wanted[1]}"
        if problem:
            raise DamagedImage(f"{path}: {problem} (image {self.image_ids[index]}, "
                               f"person {self.person_ids[index]} of {self.name})")  # fmt: skip
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
def read_image(path: Path) -> np.ndarray | None:
    """The image (H, W, 3) uint8 BGR; None if it cannot be decoded to its end."""
    try:
        content = np.fromfile(path, np.uint8)
        return None if _is_cut_off(content.tobytes()) else cv2.imdecode(content, cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # a header that promises more pixels than OpenCV takes
        return None


def _is_cut_off(content: bytes) -> bool:
    """Whether a JPEG has no end after its picture's data: OpenCV makes the missing part grey and says nothing."""
    if content[:2] != b"\xff\xd8":
        return not content
    at, data, fill = 2, 0xDA, 0xFF
    while at + 1 < len(content) and content[at + 1] != data:
        # Over headers, which may hold pictures with ends of their own.
        at += 1 if content[at + 1] == fill else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return b"\xff\xd9" not in content[at:]


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
) -> CocoPeople:
    """The people of a COCO keypoints file that can be learnt from.

    Left out, and counted in `skipped`: crowd regions, other categories, people with fewer than
    `min_keypoints` labelled keypoints, boxes without extent, annotations of images that the file
    or the folder lacks. An annotation without `area` gets 0.53 times its box's, and is counted too.

    Args:
        name: what to call the source.
        annotations: the JSON file.
        images: the folder of its images.
        skeleton: whose keypoints, by name where the file names its own.
        boxes: a COCO results file of detected boxes, used instead of the annotated ones: best scores first,
            each goes to the person it overlaps most, with IoU .5 or more; people without one are left out.
        never_labeled: keypoints that the file never labels; nothing is learnt about them.
        trust_absence: False where a missing label does not mean an invisible keypoint.
        min_keypoints: people with fewer labelled keypoints are left out.

    Raises:
        ValueError: the file is not of this form; the message names the file and the annotation.
    """
    skipped: Counter[str] = Counter()
    coco = _load(annotations, skipped)
    try:
        category, order = _person_category(coco, annotations, skeleton)
    except TypeError as error:
        raise ValueError(f"{annotations}: categories: {error}") from error
    if unknown := set(never_labeled) - set(skeleton.keypoints):
        raise ValueError(f"never_labeled: no keypoints {sorted(unknown)} in skeleton {skeleton.name!r}")
    learnable = np.array([keypoint not in never_labeled for keypoint in skeleton.keypoints])
    present = {path.name for path in images.iterdir()} if images.is_dir() else set()
    rows = []
    for annotation in coco.anns.values():
        _check_numbers(annotation, annotations)
        reason = _reason_to_skip(annotation, coco.imgs, category, present, images)
        keypoints = None if reason else _keypoints(annotation, order, skeleton.count, annotations)
        if keypoints is not None:
            keypoints[~learnable] = 0
            if np.count_nonzero(keypoints[:, 2]) < min_keypoints:
                reason = "people with too few labelled keypoints"
        if reason:
            skipped[reason] += 1
            continue
        x, y, w, h = annotation["bbox"]
        if not annotation.get("area"):
            skipped["annotations without area, estimated from the box"] += 1
        rows.append((
            coco.imgs[annotation["image_id"]]["file_name"], keypoints, (x, y, x + w, y + h),
            annotation.get("area") or AREA_OF_BOX * w * h, annotation["image_id"], annotation["id"],
            _size(coco.imgs[annotation["image_id"]]),
        ))  # fmt: skip
    if not rows:
        raise ValueError(
            f"{annotations}: no people to learn from with images in {images}; left out: {dict(skipped)}"
        )
    files, labels, frames, areas, image_ids, person_ids, sizes = (
        list(column) for column in zip(*rows, strict=True)
    )
    labels = np.stack(labels)
    annotatable = np.broadcast_to(learnable, labels.shape[:2]).copy()
    if not trust_absence:
        annotatable &= labels[..., 2] > 0
    people = CocoPeople(
        name, images, np.array(files), labels, np.array(frames, np.float32), np.array(areas, np.float32),
        annotatable, np.array(image_ids, np.int64), np.array(person_ids, np.int64), np.array(sizes, np.int64), skipped,
    )  # fmt: skip
    return people if boxes is None else _with_detected_boxes(people, boxes, category)


def _load(path: Path, notes: Counter[str]):
    from pycocotools.coco import COCO

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for image in content["images"]:
            if not isinstance(image["id"], int):
                raise TypeError(f"image {image['id']!r} has no whole number as id")
        renumbered = _renumber(content, path)
        coco = COCO()
        coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        for image in coco.imgs.values():
            if not isinstance(image["file_name"], str):
                raise TypeError(f"image {image['id']}: file_name {image['file_name']!r}")
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a COCO annotation file: {type(error).__name__}: {error}") from error
    if renumbered:
        notes["people whose ids stood twice in the file, renumbered"] += renumbered
    return coco


def _renumber(content: dict, path: Path) -> int:
    """Gives images and annotations ids of their own where several parts, each with its own ids, were joined.

    pycocotools keeps the last of several entries with one id, so that people would be lost or, worse, sought
    in another person's image. The k-th annotation with some id belongs to the k-th image with the id
    that it names.
    """
    images, annotations = content["images"], content["annotations"]
    taken: dict[int, list[dict]] = {}
    for image in images:
        taken.setdefault(image["id"], []).append(image)
    occurrences: Counter[int] = Counter()
    turns = []
    for annotation in annotations:
        turns.append(occurrences[annotation["id"]])
        occurrences[annotation["id"]] += 1
    if len(taken) == len(images) and len(occurrences) == len(annotations):
        return 0
    fresh_image, fresh = max(taken) + 1, max(occurrences) + 1
    for number, image in enumerate(again for same in taken.values() for again in same[1:]):
        image["id"] = fresh_image + number
    changed = 0
    for annotation, turn in zip(annotations, turns, strict=True):
        same = taken.get(annotation["image_id"], [])
        if len(same) > 1 or turn > 0:
            if turn >= len(same) or len(same) != occurrences[annotation["id"]]:
                raise ValueError(
                    f"{path}: {occurrences[annotation['id']]} annotations have the id {annotation['id']} and "
                    f"image id {annotation['image_id']} names {len(same)} images: whose is whose is unclear"
                )
            annotation["image_id"] = same[turn]["id"]
        if turn > 0:
            annotation["id"] = fresh + changed
            changed += 1
    return changed


def _person_category(coco, path: Path, skeleton: Skeleton) -> tuple[int, list[int] | None]:  # noqa: ANN001
    """The id of the category of people, and where the file's order has each keypoint of the skeleton."""
    candidates = [c for c in coco.cats.values() if "keypoints" in c] or list(coco.cats.values())
    named = [c for c in candidates if c.get("name") == "person"]
    if len(named or candidates) != 1:
        raise ValueError(
            f"{path}: wanted one category with keypoints or named person, got {list(coco.cats.values())}"
        )
    (category,) = named or candidates
    names = category.get("keypoints")
    if names is None:
        return category["id"], None
    if missing := set(skeleton.keypoints) - set(names):
        raise ValueError(
            f"{path}: category {category['id']} lacks the keypoints {sorted(missing)} of {skeleton.name!r}"
        )
    return category["id"], [names.index(keypoint) for keypoint in skeleton.keypoints]


def _check_numbers(annotation: dict, path: Path) -> None:
    """Refuses what is there and is no number: NaN in an area would become the loss of a whole training."""
    if not isinstance(annotation["id"], int):
        raise ValueError(f"{path}: annotation {annotation['id']!r} has no whole number as id")
    for key, axes in (("keypoints", 1), ("bbox", 1), ("area", 0)):
        value = annotation.get(key)
        if value is not None and (not are_numbers(value) or np.ndim(value) != axes):
            raise ValueError(
                f"{path}: annotation {annotation['id']} has {key} that are not finite numbers: {value!r}"
            )
    if (annotation.get("area") or 0) < 0:
        raise ValueError(f"{path}: annotation {annotation['id']} has an area of {annotation['area']}")


def _reason_to_skip(
    annotation: dict, images: dict, category: int, present: set[str], folder: Path
) -> str | None:
    if annotation.get("category_id") != category:
        return "annotations of another category"
    if annotation.get("iscrowd"):
        return "crowd regions"
    if not annotation.get("num_keypoints", 1) or not any((annotation.get("keypoints") or [])[2::3]):
        return "people without keypoints"
    box = annotation.get("bbox")
    if np.shape(box) != (4,) or box[2] <= 0 or box[3] <= 0:
        return "people without a box of some extent"
    image = images.get(annotation["image_id"])
    if image is None:
        return "annotations of images that the file does not list"
    name = image["file_name"]
    if name not in present and not (folder / name).is_file():
        return "people in images that are missing on disk"
    return None


def _size(image: dict) -> tuple[int, int]:
    """Width and height as the file has them; 0 where they are no whole numbers."""
    sides = image.get("width"), image.get("height")
    return sides if all(isinstance(side, int) for side in sides) else (0, 0)


def _keypoints(annotation: dict, order: list[int] | None, count: int, path: Path) -> np.ndarray:
    """(K, 3) in the skeleton's order."""
    values = np.asarray(annotation["keypoints"], np.float32)
    wanted = 3 * (count if order is None else max(order) + 1)
    if values.size % 3 or values.size < wanted or (order is None and values.size > wanted):
        raise ValueError(
            f"{path}: annotation {annotation['id']} has {values.size} keypoint numbers, {wanted} wanted"
        )
    values = values.reshape(-1, 3)
    return values.copy() if order is None else values[order]


def _with_detected_boxes(people: CocoPeople, path: Path, category: int) -> CocoPeople:
    detected = read_boxes(path, category)
    found = np.zeros(len(people), bool)
    for image_id in detected.boxes:
        boxes, scores = detected.of(image_id)
        here = np.flatnonzero(people.image_ids == image_id)
        truths = people.boxes[here].copy()
        for box in boxes[np.argsort(-scores, kind="stable")]:
            overlap = np.where(found[here], 0, iou(truths, box))
            if len(here) and overlap.max() >= 0.5:
                people.boxes[here[overlap.argmax()]] = box
                found[here[overlap.argmax()]] = True
    people.skipped["people without a detected box"] += int((~found).sum())
    return people.subset(found)


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) with one box (4,), xyxy."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    inner = np.clip(high - low, 0, None).prod(1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return inner / (sizes - inner)


__all__ = [
    "CocoPeople",
    "DamagedImage",
    "People",
    "Person",
    "digest_of",
    "fold_of",
    "iou",
    "read_coco",
    "read_image",
]
