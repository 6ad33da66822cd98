"""Report what is installed, what works on this machine, and what to install for the rest."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from oaks import _native, executors, runtimes
from oaks.errors import BackendUnavailable
from oaks.names import number_of
from oaks.ops import native


@dataclass(frozen=True)
class Finding:
    """One line of the report: whether a feature works and, if not, what would make it work."""

    name: str
    works: bool
    detail: str


_RUNTIMES = {
    "onnxruntime": ("runs every bundle on the CPU", "pip install onnxruntime"),
    "openvino": ("the fastest on CPUs", "pip install 'oaks[openvino]'"),
    "tensorrt": ("the fastest on NVIDIA GPUs", "pip install 'oaks[tensorrt]'"),
    "pycuda": (
        "memory and streams for TensorRT; nvcc must be installed to build it",
        "pip install 'oaks[tensorrt]'",
    ),
    "torch": ("training, export, and networks on a GPU", "pip install 'oaks[training]'"),
    "lightning": ("training", "pip install 'oaks[training]'"),
    "onnx": ("export", "pip install 'oaks[export]'"),
    "pycocotools": ("evaluation", "pip install 'oaks[val]'"),
    "av": ("video", "pip install 'oaks[video]'"),
    "ray": ("batches on many machines, and the service", "pip install 'oaks[ray]'"),
}
"""Module, which is also its distribution's name -> its purpose, and how to install it."""


def examine() -> list[Finding]:
    """Return everything that oaks can use on this machine, available or not."""
    return [
        _build(),
        _processor(),
        _cuda(),
        *(_runtime(module, *entry) for module, entry in _RUNTIMES.items()),
        _tensorrt_rtx(),
        _choice(),
    ]


def _build() -> Finding:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("oaks", True, f"{_native.version}, {python}")


def _processor() -> Finding:
    usable = ", ".join(native.instruction_sets())
    detail = (
        f"{native.cpu.instruction_set()} in use, of {usable}; {number_of(native.get_threads(), 'thread')}"
    )
    return Finding("CPU operations", True, detail)


def _cuda() -> Finding:
    name = "CUDA operations"
    if native.cuda is None:
        advice = "not built: install oaks where nvcc is on the PATH (OAKS_CUDA=on makes its absence an error)"
        return Finding(name, False, advice)
    built = f"built with nvcc {_native.cuda_version} for {_native.cuda_architectures.replace(';', ' ')}"
    driver, runtime = native.cuda.driver_version(), native.cuda.runtime_version()
    if driver == 0:
        return Finding(name, False, f"{built}; no NVIDIA driver here")
    versions = f"{built}; driver for CUDA {_cuda_version(driver)}, runtime {_cuda_version(runtime)}"
    count = native.cuda.device_count()
    if count == 0:
        return Finding(
            name, False, f"{versions}; no device that it can use (a driver older than the runtime?)"
        )
    devices = []
    for index in range(count):
        info = native.cuda.device_info(index)
        major, minor = info["capability"]
        devices.append(
            f"{info['name']} (compute capability {major}.{minor}, {info['total_bytes'] >> 20} MiB)"
        )
    return Finding(name, True, f"{versions}; {'; '.join(devices)}")


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _choice() -> Finding:
    """Return the backend that an Engine chooses by default."""
    try:
        name, device, skipped = executors.choose_backend("auto", None)
    except BackendUnavailable as error:
        return Finding("Engine", False, str(error))
    others = "; ".join(f"{other}: {reason}" for other, reason in skipped.items())
    return Finding("Engine", True, f"takes {name} on {device}" + (f" (not {others})" if others else ""))


def _tensorrt_rtx() -> Finding:
    """TensorRT for RTX, which oaks.engines.plans.rtx loads."""
    from oaks.engines.plans.library import RTX, library

    name, purpose = "tensorrt_rtx", "NVIDIA RTX GPUs, and plans for them made on any machine"
    try:
        return Finding(name, True, f"{library(RTX).version}: {purpose}")
    except BackendUnavailable as error:
        return Finding(name, False, f"{purpose}: {error}")


def _runtime(module: str, purpose: str, install: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(module, False, f"{purpose}: {install}")
    try:
        runtimes.load(module)
    except Exception as error:  # whatever a damaged installation raises
        return Finding(module, False, f"{purpose}: installed, but does not load: {error}")
    try:
        found = version(module)
    except PackageNotFoundError:
        found = "of unknown version"
    return Finding(module, True, f"{found}: {purpose}")


__all__ = ["Finding", "examine"]
