"""Runs a bundle over an annotated data set and writes a COCO results file. A stopped run can be resumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks import ops
from oaks.box_files import read_boxes
from oaks.coco import make_header
from oaks.errors import ArgumentError
from oaks.images import ImageFolder, check_size, read_size
from oaks.inference import Engine
from oaks.val.ground_truth import GroundTruth
from oaks.val.resumable import Rows, run_over_images


@dataclass(frozen=True)
class Job:
    """The boxes of one image.

    Attributes:
        image: index into the ground truth's images.
        boxes: (n,4) x1, y1, x2, y2 in the image file's pixels.
        scores: (n,).
        people: (n,) annotation ids, or None where boxes are detected.
    """

    image: int
    boxes: np.ndarray
    scores: np.ndarray
    people: np.ndarray | None


def detect(
    engine: Engine,
    truth: GroundTruth,
    images: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    nms: float | None = ops.OKS_THRESHOLD,
    min_box_score: float = 0.0,
) -> Path:
    """Write the poses of all people of a data set as results with a header beside them.

    Progress is kept in `<out>.partial` after every few images; the same call resumes from it, and does nothing if `out`
    exists.

    Args:
        engine: estimates the poses.
        truth: the data set; with ground-truth boxes each person with keypoints gets one pose.
        images: folder of the image files that the annotations name.
        out: the results file to write.
        boxes: a COCO results file with person boxes (`bbox`, `score`); None: the annotated boxes.
        nms: OKS threshold for NMS, for detected boxes only; None keeps all poses. The OKS of a pair uses the mean
            area of their boxes.
        min_box_score: minimum score of detected boxes.

    Raises:
        FileNotFoundError: an image or the box file does not exist.
        ArgumentError: `out`, or what a stopped run left, was made with other settings, which the message names.
    """
    if engine.bundle.skeleton.count != truth.skeleton.count:
        raise ArgumentError(
            f"engine: bundle {engine.bundle.name!r} has {engine.bundle.skeleton.count} keypoints, "
            f"{truth.path} has {truth.skeleton.count}"
        )
    found = _annotated(truth) if boxes is None else _detected(truth, boxes, min_box_score)
    jobs = {job.image: job for job in found}
    annotations = Path(truth.path).name
    chosen: dict[str, Any]
    if boxes is None:
        chosen = {"box_source": f"annotated: {annotations}", "nms": None, "min_box_score": None}
    else:
        chosen = {"box_source": f"detected: {Path(boxes).name}", "nms": nms, "min_box_score": min_box_score}
    header = make_header(engine.describe(), annotations=annotations, **chosen)
    files = image_files(truth, images, jobs)

    def estimate(batch: list[int]) -> Iterator[tuple[int, Rows]]:
        return _estimate(engine, truth, files, [jobs[i] for i in batch], chosen["nms"])

    return run_over_images({i: len(job.boxes) for i, job in jobs.items()}, estimate, out, header)


def image_files(truth: GroundTruth, folder: str | Path, images: Iterable[int]) -> dict[int, Path]:
    """Return the files of some images (indices), by index, after checking that they have the stated size.

    Raises:
        FileNotFoundError: a file does not exist.
        ArgumentError: a file is damaged, outside the folder, or of another size after its EXIF orientation is applied.
    """
    files, place = {}, ImageFolder(folder)
    for image in images:
        path = place.find(truth.file_names[image])
        if path is None:
            raise FileNotFoundError(
                f"image not found: {place.folder / truth.file_names[image]}, which {truth.path} names"
            )
        if truth.sizes[image].any():
            check_size(path, read_size(path), truth.sizes[image].tolist())
        files[int(image)] = path
    return files


def _annotated(truth: GroundTruth) -> Iterator[Job]:
    for image in np.unique(truth.image[truth.counted]):
        people = np.flatnonzero((truth.image == image) & truth.counted)
        yield Job(int(image), truth.file_boxes(people), np.ones(len(people)), truth.ids[people])


def _detected(truth: GroundTruth, path: str | Path, min_box_score: float) -> Iterator[Job]:
    found = read_boxes(path, truth.category_id)
    if unknown := set(found.boxes) - set(truth.image_ids.tolist()):
        raise ArgumentError(f"{path}: {truth.path} has no image {min(unknown)}")
    best = max((float(scores.max()) for scores in found.scores.values()), default=min_box_score)
    if best < min_box_score:
        raise ArgumentError(
            f"min_box_score must leave some boxes of {path}, got {min_box_score}; the best score is {best:.4g}"
        )
    for image, image_id in enumerate(truth.image_ids.tolist()):
        corners, scores = found.of(image_id)
        keep = scores >= min_box_score
        if keep.any():
            yield Job(image, corners[keep], scores[keep], None)


def _estimate(
    engine: Engine, truth: GroundTruth, files: Mapping[int, Path], batch: list[Job], nms: float | None
) -> Iterator[tuple[int, Rows]]:
    """Yield (image, rows) for a few images."""
    poses = engine.infer(
        [files[job.image] for job in batch],
        boxes=[job.boxes for job in batch],
        box_scores=[job.scores for job in batch],
    )
    if nms is not None:
        poses = poses.without_duplicates(nms)
    rows = poses.to_coco(
        [int(truth.image_ids[job.image]) for job in batch],
        truth.category_id,
        file_names=[truth.file_names[job.image] for job in batch],
    )
    for index, job in enumerate(batch):
        own = [rows[n] for n in np.flatnonzero(poses.frame_index == index)]
        if job.people is not None:
            own = [row | {"annotation_id": int(person)} for row, person in zip(own, job.people, strict=True)]
        yield job.image, own
