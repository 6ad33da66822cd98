"""Rendered people: COCO-format data sets that need no download. Imports no torch."""

from __future__ import annotations

from oaks.training.render.dataset import write_dataset
from oaks.training.render.people import PAPER_CLASSES, RenderedPeople

__all__ = ["PAPER_CLASSES", "RenderedPeople", "write_dataset"]
