"""Rendered clips with their ground truth, and boxes like a detector's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.boxes import to_xyxy
from oaks.coco import check_annotations
from oaks.skeleton import COCO17
from oaks.training.render.output.folder import CATEGORIES
from oaks.training.render.video import Clip
from oaks.val.ground_truth import GroundTruth
from oaks.val.synthetic_boxes import detector_like
from oaks.val.tracking import person_ids


@dataclass(frozen=True)
class Recording:
    """A clip with its ground truth.

    Attributes:
        clip: renders the pictures again on demand.
        rate: frames per second; size: (width, height) of the frames.
        truth: the annotated people, an image per frame.
        people: (G,) their track ids.
        points: (T, P, 17, 2) places of the keypoints of each track id, from 1, visible or not.
        boxes, box_scores: for each frame (N, 4) x1, y1, x2, y2 and (N,): some people are missed, some found twice,
            and some boxes are on the background.
    """

    clip: Clip
    rate: float
    size: tuple[int, int]
    truth: GroundTruth
    people: np.ndarray
    points: np.ndarray
    boxes: list[np.ndarray]
    box_scores: list[np.ndarray]


def record(clip: Clip, rate: float, size: tuple[int, int], seed: int) -> Recording:
    """Draw a clip once for its labels.

    Args:
        clip: the clip.
        rate: its frames per second.
        size: (width, height) of its frames.
        seed: random seed of the boxes.
    """
    points = np.zeros((clip.frames, len(clip.actors), 17, 2))
    images, annotations = [], []
    for index in range(clip.frames):
        drawing, ids = clip.drawing(index)
        images.append({"id": index + 1, "width": size[0], "height": size[1]})
        for number, entry in drawing.annotations():
            shared = {"id": len(annotations) + 1, "image_id": index + 1, "track_id": ids[number]}
            annotations.append({**entry, **shared})
        for track_id, person in zip(ids, drawing.scene.people, strict=True):
            points[index, track_id - 1] = person.figure.keypoints * person.scale + person.shift
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    people = check_annotations(content, skeleton=COCO17)
    truth = GroundTruth.from_annotations(people, COCO17)
    rows = detector_like(people, seed=seed)
    boxes, scores = [], []
    for index in range(clip.frames):
        own = [row for row in rows if row["image_id"] == index + 1]
        boxes.append(to_xyxy(np.array([row["bbox"] for row in own], np.float32).reshape(-1, 4)))
        scores.append(np.array([row["score"] for row in own], np.float32))
    return Recording(clip, rate, size, truth, person_ids(truth, content), points, boxes, scores)
