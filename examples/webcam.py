"""Show the poses of a camera in a window; q or Esc ends it.

    pip install ".[video]"
    pip uninstall opencv-python-headless        # has no windows, and shares its files with opencv-python
    pip install opencv-python
    python examples/webcam.py 0

`oaks track 0 --show` does the same and writes the results. This script shows the loop, for programs that do more with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import oaks
from oaks.video import OneEuro, Preview, boxes_from_detector, track


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Show the poses of a camera in a window.")
    parser.add_argument("camera", nargs="?", default="0", help="camera, video file or stream address")
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--detector", help="exported detector (ONNX); default: the bundle's")
    parser.add_argument(
        "--every", type=int, default=5, help="frames from one run of the detector to the next"
    )
    given = parser.parse_args(arguments)

    preview = Preview("oaks")  # before the camera is opened: Preview says why
    engine = oaks.Engine(given.bundle, detector=given.detector)
    boxes = boxes_from_detector(engine.detector, every=given.every)
    print("q or Esc in the window ends it")
    for frame, poses in track(given.camera, engine, boxes=boxes, smoother=OneEuro()):
        preview.write(frame, poses)
        if preview.ended:
            break
    preview.close()


if __name__ == "__main__":
    main()
