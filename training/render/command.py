"""`oaks render`: writes a data set of rendered people, and a sheet of its first pictures to look at."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from rich.console import Console

from oaks.files import replacing
from oaks.skeleton import COCO17
from oaks.training.render.dataset import write_dataset
from oaks.training.render.people import RenderedPeople

_COLUMNS, _ROWS = 6, 4
_SIDES = {"left": (80, 220, 80), "right": (60, 80, 255), "middle": (255, 170, 60)}


def render_command(
    out: str, *, count: int, workers: int, quality: int, classes: str, **settings: Any
) -> None:
    """Writes COUNT pictures into OUT, then OUT/sheet.jpg, and says where they lie.

    Args:
        out: the folder.
        count, workers, quality: as write_dataset takes them.
        classes: four shares with commas between, or "" for the paper's.
        settings: further arguments of RenderedPeople.
    """
    if classes:
        try:
            settings["classes"] = tuple(float(share) for share in classes.split(","))
        except ValueError as error:
            message = f"classes: wanted four numbers with commas between, got {classes!r}"
            raise ValueError(message) from error
    annotations = write_dataset(out, count, workers=workers, quality=quality, **settings)
    sheet = annotations.with_name("sheet.jpg")
    _, data = cv2.imencode(".jpg", contact_sheet(RenderedPeople(**settings), min(count, _COLUMNS * _ROWS)))
    with replacing(sheet) as file:
        file.write(data.tobytes())
    console = Console()
    console.print(f"{count} pictures and their labels: {annotations}")
    console.print(f"The first of them to look at: {sheet}")


def contact_sheet(people: RenderedPeople, count: int) -> np.ndarray:
    """(rows, columns, 3) uint8 BGR: the first pictures side by side, labels drawn on every other one."""
    width, height = people.size
    columns = min(count, _COLUMNS)
    sheet = np.zeros((-(-count // columns) * height, columns * width, 3), np.uint8)
    for index in range(count):
        image, annotations = people.sample(index)
        if index % 2:
            for entry in annotations:
                draw_labels(image, entry)
        y, x = index // columns * height, index % columns * width
        sheet[y : y + height, x : x + width] = image
    return sheet


def draw_labels(image: np.ndarray, entry: dict[str, Any]) -> None:
    """Draws box, limbs by side and keypoints into a picture, seen ones full, hidden ones hollow."""
    keypoints = np.array(entry["keypoints"], float).reshape(COCO17.count, 3)
    points = np.rint(keypoints[:, :2] * 8).astype(int).tolist()
    x, y, w, h = entry["bbox"]
    corners = [(round((a - 0.5) * 8), round((b - 0.5) * 8)) for a, b in ((x, y), (x + w, y + h))]
    cv2.rectangle(image, *corners, (230, 230, 230), 1, cv2.LINE_AA, 3)
    for a, b in COCO17.limbs:
        if keypoints[a, 2] and keypoints[b, 2]:
            side = COCO17.side(a) if COCO17.side(a) == COCO17.side(b) else "middle"
            cv2.line(image, points[a], points[b], _SIDES[side], 1, cv2.LINE_AA, 3)
    for index in np.flatnonzero(keypoints[:, 2]):
        thickness = -1 if keypoints[index, 2] == 2 else 1
        cv2.circle(image, points[index], 20, _SIDES[COCO17.side(int(index))], thickness, cv2.LINE_AA, 3)
