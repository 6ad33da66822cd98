"""Evaluation: average precision, occlusion benchmarks, error analysis, calibration and the report.

truth and results read annotations and detections; ownership, similarity and scores relate the two; judge is
pycocotools, matching the same rules for all images at once; benchmarks, error_analysis, visibility,
calibration, tracking and compare measure; report writes it down; detect and boxes make detections.
"""

from __future__ import annotations

import importlib.util

from oaks.errors import BackendUnavailable


def require_packages() -> None:
    """Check that the packages of the extra `val` are installed.

    Raises:
        BackendUnavailable: one is not; the message names it.
    """
    needed = ("pycocotools", "scipy", "matplotlib", "jinja2")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise BackendUnavailable(f"oaks val needs {', '.join(missing)}; run: pip install 'oaks[val]'")


__all__ = ["require_packages"]
