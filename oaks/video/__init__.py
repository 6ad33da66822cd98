"""Video: frames in, poses and tracks out.

    for frame, poses in track("street.mp4", engine, boxes=boxes_from_detector(detector, every=5)):
        print(frame.time, poses.track_ids, poses.scores)

Needs PyAV and SciPy: `pip install 'oaks[video]'`.
"""

from oaks.boxes import BoxSource, boxes_from_detector, boxes_from_file, first_boxes
from oaks.video.annotated import AnnotatedVideo
from oaks.video.frames import Frame
from oaks.video.preview import Preview
from oaks.video.sinks import CocoFile, JsonLines, MotFile, Sink
from oaks.video.smoothing import OneEuro
from oaks.video.sources import FrameSource, open_source
from oaks.video.stream import Summary, track
from oaks.video.threads import ReadAhead, WriteBehind
from oaks.video.tracking import Tracker

__all__ = [
    "AnnotatedVideo",
    "BoxSource",
    "CocoFile",
    "Frame",
    "FrameSource",
    "JsonLines",
    "MotFile",
    "OneEuro",
    "Preview",
    "ReadAhead",
    "Sink",
    "Summary",
    "Tracker",
    "WriteBehind",
    "boxes_from_detector",
    "boxes_from_file",
    "first_boxes",
    "open_source",
    "track",
]
