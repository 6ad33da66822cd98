"""Boxes of the people that an Engine's detector finds in a data set; a stopped run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from oaks.boxes import to_xywh
from oaks.coco_results import make_header
from oaks.detector_formats import NotFiniteError
from oaks.images import in_order
from oaks.inference import Engine
from oaks.val.detect import ReadableImages
from oaks.val.ground_truth import GroundTruth
from oaks.val.resumable import Rows, run_over_images


def find_people(engine: Engine, truth: GroundTruth, images: str | Path, out: str | Path) -> Path:
    """Write boxes of the people that the Engine's detector finds in all images of a data set.

    Progress is kept in `<out>.partial` after every few images; the same call resumes from it, and does nothing if `out`
    exists. An image that is missing, damaged or too large, or for which the detector's outputs are not finite, is skipped,
    as by oaks.val.detect.detect; any other failure ends the run.

    Args:
        engine: an Engine with a detector.
        truth: the data set; only its images are used.
        images: folder of the image files that the annotations name.
        out: the results file to write: image_id, category_id, bbox (x, y, width, height) and score, in the units of
            the annotations.

    Returns:
        The path of the results file.

    Raises:
        FileNotFoundError: every image is missing.
        ArgumentError: the Engine has no detector, its detector's outputs are not those of a person detector, or `out`, or
            what a stopped run left, was made with another one.
        OSError, RuntimeError: an image, or the detector, failed.
    """
    detector = engine.detector
    described = {"threshold": detector.threshold, "overlap": detector.overlap}
    header = make_header(described, box_source=detector.description, annotations=Path(truth.path).name)
    run = ReadableImages(truth, images, range(len(truth.image_ids)))

    def find(batch: list[int]) -> Iterator[tuple[int, Rows]]:
        for image, pixels in run.read(batch):
            try:
                boxes, scores = engine.detect(in_order(pixels, engine.color))
            except NotFiniteError as error:
                run.skip(image, error)
                continue
            yield (
                image,
                [
                    {
                        "image_id": int(truth.image_ids[image]),
                        "category_id": truth.category_id,
                        "bbox": np.round(box, 3).tolist(),
                        "score": round(float(score), 6),
                    }
                    for box, score in zip(to_xywh(boxes.astype(np.float64)), scores, strict=True)
                ],
            )

    return run_over_images(dict.fromkeys(range(len(truth.image_ids)), 1), find, out, header, run.skipped)


__all__ = ["find_people"]
