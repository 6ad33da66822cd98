"""Imports of ONNX Runtime and OpenVINO, with their telemetry switched off first.

Both report their use to their makers and write files for it under the home folder, unless this is disabled before
they are loaded. Nothing in this package uses the network unless asked to.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

_OPENVINO_TELEMETRY = "openvino_telemetry"


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry switched off.

    Raises:
        ImportError: it is not installed, or does not load.
    """
    if "onnxruntime" in sys.modules:
        return sys.modules["onnxruntime"]
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when the library is loaded
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # on Windows
    return onnxruntime


def load_openvino() -> ModuleType:
    """Import OpenVINO, which reports its import through its telemetry package, without that package.

    Raises:
        ImportError: it is not installed, or does not load.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    absent = object()
    before = sys.modules.get(_OPENVINO_TELEMETRY, absent)
    sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        import openvino
    finally:
        if before is absent:
            del sys.modules[_OPENVINO_TELEMETRY]
        else:
            sys.modules[_OPENVINO_TELEMETRY] = before  # type: ignore[assignment]  # a module, or None
    return openvino


_LOADERS = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}


def load(name: str) -> ModuleType:
    """Import a module by name; runtimes are imported by the functions above.

    Raises:
        ImportError: it is not installed, or does not load.
    """
    return _LOADERS[name]() if name in _LOADERS else importlib.import_module(name)


__all__ = ["load", "load_onnxruntime", "load_openvino"]
