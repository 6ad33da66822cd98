"""Assignment of detected poses to annotated people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from oaks.coco_fields import indices_by
from oaks.errors import ArgumentError
from oaks.names import number_of
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import pairs

LOCALIZED = 0.1
"""Minimum OKS for a detection to count as an attempt at a person (Ronchi and Perona)."""


def assign_people(
    truth: GroundTruth,
    box_source: str,
    rows: Sequence[dict[str, Any]],
    image: np.ndarray,
    keypoints: np.ndarray,
    *,
    path: str,
    indices: Sequence[int],
) -> np.ndarray:
    """Return the (N,) index of each pose's own person; -1 for none.

    With ground-truth boxes that is the person whose box was cropped: `annotation_id` if the rows state it, else the
    one-to-one assignment of an image's poses to its labeled people with the largest sum of OKS. With detected boxes
    it is the labeled person with the largest OKS if that is at least 0.1; on ties the first.

    Args:
        truth: the people.
        box_source: "ground truth" or "detected".
        rows: N rows of a results file.
        image: (N,) index of each row's image, ascending.
        keypoints: (N,K,2) poses on the ground truth's scale.
        path, indices: the file and the N row numbers, for messages.

    Raises:
        ArgumentError: an annotation_id does not exist, belongs to another image, repeats, or names a person without
            labeled keypoints; or, with ground-truth boxes, an image has more poses than labeled people. The
            message names the file and the row.
    """
    if box_source == "detected":
        return _nearest(truth, image, keypoints)
    if all("annotation_id" in row for row in rows):
        return _stated(truth, [row["annotation_id"] for row in rows], image, path, indices)
    return _assigned(truth, image, keypoints, path)


def _stated(
    truth: GroundTruth, ids: list[int], image: np.ndarray, path: str, indices: Sequence[int]
) -> np.ndarray:
    position = {int(annotation_id): g for g, annotation_id in enumerate(truth.ids)}
    own = np.empty(len(ids), dtype=np.int64)
    seen: dict[int, int] = {}
    for n, annotation_id in enumerate(ids):
        where = f"{path}: row {indices[n]} (image {truth.image_ids[image[n]]})"
        if annotation_id not in position:
            raise ArgumentError(f"{where}: {truth.path} has no annotation {annotation_id}")
        person = position[annotation_id]
        if truth.image[person] != image[n]:
            raise ArgumentError(
                f"{where}: annotation {annotation_id} lies in image {truth.image_ids[truth.image[person]]}"
            )
        if not truth.counted[person]:
            raise ArgumentError(f"{where}: annotation {annotation_id} has no labeled keypoints to measure by")
        if annotation_id in seen:
            raise ArgumentError(
                f"{where}: annotation {annotation_id} is also that of row {seen[annotation_id]}"
            )
        seen[annotation_id] = indices[n]
        own[n] = person
    return own


def _assigned(truth: GroundTruth, image: np.ndarray, keypoints: np.ndarray, path: str) -> np.ndarray:
    found = pairs(truth, keypoints, image)
    own = np.full(len(image), -1)
    by_image = indices_by(truth.image)
    for where, poses in indices_by(image).items():
        members = by_image.get(where, np.zeros(0, int))
        people = members[truth.counted[members]]
        if len(poses) > len(people):
            raise ArgumentError(
                f"{path}: image {truth.image_ids[where]} has {number_of(len(poses), 'pose')} for "
                f"{number_of(len(people), 'labeled person', 'labeled people')}; with ground-truth boxes there is "
                "at most one for each (were these boxes detected?)"
            )
        part = slice(*np.searchsorted(found.detection, [poses[0], poses[-1] + 1]))
        table = found.oks[part].reshape(len(poses), -1)[:, truth.counted[members]]
        chosen, assigned = linear_sum_assignment(table, maximize=True)
        own[poses[chosen]] = people[assigned]
    return own


def _nearest(truth: GroundTruth, image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    found = pairs(truth, keypoints, image)
    keep = np.flatnonzero(truth.counted[found.person] & (found.oks >= LOCALIZED))
    order = keep[np.lexsort((found.person[keep], -found.oks[keep], found.detection[keep]))]
    detection, first = np.unique(found.detection[order], return_index=True)
    own = np.full(len(image), -1)
    own[detection] = found.person[order][first]
    return own
