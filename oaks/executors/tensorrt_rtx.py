"""TensorRT for RTX, chosen by name; backend "tensorrt" also uses it if ordinary TensorRT is not installed."""

from __future__ import annotations

from functools import partial

from oaks.executors import tensorrt
from oaks.executors.tensorrt import default_device, open_memory

_FLAVORS = ("tensorrt_rtx",)

unavailable = partial(tensorrt.unavailable, flavors=_FLAVORS)
open_executor = partial(tensorrt.open_executor, flavors=_FLAVORS)

__all__ = ["default_device", "open_executor", "open_memory", "unavailable"]
