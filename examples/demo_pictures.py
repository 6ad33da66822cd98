"""Render the pictures of `oaks demo` into oaks/data/demo, with the boxes of the people in them.

    python examples/demo_pictures.py

They show the cases that the score must tell apart: people in full view, behind things, behind each other and cut off
by the frame. SEED and CHOSEN reproduce them as long as the renderer is unchanged.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2

import oaks
from oaks.training.render import RenderedPeople

SEED = 5
SIZE = (480, 480)
CHOSEN = (1, 5, 8, 14, 21, 23)


def main() -> None:
    people = RenderedPeople(seed=SEED, size=SIZE)
    folder = Path(oaks.__file__).parent / "data" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, index in enumerate(CHOSEN, start=1):
        picture, labels = people.sample(index)
        name = f"people_{number}.jpg"
        assert cv2.imwrite(str(folder / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for label in labels:
            box = [round(value, 2) for value in label["bbox"]]
            kept = {key: label[key] for key in ("area", "iscrowd", "keypoints", "num_keypoints")}
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box, **kept}
            annotations.append(row)
    category = {"id": 1, "name": "person", "keypoints": list(oaks.COCO17.keypoints), "skeleton": []}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "people.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"{len(images)} pictures with {len(annotations)} people: {folder}")


if __name__ == "__main__":
    main()
