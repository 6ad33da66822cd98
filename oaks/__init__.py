"""2D human pose estimation with calibrated, occlusion-aware scores.

    engine = oaks.Engine("path/or/name/of/bundle")
    poses = engine.infer(frame, boxes=boxes)

Importing oaks loads NumPy only; torch, CUDA, TensorRT and other heavy packages are imported on first use.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from oaks.errors import ArgumentError, BackendUnavailable, BundleError, OaksError, OutOfMemory, StateError
from oaks.skeleton import COCO17, Skeleton

if TYPE_CHECKING:
    from oaks import bundle, draw, fit, ops
    from oaks.bundle import Bundle
    from oaks.detector import Detector
    from oaks.inference import Engine
    from oaks.poses import Poses
    from oaks.scorer import Scorer

__version__ = version("oaks")
__all__ = [
    "COCO17",
    "ArgumentError",
    "BackendUnavailable",
    "Bundle",
    "BundleError",
    "Detector",
    "Engine",
    "OaksError",
    "OutOfMemory",
    "Poses",
    "Scorer",
    "Skeleton",
    "StateError",
    "__version__",
    "bundle",
    "draw",
    "fit",
    "ops",
]

_CLASSES = {
    "Bundle": "oaks.bundle",
    "Detector": "oaks.detector",
    "Engine": "oaks.inference",
    "Poses": "oaks.poses",
    "Scorer": "oaks.scorer",
}
_MODULES = ("bundle", "draw", "fit", "ops")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"oaks.{name}")
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'oaks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
