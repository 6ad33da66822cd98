"""ONNX Runtime with its TensorRT execution provider, which builds its own engines and keeps them in oaks' cache."""

from __future__ import annotations

from functools import partial

from oaks.executors import onnxruntime
from oaks.executors.onnxruntime import TENSORRT, open_memory
from oaks.executors.tensorrt import default_device

unavailable = partial(onnxruntime.unavailable, provider=TENSORRT)
open_executor = partial(onnxruntime.open_executor, provider=TENSORRT)

__all__ = ["default_device", "open_executor", "open_memory", "unavailable"]
