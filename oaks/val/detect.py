"""Runs a bundle over an annotated data set and writes a COCO results file. A run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oaks import ops
from oaks.coco import header_path, make_header, read_boxes, read_results, write_results
from oaks.inference import Engine
from oaks.val.truth import Truth

TIMELESS = ("date", "system")
"""What may differ between the parts of one run."""
PEOPLE_AT_ONCE = 32


@dataclass(frozen=True)
class Job:
    """The boxes of one image.

    Attributes:
        image: index into the Truth's images.
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
    truth: Truth,
    images: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    nms: float | None = 0.9,
    min_box_score: float = 0.0,
) -> Path:
    """Poses of everybody in a data set, as results with a header beside them.

    Progress is kept in `<out>.partial` after every few images; the same call goes on from there, and does
    nothing if `out` is there already.

    Args:
        engine: what estimates.
        truth: the data set; with ground-truth boxes each person with keypoints gets one pose.
        images: folder of the image files that the annotations name.
        out: the results file to write.
        boxes: a COCO results file with person boxes (`bbox`, `score`); None takes the annotated boxes.
        nms: OKS above which the worse of two poses is dropped, only where boxes are detected; None keeps all.
            The OKS of a pair is taken with the mean area of their boxes.
        min_box_score: detected boxes below it are left out.

    Raises:
        FileNotFoundError: an image or the box file is not there.
        ValueError: `out`, or what a stopped run left, was made with other settings; the message says which.
    """
    out, images = Path(out), Path(images)
    if engine.bundle.skeleton.count != truth.skeleton.count:
        raise ValueError(
            f"engine: bundle {engine.bundle.name!r} has {engine.bundle.skeleton.count} keypoints, "
            f"{truth.path} has {truth.skeleton.count}"
        )
    jobs = list(_annotated(truth) if boxes is None else _detected(truth, boxes, min_box_score))
    header = make_header(
        engine.describe(),
        box_source=f"annotated: {Path(truth.path).name}"
        if boxes is None
        else f"detected: {Path(boxes).name}",
        annotations=Path(truth.path).name,
        nms=None if boxes is None else nms,
        min_box_score=None if boxes is None else min_box_score,
    )
    # As JSON would give it back, for comparisons.
    header = json.loads(json.dumps(header))
    if out.is_file():
        _refuse_other_settings(header_path(out), read_results(out)[1], header)
        return out
    for job in jobs:
        if not (path := images / truth.file_names[job.image]).is_file():
            raise FileNotFoundError(f"images: {path} is not there, though {truth.path} names it")

    partial = out.with_name(out.name + ".partial")
    done = _resume(partial, header)
    with partial.open("a", encoding="utf-8") as file, _bar() as progress:
        if not done and partial.stat().st_size == 0:
            _append(file, {"header": header})
        people = progress.add_task(out.name, total=sum(len(job.boxes) for job in jobs))
        progress.advance(people, sum(len(job.boxes) for job in jobs if job.image in done))
        for batch in _batches([job for job in jobs if job.image not in done]):
            for image, rows in _estimate(engine, truth, images, batch, nms if boxes is not None else None):
                _append(file, {"image": image, "rows": rows})
                done[image] = rows
            progress.advance(people, sum(len(job.boxes) for job in batch))
    write_results(out, [row for job in jobs for row in done[job.image]], header)
    partial.unlink()
    return out


def _annotated(truth: Truth) -> Iterator[Job]:
    for image in np.unique(truth.image[truth.counted]):
        people = np.flatnonzero((truth.image == image) & truth.counted)
        x, y, w, h = (truth.boxes[people] / np.tile(truth.scales[image], 2)).T
        corners = np.stack([x, y, x + w, y + h], axis=1)
        yield Job(int(image), corners, np.ones(len(people)), truth.ids[people])


def _detected(truth: Truth, path: str | Path, min_box_score: float) -> Iterator[Job]:
    found = read_boxes(path)
    if unknown := set(found.boxes) - set(truth.image_ids.tolist()):
        raise ValueError(f"{path}: {truth.path} has no image {min(unknown)}")
    for image, image_id in enumerate(truth.image_ids.tolist()):
        corners, scores = found.of(image_id)
        keep = scores >= min_box_score
        if keep.any():
            yield Job(image, corners[keep], scores[keep], None)


def _batches(jobs: list[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    for job in jobs:
        batch.append(job)
        if sum(len(b.boxes) for b in batch) >= PEOPLE_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _estimate(
    engine: Engine, truth: Truth, images: Path, batch: list[Job], nms: float | None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(image, rows) of a few images."""
    poses = engine.infer(
        [images / truth.file_names[job.image] for job in batch],
        boxes=[job.boxes for job in batch],
        box_scores=[job.scores for job in batch],
    )
    if nms is not None:
        extent = poses.boxes[:, 2:] - poses.boxes[:, :2]
        kept = ops.nms(
            poses.keypoints,
            poses.scores,
            areas=extent[:, 0] * extent[:, 1],
            sigmas=np.array(truth.skeleton.sigmas, np.float32),
            threshold=nms,
            frame_index=poses.frame_index,
        )
        poses = poses[np.sort(kept)]
    rows = poses.to_coco([int(truth.image_ids[job.image]) for job in batch], truth.category_id)
    for index, job in enumerate(batch):
        own = [rows[n] for n in np.flatnonzero(poses.frame_index == index)]
        if job.people is not None:
            own = [row | {"annotation_id": int(person)} for row, person in zip(own, job.people, strict=True)]
        yield job.image, own


def _append(file: IO[str], line: Mapping[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def _resume(partial: Path, header: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Rows by image of a run that was stopped; its last line is dropped if it was cut short."""
    if not partial.is_file():
        return {}
    text = partial.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with partial.open("r+b") as file:
            file.truncate(len(whole))
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        stated = lines[0]["header"] if lines else header
        rows = {line["image"]: line["rows"] for line in lines[1:]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{partial}: not what a stopped run leaves ({error!r}); remove it") from error
    _refuse_other_settings(partial, stated, header)
    return rows


def _refuse_other_settings(path: Path, stated: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    stated = stated or {}
    for key in sorted((stated.keys() | wanted.keys()) - set(TIMELESS)):
        if stated.get(key) != wanted.get(key):
            raise ValueError(
                f"{path}: made with {key} {stated.get(key)!r}, now it is {wanted.get(key)!r}; remove it, or "
                "write elsewhere"
            )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )
