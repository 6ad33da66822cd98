"""OpenVINO on the CPU; "auto" chooses it there if it is installed."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oaks.bundle import Network
from oaks.errors import BackendUnavailable, BundleError
from oaks.executors.base import HostMemory, Memory, Tensor, checked_tensor
from oaks.forks import outlives_forks
from oaks.runtimes import load_openvino

log = logging.getLogger("oaks")

# Without a hint OpenVINO computes in bf16 on processors that support it.
_COMPUTED_IN = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_NEEDS = {"bf16": "BF16", "fp16": "FP16"}


def default_device() -> str:
    return "cpu"


def unavailable(device: str) -> str | None:
    if device != "cpu":
        return "runs on the CPU only; for a GPU pass backend 'tensorrt' or 'torch'"
    try:
        load_openvino()
    except ImportError as error:
        return f"{error}; `pip install 'oaks[openvino]'`"
    return None


def _core() -> Any:
    """Return OpenVINO's core, one for the lifetime of the process; a fork has its own.

    Its CPU plugin gives the thread that first uses it a stack for signal handlers, and unmaps it when the last core
    is destroyed. If another thread destroyed it, the first thread's next signal would crash the process.
    """
    return _core_of(os.getpid()).core


@functools.cache
def _core_of(process: int) -> _Core:
    return outlives_forks(_Core(load_openvino().Core()))


@dataclass(frozen=True, eq=False)
class _Core:
    core: Any


def open_memory(device: str) -> HostMemory:
    return HostMemory()


def open_executor(
    network: Network, *, memory: Memory, threads: int | None, batches: Sequence[int]
) -> OpenVINOExecutor:
    """Load a network's ONNX file.

    Raises:
        BackendUnavailable: bf16 on a processor without it.
        BundleError: OpenVINO cannot load the file.
    """
    return OpenVINOExecutor(network, threads)


class OpenVINOExecutor:
    """A network compiled up to twice: for many small requests in parallel, and for one request on every core.

    A batch is divided among the parallel requests, each on its own rows of the Engine's arrays. A batch with fewer
    rows than requests runs as one request.
    """

    def __init__(self, network: Network, threads: int | None) -> None:
        openvino = load_openvino()
        outlives_forks(self)
        self._label = network.label
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self._arithmetic(network)}
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
            # Pinned threads of two processes would share the first cores and leave the others idle.
            self._settings["ENABLE_CPU_PINNING"] = False
        try:
            self._model = _core().read_model(network.read())
        except RuntimeError as error:
            raise BundleError(f"{network.label}: OpenVINO cannot load it: {error}") from error
        self.inputs = {port.get_any_name(): _tensor(port, network) for port in self._model.inputs}
        self.outputs = {port.get_any_name(): _tensor(port, network) for port in self._model.outputs}
        self._compiled: dict[str, Any] = {}
        self._side_by_side = int(self._compile("THROUGHPUT").get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.details: dict[str, Any] = {
            "runtime": f"openvino {openvino.get_version().split('-')[0]}",
            "file": network.file,
            "precision": network.precision,
            "computes_in": self._settings["INFERENCE_PRECISION_HINT"],
            "requests": self._side_by_side,
            "threads": threads or "all cores",
        }

    def _arithmetic(self, network: Network) -> str:
        """Return the precision hint for a network, if the processor supports it."""
        able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        needed = _NEEDS.get(network.precision)
        if needed is None or needed in able:
            return _COMPUTED_IN[network.precision]
        if network.precision == "bf16":
            raise BackendUnavailable(
                "precision 'bf16': this processor has no bf16 instructions; pass 'fp32' or 'int8'"
            )
        log.warning("%s: this processor has no fp16 instructions; OpenVINO computes in f32", network.label)
        return "f32"

    def _compile(self, hint: str) -> Any:
        if hint not in self._compiled:
            try:
                self._compiled[hint] = _core().compile_model(
                    self._model, "CPU", {**self._settings, "PERFORMANCE_HINT": hint}
                )
            except RuntimeError as error:
                raise BundleError(f"{self._label}: OpenVINO cannot compile it: {error}") from error
        return self._compiled[hint]

    def bind(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> Callable[[], None]:
        openvino = load_openvino()
        batch = len(next(iter(inputs.values())))
        parts = self._side_by_side if batch >= self._side_by_side else 1
        compiled = self._compile("THROUGHPUT" if parts > 1 or self._side_by_side == 1 else "LATENCY")
        requests = []
        for part in range(parts):
            rows = slice(batch * part // parts, batch * (part + 1) // parts)
            request = compiled.create_infer_request()
            for name, array in inputs.items():
                request.set_tensor(name, openvino.Tensor(array[rows], shared_memory=True))
            for name, array in outputs.items():
                request.set_tensor(name, openvino.Tensor(array[rows], shared_memory=True))
            requests.append(request)
        return BoundRequest(requests, [*inputs.values(), *outputs.values()])

    def close(self) -> None:
        self._compiled.clear()
        del self._model


@dataclass(frozen=True)
class BoundRequest:
    """Requests on rows of bound arrays, run in parallel; keeps the arrays alive."""

    requests: Sequence[Any]
    arrays: Sequence[np.ndarray]

    def __call__(self) -> None:
        for request in self.requests:
            request.start_async()
        for request in self.requests:
            request.wait()


def _tensor(port: Any, network: Network) -> Tensor:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise BundleError(f"{network.label}: {port.get_any_name()!r} has no known number of dimensions")
    sizes = [None if size.is_dynamic else size.get_length() for size in shape]
    return checked_tensor(
        network.label, port.get_any_name(), sizes, port.get_element_type().to_dtype(), network.batch
    )
