"""The annotated people with whom detections are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oaks.boxes import to_xyxy
from oaks.coco import AREA_OF_BOX, Annotations, Images, check_annotations, read_annotations
from oaks.errors import ArgumentError
from oaks.skeleton import COCO17, Skeleton


class OcclusionClass(NamedTuple):
    """People with `fewest` to `most` labeled keypoints out of 17 (table 8 of the paper)."""

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
"""COCO's area limits between small, medium and large people, and its largest area, in square original pixels."""


@dataclass(frozen=True)
class GroundTruth(Images):
    """I images and the G people annotated in them, sorted by image and, within an image, in the file's order.

    All coordinates are on the scale of the original images: if an image states `orig_width` and `orig_height`, its
    people and the results are scaled to that size (`scales`), so that COCO's area limits apply.

    Attributes:
        path: the annotation file.
        skeleton: the K keypoints.
        category_id: the category that is measured.
        image_ids: (I,) int64, ascending.
        file_names: I names of image files.
        sizes: (I,2) width and height of the image files, as the file states them; 0 if it does not.
        scales: (I,2) factor from the file's coordinates to original pixels, for x and y.
        ids: (G,) int64 annotation ids.
        image: (G,) index of the person's image.
        keypoints: (G,K,2) original pixels.
        flags: (G,K) COCO's flags: 0 not labeled, 1 labeled but hidden, 2 visible.
        areas: (G,) square original pixels.
        boxes: (G,4) x, y, width, height in original pixels.
        crowd: (G,) bool, a region with many people; matches with it are ignored.
    """

    path: str
    skeleton: Skeleton
    category_id: int
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
        """(G,) bool: people that COCO's evaluation counts: with labeled keypoints, and not a crowd."""
        return (self.labeled > 0) & ~self.crowd

    @cached_property
    def occlusion(self) -> np.ndarray:
        """(G,) index into OCCLUSION_CLASSES, -1 for people who are not counted."""
        share = self.labeled * (COCO17.count / self.skeleton.count)
        upper = [c.most + 0.5 for c in OCCLUSION_CLASSES[:-1]]
        return np.where(self.counted, np.searchsorted(upper, share), -1)

    def file_boxes(self, people: np.ndarray) -> np.ndarray:
        """Return boxes (n,4) x1, y1, x2, y2 of some people (indices) in pixels of the image files."""
        return to_xyxy(self.boxes[people] / np.tile(self.scales[self.image[people]], 2))

    def class_counts(self) -> dict[str, int]:
        """Count the people of each occlusion level (table 8)."""
        return {c.key: int(np.sum(self.occlusion == i)) for i, c in enumerate(OCCLUSION_CLASSES)}

    @classmethod
    def load(
        cls, path: str | Path, *, skeleton: Skeleton = COCO17, category: str | int | None = None
    ) -> GroundTruth:
        """Read a COCO keypoints annotation file.

        Args:
            path: the JSON file.
            skeleton: the skeleton of its keypoints.
            category: name or id of the category to measure; None: as oaks.coco.choose_category.

        Raises:
            FileNotFoundError: the file does not exist.
            ArgumentError: the content is wrong; the message names the file and the image or annotation id.
        """
        return cls.from_annotations(read_annotations(path, skeleton=skeleton, category=category), skeleton)

    @classmethod
    def from_coco(
        cls,
        content: dict[str, Any],
        *,
        path: str = "annotations",
        skeleton: Skeleton = COCO17,
        category: str | int | None = None,
    ) -> GroundTruth:
        """Like `load`, from a COCO keypoint dictionary; `path` is only used in messages."""
        found = check_annotations(content, path, skeleton=skeleton, category=category)
        return cls.from_annotations(found, skeleton)

    @classmethod
    def from_annotations(cls, found: Annotations, skeleton: Skeleton) -> GroundTruth:
        """Return the people of a file that has been read with this skeleton.

        Raises:
            ArgumentError: its keypoints are in another order, nobody has a labeled keypoint, or a person with
                labeled keypoints has no area.
        """
        if found.keypoints is None or not found.same_keypoints:
            raise ArgumentError(
                f"{found.path}: keypoints must be those of skeleton {skeleton.name!r} in the same order, "
                f"{list(skeleton.keypoints)}, got others"
            )
        labeled = (found.keypoints[..., 2] > 0).any(axis=1)
        if (unknown := np.isnan(found.areas) & labeled).any():
            raise ArgumentError(
                f"{found.path}: annotation {found.ids[unknown.argmax()]}: 'area' is missing; OKS divides by it "
                f"({AREA_OF_BOX:g} times width times height is a common substitute for the mask's area)"
            )
        order = np.argsort(found.image_ids, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        by_image = np.argsort(rank[found.image], kind="stable")
        scales = found.scales[order]
        image = rank[found.image][by_image]
        scale = scales[image]
        keypoints = found.keypoints[by_image, :, :2]
        keypoints *= scale[:, None]
        return cls.from_arrays(
            path=found.path,
            skeleton=skeleton,
            category_id=found.category_id,
            image_ids=found.image_ids[order],
            file_names=tuple(found.file_names[i] or str(found.image_ids[i]) for i in order),
            sizes=found.sizes[order],
            scales=scales,
            ids=found.ids[by_image],
            image=image,
            keypoints=keypoints,
            flags=found.keypoints[..., 2].astype(np.int8)[by_image],
            areas=np.nan_to_num(found.areas[by_image], nan=0.0) * scale.prod(axis=1),
            boxes=found.boxes[by_image] * np.tile(scale, 2),
            crowd=found.crowd[by_image],
        )

    @classmethod
    def from_arrays(
        cls,
        *,
        skeleton: Skeleton,
        image: np.ndarray,
        keypoints: np.ndarray,
        flags: np.ndarray,
        areas: np.ndarray,
        boxes: np.ndarray,
        ids: np.ndarray | None = None,
        crowd: np.ndarray | None = None,
        image_ids: np.ndarray | None = None,
        file_names: tuple[str, ...] | None = None,
        sizes: np.ndarray | None = None,
        scales: np.ndarray | None = None,
        category_id: int = 1,
        path: str = "people",
    ) -> GroundTruth:
        """Return the people from checked arrays; the class describes each.

        Args:
            image: (G,) ascending.
            ids: None: numbered from 1.
            crowd: None: nobody.
            image_ids: None: the numbers from 0 to the largest of `image`.

        Raises:
            ArgumentError: nobody has a labeled keypoint.
        """
        count = len(image)
        if image_ids is None:
            image_ids = np.arange(int(image.max(initial=-1)) + 1)
        images = len(image_ids)
        truth = cls(
            path=path,
            skeleton=skeleton,
            category_id=category_id,
            image_ids=image_ids.astype(np.int64),
            file_names=file_names if file_names is not None else tuple(map(str, image_ids.tolist())),
            sizes=np.zeros((images, 2), np.int64) if sizes is None else sizes,
            scales=np.ones((images, 2)) if scales is None else scales,
            ids=np.arange(1, count + 1) if ids is None else ids,
            image=image.astype(np.int64),
            keypoints=keypoints.astype(float, copy=False),
            flags=flags.astype(np.int8),
            areas=areas.astype(float),
            boxes=boxes.astype(float),
            crowd=np.zeros(count, bool) if crowd is None else crowd,
        )
        if not truth.counted.any():
            raise ArgumentError(
                f"{path}: at least one person must have a labeled keypoint, got none of {count}"
            )
        return truth
