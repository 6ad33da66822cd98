"""Find the poses in pictures; write COCO results and annotated pictures."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from oaks import ops
from oaks.arguments import check_threshold
from oaks.boxes import BoxSource
from oaks.coco_results import make_header, write_results
from oaks.draw import draw
from oaks.files import held, replacing
from oaks.images import in_order, read_image
from oaks.inference import NOTHING_WORKS, Engine, infer_each
from oaks.names import file_name
from oaks.poses import Poses

DEMO = Path(__file__).parent / "data" / "demo"
TOGETHER = 8  # pictures inferred in one pass

Place = TypeVar("Place", bound=str | Path)
"""Name of a picture: a file for `predict`, an address or a name for oaks.ray."""


@dataclass(frozen=True)
class Prediction(Generic[Place]):
    """Outcome of one picture.

    Attributes:
        path: the picture.
        image_id: its id in the results; None if it was skipped, or has none yet.
        poses: the people in it; None if it was skipped.
        problem: why it was skipped, why poses have no score, or why its annotated copy could not be written; None
            if all went well.
    """

    path: Place
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
        unscored: picture -> why some of its poses have no score.
    """

    results: Path
    pictures: int = 0
    people: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)
    undrawn: dict[Path, str] = field(default_factory=dict)
    unscored: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Picture(Generic[Place]):
    """A picture in the form that box sources take."""

    path: Place
    image: np.ndarray
    index: int

    @property
    def name(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class _Located(Generic[Place]):
    """A picture with its people's boxes."""

    picture: _Picture[Place]
    image_id: int | None
    boxes: np.ndarray
    scores: np.ndarray


def predict(
    engine: Engine,
    pictures: Sequence[Path],
    source: BoxSource,
    folder: str | Path,
    *,
    annotate: bool = True,
    absent: str = "hide",
    boxes: bool = False,
    nms: float | None = ops.OKS_THRESHOLD,
    done: Callable[[Prediction[Path]], object] = lambda _prediction: None,
) -> Summary:
    """Find the poses in pictures and write folder/results.json, its header and folder/pictures.

    A picture that is damaged, unknown to the source or taken for the same image as an earlier one is skipped and named,
    as is an annotated copy that cannot be written; they do not end the run.

    Args:
        engine: estimates the poses.
        pictures: image files.
        source: where the people are.
        folder: created if it does not exist.
        annotate: whether annotated pictures are written.
        absent, boxes: how they are drawn (oaks.draw.draw).
        nms: OKS above which the pose with the lower score is dropped, in detected boxes only; None keeps all poses.
        done: callback for each picture.

    Raises:
        ArgumentError: an argument is wrong, or another run is writing into the folder.
        OSError: a file cannot be written.
    """
    if nms is not None:
        check_threshold("nms", nms)
    folder = Path(folder)
    drawings = folder / "pictures"
    (drawings if annotate else folder).mkdir(parents=True, exist_ok=True)
    summary = Summary(folder / "results.json")
    with held(folder):
        rows: list[dict[str, Any]] = []
        names = _output_names(pictures)
        numbers = {path: number for number, path in enumerate(pictures, start=1)}
        ids: dict[str, int] = {}
        owners: dict[int, Path] = {}
        described = engine.describe()  # now, since an Engine that is closed later cannot describe itself
        complete = False
        try:
            readers = ((path, partial(read_image, path)) for path in pictures)
            for found, image in find_poses(engine, readers, source, nms=nms):
                path, poses = found.path, found.poses
                image_id = numbers[path] if found.image_id is None else found.image_id
                if poses is not None and (same := owners.setdefault(image_id, path)) != path:
                    found = Prediction(path, problem=f"has the boxes of image {image_id}, as {same} has")
                if found.poses is None or poses is None or image is None:
                    summary.skipped[path] = found.problem or ""
                    done(found)
                    continue
                rows += poses.to_coco(image_id, file_names=path.name)
                ids[str(path)] = image_id
                summary.people += len(poses)
                if found.problem is not None:
                    summary.unscored[path] = found.problem
                if annotate:
                    drawn = draw(image, poses, absent=absent, boxes=boxes)
                    undrawn = _write_image(drawings / names[path], drawn)
                    if undrawn is None:
                        summary.pictures += 1
                    else:
                        summary.undrawn[path] = undrawn
                problems = [named[path] for named in (summary.unscored, summary.undrawn) if path in named]
                done(Prediction(path, image_id, poses, "; ".join(problems) or None))
            complete = True
        finally:  # keep the results so far when the run is stopped
            header = make_header(
                described,
                box_source=source.description,
                nms=nms if source.detected else None,
                complete=complete,
                images=ids,
                skipped={str(path): reason for path, reason in summary.skipped.items()},
                unscored={str(path): reason for path, reason in summary.unscored.items()},
            )
            write_results(summary.results, rows, header)
    return summary


def find_poses(
    engine: Engine,
    pictures: Iterable[tuple[Place, Callable[[], np.ndarray]]],
    source: BoxSource,
    *,
    nms: float | None = ops.OKS_THRESHOLD,
) -> Iterator[tuple[Prediction[Place], np.ndarray | None]]:
    """Yield the outcome of each picture, with its pixels; several pictures share a pass of the networks.

    Args:
        engine: estimates the poses.
        pictures: file or name, and a function that reads it; (H, W, 3) uint8 BGR.
        source: where the people are.
        nms: as for `predict`.

    Yields:
        Predictions whose image_id is None where the source names none. Damaged pictures, those that the source does
        not know and those that cannot be inferred come with their problem and without pixels.
    """
    group: list[_Located[Place]] = []
    for index, (path, read) in enumerate(pictures):
        try:
            picture = _Picture(path, read(), index)
            group.append(_Located(picture, source.image_id(picture), *source.find(picture)))
        except NOTHING_WORKS:
            raise
        except Exception as error:  # of a runtime: each has its own
            problem = str(error) or type(error).__name__
            yield Prediction(path, problem=problem.removeprefix(f"{path}: ")), None
        if len(group) == TOGETHER:
            yield from _infer(engine, group, nms if source.detected else None)
            group = []
    if group:
        yield from _infer(engine, group, nms if source.detected else None)


def _infer(
    engine: Engine, group: Sequence[_Located[Place]], nms: float | None
) -> Iterator[tuple[Prediction[Place], np.ndarray | None]]:
    problems: dict[int, str] = {}
    poses = infer_each(
        engine,
        [in_order(located.picture.image, engine.color) for located in group],
        [located.boxes for located in group],
        [located.scores for located in group],
        problems.__setitem__,
    )
    if nms is not None:
        poses = poses.without_duplicates(nms)
    for i, located in enumerate(group):
        picture = located.picture
        own = poses[poses.frame_index == i]
        if i in problems and not len(own):
            yield Prediction(picture.path, problem=problems[i]), None
        else:
            yield Prediction(picture.path, located.image_id, own, problems.get(i)), picture.image


def _output_names(pictures: Sequence[Path]) -> dict[Path, str]:
    """Return a file name for each annotated picture; equal names from different folders get numbers."""
    names: dict[Path, str] = {}
    copies: Counter[str] = Counter()
    used: set[str] = set()
    for path in pictures:
        suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
        name = plain = file_name(path.stem, ending=suffix)
        while name.casefold() in used:
            copies[plain] += 1
            name = file_name(path.stem, ending=f"_{copies[plain] + 1}{suffix}")
        used.add(name.casefold())
        names[path] = name
    return names


def _write_image(path: Path, image: np.ndarray) -> str | None:
    """Write a picture in the format of its suffix; return the reason if that is impossible.

    Raises:
        OSError: the disk is full.
    """
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    try:
        encoded, content = cv2.imencode(path.suffix, image, quality)
    except cv2.error:
        encoded = False
    if not encoded:
        height, width = image.shape[:2]
        return f"annotated picture not written: {path.suffix} cannot hold {width} x {height} pixels"
    try:
        with replacing(path) as file:
            file.write(content.tobytes())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # the results would not fit either
            raise
        return f"annotated picture not written: {error.strerror}"
    return None


__all__ = [
    "Prediction",
    "Summary",
    "find_poses",
    "predict",
]
