"""Evaluation: average precision, occlusion benchmarks, error analysis, calibration and the report."""
