"""Choice of the backend, and the errors where none can run."""

from __future__ import annotations

import builtins
import sys

import bundles
import pytest

import oaks
from oaks import BackendUnavailable, executors
from oaks.executors import onnxruntime, openvino, torch
from oaks.ops import native


@pytest.fixture
def only(monkeypatch):
    """Make the named backends available and all others unavailable."""

    modules = {name: executors.load_backend(name) for name in executors.BACKENDS}

    def leave(*names: str) -> None:
        for name, module in modules.items():
            reason = None if name in names else f"{name} is missing"
            monkeypatch.setattr(module, "unavailable", lambda device, reason=reason: reason)

    return leave


@pytest.fixture
def without(monkeypatch):
    """Make the import of a package fail."""
    real = builtins.__import__

    def hide(package: str) -> None:
        def refuse(name, *arguments, **options):
            if name.split(".")[0] == package:
                raise ImportError(f"No module named {package!r}")
            return real(name, *arguments, **options)

        for name in [name for name in list(sys.modules) if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", refuse)

    return hide


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (("tensorrt", "torch", "openvino", "onnxruntime"), ("tensorrt", "cuda")),
        (("torch", "openvino", "onnxruntime"), ("torch", "cuda")),
        (("openvino", "onnxruntime"), ("openvino", "cpu")),
        (("onnxruntime",), ("onnxruntime", "cpu")),
    ],
)
def test_auto_chooses_the_first_available_backend(only, there, expected):
    only(*there)
    name, device, skipped = executors.choose_backend("auto", None)
    assert (name, device) == expected
    before = executors.BACKENDS[: executors.BACKENDS.index(name)]
    assert skipped == {missing: f"{missing} is missing" for missing in before}


def test_auto_on_the_cpu_leaves_torch_alone(only):
    only("torch", "openvino")
    name, device, skipped = executors.choose_backend("auto", "cpu")
    assert (name, device) == ("openvino", "cpu")
    assert skipped["torch"] == "on the CPU only when asked for by name: backend='torch', device='cpu'"


class OneGpu:
    @staticmethod
    def device_count() -> int:
        return 1


def test_auto_warns_of_an_unused_gpu(only, monkeypatch, caplog):
    monkeypatch.setattr(native, "cuda", OneGpu)
    only("openvino")
    executors.choose_backend("auto", "cpu")
    assert caplog.text == ""
    executors.choose_backend("auto", None)
    assert "WARNING" in caplog.text
    assert "tensorrt is missing" in caplog.text


def test_auto_skips_backends_without_the_precision(only, tmp_path):
    only("torch", "onnxruntime")
    made = bundles.write(tmp_path / "whole", half=True)
    for role in ("pose", "ks"):
        (made.path / f"{role}.fp16.onnx").rename(made.path / f"{role}.int8.onnx")
    (made.path / "pose.safetensors").write_bytes(b"never read")
    made = bundles.rewrite(made.path)
    with oaks.Engine(made, precision="int8", device="cpu") as engine:
        assert engine.backend == "onnxruntime"
        assert engine.describe()["skipped_backends"]["torch"] == "it has no int8"
    only("torch")
    with pytest.raises(BackendUnavailable, match="torch: it has no int8"):
        oaks.Engine(made, precision="int8")


def test_auto_without_backends_lists_every_reason(only):
    only()
    with pytest.raises(BackendUnavailable, match=r"tensorrt is missing.*torch.*openvino is.*onnxruntime is"):
        executors.choose_backend("auto", "cuda:3")
    with pytest.raises(BackendUnavailable, match="no backend can run on this machine: "):
        executors.choose_backend("auto", None)


@pytest.mark.parametrize("name", executors.BACKENDS)
def test_an_explicitly_chosen_backend_never_falls_back(only, name):
    only(*(other for other in executors.BACKENDS if other != name))
    with pytest.raises(BackendUnavailable, match=f"backend '{name}' on .*: {name} is missing"):
        executors.choose_backend(name, None)


def test_an_engine_raises_backend_unavailable(only, tiny):
    only("onnxruntime")
    with pytest.raises(BackendUnavailable, match="openvino is missing"):
        oaks.Engine(tiny, backend="openvino")


def test_auto_skips_backends_that_the_bundle_has_no_files_for(only, tiny, tmp_path):
    only("torch", "onnxruntime")
    with oaks.Engine(tiny) as engine:
        assert engine.backend == "onnxruntime"
        assert "no weights" in engine.describe()["skipped_backends"]["torch"]
    weights = dict.fromkeys(("tensorrt", "openvino", "onnxruntime"), "no ONNX file")
    only("tensorrt", "openvino", "onnxruntime", "torch")
    assert executors.choose_backend("auto", None, weights)[0] == "torch"
    (tmp_path / "pose.safetensors").write_bytes(b"")
    only_weights = bundles.rewrite(tmp_path)
    with pytest.raises(ValueError, match="its pose network in, none, got 'fp32'"):
        oaks.Engine(only_weights, backend="onnxruntime")


@pytest.mark.parametrize(
    ("module", "package", "device"),
    [
        (onnxruntime, "onnxruntime", "cpu"),
        (openvino, "openvino", "cpu"),
        (torch, "torch", "cpu"),
        (torch, "safetensors", "cpu"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(without, monkeypatch, module, package, device):
    assert module.unavailable(device) is None
    without(package)
    monkeypatch.delitem(sys.modules, "oaks.training.checkpoint", raising=False)  # is imported anew
    reason = module.unavailable(device)
    assert package in reason
    assert "pip install" in reason


def test_auto_skips_torch_without_safetensors(without, monkeypatch, tmp_path):
    import torch as library

    from oaks.ops import native

    monkeypatch.setattr(native, "cuda", OneGpu)
    monkeypatch.setattr(library.cuda, "is_available", lambda: True)
    monkeypatch.setattr(library.cuda, "device_count", lambda: 1)
    made = bundles.write(tmp_path / "tiny")
    (made.path / "pose.safetensors").write_bytes(b"")
    made = bundles.rewrite(made.path)
    without("safetensors")
    monkeypatch.delitem(sys.modules, "oaks.training.checkpoint", raising=False)
    with oaks.Engine(made) as engine:
        assert engine.backend not in ("tensorrt", "torch")
        assert "'safetensors'; `pip install" in engine.describe()["skipped_backends"]["torch"]
    with pytest.raises(BackendUnavailable, match=r"'safetensors'; `pip install 'oaks\[training\]'`"):
        oaks.Engine(made, backend="torch", device="cpu")


@pytest.mark.parametrize("name", ["openvino"])
def test_a_gpu_is_refused_by_runtimes_of_the_cpu(name, tiny):
    with pytest.raises(BackendUnavailable, match=f"backend '{name}' on cuda: runs on the CPU only"):
        oaks.Engine(tiny, backend=name, device="cuda")


def test_a_gpu_is_refused_where_the_build_has_no_cuda(monkeypatch, tiny):
    from oaks.ops import native

    monkeypatch.setattr(native, "cuda", None)
    with pytest.raises(BackendUnavailable, match="no CUDA support"):
        oaks.Engine(tiny, backend="torch", device="cuda")


def test_a_gpu_is_refused_where_torch_finds_none(monkeypatch, tiny):
    import torch as library

    from oaks.ops import native

    monkeypatch.setattr(native, "cuda", OneGpu)
    monkeypatch.setattr(library.cuda, "is_available", lambda: False)
    assert torch.default_device() == "cpu"
    with pytest.raises(BackendUnavailable, match="torch finds no CUDA device"):
        oaks.Engine(tiny, backend="torch", device="cuda:0")
    monkeypatch.setattr(library.cuda, "is_available", lambda: True)
    monkeypatch.setattr(library.cuda, "device_count", lambda: 2)
    assert torch.default_device() == "cuda"
    assert torch.unavailable("cuda:1") is None
    assert torch.unavailable("cuda:2") == "there is no cuda:2; torch finds 2 CUDA devices"


def test_unknown_devices_are_refused(tiny):
    with pytest.raises(BackendUnavailable, match="device must be 'cpu', 'cuda' or 'cuda:N', got 'tpu'"):
        oaks.Engine(tiny, backend="torch", device="tpu")


def test_precisions_that_a_runtime_lacks_are_refused(tmp_path):
    made = bundles.write(tmp_path / "tiny")
    with pytest.raises(ValueError, match="precision must be fp32, fp16 or int8 with backend 'onnxruntime'"):
        oaks.Engine(made, backend="onnxruntime", precision="bf16")
    with pytest.raises(ValueError, match="must have the pose network's weights for backend 'torch'"):
        oaks.Engine(made, backend="torch", device="cpu")


def test_bf16_is_refused_on_a_processor_without_it(tmp_path, monkeypatch, caplog):
    import openvino as library

    made = bundles.write(tmp_path / "tiny", half=True)
    real = library.Core.get_property

    def get_property(self, *arguments):
        return ["FP32", "INT8"] if "OPTIMIZATION_CAPABILITIES" in arguments else real(self, *arguments)

    monkeypatch.setattr(library.Core, "get_property", get_property)
    with pytest.raises(BackendUnavailable, match="no bf16 instructions"):
        oaks.Engine(made, backend="openvino", precision="bf16")
    with oaks.Engine(made, backend="openvino", precision="fp16") as engine:
        assert engine.describe()["networks"]["pose"]["computes_in"] == "f32"
    assert "no fp16 instructions" in caplog.text
