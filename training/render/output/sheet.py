"""Contact sheets of rendered data sets: the first pictures side by side, with and without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from oaks.skeleton import COCO17
from oaks.training.render.output.folder import write_jpeg
from oaks.training.render.people import RenderedPeople
from oaks.training.render.video import RenderedVideos

_COLUMNS, _ROWS = 6, 4
_SIDES = {"left": (80, 220, 80), "right": (60, 80, 255), "middle": (255, 170, 60)}


def write_people_sheet(folder: str | Path, count: int, **settings: Any) -> Path:
    """Write folder/sheet.jpg: the first pictures of a data set.

    Args:
        folder: of the data set.
        count: number of its pictures.
        settings: arguments of RenderedPeople.
    """
    people = RenderedPeople(**settings)
    path = Path(folder) / "sheet.jpg"
    write_jpeg(path, contact_sheet([people.sample(index) for index in range(min(count, _COLUMNS * _ROWS))]))
    return path


def write_video_sheet(folder: str | Path, count: int, **settings: Any) -> Path:
    """Write folder/sheet.jpg: frames of the first clips, a row each.

    Args:
        folder: of the clips.
        count: number of its clips.
        settings: arguments of RenderedVideos.
    """
    videos = RenderedVideos(**settings)
    pictures = []
    for number in range(min(count, _ROWS)):
        clip = videos.clip(number)
        pictures += [clip.frame(index * clip.frames // _COLUMNS) for index in range(_COLUMNS)]
    path = Path(folder) / "sheet.jpg"
    write_jpeg(path, contact_sheet(pictures))
    return path


def contact_sheet(pictures: Sequence[tuple[np.ndarray, list[dict[str, Any]]]]) -> np.ndarray:
    """Return pictures of one size side by side, (H, W, 3) uint8 BGR, with labels on every second one."""
    height, width = pictures[0][0].shape[:2]
    columns = min(len(pictures), _COLUMNS)
    sheet = np.zeros((-(-len(pictures) // columns) * height, columns * width, 3), np.uint8)
    for index, (image, people) in enumerate(pictures):
        if index % 2:
            for entry in people:
                draw_labels(image, entry)
        y, x = index // columns * height, index % columns * width
        sheet[y : y + height, x : x + width] = image
    return sheet


def draw_labels(image: np.ndarray, entry: dict[str, Any]) -> None:
    """Draw box, track id, limbs by side and keypoints into a picture: seen ones filled, hidden ones hollow."""
    keypoints = np.array(entry["keypoints"], float).reshape(COCO17.count, 3)
    points = np.rint(keypoints[:, :2] * 8).astype(int).tolist()
    x, y, w, h = entry["bbox"]
    low, high = ((round((a - 0.5) * 8), round((b - 0.5) * 8)) for a, b in ((x, y), (x + w, y + h)))
    cv2.rectangle(image, low, high, (230, 230, 230), 1, cv2.LINE_AA, 3)
    if "track_id" in entry:
        place = (round(x) + 3, round(y) + 14)
        cv2.putText(image, str(entry["track_id"]), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (230, 230, 230))
    for a, b in COCO17.limbs:
        if keypoints[a, 2] and keypoints[b, 2]:
            side = COCO17.side(a) if COCO17.side(a) == COCO17.side(b) else "middle"
            cv2.line(image, points[a], points[b], _SIDES[side], 1, cv2.LINE_AA, 3)
    for index in np.flatnonzero(keypoints[:, 2]):
        thickness = -1 if keypoints[index, 2] == 2 else 1
        cv2.circle(image, points[index], 20, _SIDES[COCO17.side(int(index))], thickness, cv2.LINE_AA, 3)


__all__ = ["contact_sheet", "draw_labels", "write_people_sheet", "write_video_sheet"]
