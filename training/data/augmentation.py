"""Augmentation: a training sample from one person by one affine warp, then occluders and color changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from oaks.skeleton import Skeleton
from oaks.training.data.geometry import crop_to_image, image_to_crop, warp, window_of
from oaks.training.data.people import Person
from oaks.training.recipe import Augmentation, ImageAugmentation

LOWER_BODY = ("hip", "knee", "ankle")
HALF_BODY_PADDING = 1.5


class Sample(NamedTuple):
    """A training sample: a crop and its keypoints."""

    crop: np.ndarray  # (H, W, 3) uint8 RGB
    points: np.ndarray  # (K, 2) float32 crop pixel indices
    visible: np.ndarray  # (K,) float32: 1 if labeled and inside the crop, else 0
    annotatable: np.ndarray  # (K,) float32: 0 for keypoints that count in no loss


def augment(
    image: np.ndarray,
    person: Person,
    rng: np.random.Generator,
    settings: Augmentation,
    *,
    size: tuple[int, int],
    padding: float,
    skeleton: Skeleton,
    another: Callable[[], np.ndarray] | None = None,
) -> Sample:
    """Return an augmented crop of a person.

    Args:
        image: (H, W, 3) uint8 BGR.
        person: in pixel indices of `image`.
        rng: source of all random numbers.
        settings: the augmentation; the defaults give the same crop as oaks.ops.crop.
        size: (width, height) of the crop.
        padding: size of the crop relative to the box.
        skeleton: skeleton of the person.
        another: returns an image to cut occluders from; None: they are cut from `image`.
    """
    center, extent = window_of(_box(person, rng, settings, skeleton), size, padding)
    # All numbers are drawn even if they are not used, so that a setting does not change the effect of the others.
    turns, angle, zoom, flips = rng.random(), rng.uniform(-1, 1), rng.random(), rng.random()
    shift = rng.uniform(-1, 1, 2)
    low, high = settings.scale
    mirrored = flips < settings.flip
    affine = crop_to_image(
        center + shift * settings.shift * extent,
        extent,
        size,
        scale=low + (high - low) * zoom,
        rotation=angle * settings.rotation if turns < settings.rotation_probability else 0.0,
        mirrored=mirrored,
    )
    crop = warp(image, affine, size)
    points = image_to_crop(person.keypoints[:, :2].astype(np.float64), affine)
    labels, annotatable = person.keypoints[:, 2] > 0, person.annotatable
    if mirrored:
        order = skeleton.mirror
        points, labels, annotatable = points[order], labels[order], annotatable[order]
    inside = ((points > -0.5) & (points < np.asarray(size) - 0.5)).all(axis=1)
    visible = labels & inside
    if rng.random() < settings.occluders:
        crop = occlude(crop, rng, image if another is None else another(), points[visible])
    crop = recolor(crop, rng, settings)
    return Sample(
        np.ascontiguousarray(crop[..., ::-1]),
        np.where(visible[:, None], points, 0).astype(np.float32),
        visible.astype(np.float32),
        annotatable.astype(np.float32),
    )


def _box(person: Person, rng: np.random.Generator, settings: Augmentation, skeleton: Skeleton) -> np.ndarray:
    """Return the person's box, or a box around the upper or lower half of the body."""
    chosen, upper = rng.random() < settings.half_body, rng.random() < 0.6
    labeled = person.keypoints[:, 2] > 0
    if not chosen or labeled.sum() < 8:
        return person.box
    lower = np.array([name.endswith(LOWER_BODY) for name in skeleton.keypoints])
    half = labeled & (~lower if upper else lower)
    if half.sum() < 3:
        return person.box
    corners = person.keypoints[half, :2] + 0.5
    low, high = corners.min(0), corners.max(0)
    middle, reach = (low + high) / 2, np.maximum((high - low) / 2 * HALF_BODY_PADDING, 4)
    return np.concatenate([middle - reach, middle + reach])


def vary(
    image: np.ndarray, person: Person, rng: np.random.Generator, settings: Augmentation
) -> tuple[np.ndarray, Person]:
    """Return the image with color changes and occluders, and the person with a scaled and shifted box.

    This is the augmentation of KS-net's data; everything else is the same as at inference.
    """
    low, high = settings.scale
    scale, shift = low + (high - low) * rng.random(), rng.uniform(-1, 1, 2) * settings.shift
    corners = person.box.reshape(2, 2)
    middle, extent = corners.mean(0), corners[1] - corners[0]
    middle, half = middle + shift * extent, extent * scale / 2
    labeled = person.keypoints[person.keypoints[:, 2] > 0, :2]
    if rng.random() < settings.occluders:
        image = occlude(image.copy(), rng, image, labeled)
    image = recolor(image, rng, settings)
    return image, person._replace(box=np.concatenate([middle - half, middle + half]).astype(np.float32))


def occlude(crop: np.ndarray, rng: np.random.Generator, source: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Paste one to three patches over the crop, half of them near a keypoint. Labels do not change.

    Annotators infer hidden keypoints from the rest of the body; the network has to learn this.
    """
    height, width = crop.shape[:2]
    for _ in range(rng.integers(1, 4)):
        w, h = (rng.uniform(0.08, 0.35, 2) * (width, height)).astype(int) + 2
        if len(points) and rng.random() < 0.5:
            x, y = points[rng.integers(len(points))] + rng.normal(0, 0.1, 2) * (w, h)
        else:
            x, y = rng.uniform(0, width), rng.uniform(0, height)
        mask = np.zeros((h, w), np.uint8)
        if rng.random() < 0.5:
            cv2.ellipse(mask, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 255, -1)
        else:
            mask[:] = 255
        x1, y1 = int(x - w / 2), int(y - h / 2)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x1 + w, width), min(y1 + h, height)
        if right <= left or bottom <= top:
            continue
        patch = _patch(source, rng, (w, h))
        inner = np.s_[top - y1 : bottom - y1, left - x1 : right - x1]
        place = crop[top:bottom, left:right]
        np.copyto(place, patch[inner], where=mask[inner][..., None] > 0)
    return crop


def _patch(source: np.ndarray, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return (h, w, 3) uint8: a part of an image, a plain color or a coarse random texture."""
    width, height = size
    kind = rng.random()
    if kind < 0.6:
        rows, columns = source.shape[:2]
        h, w = min(height, rows), min(width, columns)
        y, x = rng.integers(rows - h + 1), rng.integers(columns - w + 1)
        return cv2.resize(source[y : y + h, x : x + w], (width, height))
    color = rng.integers(0, 256, 3)
    if kind < 0.8:
        return np.broadcast_to(color.astype(np.uint8), (height, width, 3))
    cells = rng.normal(0, 40, (*rng.integers(2, 9, 2), 3)) + color
    return cv2.resize(np.clip(cells, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def recolor(crop: np.ndarray, rng: np.random.Generator, settings: ImageAugmentation) -> np.ndarray:
    """Change contrast, brightness, white balance, saturation, sharpness and resolution, and add noise."""
    strength = settings.color
    gain, offset = 1 + strength * rng.uniform(-0.4, 0.4), strength * rng.uniform(-40, 40)
    balance, saturation = 1 + strength * rng.uniform(-0.15, 0.15, 3), strength * rng.uniform(-0.6, 0.6)
    if strength > 0:
        crop = cv2.transform(crop, _color_matrix(gain, offset, balance, saturation))
    if rng.random() < settings.gray:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    blurs, kind, amount = rng.random(), rng.random(), rng.random()
    if blurs < settings.blur:
        crop = _blurred(crop, kind, amount)
    if rng.random() < settings.noise:
        noise = np.empty(crop.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31)))
        mean: Any = 0
        deviation: Any = rng.uniform(2, 15)
        cv2.randn(noise, mean, deviation)
        crop = cv2.add(crop, noise, dtype=cv2.CV_8U)
    return crop


def _color_matrix(gain: float, offset: float, balance: np.ndarray, saturation: float) -> np.ndarray:
    """Return a (3, 4) BGR to BGR transform. Contrast keeps middle gray, saturation keeps luminance."""
    luminance = np.array([0.114, 0.587, 0.299])
    linear = gain * balance[:, None] * ((1 + saturation) * np.eye(3) - saturation * luminance)
    return np.concatenate([linear, np.full((3, 1), 128 * (1 - gain) + offset)], axis=1)


def _blurred(crop: np.ndarray, kind: float, amount: float) -> np.ndarray:
    height, width = crop.shape[:2]
    if kind < 0.4:
        return cv2.GaussianBlur(crop, (0, 0), 0.5 + 2 * amount)
    if kind < 0.7:  # lower resolution, as of distant people
        factor = 0.25 + 0.5 * amount
        size = max(8, int(width * factor)), max(8, int(height * factor))
        return cv2.resize(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), (width, height))
    length = 3 + 2 * int(5 * amount)
    kernel = np.zeros((length, length), np.float32)
    direction = (kind - 0.7) / 0.3 * np.pi
    reach = (length // 2) * np.array([np.cos(direction), np.sin(direction)])
    middle = length // 2
    ends = [tuple(round(middle + sign * float(r)) for r in reach) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(crop, -1, kernel / kernel.sum())


__all__ = ["Sample", "augment", "occlude", "recolor", "vary"]
