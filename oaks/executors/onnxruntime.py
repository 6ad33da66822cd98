"""ONNX Runtime: on the CPU, the backend that is always installed; on NVIDIA GPUs, with one of three execution providers.

Device "cuda" uses the CUDA provider; the backends "onnxruntime_tensorrt" and "onnxruntime_tensorrt_rtx" use the providers
of TensorRT. On a GPU the network reads and writes the Engine's device memory on the Engine's stream, and no part of it
runs on the CPU: a network for which ONNX Runtime would need the CPU is refused.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.bundle import Network
from oaks.errors import ArgumentError, BackendUnavailable, BundleError
from oaks.executors.base import Array, HostMemory, Memory, Tensor, checked_tensor
from oaks.forks import outlives_forks
from oaks.ops import native
from oaks.runtimes import load_onnxruntime

if TYPE_CHECKING:
    from oaks.executors.pycuda import DeviceMemory

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, TENSORRT_RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
_DTYPES: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
"""The package that provides TENSORRT_RTX."""
_INSTALL = {
    CUDA: "`pip install onnxruntime-gpu` in place of onnxruntime",
    TENSORRT: "`pip install onnxruntime-gpu` in place of onnxruntime, and TensorRT, `pip install tensorrt`",
    TENSORRT_RTX: "`pip install 'oaks[tensorrt-rtx]'` with onnxruntime, not onnxruntime-gpu",
}


def default_device() -> str:
    return "cpu"


def unavailable(device: str, provider: str = CUDA) -> str | None:
    """Return why ONNX Runtime cannot run on a device, and what to install or change; or None.

    Args:
        device: "cpu", "cuda" or "cuda:NUMBER".
        provider: on a GPU, the execution provider.
    """
    try:
        load_onnxruntime()
    except ImportError as error:
        return f"{error}; `pip install onnxruntime`"
    if device == "cpu":
        if provider != CUDA:
            return "runs on NVIDIA GPUs only; for the CPU pass backend 'onnxruntime'"
        return None
    from oaks.executors import pycuda

    try:
        index = pycuda.index_of(device)
    except ArgumentError as error:
        return str(error)
    if reason := pycuda.unavailable(index):
        return reason
    if native.cuda is None:
        return "this build of oaks has no CUDA support; reinstall oaks with nvcc on the PATH"
    return _find(provider, index)[1]


def open_memory(device: str) -> Memory:
    if device == "cpu":
        return HostMemory()
    from oaks.executors import pycuda

    return pycuda.DeviceMemory(pycuda.index_of(device))


def open_executor(
    network: Network,
    *,
    memory: Any,
    threads: int | None,
    batches: Sequence[int],
    provider: str = CUDA,
) -> OnnxRuntimeExecutor | DeviceExecutor:
    """Load a network's ONNX file.

    Raises:
        ArgumentError: bf16, which this runtime lacks.
        BackendUnavailable: the GPU's execution provider cannot be used.
        BundleError: ONNX Runtime cannot load the file, or would run a part of it on the CPU.
    """
    if network.precision == "bf16":
        raise ArgumentError(
            "precision must be fp32, fp16 or int8 with backend 'onnxruntime', got 'bf16'; 'openvino' has it"
        )
    if memory.stream is None:
        return OnnxRuntimeExecutor(network, threads)
    return DeviceExecutor(network, memory, batches, provider)


class OnnxRuntimeExecutor:
    """A session on the CPU, bound to the Engine's arrays, so that nothing is copied."""

    def __init__(self, network: Network, threads: int | None) -> None:
        outlives_forks(self)
        onnxruntime = load_onnxruntime()
        options = _options()
        if threads:
            options.intra_op_num_threads = threads
        # A thread pool that spins while the native operations run would take cores from them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(network.read(), options, providers=[CPU])
        except Exception as error:
            raise BundleError(f"{network.label}: ONNX Runtime cannot load it: {error}") from error
        self.inputs, self.outputs = _tensors(self._session, network)
        self.details: dict[str, Any] = {
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "file": network.file,
            "precision": network.precision,
            "threads": threads or "all cores",
        }

    def bind(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> Callable[[], None]:
        return _bound(self._session, None, inputs, outputs, lambda array: ("cpu", 0, array.ctypes.data))

    def close(self) -> None:
        del self._session


class DeviceExecutor:
    """A session on a GPU. It enqueues on the memory's stream and does not wait.

    Attributes:
        recordable: False. ONNX Runtime may allocate and wait while it runs, which a capture does not allow.
    """

    recordable = False

    def __init__(self, network: Network, memory: DeviceMemory, batches: Sequence[int], provider: str) -> None:
        outlives_forks(self)
        onnxruntime = load_onnxruntime()
        index = memory.place.index
        devices, reason = _find(provider, index)
        if reason is not None:
            raise BackendUnavailable(f"{network.label}: {reason}")
        model = network.read()
        settings = _settings(provider, memory, network, model, batches)
        options = _options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if not devices and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # the CUDA and cuDNN libraries that pip installed
        try:
            if devices:
                options.add_provider_for_devices(devices, settings)
                session = onnxruntime.InferenceSession(model, options, enable_fallback=0)
            else:
                settings["device_id"] = str(index)
                session = onnxruntime.InferenceSession(
                    model, options, providers=[(provider, settings)], enable_fallback=0
                )
        except Exception as error:
            raise BundleError(
                f"{network.label}: ONNX Runtime cannot load it with its {provider} alone: {error}"
            ) from error
        # The CPU provider is always listed last. It has no nodes, else creating the session would have failed.
        if session.get_providers()[0] != provider:
            raise BackendUnavailable(
                f"{network.label}: ONNX Runtime took {session.get_providers()[0]} in place of {provider}"
            )
        self._session: Any = session
        self._index = index
        self.inputs, self.outputs = _tensors(session, network)
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self.details: dict[str, Any] = {
            "runtime": f"onnxruntime {onnxruntime.__version__}, {provider}",
            "file": network.file,
            "precision": network.precision,
            "gpu": memory.place.name,
        }

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        index, options = self._index, self._run_options
        return _bound(self._session, options, inputs, outputs, lambda array: ("cuda", index, array.address))

    def close(self) -> None:
        self._session = None


@dataclass(frozen=True)
class BoundSession:
    """Runs a session on bound arrays, and keeps them alive: the binding holds only their addresses."""

    session: Any
    binding: Any
    options: Any
    arrays: Sequence[Array]

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding, self.options)


def _bound(
    session: Any,
    options: Any,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    place: Callable[[Array], tuple[str, int, int]],
) -> BoundSession:
    """Bind a session to arrays; `place` returns the device, its index and the address of one."""
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, array in arrays.items():
            device, index, address = place(array)
            bind(name, device, index, array.dtype, array.shape, address)
    return BoundSession(session, binding, options, [*inputs.values(), *outputs.values()])


def _options() -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _find(provider: str, index: int) -> tuple[list[Any], str | None]:
    """Return the plugin's devices for GPU `index` (none if the provider is built in), and why it cannot be used, or None."""
    onnxruntime = load_onnxruntime()
    if provider in onnxruntime.get_available_providers():
        return [], None
    if provider == TENSORRT_RTX and (reason := _register_plugin()):
        return [], reason
    asked: list[Any] = getattr(onnxruntime, "get_ep_devices", list)()  # since 1.23
    devices = [device for device in asked if device.ep_name == provider]
    if not devices:
        return [], f"onnxruntime {onnxruntime.__version__} has no {provider}; {_INSTALL[provider]}"
    if index >= len(devices):
        return [], f"{provider} sees {len(devices)} GPUs, GPU {index} is not among them"
    return [devices[index]], None


def _register_plugin() -> str | None:
    """Register TENSORRT_RTX with ONNX Runtime; return why that is impossible, or None."""
    onnxruntime = load_onnxruntime()
    if any(device.ep_name == TENSORRT_RTX for device in getattr(onnxruntime, "get_ep_devices", list)()):
        return None
    if importlib.util.find_spec(_PLUGIN) is None:
        return f"{_PLUGIN} is not installed; {_INSTALL[TENSORRT_RTX]}"
    try:
        plugin = importlib.import_module(_PLUGIN)
        onnxruntime.register_execution_provider_library(TENSORRT_RTX, plugin.get_library_path())
    except Exception as error:  # without a driver, or onnxruntime before 1.24
        return f"ONNX Runtime cannot register {TENSORRT_RTX}: {error}"
    return None


def _settings(
    provider: str, memory: DeviceMemory, network: Network, model: bytes, batches: Sequence[int]
) -> dict[str, str]:
    """Return the options of an execution provider."""
    settings = {"has_user_compute_stream": "1", "user_compute_stream": str(memory.stream)}
    if provider == CUDA:
        return {**settings, "use_tf32": "0"}  # otherwise fp32 would be rounded to TF32
    shapes = _profile(model, network, {"min": batches[0], "opt": batches[-1], "max": batches[-1]})
    from oaks.engines.plans.cache import default_folder

    kept: Path = default_folder() / "onnxruntime"
    kept.mkdir(parents=True, exist_ok=True)
    if provider == TENSORRT_RTX:
        profile = {f"nv_profile_{which}_shapes": text for which, text in shapes.items()}
        return {**settings, **profile, "nv_runtime_cache_path": str(kept)}
    profile = {f"trt_profile_{which}_shapes": text for which, text in shapes.items()}
    return {
        **settings,
        **profile,
        "trt_fp16_enable": str(int(network.precision == "fp16")),
        "trt_int8_enable": str(int(network.precision == "int8")),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(kept),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(kept),
    }


def _profile(model: bytes, network: Network, batches: Mapping[str, int]) -> dict[str, str]:
    """Return the inputs' shapes for each batch in the form of TensorRT's providers: crops:8x3x256x192."""
    onnxruntime = load_onnxruntime()
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    inputs, _ = _tensors(onnxruntime.InferenceSession(model, options, providers=[CPU]), network)

    def shape(batch: int, tensor: Tensor) -> str:
        return "x".join(map(str, (batch, *tensor.shape)))

    return {
        which: ",".join(f"{name}:{shape(batch, tensor)}" for name, tensor in inputs.items())
        for which, batch in batches.items()
    }


def _tensors(session: Any, network: Network) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return (
        {node.name: _tensor(node, network) for node in session.get_inputs()},
        {node.name: _tensor(node, network) for node in session.get_outputs()},
    )


def _tensor(node: Any, network: Network) -> Tensor:
    shape = [size if isinstance(size, int) else None for size in node.shape]
    if node.type not in _DTYPES:
        raise BundleError(f"{network.label}: {node.name!r} must be float32 or float16, got {node.type}")
    return checked_tensor(network.label, node.name, shape, _DTYPES[node.type], network.batch)
