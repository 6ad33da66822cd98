"""Pictures in; results, annotated pictures and one line each out: what `oaks predict` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oaks import ops
from oaks.coco import PersonBoxes, make_header, read_boxes, write_results
from oaks.detector import Detector
from oaks.draw import draw
from oaks.files import replacing
from oaks.images import find_images, in_order, read_image
from oaks.inference import Engine
from oaks.poses import Poses

DEMO = Path(__file__).parent / "data" / "demo"
_TOGETHER = 8  # pictures whose people go through the networks together


@dataclass(frozen=True)
class BoxSource:
    """Where the people of a picture are.

    Attributes:
        description: for the header of the results.
        find: picture file, its pixels -> image id (None: numbered), boxes (N, 4), scores (N,). It raises
            ValueError if the source does not know this picture.
    """

    description: str
    find: Callable[[Path, np.ndarray], tuple[int | None, np.ndarray, np.ndarray]]


def boxes_from_file(people: PersonBoxes) -> BoxSource:
    """Boxes from a COCO file."""

    def find(path: Path, _image: np.ndarray) -> tuple[int | None, np.ndarray, np.ndarray]:
        image_id = people.image_id(path)
        if image_id is None:
            raise ValueError(f"{path}: {people.source} does not know this picture")
        return image_id, *people.of(image_id)

    return BoxSource(people.source, find)


def boxes_from_detector(detector: Detector) -> BoxSource:
    """Boxes from a detector."""
    return BoxSource(detector.description, lambda _path, image: (None, *detector.detect(image)))


def whole_image() -> BoxSource:
    """Each picture is one person."""

    def find(_path: Path, image: np.ndarray) -> tuple[int | None, np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        return None, np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)

    return BoxSource("whole image", find)


@dataclass
class Summary:
    """What came of it.

    Attributes:
        results: the results file.
        pictures: annotated pictures written.
        people: poses in the results.
        skipped: picture -> why it is not in the results.
    """

    results: Path
    pictures: int = 0
    people: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)


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
    source: BoxSource,
    folder: Path,
    *,
    annotate: bool = True,
    absent: str = "hide",
    boxes: bool = False,
    nms: float | None = None,
    say: Callable[[str], object] = print,
    advance: Callable[[int], object] = lambda _count: None,
) -> Summary:
    """Finds the poses in pictures and writes folder/results.json, its header and folder/pictures.

    Args:
        engine: what finds them.
        pictures: image files; one that is damaged or unknown to the source is named and skipped.
        source: where the people are.
        folder: made if it is not there.
        annotate: whether annotated pictures are written.
        absent, boxes: how they are drawn (oaks.draw.draw).
        nms: OKS above which the worse of two poses of a picture is dropped; None: all stay.
        say: takes one line per picture.
        advance: told how many pictures are done.

    Raises:
        ValueError: an argument does not fit.
    """
    if nms is not None and not 0 < nms <= 1:
        raise ValueError(f"nms: a similarity above 0 and up to 1 wanted, got {nms!r}")
    drawings = folder / "pictures"
    (drawings if annotate else folder).mkdir(parents=True, exist_ok=True)
    summary = Summary(folder / "results.json")
    rows: list[dict[str, Any]] = []
    names = _output_names(pictures)
    ids: dict[str, int] = {}
    described = engine.describe()  # now: an Engine that is closed meanwhile describes nothing
    complete = False
    try:
        for group in _groups(pictures, source, summary, say, advance):
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
                if annotate:
                    drawn = draw(picture.image, own, absent=absent, boxes=boxes)
                    _write_image(drawings / names[picture.path], drawn)
                    summary.pictures += 1
                summary.people += len(own)
                say(_line(picture, own))
                advance(1)
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
    pictures: Sequence[Path],
    source: BoxSource,
    summary: Summary,
    say: Callable[[str], object],
    advance: Callable[[int], object],
) -> Iterator[list[_Picture]]:
    """Pictures with their boxes, several at a time; the damaged and the unknown are left out and named."""
    group: list[_Picture] = []
    for number, path in enumerate(pictures, start=1):
        try:
            image = read_image(path)
            image_id, boxes, scores = source.find(path, image)
            group.append(_Picture(path, image, number if image_id is None else image_id, boxes, scores))
        except (ValueError, OSError) as error:
            summary.skipped[path] = str(error).removeprefix(f"{path}: ")
            say(f"skipped {path}: {summary.skipped[path]}")
            advance(1)
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


def _line(picture: _Picture, poses: Poses) -> str:
    people = "1 person" if len(poses) == 1 else f"{len(poses)} people"
    scores = " ".join(f"{score:.2f}" for score in np.sort(poses.scores)[::-1][:8])
    more = " ..." if len(poses) > 8 else ""
    return f"{picture.path.name}: {people}" + (
        f", {poses.score_kind} scores {scores}{more}" if scores else ""
    )


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


def _write_image(path: Path, image: np.ndarray) -> None:
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    done, content = cv2.imencode(path.suffix, image, quality)
    if not done:
        raise OSError(f"{path}: OpenCV could not encode the picture")
    with replacing(path) as file:
        file.write(content.tobytes())


def predict_command(
    sources: Sequence[str],
    *,
    bundle: str,
    boxes: str | None,
    detector: str | None,
    detector_settings: dict[str, Any],
    engine_settings: dict[str, Any],
    out: str,
    nms: float | None,
    annotate: bool,
    absent: str,
    show_boxes: bool,
) -> int:
    """`oaks predict`: `predict` with a progress bar.

    Returns:
        The exit code: 0, or 1 if a picture was skipped.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if boxes and detector:
        raise ValueError("boxes and detector: one of them wanted, got both")
    pictures = find_images(sources)
    if boxes:
        source = boxes_from_file(read_boxes(boxes))
    elif detector:
        source = boxes_from_detector(Detector(detector, **detector_settings))
    else:
        source = whole_image()
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Engine(bundle, **engine_settings) as engine:
        about = f"bundle {engine.bundle.name} on {engine.backend} ({engine.device}, {engine.precision})"
        print(f"{about}, {engine.score_kind} score, boxes: {source.description}")
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=len(pictures))
            summary = predict(
                engine,
                pictures,
                source,
                Path(out),
                annotate=annotate,
                absent=absent,
                boxes=show_boxes,
                nms=nms,
                say=print,
                advance=lambda count: progress.advance(task, count),
            )
    print(f"{summary.people} people in {len(pictures) - len(summary.skipped)} pictures: {summary.results}")
    if annotate:
        print(f"{summary.pictures} annotated pictures: {summary.results.parent / 'pictures'}")
    if summary.skipped:
        print(f"skipped {len(summary.skipped)}: {', '.join(path.name for path in summary.skipped)}")
    return 1 if summary.skipped else 0


def demo_command(bundle: str, out: str) -> int:
    """`oaks demo`: `oaks predict` on the pictures that come with the package, with their people's boxes."""
    return predict_command(
        [str(DEMO)],
        bundle=bundle,
        boxes=str(DEMO / "people.json"),
        detector=None,
        detector_settings={},
        engine_settings={},
        out=out,
        nms=None,
        annotate=True,
        absent="hide",
        show_boxes=False,
    )


__all__ = [
    "BoxSource",
    "Summary",
    "boxes_from_detector",
    "boxes_from_file",
    "demo_command",
    "predict",
    "predict_command",
    "whole_image",
]
