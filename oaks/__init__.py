"""Human poses with a score that means what it says, occluded or not.

    engine = oaks.Engine("path/or/name/of/bundle")
    poses = engine.infer(frame, boxes=boxes)

Importing oaks loads NumPy and nothing else that is heavy; torch, CUDA, TensorRT and the rest are looked for
when they are used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from oaks.errors import BackendUnavailable, BundleError
from oaks.skeleton import COCO17, Skeleton

if TYPE_CHECKING:
    from oaks import bundle, ops
    from oaks.bundle import Bundle
    from oaks.inference import Engine
    from oaks.poses import Poses

__version__ = version("oaks")
__all__ = [
    "COCO17",
    "BackendUnavailable",
    "Bundle",
    "BundleError",
    "Engine",
    "Poses",
    "Skeleton",
    "__version__",
    "bundle",
    "ops",
]

_LAZY = {"Bundle": "oaks.bundle", "Engine": "oaks.inference", "Poses": "oaks.poses"}


def __getattr__(name: str) -> Any:
    if name in ("bundle", "ops"):
        return importlib.import_module(f"oaks.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'oaks' has no attribute {name!r}")
