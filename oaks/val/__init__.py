"""Evaluation: average precision, occlusion benchmarks, error analysis, calibration and the report.

truth and results read annotations and detections; ownership, similarity and scores relate the two; judge is
pycocotools, matching the same rules for all images at once; benchmarks, error_analysis, visibility,
calibration, tracking and compare measure; report writes it down; detect and boxes make detections.
"""
