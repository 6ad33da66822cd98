"""Batches and a service on Ray: `oaks predict --ray` and `oaks serve` (docs/ray.md, extra `oaks[ray]`).

oaks.ray.predict(dataset, "small").write_parquet("poses")
oaks.ray.predict_files(["s3://bucket/photos"], "poses", "small")
oaks.ray.serve("small", port=8000)                        # until Ctrl-C
with oaks.ray.running("small", port=8000) as address:     # for a block
    ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oaks.ray.batches import predict, predict_files
    from oaks.ray.cluster import connect
    from oaks.ray.serving import running, serve

_PLACES = {
    "connect": "oaks.ray.cluster",
    "predict": "oaks.ray.batches",
    "predict_files": "oaks.ray.batches",
    "running": "oaks.ray.serving",
    "serve": "oaks.ray.serving",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'oaks.ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = ["connect", "predict", "predict_files", "running", "serve"]
