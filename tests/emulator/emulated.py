"""oaks.ops on emulated blocks: the whole path of device arrays, with the host acting as the device."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np

from .device_ops import DeviceOps


class OnDevice:
    """A host array that claims to be on a device."""

    def __init__(self, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, not self.array.flags.writeable),
            "version": 3,
        }


class EmulatedOps(DeviceOps):
    """Each call uses the next thread order, and fails if the emulator reports anything.

    Attributes:
        native: the emulated native module.
        orders: (order, seed) for call after call.
    """

    def __init__(self, native: ModuleType) -> None:
        self.native = native
        order = native.Order
        self.orders = itertools.cycle(
            [(order.ascending, 0), (order.shuffled, 1), (order.descending, 0), (order.shuffled, 2)]
        )

    def upload(self, array: np.ndarray) -> OnDevice:
        """Copy into memory of exactly the array's size."""
        return OnDevice(array.copy())

    def download(self, array: OnDevice) -> np.ndarray:
        """The array itself."""
        return array.array

    def call(self, operation: Any, *arguments: Any, **keywords: Any) -> None:
        """Run an operation; fail if the emulator reports anything."""
        settings = self.native.settings()
        settings.order, settings.seed = next(self.orders)
        operation(*arguments, **keywords)
        reports = self.native.take_reports()
        assert not reports, "\n".join(reports)
