"""TensorRT for RTX, chosen by name; backend "tensorrt" also uses it if ordinary TensorRT is not installed."""

from __future__ import annotations

from collections.abc import Sequence

from oaks.bundle import Network
from oaks.executors import tensorrt
from oaks.executors.pycuda import DeviceMemory
from oaks.executors.tensorrt import TensorRTExecutor, default_device, open_memory

_FLAVOURS = ("tensorrt_rtx",)


def unavailable(device: str) -> str | None:
    return tensorrt.unavailable(device, _FLAVOURS)


def open_executor(
    network: Network, *, memory: DeviceMemory, threads: int | None, batches: Sequence[int]
) -> TensorRTExecutor:
    """Load the network's plan; build it first if none fits. Errors as for backend "tensorrt"."""
    return tensorrt.open_executor(
        network, memory=memory, threads=threads, batches=batches, flavours=_FLAVOURS
    )


__all__ = ["default_device", "open_executor", "open_memory", "unavailable"]
