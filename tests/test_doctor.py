"""oaks doctor: the report matches the machine."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json

import pytest
from typer.testing import CliRunner

from oaks import BackendUnavailable, _native, doctor, executors, runtimes
from oaks.cli.main import app
from oaks.ops import native


def finding(name: str) -> doctor.Finding:
    (found,) = [f for f in doctor.examine() if f.name == name]
    return found


def test_the_build_is_reported():
    assert importlib.metadata.version("oaks") in finding("oaks").detail
    assert native.cpu.instruction_set() in finding("CPU operations").detail


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "torch", "tensorrt"])
def test_runtimes_are_reported_with_version_or_install_command(module):
    found = finding(module)
    assert found.works == (importlib.util.find_spec(module) is not None)
    expected = importlib.metadata.version(module) if found.works else "pip install"
    assert expected in found.detail


def test_tensorrt_for_rtx_is_found_by_its_own_loader(monkeypatch):
    from oaks.engines.plans import library, rtx

    def missing():
        raise ImportError("No module named 'tensorrt_rtx_bindings'")

    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(rtx, "load", missing)
    assert not finding("tensorrt_rtx").works
    assert "pip install 'oaks[tensorrt-rtx]'" in finding("tensorrt_rtx").detail


def test_a_missing_runtime_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not finding("onnxruntime").works
    assert "pip install onnxruntime" in finding("onnxruntime").detail


def test_a_runtime_that_does_not_load_is_reported(monkeypatch):
    real = runtimes.load

    def broken(name: str):
        if name == "openvino":
            raise OSError("libopenvino.so: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(runtimes, "load", broken)
    assert not finding("openvino").works
    assert "does not load: libopenvino.so" in finding("openvino").detail


def test_the_default_backend_is_reported(monkeypatch):
    monkeypatch.setattr(
        executors, "choose_backend", lambda *_: ("openvino", "cpu", {"tensorrt": "it is missing"})
    )
    assert finding("Engine").detail == "takes openvino on cpu (not tensorrt: it is missing)"

    def none(*_):
        raise BackendUnavailable("no backend can run on this machine: none")

    monkeypatch.setattr(executors, "choose_backend", none)
    assert not finding("Engine").works
    assert "no backend" in finding("Engine").detail


def test_a_build_without_cuda_says_what_to_do(monkeypatch):
    monkeypatch.setattr(native, "cuda", None)
    found = finding("CUDA operations")
    assert not found.works
    assert "nvcc" in found.detail


class OneDevice:
    @staticmethod
    def driver_version() -> int:
        return 13010

    @staticmethod
    def runtime_version() -> int:
        return 13000

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def device_info(index: int) -> dict[str, object]:
        assert index == 0
        return {"name": "Some GPU", "capability": (9, 0), "total_bytes": 80 << 30}


def test_a_device_is_described(monkeypatch):
    monkeypatch.setattr(native, "cuda", OneDevice)
    monkeypatch.setattr(_native, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(_native, "cuda_architectures", "75-real;90-virtual", raising=False)
    found = finding("CUDA operations")
    assert found.works
    for part in ("Some GPU", "9.0", "81920 MiB", "driver for CUDA 13.1", "75-real 90-virtual"):
        assert part in found.detail


def test_a_driver_without_a_device_is_reported(monkeypatch):
    class NoDevice(OneDevice):
        device_count = staticmethod(lambda: 0)

    monkeypatch.setattr(native, "cuda", NoDevice)
    monkeypatch.setattr(_native, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(_native, "cuda_architectures", "90", raising=False)
    found = finding("CUDA operations")
    assert not found.works
    assert "no device" in found.detail


def test_the_table_shows_every_remedy_in_full(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "pip install 'oaks[openvino]'" in result.stdout
    lines = CliRunner().invoke(app, ["doctor", "--json"]).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == [found.name for found in doctor.examine()]
