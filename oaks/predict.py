"""Pictures in; COCO results and annotated pictures out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
_TOGETHER = 8  # pictures whose people go through the networks together


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
        image_id: its id in the results; None if it was skipped.
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
    image_id: int
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
    nms = nms if source.detected else None
    folder = Path(folder)
    drawings = folder / "pictures"
    (drawings if annotate else folder).mkdir(parents=True, exist_ok=True)
    summary = Summary(folder / "results.json")
    rows: list[dict[str, Any]] = []
    names = _output_names(pictures)
    ids: dict[str, int] = {}
    described = engine.describe()  # now: an Engine that is closed meanwhile describes nothing
    complete = False

    def skip(prediction: Prediction) -> None:
        summary.skipped[prediction.path] = prediction.problem or ""
        done(prediction)

    try:
        for group in _groups(pictures, source, skip):
            poses = engine.infer(
                [in_order(picture.image, engine.color) for picture in group],
                boxes=[picture.boxes for picture in group],
                box_scores=[picture.scores for picture in group],
            )
            for i, picture in enumerate(group):
                own = poses[poses.frame_index == i]
                if nms is not None:
                    own = _suppress(own, nms)
                rows += own.to_coco(picture.image_id)
                ids[str(picture.path)] = picture.image_id
                summary.people += len(own)
                problem = None
                if annotate:
                    drawn = draw(picture.image, own, absent=absent, boxes=boxes)
                    problem = _write_image(drawings / names[picture.path], drawn)
                    if problem is None:
                        summary.pictures += 1
                    else:
                        summary.undrawn[picture.path] = problem
                done(Prediction(picture.path, picture.image_id, own, problem))
        complete = True
    finally:  # stopped midway, what is done so far is kept
        header = make_header(
            described,
            box_source=source.description,
            nms=nms,
            complete=complete,
            images=ids,
            skipped={str(path): reason for path, reason in summary.skipped.items()},
        )
        write_results(summary.results, rows, header)
    return summary


def _groups(
    pictures: Sequence[Path], source: PictureBoxes, skip: Callable[[Prediction], object]
) -> Iterator[list[_Picture]]:
    """Pictures with their boxes, several at a time; `skip` gets the damaged and the unknown."""
    group: list[_Picture] = []
    for number, path in enumerate(pictures, start=1):
        try:
            image = read_image(path)
            image_id, boxes, scores = source.find(path, image)
            group.append(_Picture(path, image, number if image_id is None else image_id, boxes, scores))
        except (ValueError, OSError) as error:
            skip(Prediction(path, problem=str(error).removeprefix(f"{path}: ")))
        if len(group) == _TOGETHER:
            yield group
            group = []
    if group:
        yield group


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
    "predict",
    "whole_image",
]
