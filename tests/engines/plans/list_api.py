"""Write the names and signatures of an installed TensorRT, with which tests compare our code.

    python tests/engines/plans/list_api.py > tests/engines/plans/tensorrt_api_11.4.json
    python tests/engines/plans/list_api.py rtx > tests/engines/plans/tensorrt_api_rtx_1.7.json

Takes the package `tensorrt`, or `tensorrt_bindings` where that alone is installed; with `rtx`, TensorRT for RTX.
Only the classes that oaks uses are listed, with all their members, so that a missing name is seen.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from types import ModuleType
from typing import Any

CLASSES = (
    *("Builder", "BuilderFlag", "DataType", "Dims", "ExecutionContextAllocationStrategy", "IBuilderConfig"),
    *("ICudaEngine", "IExecutionContext", "IHostMemory", "ILogger", "INetworkDefinition"),
    *("IOptimizationProfile", "IProgressMonitor", "ITensor", "ITimingCache", "NetworkDefinitionCreationFlag"),
    *("OnnxParser", "ParserError", "Runtime", "TensorIOMode", "TensorLocation"),
)
RTX_CLASSES = (
    *("ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy"),
    *("IRuntimeCache", "IRuntimeConfig"),
)
"""Classes that are only used with TensorRT for RTX."""

LEFT_OUT = ("INetworkDefinition", "add_")
"""Methods that add layers; oaks' networks come from ONNX."""

SPECIAL = ("__init__", "__getitem__", "__len__", "__str__", "__eq__")


def plain(text: str) -> str:
    """Remove module names from a signature."""
    for module in (
        "tensorrt_rtx_bindings.tensorrt_rtx.",
        "tensorrt_bindings.tensorrt.",
        "tensorrt.tensorrt.",
    ):
        text = text.replace(module, "")
    return text


def signatures(name: str, documentation: str) -> str:
    """The overloads of a pybind11 function, from its docstring."""
    lines = [plain(line) for line in documentation.splitlines()]
    overloads = [re.sub(r"^\d+\. ", "", line) for line in lines if re.match(rf"\d+\. {name}\(", line)]
    return " || ".join(overloads or lines[:1])


def property_kind(member: property) -> str:
    access = "rw" if member.fget and member.fset else "ro" if member.fget else "wo"
    if not member.fget:
        return f"property({access}) -> ?"
    return f"property({access}) -> {plain(member.fget.__doc__ or '').splitlines()[0].partition(' -> ')[2]}"


def describe(owner: type, name: str, member: Any) -> str | None:
    """Describe a member; None if it is not listed."""
    if isinstance(member, property):
        return property_kind(member)
    if isinstance(member, type) and hasattr(member, "__members__"):
        values = ", ".join(f"{key}={int(value)}" for key, value in member.__members__.items())
        return f"nested enum: {values}"
    if hasattr(type(member), "__members__"):
        return f"constant = {type(member).__name__}.{member.name} ({int(member)})"
    documentation = getattr(member, "__doc__", None) or ""
    if name == "__init__" and not documentation.lstrip().startswith(("__init__(self:", "__init__(*")):
        return "not constructible from Python"
    return signatures(name, documentation) if callable(member) and f"{name}(" in documentation else None


def members(owner: type) -> dict[str, str]:
    if hasattr(owner, "__members__"):
        return {name: f"enum member = {int(value)}" for name, value in sorted(owner.__members__.items())}
    listed = {}
    for name, member in sorted(vars(owner).items()):
        if (name.startswith("__") and name not in SPECIAL) or (
            owner.__name__ == LEFT_OUT[0] and name.startswith(LEFT_OUT[1])
        ):
            continue
        if text := describe(owner, name, member):
            listed[name] = text
    return listed


def listing(trt: ModuleType) -> dict[str, Any]:
    """{"version": ..., "classes": {class: {member: signature}}}"""
    classes = (*CLASSES, *RTX_CLASSES) if hasattr(trt, "ComputeCapability") else CLASSES
    return {"version": trt.__version__, "classes": {name: members(getattr(trt, name)) for name in classes}}


def installed(rtx: bool) -> ModuleType:
    if rtx:
        from oaks.engines.plans.library import RTX, library

        return library(RTX).trt
    try:
        return importlib.import_module("tensorrt")
    except ImportError:
        return importlib.import_module("tensorrt_bindings")


if __name__ == "__main__":
    json.dump(listing(installed("rtx" in sys.argv)), sys.stdout, indent=1)
    print()
