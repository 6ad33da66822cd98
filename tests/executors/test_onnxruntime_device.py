"""ONNX Runtime's GPU providers, on a stand-in that runs sessions on the real CPU provider, as asynchronously as a
stream."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import bundles
import numpy as np
import onnxruntime as real
import pycuda_stand_in
import pytest

import oaks
from oaks import BackendUnavailable, BundleError
from oaks.executors import onnxruntime as backend
from oaks.executors.onnxruntime import CPU, CUDA, TENSORRT, TENSORRT_RTX


class Session:
    """A session on a GPU: takes arrays by address in device memory, and runs when its stream does."""

    def __init__(
        self, runtime: Runtime, model: bytes, options: real.SessionOptions, provider: str, settings
    ) -> None:
        self.provider, self.settings, self.options = provider, settings, options
        self._runtime = runtime
        self._inner = real.InferenceSession(model, providers=[CPU])

    def get_inputs(self):
        return self._inner.get_inputs()

    def get_outputs(self):
        return self._inner.get_outputs()

    def get_providers(self) -> list[str]:
        return [self._runtime.takes or self.provider, CPU]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: real.RunOptions) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        gpu = self._runtime.gpu

        def run() -> None:
            given = {name: binding.array(gpu, name) for name in binding.inputs}
            made = self._inner.run(
                list(binding.outputs), {name: array.copy() for name, array in given.items()}
            )
            for name, values in zip(binding.outputs, made, strict=True):
                binding.array(gpu, name)[...] = values

        gpu.streams[int(self.settings["user_compute_stream"])].enqueue(run)


class Binding:
    def __init__(self) -> None:
        self.inputs, self.outputs = {}, {}

    def bind_input(self, name, device, index, dtype, shape, address) -> None:
        assert (device, index) == ("cuda", 0)
        self.inputs[name] = (np.dtype(dtype), shape, address)

    def bind_output(self, name, device, index, dtype, shape, address) -> None:
        assert (device, index) == ("cuda", 0)
        self.outputs[name] = (np.dtype(dtype), shape, address)

    def array(self, gpu, name) -> np.ndarray:
        dtype, shape, address = (self.inputs | self.outputs)[name]
        return gpu.at(address, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)


class Runtime:
    """What `import onnxruntime` finds. Attributes that tests set say what goes wrong.

    Attributes:
        sessions: those on the GPU.
        providers: that are built in.
        devices: of plugins.
        takes: another provider that sessions take in silence.
    """

    def __init__(self, monkeypatch, gpu) -> None:
        self.gpu, self.sessions = gpu, []
        self.providers = [TENSORRT, CUDA, CPU]
        self.devices, self.takes, self.fails = [], None, None
        module = ModuleType("onnxruntime")
        for name in ("RunOptions", "GraphOptimizationLevel", "__version__"):
            setattr(module, name, getattr(real, name))
        module.SessionOptions = self.options
        module.InferenceSession = self.session
        module.get_available_providers = lambda: self.providers
        module.get_ep_devices = lambda: self.devices
        monkeypatch.setitem(sys.modules, "onnxruntime", module)

    def options(self):
        """Session options that keep the devices that they are given: real ones take real devices only."""
        made = SimpleNamespace(entries={}, devices=None)
        made.add_session_config_entry = made.entries.__setitem__
        made.add_provider_for_devices = lambda devices, settings: setattr(
            made, "devices", (devices, settings)
        )
        return made

    def session(self, model, options, providers=None, enable_fallback=1):
        if providers == [CPU]:
            return real.InferenceSession(model, providers=[CPU])
        assert enable_fallback == 0
        assert options.entries["session.disable_cpu_ep_fallback"] == "1"
        if self.fails:
            raise RuntimeError(self.fails)
        if providers is None:
            devices, settings = options.devices
            provider = devices[0].ep_name
        else:
            ((provider, settings),) = providers
            assert provider in self.providers
        self.sessions.append(Session(self, model, options, provider, settings))
        return self.sessions[-1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", half=True)


@pytest.fixture
def expected(bundle):
    """Made before the stand-in takes the runtime's place."""
    with oaks.Engine(bundle, backend="onnxruntime", precision="fp32") as engine:
        return engine.infer(picture(), boxes=people())


@pytest.fixture
def runtime(monkeypatch, expected):
    return Runtime(monkeypatch, pycuda_stand_in.install(monkeypatch))


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def people() -> np.ndarray:
    corners = np.random.default_rng(1).uniform(0, 40, (5, 2))
    return np.concatenate([corners, corners + 20], axis=1)


def test_the_gpu_gives_what_the_cpu_gives_on_the_engines_stream(runtime, bundle, expected, monkeypatch):
    with oaks.Engine(bundle, backend="onnxruntime", device="cuda", precision="fp32", max_batch=4) as engine:
        for _ in range(2):
            poses = engine.infer(picture(), boxes=people())
            for name in ("keypoints", "visibility", "similarity", "scores"):
                np.testing.assert_allclose(getattr(poses, name), getattr(expected, name), atol=1e-6)
        told = engine.describe()
        assert told["cuda_graphs"] == "none"
        assert told["networks"]["pose"]["runtime"].endswith(CUDA)
        stream = str(engine._pipeline.memory.stream)
    assert [session.provider for session in runtime.sessions] == [CUDA, CUDA]
    for session in runtime.sessions:
        assert session.settings == {
            "device_id": "0", "has_user_compute_stream": "1", "user_compute_stream": stream, "use_tf32": "0",
        }  # fmt: skip
    assert runtime.gpu.leaks == []


def test_calls_that_overlap_give_the_same_on_two_streams(runtime, bundle, expected):
    with oaks.Engine(bundle, backend="onnxruntime", device="cuda", precision="fp32", max_batch=4) as engine:
        pictures = [picture() if n % 2 else np.zeros((40, 50, 3), np.uint8) for n in range(5)]
        streamed = list(engine.infer_stream(pictures, [people()] * 5))
        for poses in streamed[1::2]:
            np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-6)
            np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-6)
        assert not np.allclose(streamed[0].scores, expected.scores)
    assert len(runtime.gpu.streams) == 2
    assert runtime.gpu.leaks == []
    assert runtime.gpu.memory == {}


def test_tensorrt_is_told_of_the_batches_and_keeps_its_engines(
    runtime, bundle, expected, monkeypatch, tmp_path
):
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path))
    with oaks.Engine(bundle, backend="onnxruntime_tensorrt", precision="fp16", max_batch=4) as engine:
        assert engine.device == "cuda"
        poses = engine.infer(picture(), boxes=people())
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1)
    pose, ks = (session.settings for session in runtime.sessions)
    assert pose["trt_profile_min_shapes"].startswith("crops:2x3x")
    assert pose["trt_profile_opt_shapes"] == pose["trt_profile_max_shapes"]
    assert pose["trt_profile_max_shapes"].startswith("crops:8x3x")
    assert ks["trt_profile_max_shapes"].startswith("heatmaps:4x")
    assert (pose["trt_fp16_enable"], pose["trt_int8_enable"], pose["trt_engine_cache_enable"]) == (
        "1",
        "0",
        "1",
    )
    assert str(tmp_path) in pose["trt_engine_cache_path"]


def test_the_plugin_of_tensorrt_for_rtx_is_taken_by_its_device(
    runtime, bundle, expected, monkeypatch, tmp_path
):
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path))
    runtime.devices = [SimpleNamespace(ep_name=TENSORRT_RTX)]
    with oaks.Engine(bundle, backend="onnxruntime_tensorrt_rtx", precision="fp32", max_batch=2) as engine:
        poses = engine.infer(picture(), boxes=people())
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-6)
    session = runtime.sessions[0]
    assert session.options.devices[0] == runtime.devices
    assert session.settings["nv_profile_max_shapes"].startswith("crops:4x3x")
    assert "device_id" not in session.settings
    assert str(tmp_path) in session.settings["nv_runtime_cache_path"]


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime_tensorrt"])
def test_a_runtime_without_the_provider_is_refused(runtime, bundle, name):
    runtime.providers = [CPU]
    with pytest.raises(
        BackendUnavailable, match=r"has no \w+ExecutionProvider; `pip install onnxruntime-gpu`"
    ):
        oaks.Engine(bundle, backend=name, device="cuda")


def test_a_silent_fallback_to_the_cpu_is_refused(runtime, bundle):
    runtime.takes = CPU
    with pytest.raises(BackendUnavailable, match=f"took {CPU} in place of {CUDA}"):
        oaks.Engine(bundle, backend="onnxruntime", device="cuda")


def test_a_network_that_needs_the_cpu_is_refused(runtime, bundle):
    runtime.fails = "This session contains graph nodes that are assigned to the default CPU EP"
    with pytest.raises(
        BundleError, match=f"cannot load it with its {CUDA} alone: This session contains graph"
    ):
        oaks.Engine(bundle, backend="onnxruntime", device="cuda")


def test_missing_gpus_and_unknown_devices_are_refused(runtime, bundle):
    runtime.providers, runtime.devices = [CPU], [SimpleNamespace(ep_name=TENSORRT_RTX)]
    runtime.gpu.devices = 2
    reason = backend.unavailable("cuda:1", TENSORRT_RTX)
    assert reason == f"{TENSORRT_RTX} sees 1 GPUs, GPU 1 is not among them"
    assert "device must be 'cuda' or 'cuda:NUMBER'" in (backend.unavailable("tpu") or "")
    assert "takes backend" not in (backend.unavailable("cpu") or "")
    assert "for the CPU pass backend 'onnxruntime'" in (backend.unavailable("cpu", TENSORRT) or "")
    with pytest.raises(
        ValueError, match="precision must be fp32, fp16 or int8 with backend 'onnxruntime', got 'bf16'"
    ):
        oaks.Engine(bundle, backend="onnxruntime", device="cpu", precision="bf16")


def test_the_real_runtime_on_a_cpu_refuses_a_network_that_would_need_it(bundle):
    """What keeps the CPU out on a GPU: the real runtime's own switch, on the real file."""
    options = real.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    content = bundle.network("pose", "fp32").read()
    others = [name for name in real.get_available_providers() if name != CPU]
    with pytest.raises(Exception, match="CPU"):
        real.InferenceSession(content, options, providers=others or None, enable_fallback=0)


def test_a_real_runtime_without_a_gpu_is_reported(monkeypatch):
    pycuda_stand_in.install(monkeypatch)
    if CUDA in real.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    assert "onnxruntime-gpu" in (backend.unavailable("cuda") or "")
