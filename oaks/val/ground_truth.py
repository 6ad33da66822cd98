"""The annotated people that detections are measured against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oaks.coco import are_numbers
from oaks.skeleton import COCO17, Skeleton


class OcclusionClass(NamedTuple):
    """People with `fewest` to `most` labelled keypoints out of 17 (table 8 of the paper)."""

    key: str
    title: str
    fewest: int
    most: int


OCCLUSION_CLASSES = (
    OcclusionClass("almost", "Almost occluded", 1, 5),
    OcclusionClass("largely", "Largely occluded", 6, 10),
    OcclusionClass("slightly", "Slightly occluded", 11, 15),
    OcclusionClass("none", "No occlusion", 16, 17),
)

MEDIUM, LARGE, LARGEST = 32.0**2, 96.0**2, 1e5**2
"""COCO's limits between small, medium and large people, and the largest area it counts, in original
pixels."""


@dataclass(frozen=True)
class Truth:
    """I images and the G people annotated in them, people sorted by image, in the file's order within one.

    Everything is on the scale of the original images: where an image states `orig_width` and `orig_height`,
    its people are multiplied back to that size, and results are by the same factor (`scales`), so that COCO's
    area limits mean what they say.

    Attributes:
        path: the annotation file.
        skeleton: the K keypoints.
        category_id: the one category that is measured.
        image_ids: (I,) int64, ascending.
        file_names: I names of image files.
        scales: (I,2) factor from the file's coordinates to original pixels, for x and y.
        ids: (G,) int64 annotation ids.
        image: (G,) index of the person's image.
        keypoints: (G,K,2) original pixels.
        flags: (G,K) COCO's 0 not labelled, 1 labelled but hidden, 2 seen.
        areas: (G,) square original pixels.
        boxes: (G,4) x, y, width, height in original pixels.
        crowd: (G,) bool, a region with many people; matches against it count neither way.
    """

    path: str
    skeleton: Skeleton
    category_id: int
    image_ids: np.ndarray
    file_names: tuple[str, ...]
    scales: np.ndarray
    ids: np.ndarray
    image: np.ndarray
    keypoints: np.ndarray
    flags: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray

    @cached_property
    def labeled(self) -> np.ndarray:
        """(G,) the number of keypoints with a flag above 0."""
        return np.count_nonzero(self.flags > 0, axis=1)

    @cached_property
    def counted(self) -> np.ndarray:
        """(G,) bool: people that COCO's evaluation counts: keypoints labelled and not a crowd."""
        return (self.labeled > 0) & ~self.crowd

    @cached_property
    def occlusion(self) -> np.ndarray:
        """(G,) index into OCCLUSION_CLASSES, -1 for people who are not counted."""
        share = self.labeled * (COCO17.count / self.skeleton.count)
        upper = [c.most + 0.5 for c in OCCLUSION_CLASSES[:-1]]
        return np.where(self.counted, np.searchsorted(upper, share), -1)

    def class_counts(self) -> dict[str, int]:
        """How many people each occlusion class has (table 8)."""
        return {c.key: int(np.sum(self.occlusion == i)) for i, c in enumerate(OCCLUSION_CLASSES)}

    @classmethod
    def load(cls, path: str | Path, *, skeleton: Skeleton = COCO17, category: str | None = None) -> Truth:
        """Reads a COCO keypoints annotation file.

        Args:
            path: the JSON file.
            skeleton: what its keypoints are.
            category: name of the category to measure; needed only if the file has several and none is
                "person".

        Raises:
            ValueError: the content does not fit; the message names the file and the image or annotation id.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not a JSON file ({error})") from error
        return cls.from_coco(content, path=str(path), skeleton=skeleton, category=category)

    @classmethod
    def from_coco(
        cls,
        content: dict[str, Any],
        *,
        path: str = "annotations",
        skeleton: Skeleton = COCO17,
        category: str | None = None,
    ) -> Truth:
        """The same from a COCO keypoints dictionary; `path` is only what messages call it."""
        for key in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not isinstance(content.get(key), list):
                raise ValueError(f"{path}: a COCO annotation file was wanted, its list {key!r} is missing")
        for key in ("images", "annotations", "categories"):
            for place, entry in enumerate(content[key]):
                _check_id(entry, f"{path}: {key}[{place}]")
        category_id = _category(content["categories"], path, category, skeleton)
        images = sorted(content["images"], key=lambda image: image["id"])
        image_ids = np.array([image["id"] for image in images], dtype=np.int64)
        _refuse_repeated(image_ids, f"{path}: image id")
        position = {int(image_id): i for i, image_id in enumerate(image_ids)}

        annotations = [a for a in content["annotations"] if a.get("category_id") == category_id]
        for annotation in annotations:
            _check_annotation(annotation, position, path, skeleton.count)
        annotations.sort(key=lambda annotation: position[annotation["image_id"]])
        ids = np.array([a["id"] for a in annotations], dtype=np.int64)
        _refuse_repeated(ids, f"{path}: annotation id")

        scales = np.array([_scale(image, path) for image in images]).reshape(-1, 2)
        image = np.array([position[a["image_id"]] for a in annotations], dtype=np.int64)
        scale = scales[image]
        points = np.array([a["keypoints"] for a in annotations], dtype=float).reshape(-1, skeleton.count, 3)
        boxes = np.array([a["bbox"] for a in annotations], dtype=float).reshape(-1, 4)
        truth = cls(
            path=path,
            skeleton=skeleton,
            category_id=category_id,
            image_ids=image_ids,
            file_names=tuple(str(i.get("file_name", i["id"])) for i in images),
            scales=scales,
            ids=ids,
            image=image,
            keypoints=points[..., :2] * scale[:, None],
            flags=points[..., 2].astype(np.int8),
            areas=np.array([a["area"] for a in annotations], dtype=float) * scale.prod(axis=1),
            boxes=boxes * np.tile(scale, 2),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        )
        if not truth.counted.any():
            raise ValueError(f"{path}: none of its {len(ids)} people has a labelled keypoint")
        return truth


def _category(categories: list[dict[str, Any]], path: str, name: str | None, skeleton: Skeleton) -> int:
    """The id of the category to measure; the keypoints that it names must be the skeleton's in its order."""
    names = [c.get("name") for c in categories]
    wanted = "person" if name is None else name
    if name is None and len(categories) == 1:
        chosen = categories[0]
    elif names.count(wanted) == 1:
        chosen = categories[names.index(wanted)]
    else:
        raise ValueError(f"{path}: one category called {wanted!r} was wanted, the file has {names}")
    keypoints = chosen.get("keypoints") or list(skeleton.keypoints)
    if not isinstance(keypoints, list) or list(map(_plain, keypoints)) != list(
        map(_plain, skeleton.keypoints)
    ):
        raise ValueError(
            f"{path}: its keypoints are {keypoints}, those of skeleton {skeleton.name!r} are "
            f"{list(skeleton.keypoints)}"
        )
    return chosen["id"]


def _plain(keypoint: Any) -> str:
    return str(keypoint).lower().replace(" ", "_").replace("-", "_")


def _check_id(entry: Any, where: str) -> None:
    number = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise ValueError(f"{where}: an object with a whole number as id was wanted, its id is {number!r}")


def _check_annotation(annotation: dict[str, Any], images: dict[int, int], path: str, count: int) -> None:
    where = f"{path}: annotation {annotation.get('id')}"
    # pycocotools takes a match with annotation 0 for no match at all, and would count it as an error.
    if annotation["id"] < 1:
        raise ValueError(f"{where}: ids must be whole numbers from 1, as pycocotools needs them")
    if not isinstance(annotation.get("image_id"), Real) or annotation["image_id"] not in images:
        raise ValueError(f"{where}: image_id {annotation.get('image_id')} is not among the file's images")
    for key in ("area", "bbox", "keypoints"):
        if annotation.get(key) is None:
            hint = (
                "; OKS divides by it (0.53 times width times height is a usual stand-in for the mask's area)"
            )
            raise ValueError(f"{where}: {key!r} is missing{hint if key == 'area' else ''}")
        if not are_numbers(annotation[key]):
            raise ValueError(f"{where}: {key} must be finite numbers in one list, it is {annotation[key]!r}")
    points = annotation["keypoints"]
    if np.size(points) != 3 * count:
        raise ValueError(
            f"{where}: {count} keypoints of 3 numbers were wanted, it has {np.size(points) / 3:g}"
        )
    if np.shape(annotation["bbox"]) != (4,) or np.ndim(annotation["area"]):
        raise ValueError(f"{where}: bbox must be x, y, width, height, and area one number")
    flags = points[2::3]
    if not set(flags) <= {0, 1, 2}:
        raise ValueError(f"{where}: visibility flags must be 0, 1 or 2, it has {sorted(set(flags))}")
    labeled = sum(flag > 0 for flag in flags)
    if annotation.get("num_keypoints", labeled) != labeled:
        raise ValueError(
            f"{where}: num_keypoints says {annotation['num_keypoints']}, {labeled} of its keypoints are "
            "labelled"
        )
    if labeled and annotation["area"] <= 0:
        raise ValueError(f"{where}: area must be positive, it is {annotation['area']}")


def _scale(image: dict[str, Any], path: str) -> tuple[float, float]:
    """Factor from the file's coordinates to original pixels."""
    if "orig_width" not in image or "orig_height" not in image:
        return 1.0, 1.0
    sizes = [image.get(key) for key in ("width", "height", "orig_width", "orig_height")]
    if not are_numbers(sizes) or min(sizes) <= 0:
        raise ValueError(
            f"{path}: image {image['id']}: width, height, orig_width and orig_height must be positive, they are {sizes}"
        )
    return sizes[2] / sizes[0], sizes[3] / sizes[1]


def _refuse_repeated(ids: np.ndarray, what: str) -> None:
    found, counts = np.unique(ids, return_counts=True)
    if np.any(counts > 1):
        raise ValueError(f"{what} {found[counts > 1][0]} stands in it {counts.max()} times")
