"""Run a bundle over an annotated data set and write a COCO results file; a stopped run can be resumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from oaks import ops
from oaks.arguments import is_number
from oaks.box_files import read_boxes
from oaks.coco_fields import indices_by
from oaks.coco_results import header_path, make_header
from oaks.errors import ArgumentError
from oaks.images import ImageFolder, check_size, in_order, read_image, read_size
from oaks.inference import Engine, report_unscored
from oaks.poses import Poses
from oaks.skipping import skip
from oaks.structured import read_json
from oaks.val.ground_truth import GroundTruth
from oaks.val.resumable import Rows, run_over_images, stated_skips


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
    allow_nobody: bool = False,
) -> Path:
    """Write the poses of all people of a data set as results with a header beside them.

    Progress is kept in `<out>.partial` after every few images; the same call resumes from it, and does nothing if
    `out` exists. An image that is missing, damaged or too large, or has a pose without a finite score, is skipped: it is
    logged, stands under "skipped" in the header, and its people count as missed. Any other failure, of a disk, of memory
    or of the networks, ends the run, since it may be gone when the run is resumed.

    Args:
        engine: estimates the poses.
        truth: the data set; with ground-truth boxes each person with keypoints gets one pose.
        images: folder of the image files that the annotations name.
        out: the results file to write.
        boxes: a COCO results file with person boxes (`bbox`, `score`); None: the annotated boxes.
        nms: OKS threshold for NMS, for detected boxes only; None keeps all poses. The OKS of a pair uses the mean
            area of their boxes.
        min_box_score: minimum score of detected boxes.
        allow_nobody: whether no box needs to have that score.

    Raises:
        FileNotFoundError: the box file, or every image, is missing.
        ArgumentError: `out`, or what a stopped run left, was made with other settings; the message says which.
        OSError, RuntimeError: an image, or the networks, failed.
    """
    for name, value in (("nms", nms), ("min_box_score", min_box_score)):
        if value is not None and not is_number(value):
            raise ArgumentError(f"{name} must be a number, got {value!r}")
    if engine.bundle.skeleton.count != truth.skeleton.count:
        raise ArgumentError(
            f"engine: bundle {engine.bundle.name!r} has {engine.bundle.skeleton.count} keypoints, "
            f"{truth.path} has {truth.skeleton.count}"
        )
    if boxes is None:
        found = list(_annotated(truth))
    else:
        found = detected_jobs(truth, boxes, min_box_score, allow_nobody=allow_nobody)
    jobs = {job.image: job for job in found}
    annotations = Path(truth.path).name
    chosen: dict[str, Any]
    if boxes is None:
        chosen = {"box_source": f"annotated: {annotations}", "nms": None, "min_box_score": None}
    else:
        chosen = {"box_source": f"detected: {Path(boxes).name}", "nms": nms, "min_box_score": min_box_score}
    header = make_header(engine.describe(), annotations=annotations, **chosen)
    run = ReadableImages(truth, images, jobs)
    if (
        boxes is not None and header_path(boxes).is_file()
    ):  # images that the run that made the boxes has skipped
        places = {name: image for image, name in enumerate(truth.file_names)}
        stated = stated_skips(read_json(header_path(boxes), top=dict), header_path(boxes))
        for name, reason in stated.items():
            if name in places and places[name] not in jobs:
                run.skip(places[name], reason)

    def estimate(batch: list[int]) -> Iterator[tuple[int, Rows]]:
        return _estimate(engine, run, [jobs[i] for i in batch], chosen["nms"])

    people = {i: len(job.boxes) for i, job in jobs.items()}
    return run_over_images(people, estimate, out, header, run.skipped)


class ReadableImages:
    """The image files of a data set. Those that are missing, damaged or too large are skipped.

    Args:
        truth: the data set.
        folder: of the image files.
        images: indices of the images to look for.
        joined: whether the data set is one of several, so that items are named by folder and file name.

    Attributes:
        files: image -> its file, where it exists and has the size that the annotations state.
        skipped: item -> why it was skipped; items are images, by file name, and people. Grows while images are read.

    Raises:
        FileNotFoundError, ArgumentError: none of the images can be read.
        OSError: an image exists, but reading it fails.
        ArgumentError: an image is of another size than its labels, after its EXIF orientation is applied, or lies
            outside the folder.
    """

    def __init__(
        self, truth: GroundTruth, folder: str | Path, images: Iterable[int], *, joined: bool = False
    ) -> None:
        self.truth, self.files, self.skipped = truth, dict[int, Path](), dict[str, str]()
        self._folder = Path(folder) if joined else None
        place, problems = ImageFolder(folder), dict[int, tuple[Path | None, Exception]]()
        for image in map(int, images):
            name, stated = truth.file_names[image], truth.sizes[image].tolist()
            path = place.find(name)
            try:
                if path is None:
                    raise FileNotFoundError(
                        f"image not found: {place.folder / name}, which {truth.path} names"
                    )
                size = read_size(path) if any(stated) else None
            except (FileNotFoundError, ArgumentError) as error:
                problems[image] = path, error
                continue
            if size is not None:
                check_size(path, size, stated)
            self.files[image] = path
        if problems and not self.files:
            raise next(iter(problems.values()))[1]
        for image, (path, problem) in problems.items():
            self.skip(image, str(problem).removeprefix(f"{path}: "))

    def skip(self, image: int, why: object, *, annotation: int | None = None) -> None:
        """Skip an image, or one person in it, whom the id of the annotation names."""
        name = self.truth.file_names[image]
        reason = str(why).removeprefix(f"{self.files.get(image, name)}: ")
        item = name if self._folder is None else str(self._folder / name)
        if annotation is not None:
            item = f"annotation {annotation} of {item}"
        self.skipped[item] = skip(item, reason)

    def read(self, images: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield images with their pixels (H, W, 3) uint8 BGR, without skipped ones.

        Raises:
            OSError: an image exists, but reading it fails.
        """
        for image in images:
            if image not in self.files:
                continue
            try:
                pixels = read_image(self.files[image])
            except (FileNotFoundError, ArgumentError) as error:
                self.skip(image, error)
            else:
                yield image, pixels

    def infer(
        self, engine: Engine, boxes: Mapping[int, np.ndarray], scores: Mapping[int, np.ndarray] | None = None
    ) -> tuple[list[int], Poses]:
        """Return the images of `boxes` that can be read, and their poses; frame_index counts these images.

        An image with a pose without a finite score is skipped, with all its poses.

        Raises:
            OSError: an image exists, but reading it fails.
            RuntimeError: the networks failed.
        """
        frames = {image: in_order(pixels, engine.color) for image, pixels in self.read(boxes)}
        if not frames:
            return [], Poses.empty(engine.bundle.skeleton, engine.score_kind)
        images = list(frames)
        given = [np.ones(len(boxes[i])) if scores is None else scores[i] for i in images]
        poses = engine.infer(list(frames.values()), boxes=[boxes[i] for i in images], box_scores=given)
        problems: dict[int, str] = {}
        report_unscored(poses, problems.__setitem__)
        for number, reason in problems.items():
            self.skip(images[number], reason)
        kept = [i for i in range(len(images)) if i not in problems]
        poses = poses[np.isin(poses.frame_index, kept)]
        index = np.searchsorted(kept, poses.frame_index)
        return [images[i] for i in kept], replace(poses, frame_index=index, frame_count=len(kept))


def _annotated(truth: GroundTruth) -> Iterator[Job]:
    counted = np.flatnonzero(truth.counted)
    for image, members in indices_by(truth.image[counted]).items():
        people = counted[members]
        yield Job(image, truth.file_boxes(people), np.ones(len(people)), truth.ids[people])


def detected_jobs(
    truth: GroundTruth, path: str | Path, min_box_score: float, *, allow_nobody: bool = False
) -> list[Job]:
    """Return the boxes of a results file, by image.

    Args:
        truth: the data set.
        path: COCO results with person boxes.
        min_box_score: minimum score of a box.
        allow_nobody: whether no box needs to have that score.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentError: it is no such file, names an image that the data set lacks, or no box has this score.
    """
    found = read_boxes(path, truth.category_id)
    if unknown := set(found.boxes) - set(truth.image_ids.tolist()):
        raise ArgumentError(f"{path}: {truth.path} has no image {min(unknown)}")
    best = max((float(scores.max()) for scores in found.scores.values()), default=min_box_score)
    if best < min_box_score and not allow_nobody:
        raise ArgumentError(
            f"min_box_score must leave some boxes of {path}, got {min_box_score}; the best score is {best:.4g}"
        )
    jobs = []
    for image, image_id in enumerate(truth.image_ids.tolist()):
        corners, scores = found.of(image_id)
        keep = scores >= min_box_score
        if keep.any():
            jobs.append(Job(image, corners[keep], scores[keep], None))
    return jobs


def _estimate(
    engine: Engine, run: ReadableImages, batch: list[Job], nms: float | None
) -> Iterator[tuple[int, Rows]]:
    """Yield (image, rows) of a few images."""
    jobs = {job.image: job for job in batch}
    images, poses = run.infer(
        engine, {i: job.boxes for i, job in jobs.items()}, {i: job.scores for i, job in jobs.items()}
    )
    if nms is not None:
        poses = poses.without_duplicates(nms)
    rows = poses.to_coco(
        [int(run.truth.image_ids[i]) for i in images],
        run.truth.category_id,
        file_names=[run.truth.file_names[i] for i in images],
    )
    for index, image in enumerate(images):
        own = [rows[n] for n in np.flatnonzero(poses.frame_index == index)]
        people = jobs[image].people
        if people is not None:
            own = [row | {"annotation_id": int(person)} for row, person in zip(own, people, strict=True)]
        yield image, own


__all__ = ["Job", "ReadableImages", "detect", "detected_jobs"]
