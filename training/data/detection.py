"""Whole images and the boxes of everybody in them, and how they become samples and targets for a detector.

An image's annotations may be incomplete: people may be in it without a box. Crowds, people of whom too little is left in a
window, and the background of incomplete images are therefore regions in which a detector is not, or less, told that nobody
is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from oaks.coco import check_annotations
from oaks.detector import letterbox
from oaks.errors import ArgumentError
from oaks.images import ImageFolder, read_size
from oaks.structured import read_json
from oaks.training.data.augmentation import recolor
from oaks.training.data.geometry import crop_to_image, warp
from oaks.training.data.people import DamagedImage, digest_of, read_image
from oaks.training.data.sampling import Draw, warn_once
from oaks.training.recipe import DetectionAugmentation

UNREADABLE = "images that cannot be read"
"""Their count among what is skipped."""
FILL = 114
"""Gray level beside the picture."""
SPREAD = 0.54 / 6
"""Standard deviation of a target peak relative to the box (Liu et al., "Training-Time-Friendly Network", 2020)."""
REACH = 1
"""Cells from a person's center that learn the person's box: in use, the box at the peak alone counts."""
LEAST_PART = 0.3
"""Part of a person's box that must be in the window; of whom less is left belongs to no class."""
LEAST_SIDE = 4.0
"""Input pixels that the longer side of a box must have to be learnt."""


class People(NamedTuple):
    """Boxes of one image, xyxy in its pixels."""

    boxes: np.ndarray  # (M, 4) float32
    regions: np.ndarray  # (R, 4) float32: crowds, in which nobody is counted
    complete: bool  # whether everybody outside the regions has a box


@dataclass
class DetectionImages:
    """Images of a COCO file with everybody's boxes; made by `read_detection`."""

    name: str
    folder: Path
    files: list[str]
    image_ids: np.ndarray  # (I,) int64
    people: list[People]
    background: float  # weight of the background of incomplete images
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._images = ImageFolder(self.folder)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> tuple[np.ndarray, People]:
        """The image (H, W, 3) uint8 BGR at `index`, and its people.

        Raises:
            DamagedImage: the file cannot be decoded to its end.
        """
        try:
            image = read_image(self._images.path(self.files[index]))
        except (OSError, ArgumentError) as error:
            raise DamagedImage(f"{error} (image {self.image_ids[index]} of {self.name})") from error
        return image, self.people[index]

    def subset(self, rows: np.ndarray) -> DetectionImages:
        """The same source with the images at `rows` alone."""
        return replace(
            self,
            files=[self.files[row] for row in rows],
            image_ids=self.image_ids[rows],
            people=[self.people[row] for row in rows],
        )

    def digest(self) -> str:
        """Of the labels and the files' names."""
        flags = [(len(p.boxes), len(p.regions), p.complete) for p in self.people]
        boxes = np.concatenate([np.concatenate([p.boxes, p.regions]) for p in self.people])
        return digest_of("images", json.dumps([self.files, flags, self.background]), self.image_ids, boxes)


def read_detection(name: str, annotations: Path, images: Path, *, background: float = 0.0) -> DetectionImages:
    """The images of a COCO file that have somebody in them, with the boxes of all annotated people.

    People without keypoints count. `iscrowd` annotations and an image's `crowd_boxes` are regions;
    `people_without_keypoints` of an image are people. An image without `annotations_complete` counts as incomplete.

    Args:
        name: what to call the source.
        annotations: the JSON file.
        images: the folder of its images.
        background: weight, 0 to 1, of the background of images whose annotations are not complete.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ArgumentError: the file is not of this form; the message names it.
    """
    content = read_json(annotations, top=dict, strict=False)
    found = check_annotations(content, annotations)
    folder = ImageFolder(images)
    skipped = Counter({reason: len(ids) for reason, ids in found.skipped.items()})
    if found.others:
        skipped["annotations of another category"] = found.others
    files, ids, people = [], [], []
    order = np.argsort(found.image, kind="stable")
    bounds = np.searchsorted(found.image[order], np.arange(len(found.image_ids) + 1))
    for n, image in enumerate(content["images"]):
        where = f"{annotations}: image {found.image_ids[n]}"
        own = order[bounds[n] : bounds[n + 1]]
        crowd = found.crowd[own]
        path = folder.find(found.file_names[n])
        size = found.sizes[n].tolist()
        try:
            if path is not None and not all(size):
                size = read_size(path)
        except (OSError, ArgumentError) as error:
            warn_once(f"{error} (image {found.image_ids[n]} of {name}); left out")
            skipped[UNREADABLE] += 1
            continue
        boxes = _corners(found.boxes[own[~crowd]], image.get("people_without_keypoints", []), size, where)
        crowds = _corners(found.boxes[own[crowd]], image.get("crowd_boxes", []), size, where)
        if not len(boxes) or path is None:
            skipped["images without people, or missing on disk"] += 1
            continue
        files.append(found.file_names[n])
        ids.append(int(found.image_ids[n]))
        people.append(People(boxes, crowds, bool(image.get("annotations_complete"))))
    if not files:
        raise ArgumentError(
            f"{annotations} must have people with images in {images}, got none: {dict(skipped)}"
        )
    return DetectionImages(name, images, files, np.array(ids, np.int64), people, background, skipped)


def _corners(boxes: np.ndarray, more: Any, size: Sequence[int], where: str) -> np.ndarray:
    """xywh boxes as xyxy (N, 4) within an image of `size`, those without extent left out."""
    try:
        added = np.asarray(more, np.float64).reshape(-1, 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(
            f"{where}: boxes must be lists [x, y, width, height], got {type(more).__name__}: {error}"
        ) from error
    corners = np.concatenate([boxes, added])
    if not np.isfinite(corners).all():
        raise ArgumentError(f"{where}: boxes must be finite numbers, got {corners.tolist()}")
    corners[:, 2:] += corners[:, :2]
    corners = np.clip(corners, 0, np.tile(size, 2)).astype(np.float32)
    return corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)]


class Targets(NamedTuple):
    """What a detector is to say about one input, on its (h, w) output cells."""

    heat: np.ndarray  # (h, w) float32: 1 at centers, Gaussian around them
    weight: np.ndarray  # (h, w) float32: of the background, 0 where somebody may be
    boxes: np.ndarray  # (4, h, w) float32 xyxy input pixels, of the person whom the cell belongs to
    share: np.ndarray  # (h, w) float32: weight of the cell's box; sums to 1 over each person's cells


def targets(
    boxes: np.ndarray, ignored: np.ndarray, weight: np.ndarray, size: tuple[int, int], stride: int
) -> Targets:
    """Targets of people's boxes in an input of `size` (width, height).

    Args:
        boxes: (M, 4) xyxy within the input.
        ignored: (R, 4) regions in which nothing is background.
        weight: (h, w) float32 of the background elsewhere.
        size: of the input.
        stride: input pixels per cell.
    """
    w, h = size[0] // stride, size[1] // stride
    heat, share = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    box_map = np.zeros((4, h, w), np.float32)
    weight = weight.copy()
    for region in ignored:
        weight[_cells(region, stride)] = 0
    ys, xs = np.arange(h)[:, None], np.arange(w)[None]
    sides = boxes[:, 2:] - boxes[:, :2]
    for row in np.argsort(
        -sides.prod(axis=1)
    ):  # the smaller of two people gets the cells that both could have
        x, y = np.minimum((boxes[row, :2] + boxes[row, 2:]) / 2 // stride, (w - 1, h - 1))
        sigma = np.maximum(sides[row] / stride * SPREAD, 0.3)
        peak = np.exp(-((xs - x) ** 2) / (2 * sigma[0] ** 2) - ((ys - y) ** 2) / (2 * sigma[1] ** 2))
        np.maximum(heat, peak, out=heat, casting="same_kind")
        near = (np.abs(xs - x) <= REACH) & (np.abs(ys - y) <= REACH) & (peak > 0.1)
        box_map[:, near] = boxes[row][:, None]
        share[near] = (peak / peak[near].sum())[near]
    return Targets(heat, weight, box_map, share)


def _cells(box: np.ndarray, stride: int) -> tuple[slice, slice]:
    """The cells that a box touches."""
    x1, y1 = np.floor(np.maximum(box[:2], 0) / stride).astype(int)
    x2, y2 = np.ceil(np.maximum(box[2:], 0) / stride).astype(int)
    return slice(y1, y2), slice(x1, x2)


def window(
    image: np.ndarray,
    people: People,
    rng: np.random.Generator,
    settings: DetectionAugmentation,
    *,
    size: tuple[int, int],
    stride: int,
    background: float,
) -> dict[str, np.ndarray]:
    """A random window of an image as the network's input, and its targets.

    Args:
        image: (H, W, 3) uint8 BGR.
        people: of the image.
        rng: decides everything.
        settings: of the variation.
        size: (width, height) of the input.
        stride: input pixels per output cell.
        background: weight of the background, if the image's annotations are not complete.

    Returns:
        pixels (H, W, 3) uint8 RGB and the fields of `Targets`.
    """
    affine = _random_window(image.shape[1::-1], rng, settings, size)
    pixels = warp(recolor(image, rng, settings), affine, size, fill=FILL)
    boxes, parts = _moved(people.boxes, affine, size)
    learnt = (parts >= LEAST_PART) & ((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= LEAST_SIDE)
    regions, _ = _moved(people.regions, affine, size)
    w, h = size[0] // stride, size[1] // stride
    weight = np.ones((h, w), np.float32)
    if not people.complete:
        frame, _ = _moved(np.array([[0, 0, *image.shape[1::-1]]], np.float32), affine, size)
        weight[_cells(frame[0], stride)] = background
        for box in boxes[learnt]:
            weight[_cells(box, stride)] = 1
    ignored = np.concatenate([boxes[~learnt & (parts > 0)], regions])
    made = targets(boxes[learnt], ignored, weight, size, stride)
    return {"pixels": np.ascontiguousarray(pixels[..., ::-1]), **made._asdict()}


def _random_window(
    extent: tuple[int, int], rng: np.random.Generator, settings: DetectionAugmentation, size: tuple[int, int]
) -> np.ndarray:
    """(2, 3) float64: input pixel index to image pixel index."""
    low, high = settings.scale
    zoom = np.exp(rng.uniform(np.log(low), np.log(high)))
    stretch = np.exp(rng.uniform(-1, 1) * np.log(settings.stretch))
    places, mirrored = rng.random(2), rng.random() < settings.flip
    fit = max(extent[0] / size[0], extent[1] / size[1])  # image pixels per input pixel, the whole image seen
    shown = np.asarray(size) * fit / zoom * np.array([np.sqrt(stretch), 1 / np.sqrt(stretch)])
    # Anywhere within the image, or the image anywhere within the window, per axis.
    begin = places * (np.asarray(extent) - shown)
    return crop_to_image(begin + shown / 2, shown, size, mirrored=mirrored)


def _moved(boxes: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in input pixels, cut to the input, and which part of each is in it; without rotation."""
    steps = np.array([affine[0, 0], affine[1, 1]])
    corners = (boxes.reshape(-1, 2, 2) - 0.5 - affine[:, 2]) / steps + 0.5
    corners = np.sort(corners, axis=1).reshape(-1, 4)
    cut = np.clip(corners, 0, np.tile(size, 2))
    areas = np.maximum((corners[:, 2:] - corners[:, :2]).prod(axis=1), 1e-9)
    return cut.astype(np.float32), (cut[:, 2:] - cut[:, :2]).prod(axis=1) / areas


class Windows(Dataset[dict[str, Any]]):
    """Augmented windows of several sources, addressed by draws."""

    def __init__(
        self,
        sources: Sequence[DetectionImages],
        settings: DetectionAugmentation,
        *,
        size: tuple[int, int],
        stride: int,
        seed: int,
    ) -> None:
        self.sources, self.settings, self.seed = list(sources), settings, seed
        self.size, self.stride = size, stride

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, 2, draw.number])
        source = self.sources[draw.source]
        image, people, damaged = readable_image(source, draw.index)
        made = window(
            image, people, rng, self.settings,
            size=self.size, stride=self.stride, background=source.background,
        )  # fmt: skip
        return {**made, "damaged": damaged}


def readable_image(source: DetectionImages, index: int) -> tuple[np.ndarray, People, int]:
    """The image at `index`, or the next one that can be decoded, and how many were skipped.

    Raises:
        ArgumentError: none can; the message names a file.
    """
    for damaged in range(len(source)):
        try:
            return *source.sample((index + damaged) % len(source)), damaged
        except DamagedImage as error:
            warn_once(f"{error}; the next image is taken instead")
            last = error
    raise ArgumentError(f"{source.name}: none of {len(source)} images can be decoded: {last}")


class Letterboxed(Dataset[dict[str, Any]]):
    """Whole images as a detector sees them in use: fitted into the input, at its top left, gray beyond.

    Args:
        sources: of images.
        size: (width, height) of the input.
    """

    def __init__(self, sources: Sequence[DetectionImages], size: tuple[int, int]) -> None:
        self.sources, self.size = list(sources), size
        self.begins = np.cumsum([0, *(len(source) for source in self.sources)])

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, place: int) -> dict[str, Any]:
        source = int(np.searchsorted(self.begins, place, side="right")) - 1
        image, _, _ = readable_image(self.sources[source], place - int(self.begins[source]))
        pixels, scale, _ = letterbox(image, self.size, swap=True)
        return {"pixels": np.ascontiguousarray(pixels), "scale": scale.astype(np.float32), "place": place}

    def people(self, place: int) -> People:
        """The people of the image at `place`."""
        source = int(np.searchsorted(self.begins, place, side="right")) - 1
        return self.sources[source].people[place - int(self.begins[source])]


__all__ = [
    "DetectionImages", "Letterboxed", "People", "Targets", "Windows", "read_detection",
    "readable_image", "targets", "window",
]  # fmt: skip
