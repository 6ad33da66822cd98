"""ONNX Runtime with the execution provider of TensorRT for RTX, a plugin."""

from __future__ import annotations

from functools import partial

from oaks.executors import onnxruntime
from oaks.executors.onnxruntime import TENSORRT_RTX, open_memory
from oaks.executors.tensorrt import default_device

unavailable = partial(onnxruntime.unavailable, provider=TENSORRT_RTX)
open_executor = partial(onnxruntime.open_executor, provider=TENSORRT_RTX)

__all__ = ["default_device", "open_executor", "open_memory", "unavailable"]
