"""Every name of TensorRT that our code uses, and every argument that it passes, is in the listings.

rtx.py is compared with the listing of TensorRT for RTX, the other files with all three.
"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest
import tensorrt_listings as listings

import oaks
from oaks.engines.plans import cache

FILES = [
    *(Path(cache.__file__).parent / f"{name}.py" for name in ("library", "progress", "plan", "cache")),
    Path(oaks.__file__).parent / "executors" / "tensorrt.py",
]

RTX_FILES = [Path(cache.__file__).parent / "rtx.py"]

RTX_CALLED = {
    *(
        "IBuilderConfig.set_flag",
        "IBuilderConfig.set_compute_capability",
        "ICudaEngine.create_runtime_config",
    ),
    *("IRuntimeConfig.create_runtime_cache", "IRuntimeConfig.set_runtime_cache", "IRuntimeCache.serialize"),
    *("ICudaEngine.create_execution_context", "IExecutionContext.is_stream_capturable"),
    *("BuilderFlag.REQUIRE_USER_ALLOCATION", "CudaGraphStrategy.DISABLED"),
}

CALLED = {
    *(
        "Builder.create_network",
        "Builder.build_serialized_network",
        "OnnxParser.parse",
        "OnnxParser.get_error",
    ),
    *("IBuilderConfig.set_timing_cache", "IBuilderConfig.create_timing_cache", "ITimingCache.serialize"),
    *("IOptimizationProfile.set_shape", "IBuilderConfig.add_optimization_profile", "ParserError.desc"),
    *(
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "ICudaEngine.get_tensor_mode",
    ),
    *(
        "IExecutionContext.set_device_memory",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.infer_shapes",
    ),
    *("IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3"),
    *("IExecutionContext.set_optimization_profile_async", "IExecutionContext.get_tensor_shape"),
}
"""Names that the check must find; guards against a check that finds nothing."""

NATIVE = {"nvonnxparser::IParserError": "ParserError", "nvinfer1::IRuntimeCache": "IRuntimeCache"}
"""C++ names in signatures -> Python's names."""


class Uses(ast.NodeVisitor):
    """Infers the types of TensorRT's objects in a module from annotations and listed signatures.

    A type is the name of a listed class; "=X" stands for the class X itself, "trt" for the module.
    """

    def __init__(self, api: dict[str, dict[str, str]], declared: dict[str, str]) -> None:
        self.api, self.declared = api, declared
        self.names: dict[str, str] = {}
        self.used: set[str] = set()
        self.wrong: list[str] = []
        self.untyped: set[str] = set()

    def type_of(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.NamedExpr):
            return self.type_of(node.value)
        if isinstance(node, ast.Call):
            return self.called(node)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        return None

    def attribute(self, node: ast.Attribute) -> str | None:
        owner = self.type_of(node.value)
        if node.attr == "trt":
            return "trt"
        if owner == "trt":
            if node.attr in self.api:
                return f"={node.attr}"
            if node.attr != "__version__":
                self.wrong.append(f"trt.{node.attr}")
            return None
        if owner is None:
            self.untyped.add(node.attr)
            return self.declared.get(node.attr)
        name = owner.removeprefix("=")
        self.used.add(f"{name}.{node.attr}")
        entry = self.api[name].get(node.attr)
        if entry is None:
            self.wrong.append(f"{name}.{node.attr}")
            return None
        kind = listings.property_of(entry)
        stored = isinstance(node.ctx, ast.Store)
        if stored != (kind is not None and kind[0] == "wo") and (stored and (kind or ("ro",))[0] == "ro"):
            self.wrong.append(f"{name}.{node.attr} is {entry}, and set")
        return kind[1] if kind and kind[1] in self.api else None

    def called(self, node: ast.Call) -> str | None:
        function = self.type_of(node.func)
        if function and function.startswith("="):
            self.match(f"{function[1:]}.__init__", self.api[function[1:]].get("__init__"), node)
            return function[1:]
        if not isinstance(node.func, ast.Attribute):
            return self.declared.get(getattr(node.func, "id", ""))
        owner = self.type_of(node.func.value)
        if owner in (None, "trt"):
            return self.declared.get(node.func.attr)
        positional = node.args[1:] if owner.startswith("=") else node.args  # Class.method(self, ...)
        name = owner.removeprefix("=")
        return self.match(f"{name}.{node.func.attr}", self.api[name].get(node.func.attr), node, positional)

    def match(
        self, name: str, entry: str | None, node: ast.Call, positional: list[ast.expr] | None = None
    ) -> str | None:
        if entry is None:
            return None
        if "(self" not in entry:
            self.wrong.append(f"{name} is {entry}, and called")
            return None
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        errors = []
        for signature in listings.overloads(entry):
            try:
                signature.bind(list(node.args if positional is None else positional), keywords)
            except TypeError as error:
                errors.append(str(error))
            else:
                returns = NATIVE.get(signature.returns, signature.returns)
                return returns if returns in self.api else None
        self.wrong.append(f"{name}: {errors}")
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = dict(self.names)
        for argument in node.args.args + node.args.kwonlyargs:
            if argument.annotation is not None:
                self.name(argument.arg, annotated(argument.annotation))
                self.visit(argument.annotation)
        for statement in node.body:
            self.visit(statement)
        if node.returns is not None:
            self.visit(node.returns)
        self.names = outer

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self.name(node.target.id, annotated(node.annotation))

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names, values = target.elts, node.value.elts
            for name, value in zip(names, values, strict=False):
                if isinstance(name, ast.Name):
                    self.name(name.id, self.type_of(value))

    def visit_Call(self, node: ast.Call) -> None:
        self.called(node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.attribute(node)
        self.generic_visit(node)

    def name(self, name: str, kind: str | None) -> None:
        if kind is None:
            self.names.pop(name, None)
        else:
            self.names[name] = kind


def annotated(annotation: ast.expr | None) -> str | None:
    """Return the class in an annotation such as `trt.ICudaEngine | None`."""
    found = (
        re.search(r"\b(?:trt|tensorrt)\.(\w+)(?!\.|\w)", ast.unparse(annotation))
        if annotation is not None
        else None
    )
    return found[1] if found else None


def declarations(trees: list[ast.Module]) -> dict[str, str]:
    """Name of a function or a field -> the TensorRT class in its annotation."""
    found = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (kind := annotated(node.returns)):
                found[node.name] = kind
            if isinstance(node, ast.ClassDef):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and (kind := annotated(field.annotation)):
                        found[field.target.id] = kind
    return found


def uses(sources: list[str], api: dict[str, dict[str, str]]) -> Uses:
    trees = [ast.parse(source) for source in sources]
    found = Uses(api, declarations(trees))
    for tree in trees:
        found.names = {"trt": "trt", "tensorrt": "trt"}
        found.visit(tree)
    return found


@pytest.mark.parametrize("version", listings.VERSIONS)
def test_used_names_and_arguments_are_listed(version):
    found = uses([path.read_text("utf-8") for path in FILES], listings.read(version))
    assert not found.wrong
    assert found.used >= CALLED


def test_names_and_arguments_of_tensorrt_for_rtx_are_listed():
    sources = [path.read_text("utf-8") for path in RTX_FILES]
    found = uses(sources, listings.read("rtx_1.7"))
    assert not found.wrong
    assert found.used >= RTX_CALLED


@pytest.mark.parametrize("version", listings.VERSIONS)
def test_no_attribute_escapes_the_check(version):
    """Attributes that only TensorRT's classes have are never read from objects of unknown type."""
    sources = [path.read_text("utf-8") for path in FILES]
    own = {
        n.name for source in sources for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)
    }
    listed = {member for members in listings.read(version).values() for member in members}
    theirs = {member for member in listed if "_" in member.strip("_")} - own
    assert not uses(sources, listings.read(version)).untyped & theirs


@pytest.mark.parametrize("version", listings.VERSIONS)
@pytest.mark.parametrize(
    "line",
    [
        "trt.Bilder(logger)",
        "trt.Builder()",
        "builder.build_engine(network, config)",
        "builder.create_network(1, 2)",
        "builder.create_network(flag=1)",
        "builder.build_serialized_network(network)",
        "builder.create_builder_config().max_workspace_size",
        "builder.create_builder_config().get_timing_cache().dump()",
        "config.set_timing_cache(cache)",
        "config.flags()",
        "trt.BuilderFlag.FP_16",
        "network.num_inputs = 3",
    ],
)
def test_the_check_finds_mistakes(version, line):
    head = "def f(builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig):\n    "
    assert uses([head + line], listings.read(version)).wrong


@pytest.mark.parametrize(
    "line", ["trt.BuilderFlag.FP16", "config.int8_calibrator", "builder.platform_has_fast_fp16"]
)
def test_the_check_finds_what_tensorrt_11_removed(line):
    source = f"def f(builder: trt.Builder, config: trt.IBuilderConfig):\n    {line}"
    assert not uses([source], listings.read("10.16")).wrong
    assert uses([source], listings.read("11.4")).wrong


def test_enum_values_are_never_literals():
    """They differ between major versions."""
    for path in (*FILES, *RTX_FILES):
        shifts = [
            ast.unparse(node.right)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift)
        ]
        assert all(shift.startswith("int(trt.") for shift in shifts), (path, shifts)


@pytest.mark.parametrize("version", listings.VERSIONS)
def test_listings_match_the_full_listings(version):
    """Where listings of the whole Python interface are available: class -> member -> signature."""
    beside = Path(__file__).parents[3].parent / "shared" / "tensorrt"
    path = Path(os.environ.get("OAKS_TENSORRT_LISTINGS", beside)) / f"tensorrt_api_{version}.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent}; OAKS_TENSORRT_LISTINGS may name its folder")
    whole = json.loads(path.read_text("utf-8"))
    whole = whole.get("classes", whole)
    for name, members in listings.read(version).items():
        if version.startswith("rtx") and name not in whole:
            continue  # test_real_builder.py compares those with the library
        theirs = {member: text for member, text in whole[name].items() if not member.startswith("__python")}
        if name == "INetworkDefinition":
            theirs = {member: text for member, text in theirs.items() if not member.startswith("add_")}
        assert members == theirs, name
