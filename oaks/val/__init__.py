"""Evaluation: average precision, occlusion benchmarks, error analysis, calibration and the report.

`ground_truth` and `detections` read annotations and results; `assignment`, `oks` and `scores` relate the two. `coco_eval` is
pycocotools; `matching` applies its rules to all images at once. `occlusion`, `error_analysis`, `visibility`, `calibration`,
`tracking` and `bootstrap` measure, `report` presents the results. `detect`, `find_people` and `synthetic_boxes` make
detections.
"""

from __future__ import annotations

import importlib.util

from oaks.errors import BackendUnavailable


def require_packages() -> None:
    """Check that the packages of the extra `val` are installed.

    Raises:
        BackendUnavailable: one is missing; the message names it.
    """
    needed = ("pycocotools", "scipy", "matplotlib", "jinja2")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise BackendUnavailable(f"oaks val needs {', '.join(missing)}; `pip install 'oaks[val]'`")


__all__ = ["require_packages"]
