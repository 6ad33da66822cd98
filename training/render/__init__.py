"""Rendered people: COCO-format data sets that need no download. Imports no torch."""

from __future__ import annotations

from oaks.training.render.dataset import write_dataset
from oaks.training.render.people import PAPER_CLASSES, RenderedPeople
from oaks.training.render.video import RenderedVideos

__all__ = ["PAPER_CLASSES", "RenderedPeople", "RenderedVideos", "write_dataset"]
