"""ONNX Runtime with its TensorRT execution provider, which builds its own engines and keeps them in oaks' cache."""

from __future__ import annotations

from collections.abc import Sequence

from oaks.bundle import Network
from oaks.executors import onnxruntime
from oaks.executors.base import Executor, Memory
from oaks.executors.onnxruntime import TENSORRT, open_memory


def default_device() -> str:
    return "cuda"


def unavailable(device: str) -> str | None:
    return onnxruntime.unavailable(device, TENSORRT)


def open_executor(
    network: Network, *, memory: Memory, threads: int | None, batches: Sequence[int]
) -> Executor:
    """Load a network's ONNX file; errors as for backend "onnxruntime"."""
    return onnxruntime.open_executor(
        network, memory=memory, threads=threads, batches=batches, provider=TENSORRT
    )


__all__ = ["default_device", "open_executor", "open_memory", "unavailable"]
