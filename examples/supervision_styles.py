"""Draw one picture's poses in several styles of supervision, side by side.

    pip install "supervision>=0.29"
    python examples/supervision_styles.py photo.jpg --whole

`poses.to_supervision()` gives what its annotators take: points with confidences, and whether each is visible.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cv2
import numpy as np
import supervision

import oaks
from oaks.images import read_image


def styles(picture: np.ndarray, poses: oaks.Poses) -> list[np.ndarray]:
    """Copies of a picture (H, W, 3) with poses drawn in: lines and points, boxes around people, points with names."""
    points = poses.to_supervision()
    edges = [
        (start + 1, end + 1) for start, end in poses.skeleton.limbs
    ]  # supervision counts keypoints from 1
    lines = supervision.EdgeAnnotator(edges=edges, thickness=3)
    dots = supervision.VertexAnnotator(radius=5)
    names = supervision.VertexLabelAnnotator(text_scale=0.3, text_padding=2, smart_position=True)
    boxes = supervision.RoundBoxAnnotator()
    people = supervision.Detections(xyxy=poses.boxes, confidence=poses.scores, class_id=np.arange(len(poses)))
    return [
        dots.annotate(lines.annotate(picture.copy(), points), points),
        boxes.annotate(lines.annotate(picture.copy(), points), people),
        names.annotate(picture.copy(), points, labels=list(poses.skeleton.keypoints)),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw a picture's poses in several styles of supervision.")
    parser.add_argument("picture")
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--detector", help="exported detector (ONNX)")
    parser.add_argument("--whole", action="store_true", help="the picture is one person")
    parser.add_argument("--out", default="styles.jpg")
    given = parser.parse_args(arguments)

    engine = oaks.Engine(given.bundle, detector=given.detector)
    picture = read_image(given.picture)
    poses = engine.infer(picture, boxes="whole" if given.whole else None)
    if not cv2.imwrite(given.out, np.concatenate(styles(picture, poses), axis=1)):
        raise SystemExit(f"out must be a picture file that can be written, got {given.out}")
    print(given.out)


if __name__ == "__main__":
    main()
