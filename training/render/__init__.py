"""Rendered people: COCO-format data sets that need no download. Imports no torch."""
