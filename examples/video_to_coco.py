"""Track people through a video and write their poses as COCO keypoint results, with track ids.

    pip install ".[video]"
    python examples/video_to_coco.py street.mp4 --detector yolox.onnx --out street.json

`oaks track` writes the same file, among others. Here your own code chooses what is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import oaks
from oaks.coco_results import make_header, write_results
from oaks.video import OneEuro, boxes_from_detector, track


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the poses of a video as COCO keypoint results.")
    parser.add_argument("video")
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--detector", help="exported detector (ONNX); default: the bundle's")
    parser.add_argument("--minimum", type=float, default=0.0, help="poses with a lower score are left out")
    parser.add_argument("--out", default="poses.json")
    given = parser.parse_args(arguments)

    engine = oaks.Engine(given.bundle, detector=given.detector)
    boxes = boxes_from_detector(engine.detector)
    rows, frames = [], 0
    for frame, poses in track(given.video, engine, boxes=boxes, smoother=OneEuro()):
        good = poses[poses.scores >= given.minimum]
        rows += good.to_coco(image_ids=frame.index + 1)  # frames are numbered from 1, as in MOT files
        frames += 1
        if frames % 100 == 0:
            print(f"{frames} frames, {len(rows)} poses", file=sys.stderr)
    write_results(given.out, rows, make_header(engine.describe(), box_source=boxes.description))
    print(f"{len(rows)} poses in {frames} frames: {given.out}")


if __name__ == "__main__":
    main()
