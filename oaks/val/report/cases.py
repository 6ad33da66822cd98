"""Section: pictures of the best and the worst cases (figures 1, 9 and 10 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import rankdata

from oaks.draw import draw
from oaks.errors import ArgumentError
from oaks.images import ImageFolder, read_image
from oaks.names import number_of
from oaks.poses import Poses
from oaks.skeleton import Skeleton
from oaks.skipping import skip
from oaks.val.calibration import RIGHT
from oaks.val.report.document import Gallery, Item, Picture, Section
from oaks.val.scores import ScoredDetections
from oaks.val.visibility import VISIBLE

HEIGHT = 300
PER_KIND = 6
RIM, WRONG = (25, 25, 25), (60, 60, 235)
HEAVILY = 10
"""Largest number of labeled keypoints of a heavily occluded person."""


def section(measured: ScoredDetections, images: Path) -> Section | None:
    """Return the galleries of one results file; None if no image of any case can be read.

    Args:
        measured: the results.
        images: folder of the image files that the annotations name.
    """
    galleries: list[Item] = []
    for key, title, note, indices, variants in kinds(measured):
        pictures = []
        for place, n in enumerate(indices):
            for variant in variants:
                drawn = draw_case(measured, int(n), images, variant)
                if drawn is not None:
                    name = f"{key}-{place + 1}{'' if variant == 'plain' else '-' + variant}"
                    pictures.append(Picture(name, caption(measured, int(n), variant), drawn))
        if pictures:
            galleries.append(Gallery(key, title, tuple(pictures), note))
    if not galleries:
        return None
    return Section(
        "cases",
        f"{measured.name}: best and worst cases",
        "Limbs on the person's left are blue, on the right red. White rings are the annotated keypoints. Keypoints "
        "with a predicted visibility below .5 are left out, unless the title says otherwise.",
        tuple(galleries),
    )


def kinds(measured: ScoredDetections) -> Iterator[tuple[str, str, str, np.ndarray, tuple[str, ...]]]:
    """Return (key, title, note, indices of poses, how to draw each) for every kind of case."""
    oks, best = measured.own_oks, measured.best
    labeled = np.where(measured.detections.own >= 0, measured.truth.labeled[measured.detections.own], 0)
    heavily = (labeled > 0) & (labeled <= HEAVILY)
    big = measured.truth.areas[measured.detections.own] > 64.0**2
    place = rankdata(best.ranks) / len(best.ranks)

    if "conventional" in measured.scores and best.key != "conventional":
        gained = place - rankdata(measured.scores["conventional"].ranks) / len(place)
        yield (
            "overlooked",
            "Right poses of occluded people that the conventional score ranks low",
            "Poses of people with at most 10 labeled keypoints and an OKS of at least .75, sorted by the ranks that they "
            "gain with OAKS.",
            _top(gained, heavily & big & (oks >= 0.75)),
            ("plain",),
        )
    yield (
        "wrong",
        "Wrong poses with high scores",
        "The highest scores among poses with an OKS below .5.",
        _top(place, (labeled > 0) & big & (oks < RIGHT)),
        ("plain",),
    )
    yield (
        "best",
        "Best poses of occluded people",
        "The largest OKS among poses of people with at most 10 labeled keypoints.",
        _top(oks, heavily & big),
        ("plain",),
    )
    yield (
        "worst",
        "Worst poses of people in view",
        "The lowest OKS among poses of people with more than 10 labeled keypoints.",
        _top(-oks, (labeled > HEAVILY) & big),
        ("plain",),
    )
    visibility = measured.detections.visibility
    if visibility is not None:
        said, there = visibility > VISIBLE, measured.flags > 0
        hidden = (~said & ~there).sum(axis=1)
        mistakes = (said != there).sum(axis=1)
        yield (
            "unseen",
            "All keypoints, and those predicted visible (figure 9)",
            "Left of each pair: all keypoints of the pose. Right: those with a predicted visibility above .5.",
            _top(hidden - 3.0 * mistakes + oks, (labeled > 3) & big)[: PER_KIND // 2],
            ("everything", "plain"),
        )
        yield (
            "misjudged",
            "Wrong visibility (figure 10)",
            "Keypoints whose predicted visibility contradicts the annotation are red, with the prediction beside them.",
            _top(mistakes + oks, (labeled > 0) & big & (oks >= RIGHT)),
            ("misjudged",),
        )


def _top(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return indices of the PER_KIND largest values of a selection; ties in the order of the file."""
    indices = np.flatnonzero(among)
    return indices[np.argsort(-values[indices], kind="stable")[:PER_KIND]]


def caption(measured: ScoredDetections, n: int, variant: str) -> str:
    """Return the lines under a picture: quality of the pose, its scores, and its origin."""
    detections, truth = measured.detections, measured.truth
    person = detections.own[n]
    lines = [f"OKS {measured.own_oks[n]:.2f}, {number_of(int(truth.labeled[person]), 'keypoint')}"]
    for key, label in (("oaks", "OAKS"), ("conventional", "Conventional"), ("own", "Score")):
        if key in measured.scores:
            score = measured.scores[key]
            place = int(np.sum(score.ranks > score.ranks[n])) + 1
            lines.append(f"{label} {score.values[n]:.2f}, rank {place} of {detections.count}")
    lines.append(f"image {truth.image_ids[detections.image[n]]}, person {truth.ids[person]}")
    if variant == "everything":
        lines.append("all keypoints")
    return "\n".join(lines)


def draw_case(measured: ScoredDetections, n: int, images: Path, variant: str) -> bytes | None:
    """Return a JPEG of one pose on its part of the image, HEIGHT pixels high; None if the image is skipped."""
    detections, truth = measured.detections, measured.truth
    name = truth.file_names[detections.image[n]]
    path: Path | None = None
    try:
        image = read_image(path := ImageFolder(images).path(name))
    except (OSError, ArgumentError) as error:
        skip(name, str(error).removeprefix(f"{path}: "))
        return None
    scale = truth.scales[detections.image[n]]
    person = int(detections.own[n])
    points, annotated = detections.keypoints[n] / scale, truth.keypoints[person] / scale
    labeled = truth.flags[person] > 0
    visibility = np.ones(len(points)) if detections.visibility is None else detections.visibility[n]
    shown = np.ones_like(visibility) if variant == "everything" else visibility

    x, y, w, h = truth.boxes[person] / np.tile(scale, 2)
    corners = np.concatenate([[[x, y], [x + w, y + h]], points[shown > VISIBLE], annotated[labeled]])
    canvas, to_canvas = _window(image, corners.min(axis=0), corners.max(axis=0))
    edges = to_canvas(np.array([[x, y], [x + w, y + h]]) - 0.5) + 0.5
    canvas = draw(canvas, _one_pose(to_canvas(points), shown, edges, truth.skeleton), scores=False)
    for k in np.flatnonzero(labeled):
        _ring(canvas, to_canvas(annotated)[k])
    if variant == "misjudged":
        for k in np.flatnonzero((visibility > VISIBLE) != labeled):
            _tag(canvas, to_canvas(points)[k], f"{visibility[k]:.2f}")
    ok, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 84])
    return encoded.tobytes() if ok else None


def _one_pose(points: np.ndarray, visibility: np.ndarray, edges: np.ndarray, skeleton: Skeleton) -> Poses:
    """Return a pose for oaks.draw, which uses only its keypoints and visibility."""
    per_keypoint, one = np.ones((1, len(points))), np.ones(1)
    return Poses(
        keypoints=points[None],
        visibility=visibility[None],
        similarity=per_keypoint,
        heat=per_keypoint,
        oaks_scores=one,
        conventional_scores=one,
        scores=one,
        boxes=edges.reshape(1, 4),
        box_scores=one,
        frame_index=np.zeros(1),
        skeleton=skeleton,
    )


def _window(
    image: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the part of the image around two corners, enlarged to HEIGHT, and the map from image to canvas points."""
    extent = np.maximum(high - low, 24)
    center, half = (low + high) / 2, extent * 0.62
    half = np.maximum(half, half.max() * 0.45)
    size = np.array([image.shape[1], image.shape[0]])
    start = np.clip(np.floor(center - half), 0, size - 2).astype(int)
    stop = np.clip(np.ceil(center + half), start + 2, size).astype(int)
    part = image[start[1] : stop[1], start[0] : stop[0]]
    factor = HEIGHT / part.shape[0]
    canvas = cv2.resize(part, (max(60, round(part.shape[1] * factor)), HEIGHT), interpolation=cv2.INTER_CUBIC)
    stretch = np.array([canvas.shape[1] / part.shape[1], factor])
    return canvas, lambda points: (points + 0.5 - start) * stretch - 0.5


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Return a point in OpenCV's fixed-point units of 1/16 pixel."""
    x, y = np.clip(np.round(point * 16), -(2**20), 2**20)
    return int(x), int(y)


def _ring(canvas: np.ndarray, point: np.ndarray) -> None:
    cv2.circle(canvas, _fixed(point), 7 * 16, RIM, 3, cv2.LINE_AA, 4)
    cv2.circle(canvas, _fixed(point), 7 * 16, (255, 255, 255), 1, cv2.LINE_AA, 4)


def _tag(canvas: np.ndarray, point: np.ndarray, text: str) -> None:
    cv2.circle(canvas, _fixed(point), 5 * 16, WRONG, -1, cv2.LINE_AA, 4)
    # Clamped to the canvas.
    x = int(np.clip(point[0] + 8, 2, canvas.shape[1] - 34))
    y = int(np.clip(point[1] + 4, 12, canvas.shape[0] - 4))
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, RIM, 3, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (210, 210, 255), 1, cv2.LINE_AA)
