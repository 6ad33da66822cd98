"""Find the poses in one picture, print their scores and write the picture with them.

Boxes of the people come from the bundle's detector, from an exported one, or the whole picture is one person:

    python examples/photo.py photo.jpg
    python examples/photo.py photo.jpg --detector yolox.onnx
    python examples/photo.py photo.jpg --whole
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cv2

import oaks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Find the poses in one picture.")
    parser.add_argument("picture")
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--detector", help="exported detector (ONNX)")
    parser.add_argument("--whole", action="store_true", help="the picture is one person")
    parser.add_argument("--out", default="photo_poses.jpg")
    given = parser.parse_args(arguments)

    engine = oaks.Engine(given.bundle, detector=given.detector)
    poses = engine.infer(given.picture, boxes="whole" if given.whole else None)
    if not len(poses):
        print("no person found; --whole treats the picture as one person, --detector takes a larger detector")
    for pose in poses:
        seen = int((pose.visibility > 0.5).sum())
        print(f"score {pose.score:.2f}, conventional {pose.conventional_score:.2f}, {seen} keypoints visible")
    drawn = poses.draw(given.picture, boxes=True)
    if not cv2.imwrite(given.out, drawn):
        raise SystemExit(f"out must be a picture file that can be written, got {given.out}")
    print(given.out)


if __name__ == "__main__":
    main()
