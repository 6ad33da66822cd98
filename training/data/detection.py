"""Whole images with person boxes, and a detector's samples and targets made of them.

Annotations may be incomplete: an image may show people without a box. Crowds, people who are mostly cut off by the window,
and the background of incomplete images are therefore ignored, or have a lower weight, as negative examples.
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
from oaks.coco_fields import first_of
from oaks.detector import letterbox
from oaks.errors import ArgumentError
from oaks.images import ImageFolder, check_size, read_size
from oaks.skipping import skip
from oaks.structured import read_json
from oaks.training.data.augmentation import recolor
from oaks.training.data.geometry import crop_to_image, warp
from oaks.training.data.people import DamagedImage, digest_of, read_image
from oaks.training.data.sampling import Draw, sample_readable, warn_once
from oaks.training.recipe import DetectionAugmentation

UNREADABLE = "images that cannot be read"
"""Reason under which they are counted as skipped."""
FILL = 114
"""Gray level beside the picture."""
SPREAD = 0.54 / 6
"""Standard deviation of a target peak relative to the box (Liu et al., "Training-Time-Friendly Network", 2020)."""
REACH = 1
"""Largest distance in cells from a person's center at which the box is learned; inference reads it at the peak."""
LEAST_PART = 0.3
"""Smallest part of a person's box within the window; people with less are ignored."""
LEAST_SIDE = 4.0
"""Smallest length of a box's longer side, in input pixels; people with less are ignored."""


class ImageBoxes(NamedTuple):
    """Person boxes of one image, xyxy in its pixels."""

    boxes: np.ndarray  # (M, 4) float32
    regions: np.ndarray  # (R, 4) float32: crowds, which are ignored
    complete: bool  # whether all people outside the regions have a box


@dataclass
class DetectionImages:
    """Images of a COCO file with person boxes; made by `read_detection`."""

    name: str
    folder: Path
    files: list[str]
    image_ids: np.ndarray  # (N,) int64
    people: list[ImageBoxes]
    sizes: np.ndarray  # (N, 2) int64 width and height by the file, or 0
    background: float  # weight of the background of incomplete images
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._images = ImageFolder(self.folder)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, ImageBoxes]:  # noqa: ARG002
        """Return the image (H, W, 3) uint8 BGR at `index`, and its people.

        Raises:
            DamagedImage: the file cannot be decoded to its end, or has another size than its labels.
        """
        try:
            path = self._images.path(self.files[index])
            image = read_image(path)
            check_size(path, image.shape[1::-1], self.sizes[index].tolist())
        except (OSError, ArgumentError) as error:
            raise DamagedImage(f"{error} (image {self.image_ids[index]} of {self.name})") from error
        return image, self.people[index]

    def subset(self, rows: np.ndarray) -> DetectionImages:
        """Return the source reduced to the images at `rows`."""
        return replace(
            self,
            files=[self.files[row] for row in rows],
            image_ids=self.image_ids[rows],
            people=[self.people[row] for row in rows],
            sizes=self.sizes[rows],
        )

    def digest(self) -> str:
        """Return the digest of the labels and the file names."""
        flags = [(len(p.boxes), len(p.regions), p.complete) for p in self.people]
        boxes = np.concatenate([np.concatenate([p.boxes, p.regions]) for p in self.people])
        return digest_of("images", json.dumps([self.files, flags, self.background]), self.image_ids, boxes)


def read_detection(name: str, annotations: Path, images: Path, *, background: float = 0.0) -> DetectionImages:
    """Return the images of a COCO file that show people, with the boxes of all annotated people.

    People are all person annotations, with and without keypoints, and an image's `people_without_keypoints`. `iscrowd`
    annotations and an image's `crowd_boxes` are crowds. An image without `annotations_complete` counts as incomplete.

    Args:
        name: name of the source.
        annotations: the JSON file.
        images: the folder of its images.
        background: weight, 0 to 1, of the background of incompletely annotated images.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ArgumentError: the file has another form; the message names it.
    """
    content = read_json(annotations, top=dict, strict=False)
    found = check_annotations(content, annotations)
    folder = ImageFolder(images)
    skipped = Counter({reason: len(ids) for reason, ids in found.skipped.items()})
    if found.others:
        skipped["annotations of another category"] = found.others
    files, ids, people, rows, missing = [], [], [], [], []
    order = np.argsort(found.image, kind="stable")
    bounds = np.searchsorted(found.image[order], np.arange(len(found.image_ids) + 1))
    for n, image in enumerate(content["images"]):
        where = f"{annotations}: image {found.image_ids[n]}"
        own = order[bounds[n] : bounds[n + 1]]
        crowd = found.crowd[own]
        path = folder.find(found.file_names[n])
        if path is None:
            missing.append(found.file_names[n])
            continue
        size = found.sizes[n].tolist()
        try:
            if not all(size):
                size = read_size(path)
        except (OSError, ArgumentError) as error:
            warn_once(f"{error} (image {found.image_ids[n]} of {name}); skipped")
            skipped[UNREADABLE] += 1
            continue
        boxes = _corners(
            found.boxes[own[~crowd]], image.get("people_without_keypoints", []), size, where, skipped
        )
        crowds = _corners(found.boxes[own[crowd]], image.get("crowd_boxes", []), size, where, skipped)
        if not len(boxes):
            skipped["images without people"] += 1
            continue
        files.append(found.file_names[n])
        ids.append(int(found.image_ids[n]))
        rows.append(n)
        people.append(ImageBoxes(boxes, crowds, bool(image.get("annotations_complete"))))
    if missing:
        skipped["images missing on disk"] = len(missing)
        skip(f"images of {annotations} that are not in {images}", f"{len(missing)}: {first_of(missing)}")
    if not files:
        raise ArgumentError(
            f"{annotations} must have people with images in {images}, got none: {dict(skipped)}"
        )
    return DetectionImages(
        name, images, files, np.array(ids, np.int64), people, found.sizes[rows], background, skipped
    )


def _corners(
    boxes: np.ndarray, more: Any, size: Sequence[int], where: str, skipped: Counter[str]
) -> np.ndarray:
    """Return xywh boxes as xyxy (N, 4), clipped to an image of `size`; those outside of it are counted in `skipped`."""
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
    within = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    if not within.all():
        skipped["boxes outside of their image"] += int((~within).sum())
    return corners[within]


class Targets(NamedTuple):
    """Targets of a detector for one input, on its (h, w) output cells."""

    heat: np.ndarray  # (h, w) float32: 1 at centers, Gaussian around them
    weight: np.ndarray  # (h, w) float32: weight as background; 0 in ignored regions
    boxes: np.ndarray  # (4, h, w) float32 xyxy input pixels: box of the cell's person
    share: np.ndarray  # (h, w) float32: weight of the cell's box; sums to 1 over each person's cells


def targets(
    boxes: np.ndarray, ignored: np.ndarray, weight: np.ndarray, size: tuple[int, int], stride: int
) -> Targets:
    """Return the targets of person boxes.

    Args:
        boxes: (M, 4) xyxy within the input.
        ignored: (R, 4) ignored regions.
        weight: (h, w) float32 weight as background outside the regions.
        size: (width, height) of the input.
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
    # In descending order of area: cells that two people share belong to the smaller one.
    for row in np.argsort(-sides.prod(axis=1)):
        x, y = np.minimum((boxes[row, :2] + boxes[row, 2:]) / 2 // stride, (w - 1, h - 1))
        sigma = np.maximum(sides[row] / stride * SPREAD, 0.3)
        peak = np.exp(-((xs - x) ** 2) / (2 * sigma[0] ** 2) - ((ys - y) ** 2) / (2 * sigma[1] ** 2))
        np.maximum(heat, peak, out=heat, casting="same_kind")
        near = (np.abs(xs - x) <= REACH) & (np.abs(ys - y) <= REACH) & (peak > 0.1)
        box_map[:, near] = boxes[row][:, None]
        share[near] = (peak / peak[near].sum())[near]
    return Targets(heat, weight, box_map, share)


def _cells(box: np.ndarray, stride: int) -> tuple[slice, slice]:
    """Return the cells that a box touches."""
    x1, y1 = np.floor(np.maximum(box[:2], 0) / stride).astype(int)
    x2, y2 = np.ceil(np.maximum(box[2:], 0) / stride).astype(int)
    return slice(y1, y2), slice(x1, x2)


def window(
    image: np.ndarray,
    people: ImageBoxes,
    rng: np.random.Generator,
    settings: DetectionAugmentation,
    *,
    size: tuple[int, int],
    stride: int,
    background: float,
) -> dict[str, np.ndarray]:
    """Return a random window of an image as the network's input, and its targets.

    Args:
        image: (H, W, 3) uint8 BGR.
        people: person boxes of the image.
        rng: source of all random numbers.
        settings: the augmentation.
        size: (width, height) of the input.
        stride: input pixels per output cell.
        background: weight of the background of an incompletely annotated image.

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
    """Return a random transform (2, 3) float64 from input pixel index to image pixel index."""
    low, high = settings.scale
    zoom = np.exp(rng.uniform(np.log(low), np.log(high)))
    stretch = np.exp(rng.uniform(-1, 1) * np.log(settings.stretch))
    places, mirrored = rng.random(2), rng.random() < settings.flip
    fit = max(
        extent[0] / size[0], extent[1] / size[1]
    )  # image pixels per input pixel if the whole image fits
    shown = np.asarray(size) * fit / zoom * np.array([np.sqrt(stretch), 1 / np.sqrt(stretch)])
    # On each axis the window lies within the image, or the image within the window.
    begin = places * (np.asarray(extent) - shown)
    return crop_to_image(begin + shown / 2, shown, size, mirrored=mirrored)


def _moved(boxes: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes in input pixels, clipped to the input, and the part of each that is within it."""
    steps = np.array([affine[0, 0], affine[1, 1]])
    corners = (boxes.reshape(-1, 2, 2) - 0.5 - affine[:, 2]) / steps + 0.5
    corners = np.sort(corners, axis=1).reshape(-1, 4)
    cut = np.clip(corners, 0, np.tile(size, 2))
    areas = np.maximum((corners[:, 2:] - corners[:, :2]).prod(axis=1), 1e-9)
    return cut.astype(np.float32), (cut[:, 2:] - cut[:, :2]).prod(axis=1) / areas


class Windows(Dataset[dict[str, Any]]):
    """Augmented windows of the images of several sources, indexed by draws."""

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
        image, people, damaged = sample_readable(source, draw.index)
        made = window(
            image, people, rng, self.settings,
            size=self.size, stride=self.stride, background=source.background,
        )  # fmt: skip
        return {**made, "damaged": damaged}


class Letterboxed(Dataset[dict[str, Any] | None]):
    """Whole images as at inference: resized to fit into the input, at its top left, with gray borders.

    A sample is None if the image cannot be decoded.

    Args:
        sources: sources of the images.
        size: (width, height) of the input.
    """

    def __init__(self, sources: Sequence[DetectionImages], size: tuple[int, int]) -> None:
        self.sources, self.size = list(sources), size
        self.begins = np.cumsum([0, *(len(source) for source in self.sources)])

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, place: int) -> dict[str, Any] | None:
        source, index = self._find(place)
        try:
            image, _ = source.sample(index)
        except DamagedImage as error:
            warn_once(f"{error}; skipped")
            return None
        pixels, scale, _ = letterbox(image, self.size, swap=True)
        return {"pixels": np.ascontiguousarray(pixels), "scale": scale.astype(np.float32), "place": place}

    def people(self, place: int) -> ImageBoxes:
        """Return the people of the image at `place`."""
        source, index = self._find(place)
        return source.people[index]

    def _find(self, place: int) -> tuple[DetectionImages, int]:
        source = int(np.searchsorted(self.begins, place, side="right")) - 1
        return self.sources[source], place - int(self.begins[source])


__all__ = [
    "DetectionImages", "ImageBoxes", "Letterboxed", "Targets", "Windows", "read_detection", "targets", "window",
]  # fmt: skip
