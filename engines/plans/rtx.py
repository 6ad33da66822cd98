"""TensorRT for RTX: how its library is found, and its special features.

Its plans run on every GPU of the capabilities that they are built for, and its builder needs no GPU. Kernels are
compiled on the GPU that loads the plan, and kept in a runtime cache.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorrt_rtx as trt

    from oaks.engines.plans.library import Library

CAPABILITIES = ("75", "80", "86", "89", "120", "121")
"""Compute capabilities, without the dot, that a plan can be built for."""

DEFAULT_CAPABILITIES = ("80", "86", "89", "120", "121")
"""Capabilities of a plan that is built without naming any."""

LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
"""In loading order: the parser needs the other library."""

_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
"""The module of ONNX Runtime's plugin, whose folder holds the two libraries."""


def load() -> ModuleType:
    """Load TensorRT for RTX: NVIDIA's package tensorrt_rtx, or its bindings with the libraries of ONNX Runtime's plugin.

    Raises:
        ImportError: neither is installed.
        OSError: the libraries cannot be loaded.
    """
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx")
    if (plugin := importlib.util.find_spec(_PLUGIN)) is not None and sys.platform == "linux":
        # By file name: importing the plugin would create links in its folder.
        for name in LIBRARIES:
            for folder in plugin.submodule_search_locations or ():
                for path in sorted(Path(folder).glob(f"{name}.*"), reverse=True)[:1]:
                    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_rtx_bindings")


def unavailable(capability: str) -> str | None:
    """Return why a GPU of a compute capability, "90" for 9.0, is not supported; or None."""
    if capability in CAPABILITIES:
        return None
    served = ", ".join(f"{known[:-1]}.{known[-1]}" for known in CAPABILITIES)
    return (
        f"TensorRT-RTX supports compute capabilities {served}; this GPU has {capability[:-1]}.{capability[-1]}; "
        "`pip install 'oaks[tensorrt]'`"
    )


def capabilities_for(capability: str) -> tuple[str, ...]:
    """Return the capabilities to name for a GPU: none if the default covers it, so that plans are shared."""
    return () if capability in DEFAULT_CAPABILITIES else (capability,)


def configure(library: Library, config: trt.IBuilderConfig, capabilities: tuple[str, ...]) -> None:
    """Set what CUDA graph capture needs of a plan, and the capabilities, if any are named."""
    trt, mark = library.trt, library.log.mark()
    # The caller allocates memory: a context that allocates by itself cannot be captured.
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            named = getattr(trt.ComputeCapability, f"SM{capability}")
            if not config.set_compute_capability(named, index):
                raise library.failure(f"{library.name} refuses compute capability {capability}", mark)


def can_be_captured(context: trt.IExecutionContext, stream: int | None) -> bool:
    """Whether the work that the context enqueues on a stream can be captured in a CUDA graph."""
    return context.is_stream_capturable(stream)


class RuntimeCache:
    """The kernels that TensorRT for RTX compiles on a GPU for one engine, kept in a file between processes.

    Args:
        library: TensorRT for RTX.
        engine: the engine whose contexts use the cache.
        path: the file; it need not exist.
    """

    _engine: trt.ICudaEngine
    _config: trt.IRuntimeConfig
    _cache: trt.IRuntimeCache

    def __init__(self, library: Library, engine: trt.ICudaEngine, path: Path) -> None:
        self._engine, self._path = engine, path
        trt = library.trt
        self._config = engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # Eager: with lazy specialization a captured graph would keep the fallback kernels.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        # The Engine captures graphs itself, with more than the network.
        self._config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        self._cache = self._config.create_runtime_cache()
        self._before = path.read_bytes() if path.is_file() else b""
        if self._before and not self._cache.deserialize(self._before):
            self._cache.reset()
        self._config.set_runtime_cache(self._cache)

    def context(self) -> trt.IExecutionContext | None:
        """Create a context whose memory the caller provides; None if TensorRT fails."""
        return self._engine.create_execution_context(runtime_config=self._config)

    def save(self) -> None:
        """Write the file if its content has changed.

        Raises:
            OSError: it cannot be written.
        """
        from oaks.files import replacing

        content = bytes(self._cache.serialize())
        if content != self._before:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.write(content)
            self._before = content


__all__ = [
    "CAPABILITIES",
    "DEFAULT_CAPABILITIES",
    "LIBRARIES",
    "RuntimeCache",
    "can_be_captured",
    "capabilities_for",
    "configure",
    "load",
    "unavailable",
]
