"""Rendered people: data sets of pictures and videos in COCO's format that need no download. Imports no torch."""

from __future__ import annotations

from oaks.training.render.dataset import write_dataset
from oaks.training.render.people import PAPER_CLASSES, RenderedPeople
from oaks.training.render.video import RenderedVideos
from oaks.training.render.video_dataset import write_videos

__all__ = ["PAPER_CLASSES", "RenderedPeople", "RenderedVideos", "write_dataset", "write_videos"]
