"""Keypoint similarity and OKS between detections and annotated people, in float64 as in COCO's evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.skeleton import Skeleton
from oaks.val.ground_truth import GroundTruth


@dataclass(frozen=True)
class Pairs:
    """All P pairs of a detection and a person of its image, sorted by detection, then by person.

    Attributes:
        detection: (P,) index of the detection.
        person: (P,) index of the person.
        ks: (P,K) keypoint similarity (equation 2); 0 where the person's keypoint is not labeled.
        oks: (P,) equation 1. For a person without labeled keypoints, the similarity to the doubled box, as in COCO's
            evaluation, so that detections there can be ignored.
    """

    detection: np.ndarray
    person: np.ndarray
    ks: np.ndarray
    oks: np.ndarray


def pair_up(truth: GroundTruth, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return detections (P,) and people (P,) of all pairs within an image, for detections in the images `image` (N,)."""
    people = np.bincount(truth.image, minlength=len(truth.image_ids))
    first = np.concatenate([[0], np.cumsum(people)])
    repeats = people[image]
    detection = np.repeat(np.arange(len(image)), repeats)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return detection, first[image][detection] + within


def exponents(
    truth: GroundTruth, points: np.ndarray, person: np.ndarray, mirrored: bool = False
) -> np.ndarray:
    """Return exponents e (P,K) of the similarity exp(-e) between points (P,K,2) and the keypoints of `person` (P,).

    With `mirrored`, between points and the keypoints' left-right counterparts.
    """
    order = truth.skeleton.mirror if mirrored else slice(None)
    offset = points - truth.keypoints[person][:, order]
    return _exponents(offset, truth.areas[person], truth.skeleton)


def _exponents(offset: np.ndarray, areas: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    # The divisions are in the order of pycocotools, so that both round equally.
    variances = (np.array(skeleton.sigmas) * 2) ** 2
    return (offset[..., 0] ** 2 + offset[..., 1] ** 2) / variances / (areas + np.spacing(1))[:, None] / 2


def similarity_to_labels(
    points: np.ndarray, labels: np.ndarray, areas: np.ndarray, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray]:
    """Return KS (N,K), 0 for unlabeled keypoints, and OKS (N,) of N poses with their own labels.

    Args:
        points: (N,K,2) pixels.
        labels: (N,K,3) x, y, flag.
        areas: (N,) square pixels.
    """
    visible = labels[..., 2] > 0
    ks = np.exp(-_exponents(points - labels[..., :2], areas, skeleton)) * visible
    return ks, ks.sum(axis=1) / np.maximum(visible.sum(axis=1), 1)


def similarities(truth: GroundTruth, points: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return KS (P,K) and OKS (P,) between the poses `points` (P,K,2) and the people `person` (P,)."""
    labels = np.concatenate([truth.keypoints[person], truth.flags[person][..., None]], axis=2)
    ks, oks = similarity_to_labels(points, labels, truth.areas[person], truth.skeleton)
    boxes_only = np.flatnonzero(truth.labeled[person] == 0)
    if len(boxes_only):
        x, y, w, h = truth.boxes[person[boxes_only], :, None].transpose(1, 0, 2)
        low, high = np.stack([x - w, y - h], axis=-1), np.stack([x + w * 2, y + h * 2], axis=-1)
        at = points[boxes_only]
        outside = np.maximum(0, low - at) + np.maximum(0, at - high)
        oks[boxes_only] = np.exp(-_exponents(outside, truth.areas[person[boxes_only]], truth.skeleton)).mean(
            axis=1
        )
    return ks, oks


def pairs(truth: GroundTruth, keypoints: np.ndarray, image: np.ndarray) -> Pairs:
    """Return all pairs of the poses `keypoints` (N,K,2), in the images `image` (N,), with the people of these images."""
    detection, person = pair_up(truth, image)
    ks, oks = similarities(truth, keypoints[detection], person)
    return Pairs(detection, person, ks, oks)


def similarity_to_own(
    truth: GroundTruth, keypoints: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return KS (N,K) and OKS (N,) of each pose with its own person; NaN if it has none."""
    ks, oks = np.full(keypoints.shape[:2], np.nan), np.full(len(keypoints), np.nan)
    has = own >= 0
    ks[has], oks[has] = similarities(truth, keypoints[has], own[has])
    return ks, oks
