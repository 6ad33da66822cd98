"""Pairs results with the annotated people that a scorer is fitted to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from oaks.boxes import iou, to_xyxy
from oaks.coco_fields import box_fields, indices_by
from oaks.coco_results import read_results
from oaks.errors import ArgumentError
from oaks.results_features import check_rows, check_scores
from oaks.skeleton import Skeleton
from oaks.val.detections import Detections
from oaks.val.ground_truth import GroundTruth
from oaks.val.oks import similarity_to_own

log = logging.getLogger("oaks")

PERSON, OTHER = 1, 0
"""Category ids of people and of everything else in files that are joined, since each file may have its own ids."""
IDS_PER_FILE = 1 << 48
"""In files that are joined, the ids of file n are raised by n times this, so that no two files share one."""
SAME_PERSON = 0.5
"""Minimum intersection over union of a detected box and its person's box."""


@dataclass(frozen=True)
class People:
    """N poses of an estimator, and the person of each.

    Attributes:
        truth: the annotated people, of all files together.
        detections: the poses.
        boxes: (N, 4) x1, y1, x2, y2 on the scale of `points`, or None if the results have none.
        points: (N, K, 2) keypoints in pixels of the image files.
        heat: (N, K) scores of the keypoints.
        header: header of the results.
        rows_read: number of rows of the results, including other categories.
    """

    truth: GroundTruth
    detections: Detections
    boxes: np.ndarray | None
    points: np.ndarray
    heat: np.ndarray
    header: dict[str, Any]
    rows_read: int

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: poses of annotated people."""
        return self.detections.own >= 0

    @property
    def labeled(self) -> np.ndarray:
        """(N, K) bool: keypoints labeled on the pose's person; False for poses without a person."""
        flags = self.truth.flags[self.detections.own] > 0
        return flags & self.known[:, None]

    @property
    def similarity(self) -> np.ndarray:
        """(N, K) true keypoint similarity; 0 where the keypoint is not labeled."""
        truth, detections = self.truth, self.detections
        return np.nan_to_num(similarity_to_own(truth, detections.keypoints, detections.own)[0])

    @property
    def images(self) -> np.ndarray:
        """(N,) id of the image of each pose."""
        return self.truth.image_ids[self.detections.image]

    def only(self, index: np.ndarray) -> People:
        """Return some of the poses, by indices (n,) in the order of the images."""
        arrays = {name: v[index] for name, v in vars(self.detections).items() if isinstance(v, np.ndarray)}
        return replace(
            self,
            detections=replace(self.detections, **arrays),
            boxes=None if self.boxes is None else self.boxes[index],
            points=self.points[index],
            heat=self.heat[index],
        )

    def titles(self, index: np.ndarray) -> list[str]:
        """Return what messages call the people of some poses."""
        owns = self.detections.own[index]
        return [
            f"annotation {own_id(int(self.truth.ids[own]))} of {self.truth.file_names[self.truth.image[own]]}"
            for own in owns
        ]


_Ids = TypeVar("_Ids", int, np.ndarray)


def joined_id(file: int, ids: _Ids) -> _Ids:
    """Return what becomes of ids of a file, by its number, where several files are joined."""
    return ids + file * IDS_PER_FILE


def own_id(ids: _Ids) -> _Ids:
    """Return the ids that joined ids have in their own file."""
    return ids % IDS_PER_FILE


def in_both(one: People, other: People) -> tuple[np.ndarray, np.ndarray]:
    """Pair two networks' poses in ground-truth boxes by person; people of one network only are left out and logged.

    Returns:
        Indices (n,) of the poses of `one`, ascending, and of the poses of `other`; equal places hold the same person.

    Raises:
        ArgumentError: the networks have no person in common.
    """
    ids, others = (people.truth.ids[people.detections.own] for people in (one, other))
    first = np.flatnonzero(np.isin(ids, others))
    left_out = one.titles(np.flatnonzero(~np.isin(ids, others)))
    left_out += other.titles(np.flatnonzero(~np.isin(others, ids)))
    if left_out:
        shown = ", ".join(left_out[:10]) + (", ..." if len(left_out) > 10 else "")
        log.warning("%d people have heatmaps of one network only and are left out: %s", len(left_out), shown)
    if not len(first):
        raise ArgumentError("both networks must have heatmaps of some of the same people, got none")
    place = {person: n for n, person in enumerate(others.tolist())}
    return first, np.array([place[person] for person in ids[first].tolist()])


def load_people(
    results: Sequence[str | Path],
    annotations: Sequence[str | Path],
    *,
    skeleton: Skeleton,
    box_source: str | None = None,
    category: str | int | None = None,
) -> People:
    """Read results and the annotations of their images, and find each pose's person.

    With ground-truth boxes that is the person whose box was cropped. With detected boxes it is the labeled person whose
    box overlaps most, if the IoU is at least 0.5; without boxes, the person with the largest OKS.

    Args:
        results: COCO keypoint results, one file for each annotation file. Rows may hold `box` or `bbox`
            (x, y, width, height), `box_score`, `annotation_id` and `heat`.
        annotations: COCO keypoint annotations.
        skeleton: the keypoints of both.
        box_source: "ground truth" or "detected", if the results' header does not state it.
        category: name or id of the category of people; None: as oaks.coco.choose_category.

    Raises:
        FileNotFoundError: a file does not exist.
        ArgumentError: results and annotations do not fit, or the results hold no usable keypoint scores.
    """
    if len(results) != len(annotations) or not results:
        raise ArgumentError(
            f"results must be one file for each of annotations, got {len(results)} and {len(annotations)}"
        )
    if len({Path(path).resolve() for path in results}) < len(results):
        raise ArgumentError(f"results must be different files, got {_joined(results)}")
    rows: list[dict[str, Any]] = []
    headers = []
    for number, path in enumerate(results):
        own, header = read_results(path)
        _check_bare(own, str(path))
        if len(results) > 1:  # checked one by one, so that errors name the file
            truth = GroundTruth.load(annotations[number], skeleton=skeleton, category=category)
            Detections.from_rows(own, truth, path=str(path))
            own = [
                {**_renumbered(row, number, "image_id", "annotation_id"),
                 "category_id": PERSON if row["category_id"] == truth.category_id else OTHER}
                for row in own
            ]  # fmt: skip
        rows += own
        headers.append(header or {})
    truth = load_truth(annotations, skeleton, category)
    return people_of(rows, headers, truth, _joined(results), box_source)


def people_of(
    rows: list[dict[str, Any]],
    headers: Sequence[dict[str, Any]],
    truth: GroundTruth,
    label: str,
    box_source: str | None = None,
) -> People:
    """Like `load_people`, from rows in memory; `label` names them in messages."""
    stated = {
        str(header["box_source"]).startswith("annotated") for header in headers if "box_source" in header
    }
    with_ids = all(row.get("annotation_id") is not None for row in rows)
    if box_source is None:
        ground_truth = stated == {True} or (not stated and with_ids)
        box_source = "ground truth" if ground_truth else "detected"
    if not rows:
        raise ArgumentError(f"{label}: results must hold at least one pose, got an empty list")
    # Rows of other programs may hold bbox, which pycocotools would take for a box result.
    plain = [{("box" if key == "bbox" else key): value for key, value in row.items()} for row in rows]
    check_rows(plain, label)
    detections = Detections.from_rows(plain, truth, path=label, header=headers[0], box_source=box_source)
    ordered = [plain[i] for i in detections.rows]
    heat = _heat(detections, ordered, label)
    scale = truth.scales[detections.image]
    boxes = _boxes(truth, detections, ordered)
    if box_source == "detected" and boxes is not None:
        detections = replace(detections, own=_own_by_box(truth, detections.image, boxes * np.tile(scale, 2)))
    points = detections.keypoints / scale[:, None]
    return People(truth, detections, boxes, points, heat, headers[0], len(rows))


def load_truth(
    annotations: Sequence[str | Path], skeleton: Skeleton, category: str | int | None = None
) -> GroundTruth:
    """Join the people of several COCO files; ids of different files become different, the category becomes PERSON.

    Raises:
        ArgumentError: a file is not a COCO annotation file.
    """
    truths = [GroundTruth.load(path, skeleton=skeleton, category=category) for path in annotations]
    if len(truths) == 1:
        return truths[0]
    starts = np.cumsum([0, *(len(truth.image_ids) for truth in truths)])
    whole = ("sizes", "scales", "keypoints", "flags", "areas", "boxes", "crowd")
    return GroundTruth.from_arrays(
        path=_joined(annotations),
        skeleton=skeleton,
        category_id=PERSON,
        ids=np.concatenate([joined_id(number, truth.ids) for number, truth in enumerate(truths)]),
        image=np.concatenate([start + truth.image for start, truth in zip(starts, truths, strict=False)]),
        image_ids=np.concatenate([joined_id(number, truth.image_ids) for number, truth in enumerate(truths)]),
        file_names=tuple(name for truth in truths for name in truth.file_names),
        **{name: np.concatenate([getattr(truth, name) for truth in truths]) for name in whole},
    )


def _renumbered(entry: dict[str, Any], file: int, *keys: str) -> dict[str, Any]:
    """Return an entry of one of several files, with ids that no entry of another file has."""
    return {**entry, **{key: joined_id(file, int(entry[key])) for key in keys if entry.get(key) is not None}}


def _joined(paths: Sequence[str | Path]) -> str:
    return " + ".join(map(str, paths))


def _check_bare(rows: list[dict[str, Any]], label: str) -> None:
    """Refuse keypoints without scores, such as (x, y) pairs."""
    for number, row in enumerate(rows):
        points = row.get("keypoints")
        if isinstance(points, list) and points and isinstance(points[0], list):
            raise ArgumentError(
                f"{label}: row {number}: keypoints must be a flat list x, y, score, ..., got nested lists"
            )


def _heat(detections: Detections, rows: list[dict[str, Any]], label: str) -> np.ndarray:
    heat = detections.heat
    if heat is None:  # all are equal
        heat = np.full((len(rows), detections.keypoints.shape[1]), float(rows[0]["keypoints"][2]))
    check_scores(heat, label)
    return heat


def _boxes(truth: GroundTruth, detections: Detections, rows: list[dict[str, Any]]) -> np.ndarray | None:
    """Return boxes (N, 4) in pixels of the image files: the row's or its person's; None if a row has neither."""
    if all(row.get("box") is not None for row in rows):
        return to_xyxy(box_fields(rows, lambda n: f"{detections.path}: row {detections.rows[n]}"))
    if detections.box_source == "ground truth":
        return truth.file_boxes(detections.own)
    return None


def _own_by_box(truth: GroundTruth, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return (N,) the labeled person whose box overlaps most, if by SAME_PERSON; else -1."""
    own = np.full(len(boxes), -1)
    people = to_xyxy(truth.boxes)
    counted = np.flatnonzero(truth.counted)
    by_image = {image: counted[members] for image, members in indices_by(truth.image[counted]).items()}
    for where, poses in indices_by(image).items():
        if where not in by_image:
            continue
        there = by_image[where]
        overlap = iou(boxes[poses], people[there])
        best = overlap.argmax(axis=1)
        fits = overlap[np.arange(len(poses)), best] >= SAME_PERSON
        own[poses[fits]] = there[best[fits]]
    return own


__all__ = ["People", "in_both", "joined_id", "load_people", "load_truth", "own_id", "people_of"]
