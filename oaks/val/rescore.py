"""OAKS scores for poses that another estimator has placed (table 9)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from oaks.coco import AREA_OF_BOX, make_header, read_results
from oaks.inference import Engine
from oaks.val.detect import require_images
from oaks.val.detections import Detections
from oaks.val.ground_truth import Truth
from oaks.val.resumable import Rows, run_over_images

BOX_OF_KEYPOINTS = 1.2
"""Sides of a person's box, where none is known, as a multiple of those around the keypoints."""


def rescore(
    engine: Engine,
    truth: Truth,
    results: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    box_source: str | None = None,
) -> Path:
    """Adds predicted visibility and similarity to another estimator's results; its poses and scores stay.

    The engine looks at the same boxes. Its visibilities hold for the person, whoever places the keypoints.
    Its predicted similarities hold where it would place them itself, and so are multiplied by the similarity
    of the two places (equation 2, with AREA_OF_BOX of the box's area).

    A stopped run goes on by the same call (oaks.val.resumable).

    Args:
        engine: a bundle with visibility and KS network.
        truth: the data set; only its images are looked at, and its boxes where rows name an annotation_id.
        results: COCO keypoint results; rows may hold `box` (x, y, width, height) or `annotation_id`.
        images: folder of the image files that the annotations name.
        out: the results file to write.
        box_source: "ground truth" or "detected", where the results' header does not say.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: the results do not fit the data set; the bundle gives no OAKS score; or `out` was made
            with other settings.
    """
    if not engine.gives_oaks:
        raise ValueError(
            f"engine: bundle {engine.bundle.name!r} has no visibility or no KS network to score by"
        )
    rows, stated = read_results(results)
    found = Detections.load(results, truth, box_source=box_source)
    images = Path(images)
    order = [rows[i] for i in found.rows]
    boxes = _boxes(truth, found, order)
    header = make_header(
        engine.describe(),
        box_source=_box_source(stated, found, truth),
        poses_by=Path(results).name,
        poses_header=stated or {},
    )
    members = {int(i): np.flatnonzero(found.image == i) for i in np.unique(found.image)}
    require_images(truth, images, members)

    def estimate(batch: list[int]) -> Iterator[tuple[int, Rows]]:
        poses = engine.infer(
            [images / truth.file_names[i] for i in batch], boxes=[boxes[members[i]] for i in batch]
        )
        chosen = np.concatenate([members[i] for i in batch])
        placed = found.keypoints[chosen] / truth.scales[found.image[chosen], None]
        extent = boxes[chosen, 2:] - boxes[chosen, :2]
        area = AREA_OF_BOX * extent[:, 0] * extent[:, 1]
        variances = (2 * np.array(truth.skeleton.sigmas)) ** 2
        squared = ((placed - poses.keypoints) ** 2).sum(axis=2)
        similarity = poses.similarity * np.exp(-squared / variances / area[:, None] / 2)
        scored = [
            order[n] | {"visibility": v, "similarity": s}
            for n, v, s in zip(
                chosen, poses.visibility.round(7).tolist(), similarity.round(7).tolist(), strict=True
            )
        ]
        for index, image in enumerate(batch):
            yield image, [scored[k] for k in np.flatnonzero(poses.frame_index == index)]

    return run_over_images({i: len(own) for i, own in members.items()}, estimate, out, header)


def _box_source(stated: dict[str, Any] | None, found: Detections, truth: Truth) -> str:
    """As the results' header says it, or else in its words."""
    known = {"ground truth": f"annotated: {Path(truth.path).name}", "detected": "detected: not stated"}
    return (stated or {}).get("box_source", known[found.box_source])


def _boxes(truth: Truth, found: Detections, rows: Rows) -> np.ndarray:
    """(N,4) x1, y1, x2, y2 in the image file's pixels: the row's, its person's, or around the keypoints."""
    scale = truth.scales[found.image]
    low, high = found.keypoints.min(axis=1), found.keypoints.max(axis=1)
    center, half = (low + high) / 2 + 0.5, np.maximum(high - low, 8) / 2 * BOX_OF_KEYPOINTS
    boxes = np.concatenate([(center - half) / scale, (center + half) / scale], axis=1)
    position = {int(annotation_id): g for g, annotation_id in enumerate(truth.ids)}
    for n, row in enumerate(rows):
        if row.get("box") is not None:
            x, y, w, h = row["box"]
        elif row.get("annotation_id") in position:
            person = position[row["annotation_id"]]
            x, y, w, h = truth.boxes[person] / np.tile(truth.scales[truth.image[person]], 2)
        else:
            continue
        boxes[n] = x, y, x + w, y + h
    return boxes
