"""ONNX Runtime on the CPU: the backend that is always there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oaks.bundle import Network
from oaks.errors import ArgumentError, BundleError
from oaks.executors.base import HostMemory, Memory, Tensor, checked_tensor

_DTYPES = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}


def default_device() -> str:
    return "cpu"


def unavailable(device: str) -> str | None:
    if device != "cpu":
        return "runs on the CPU only; for a GPU take backend 'tensorrt' or 'torch'"
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"{error}; `pip install onnxruntime`"
    return None


def open_memory(device: str) -> HostMemory:
    return HostMemory()


def open_executor(
    network: Network, *, memory: Memory, threads: int | None, batches: Sequence[int]
) -> OnnxRuntimeExecutor:
    """Loads a network's ONNX file.

    Raises:
        ArgumentError: bf16, which this runtime lacks on the CPU.
        BundleError: ONNX Runtime cannot load the file.
    """
    return OnnxRuntimeExecutor(network, threads)


class OnnxRuntimeExecutor:
    """One session; inputs and outputs are bound to the Engine's arrays, so that nothing is copied."""

    def __init__(self, network: Network, threads: int | None) -> None:
        import onnxruntime

        if network.precision == "bf16":
            raise ArgumentError("precision: backend 'onnxruntime' has no bf16 on the CPU; 'openvino' has")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        # A pool that spins while the native operations work takes their cores away.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                network.read(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BundleError(f"{network.label}: ONNX Runtime cannot load it: {error}") from error
        self.inputs = {node.name: _tensor(node, network) for node in self._session.get_inputs()}
        self.outputs = {node.name: _tensor(node, network) for node in self._session.get_outputs()}
        self.details: dict[str, Any] = {
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "file": network.file,
            "precision": network.precision,
            "threads": threads or "all cores",
        }

    def bind(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> Callable[[], None]:
        session, binding = self._session, self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return BoundSession(session, binding, [*inputs.values(), *outputs.values()])

    def close(self) -> None:
        del self._session


@dataclass(frozen=True)
class BoundSession:
    """Runs a session on bound arrays, and keeps them alive: the binding holds their addresses only."""

    session: Any
    binding: Any
    arrays: Sequence[np.ndarray]

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)


def _tensor(node: Any, network: Network) -> Tensor:
    shape = [size if isinstance(size, int) else None for size in node.shape]
    if node.type not in _DTYPES:
        raise BundleError(f"{network.label}: {node.name!r} must be float32 or float16, is {node.type}")
    return checked_tensor(network.label, node.name, shape, _DTYPES[node.type], network.batch)
