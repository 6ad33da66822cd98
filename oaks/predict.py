"""Pictures in; COCO results and annotated pictures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oaks import ops
from oaks.coco import PersonBoxes, make_header, write_results
from oaks.detector import Detector
from oaks.draw import draw
from oaks.errors import ArgumentError
from oaks.files import replacing
from oaks.images import check_size, in_order, read_image
from oaks.inference import Engine
from oaks.poses import Poses

DEMO = Path(__file__).parent / "data" / "demo"
TOGETHER = 8  # pictures whose people go through the networks together


@dataclass(frozen=True)
class PictureBoxes:
    """Where the people of a picture are.

    Attributes:
        description: for the header of the results.
        find: picture file, its pixels -> image id (None: numbered), boxes (N, 4), scores (N,). It raises
            ValueError if the source does not know this picture.
        detected: whether boxes are detected, so that two of them may be one person's.
    """

    description: str
    find: Callable[[Path, np.ndarray], tuple[int | None, np.ndarray, np.ndarray]]
    detected: bool = False


def boxes_from_file(people: PersonBoxes) -> PictureBoxes:
    """Boxes from a COCO file."""

    def find(path: Path, image: np.ndarray) -> tuple[int | None, np.ndarray, np.ndarray]:
        image_id = people.image_id(path)
        if image_id is None:
            raise ArgumentError(f"{path}: {people.source} does not know this picture")
        check_size(path, image.shape[1::-1], people.size(image_id))
        return image_id, *people.of(image_id)

    return PictureBoxes(people.source, find, detected=not people.image_ids)


def boxes_from_detector(detector: Detector) -> PictureBoxes:
    """Boxes from a detector."""
    return PictureBoxes(detector.description, lambda _path, image: (None, *detector.detect(image)), True)


def whole_image() -> PictureBoxes:
    """Each picture is one person."""

    def find(_path: Path, image: np.ndarray) -> tuple[int | None, np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        return None, np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)

    return PictureBoxes("whole image", find)


@dataclass(frozen=True)
class Prediction:
    """What became of one picture.

    Attributes:
        path: the picture.
        image_id: its id in the results; None if it was skipped, or has none yet.
        poses: the people in it; None if it was skipped.
        problem: why it was skipped, or why its annotated copy could not be written; None if all went well.
    """

    path: Path
    image_id: int | None = None
    poses: Poses | None = None
    problem: str | None = None


@dataclass
class Summary:
    """Totals of a run.

    Attributes:
        results: the results file.
        pictures: annotated pictures written.
        people: poses in the results.
        skipped: picture -> why it is not in the results.
        undrawn: picture -> why its annotated copy could not be written.
    """

    results: Path
    pictures: int = 0
    people: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)
    undrawn: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Picture:
    path: Path
    image: np.ndarray
    image_id: int | None
    boxes: np.ndarray
    scores: np.ndarray


def predict(
    engine: Engine,
    pictures: Sequence[Path],
    source: PictureBoxes,
    folder: str | Path,
    *,
    annotate: bool = True,
    absent: str = "hide",
    boxes: bool = False,
    nms: float | None = ops.OKS_THRESHOLD,
    done: Callable[[Prediction], object] = lambda _prediction: None,
) -> Summary:
    """Find the poses in pictures and write folder/results.json, its header and folder/pictures.

    A picture that is damaged, unknown to the source, or too large to be written again is named and does not end
    the run.

    Args:
        engine: what finds them.
        pictures: image files.
        source: where the people are.
        folder: created if it does not exist.
        annotate: whether annotated pictures are written.
        absent, boxes: how they are drawn (oaks.draw.draw).
        nms: OKS threshold: of two poses of a picture that are more alike, the one with the lower score is
            dropped. Only where boxes are detected; None keeps all.
        done: callback for each picture.

    Raises:
        ArgumentError: an argument is wrong.
        OSError: a file cannot be written.
    """
    if nms is not None and not 0 < nms <= 1:
        raise ArgumentError(f"nms must be above 0 and at most 1, got {nms!r}")
    folder = Path(folder)
    drawings = folder / "pictures"
    (drawings if annotate else folder).mkdir(parents=True, exist_ok=True)
    summary = Summary(folder / "results.json")
    rows: list[dict[str, Any]] = []
    names = _output_names(pictures)
    numbers = {path: number for number, path in enumerate(pictures, start=1)}
    ids: dict[str, int] = {}
    described = engine.describe()  # now: an Engine that is closed meanwhile describes nothing
    complete = False
    try:
        readers = ((path, partial(read_image, path)) for path in pictures)
        for found, image in find_poses(engine, readers, source, nms=nms):
            path, poses = found.path, found.poses
            if poses is None or image is None:
                summary.skipped[path] = found.problem or ""
                done(found)
                continue
            image_id = numbers[path] if found.image_id is None else found.image_id
            rows += poses.to_coco(image_id)
            ids[str(path)] = image_id
            summary.people += len(poses)
            problem = None
            if annotate:
                drawn = draw(image, poses, absent=absent, boxes=boxes)
                problem = _write_image(drawings / names[path], drawn)
                if problem is None:
                    summary.pictures += 1
                else:
                    summary.undrawn[path] = problem
            done(Prediction(path, image_id, poses, problem))
        complete = True
    finally:  # stopped midway, what is done so far is kept
        header = make_header(
            described,
            box_source=source.description,
            nms=nms if source.detected else None,
            complete=complete,
            images=ids,
            skipped={str(path): reason for path, reason in summary.skipped.items()},
        )
        write_results(summary.results, rows, header)
    return summary


def find_poses(
    engine: Engine,
    pictures: Iterable[tuple[Path, Callable[[], np.ndarray]]],
    source: PictureBoxes,
    *,
    nms: float | None = ops.OKS_THRESHOLD,
) -> Iterator[tuple[Prediction, np.ndarray | None]]:
    """What becomes of each picture, and its pixels; several pictures share a pass of the networks.

    Args:
        engine: what finds the poses.
        pictures: file, and a function that reads it; (H, W, 3) uint8 BGR.
        source: where the people are.
        nms: as for `predict`.

    Yields:
        Predictions whose image_id is None where the source names none. Damaged pictures, and those that the source
        does not know, come with their problem and without pixels, before the others of their pass.
    """
    group: list[_Picture] = []
    for path, read in pictures:
        try:
            image = read()
            group.append(_Picture(path, image, *source.find(path, image)))
        except (ValueError, OSError) as error:
            yield Prediction(path, problem=str(error).removeprefix(f"{path}: ")), None
        if len(group) == TOGETHER:
            yield from _infer(engine, group, nms if source.detected else None)
            group = []
    if group:
        yield from _infer(engine, group, nms if source.detected else None)


def _infer(
    engine: Engine, group: Sequence[_Picture], nms: float | None
) -> Iterator[tuple[Prediction, np.ndarray]]:
    poses = engine.infer(
        [in_order(picture.image, engine.color) for picture in group],
        boxes=[picture.boxes for picture in group],
        box_scores=[picture.scores for picture in group],
    )
    for i, picture in enumerate(group):
        own = poses[poses.frame_index == i]
        yield (
            Prediction(picture.path, picture.image_id, own if nms is None else _suppress(own, nms)),
            picture.image,
        )


def _suppress(poses: Poses, threshold: float) -> Poses:
    sizes = poses.boxes[:, 2:] - poses.boxes[:, :2]
    kept = ops.oks_nms(
        poses.keypoints,
        np.nan_to_num(poses.scores, nan=-np.inf),  # no score: worse than any
        areas=sizes.prod(axis=1),
        sigmas=poses.skeleton.sigmas,
        threshold=threshold,
    )
    return poses[np.sort(kept)]


def _output_names(pictures: Sequence[Path]) -> dict[Path, str]:
    """A file name for each annotated picture; two of one name in different folders stay apart."""
    names: dict[Path, str] = {}
    used: set[str] = set()
    for path in pictures:
        suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
        name, copy = f"{path.stem}{suffix}", 2
        while name in used:
            name, copy = f"{path.stem}_{copy}{suffix}", copy + 1
        used.add(name)
        names[path] = name
    return names


def _write_image(path: Path, image: np.ndarray) -> str | None:
    """Write a picture as its suffix says; return why its format cannot hold it, if so."""
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    try:
        encoded, content = cv2.imencode(path.suffix, image, quality)
    except cv2.error:
        encoded = False
    if not encoded:
        height, width = image.shape[:2]
        return f"annotated picture not written: {path.suffix} cannot hold {width} x {height} pixels"
    with replacing(path) as file:
        file.write(content.tobytes())
    return None


__all__ = [
    "PictureBoxes",
    "Prediction",
    "Summary",
    "boxes_from_detector",
    "boxes_from_file",
    "find_poses",
    "predict",
    "whole_image",
]
