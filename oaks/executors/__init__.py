"""Executors: one network on one runtime, behind one small protocol.

A backend is a module of this package with

    default_device()     "cpu" or "cuda", the device used where none is given
    unavailable(device)  why it cannot run there, and what to install or change; or None
    open_memory(device)  the `base.Memory` that allocates its arrays
    open_executor(network, *, memory, threads, batches)  a `base.Executor` for a bundle's Network; `threads` is
                         None or a number of CPU threads, `batches` the batch sizes that will be used, ascending

The Engine owns every buffer. It allocates them from the Memory, binds them to the networks once per batch size
with Executor.bind, and from then on only calls what bind returned.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from types import ModuleType

from oaks.bundle import Network
from oaks.errors import ArgumentError, BackendUnavailable
from oaks.executors.base import Executor, Memory
from oaks.executors.looped import LoopedExecutor
from oaks.ops import native

log = logging.getLogger("oaks")

AUTOMATIC = ("tensorrt", "torch", "openvino", "onnxruntime")
"""The backends that "auto" tries, in this order; torch only with CUDA."""

BACKENDS = (*AUTOMATIC, "tensorrt_rtx", "onnxruntime_tensorrt", "onnxruntime_tensorrt_rtx")
"""All backends; those that "auto" does not try run only when chosen by name."""


def load_backend(name: str) -> ModuleType:
    """Return the module of a backend.

    Raises:
        ArgumentError: there is no backend of that name.
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise ArgumentError(f"backend must be one of 'auto', {', '.join(map(repr, BACKENDS))}, got {name!r}")
    return importlib.import_module(f"oaks.executors.{name}")


def open_network(
    name: str, network: Network, *, memory: Memory, threads: int | None, batches: Sequence[int]
) -> Executor:
    """Open a bundle's network on a backend; a network that takes one image at a time runs once per row.

    Args:
        name: the backend.
        network: the network to load.
        memory: the backend's memory.
        threads: CPU threads; None: all cores.
        batches: the batch sizes that will be used, ascending.
    """
    module = load_backend(name)
    if network.batch is None:
        return module.open_executor(network, memory=memory, threads=threads, batches=batches)
    return LoopedExecutor(
        module.open_executor(network, memory=memory, threads=threads, batches=[network.batch])
    )


def choose_backend(
    name: str, device: str | None, lacking: Mapping[str, str] | None = None
) -> tuple[str, str, dict[str, str]]:
    """Choose the backend and its device.

    Args:
        name: a backend, or "auto": the first available of tensorrt, torch on CUDA, openvino, onnxruntime.
        device: "cpu", "cuda", "cuda:1", ...; None: the backend's default.
        lacking: backend -> why the bundle cannot run on it; "auto" skips those.

    Returns:
        The backend's name, its device, and why each backend that "auto" skipped cannot run.

    Raises:
        BackendUnavailable: the chosen backend cannot run here, or none can run on the chosen device.
    """
    for argument, value in (("backend", name), ("device", "cpu" if device is None else device)):
        if not isinstance(value, str):
            raise ArgumentError(f"{argument} must be a text, got {value!r}")
    if name != "auto":
        module = load_backend(name)
        place = device or module.default_device()
        if reason := module.unavailable(place):
            raise BackendUnavailable(f"backend {name!r} on {place}: {reason}")
        return name, place, {}
    skipped: dict[str, str] = {}
    for candidate in AUTOMATIC:
        module = load_backend(candidate)
        place = device or ("cuda" if candidate in ("tensorrt", "torch") else "cpu")
        reason = (lacking or {}).get(candidate) or module.unavailable(place)
        if candidate == "torch" and place == "cpu":
            reason = reason or "on the CPU only when asked for by name: backend='torch', device='cpu'"
        if reason is None:
            # No warning where there is no GPU, or where the CPU was chosen.
            slower = (
                device is None
                and place == "cpu"
                and native.cuda is not None
                and native.cuda.device_count() > 0
            )
            log.log(
                logging.WARNING if slower else logging.DEBUG,
                "backend %s on %s; skipped: %s", candidate, place, skipped,
            )  # fmt: skip
            return candidate, place, skipped
        skipped[candidate] = reason
    reasons = "; ".join(f"{candidate}: {reason}" for candidate, reason in skipped.items())
    raise BackendUnavailable(f"no backend can run on {device or 'this machine'}: {reasons}")


__all__ = ["AUTOMATIC", "BACKENDS", "choose_backend", "load_backend", "open_network"]
