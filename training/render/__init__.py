"""Rendered people: data sets of pictures and videos in COCO's format that need no download. Imports no torch."""

from __future__ import annotations

from oaks.training.render.output.dataset import write_dataset
from oaks.training.render.output.video_dataset import write_videos
from oaks.training.render.people import PAPER_CLASSES, RenderedPeople
from oaks.training.render.video import RenderedVideos

__all__ = ["PAPER_CLASSES", "RenderedPeople", "RenderedVideos", "write_dataset", "write_videos"]
