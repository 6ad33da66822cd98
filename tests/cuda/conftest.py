"""The operations on a real device, through torch's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator.device_ops import DeviceOps


class TorchOps(DeviceOps):
    """Takes and returns NumPy arrays; runs on torch's current device and stream."""

    def upload(self, array: np.ndarray) -> Any:
        """Copy to a new tensor."""
        import torch

        return torch.from_numpy(array.copy()).cuda()

    def download(self, array: Any) -> np.ndarray:
        """Wait for the stream and copy to the host."""
        return array.cpu().numpy()


@pytest.fixture(scope="session")
def cuda_ops() -> TorchOps:
    """The operations on a device; tests that use it are marked needs_cuda."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return TorchOps()
