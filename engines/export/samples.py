"""Crops of people for comparing and calibrating networks, cut as the Engine cuts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oaks import ops
from oaks.box_files import read_boxes
from oaks.errors import ArgumentError
from oaks.images import ImageFolder, check_size, images_in, plain_name, read_image, readable_images
from oaks.skipping import skip
from oaks.structured import read_npz

ANNOTATIONS = "annotations.json"


def load_crops(source: str | Path | np.ndarray, description: Mapping[str, Any], *, count: int) -> np.ndarray:
    """Network inputs from pictures of people. A picture that is missing or cannot be read is skipped.

    Args:
        source: one of
            a COCO annotation file: its people, cut from the images beside it (in its own folder, in images/, or in
            the folder with the file's name); a folder with annotations.json, likewise; a folder of images, each
            one crop; an .npz file with one array, or an array: (N, H, W, 3) uint8 crops in the order `input.color`.
        description: a checkpoint's description, or bundle.json: its "input" and "padding" are used.
        count: largest number of crops, spread evenly over the source.

    Returns:
        (N, 3, height, width) float32, normalized for the network, 1 <= N <= count.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ArgumentError: the source holds no person whose picture can be read, or is none of the above.
    """
    if isinstance(source, np.ndarray):
        return _from_arrays("crops", source, description, count)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"crops not found: {path}; pass a folder, a COCO .json or an .npz")
    if path.is_dir():
        if (path / ANNOTATIONS).is_file():
            return _from_annotations(path / ANNOTATIONS, description, count)
        return _from_images(path, description, count)
    if path.suffix == ".json":
        return _from_annotations(path, description, count)
    if path.suffix == ".npz":
        content = read_npz(path)
        if len(content) != 1:
            raise ArgumentError(f"crops: {path} must hold one array, got {sorted(content)}")
        (crops,) = content.values()
        return _from_arrays(str(path), crops, description, count)
    raise ArgumentError(f"crops must be a folder, a COCO .json or an .npz, got {str(source)!r}")


def split(inputs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Split inputs in two: up to `count` of them, at most half and at least one, spread evenly; and the others."""
    chosen = np.zeros(len(inputs), bool)
    chosen[_spread(len(inputs), min(count, (len(inputs) + 1) // 2))] = True
    return inputs[chosen], inputs[~chosen]


def crop_of(
    image: np.ndarray, box: Any, description: Mapping[str, Any], padding: float, color: str = "bgr"
) -> np.ndarray:
    """Return the network input of one person.

    Args:
        image: (H, W, 3) uint8 in the order `color`.
        box: x1, y1, x2, y2.
        description: as in load_crops.
        padding: size of the crop relative to the box.

    Returns:
        (3, height, width) float32, normalized RGB.
    """
    network_input = description["input"]
    return ops.crop(
        image,
        np.asarray([box], np.float32),
        size=tuple(network_input["size"]),
        padding=padding,
        mean=network_input["mean"],
        std=network_input["std"],
        color=color,
    ).pixels[0]


def _whole(image: np.ndarray, description: Mapping[str, Any], color: str) -> np.ndarray:
    """Return the network input of a picture that is a crop already."""
    height, width = image.shape[:2]
    return crop_of(image, (0, 0, width, height), description, 1.0, color)


def _spread(total: int, count: int) -> np.ndarray:
    """Return up to `count` evenly spaced indices below `total`."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(int))


def _from_arrays(name: str, crops: np.ndarray, description: Mapping[str, Any], count: int) -> np.ndarray:
    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.dtype != np.uint8 or not len(crops):
        raise ArgumentError(f"{name} must be (N, H, W, 3) uint8 with N >= 1, got {crops.shape} {crops.dtype}")
    color = description["input"].get("color", "bgr")
    return np.stack([_whole(crops[i], description, color) for i in _spread(len(crops), count)])


def _from_images(folder: Path, description: Mapping[str, Any], count: int) -> np.ndarray:
    try:
        paths = images_in(folder)
    except FileNotFoundError as error:
        raise ArgumentError(
            f"crops must be a folder with {ANNOTATIONS} or images, got {folder}: {error}"
        ) from error
    chosen = [paths[i] for i in _spread(len(paths), count)]
    return _stacked([_whole(image, description, "bgr") for _, image in readable_images(chosen)], folder)


def _from_annotations(path: Path, description: Mapping[str, Any], count: int) -> np.ndarray:
    annotated = read_boxes(path)
    people = [(name, box) for name, image in annotated.image_ids.items() for box in annotated.of(image)[0]]
    if not people:
        raise ArgumentError(f"crops must have annotated people, got {path} without any")
    padding = float(description.get("padding", 1.25))
    crops = []
    for index in _spread(len(people), count):
        name, box = people[index]
        image_file = None
        try:
            image_file = _beside(path, name)
            image = read_image(image_file)
        except (OSError, ArgumentError) as error:
            skip(name, str(error).removeprefix(f"{image_file}: "))
            continue
        check_size(image_file, image.shape[1::-1], annotated.size(annotated.image_ids[name]))
        crops.append(crop_of(image, box, description, padding))
    return _stacked(crops, path)


def _stacked(crops: Sequence[np.ndarray], source: Path) -> np.ndarray:
    if not crops:
        raise ArgumentError(f"crops must have pictures that can be read, got {source} without any")
    return np.stack(crops)


def _beside(annotations: Path, name: str) -> Path:
    """Return the path of an image that a COCO file names; the format does not say in which folder it lies."""
    folders = (annotations.parent, annotations.parent / "images", annotations.with_suffix(""))
    for folder in folders:
        for named in (name, plain_name(name).rpartition("/")[2]):
            if (file := ImageFolder(folder).find(named)) is not None:
                return file
    raise FileNotFoundError(
        f"image not found: {name}, which {annotations} names, in any of {[str(f) for f in folders]}"
    )


__all__ = ["crop_of", "load_crops", "split"]
