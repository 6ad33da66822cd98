"""The real library of TensorRT for RTX: its parser and builder need no GPU.

The tests marked slow take every network that recipes can export; `make test-slow` runs them.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import tensorrt_listings as listings
from onnx import TensorProto, helper

from oaks import bundle as bundles
from oaks.engines.plans import rtx
from oaks.engines.plans.ahead import plan_bundle
from oaks.engines.plans.library import RTX, Library, TensorRTError, library
from oaks.engines.plans.plan import BuildSettings, TimingCache, build, profiles_for
from oaks.errors import BackendUnavailable
from oaks.inference import choose_networks

from . import exportable, list_api

pytestmark = [pytest.mark.tensorrt_builder, pytest.mark.timeout(3000)]

PROFILES = profiles_for([1, 2, 4, 8, 16, 32, 64, 128])
SMALL = ("rendered_oa_hpe", "rendered_ks_net", "tiny_pose")
"""Recipes whose networks are built in every test run."""

EXPECTED_HERE = sys.platform == "linux" and platform.machine() == "x86_64"
"""Whether the extra `test` installs the library here."""


@pytest.fixture(scope="module")
def trt() -> Library:
    try:
        return library(RTX)
    except BackendUnavailable as error:
        if EXPECTED_HERE and os.environ.get("OAKS_REQUIRE_TENSORRT") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def exports() -> dict[str, list[tuple[str, bytes]]]:
    """The files of each network by its name, exported once."""
    return {}


def files_of(exports: dict, name: str) -> list[tuple[str, bytes]]:
    if name not in exports:
        exports[name] = list(exportable.files(*exportable.networks()[name]))
    return exports[name]


def built(trt: Library, content: bytes, label: str, capabilities: tuple[str, ...] = ()) -> bytes:
    """Build a plan; fail on any warning of TensorRT."""
    mark = trt.log.mark()
    precision = label.split(": ")[-1]
    settings = BuildSettings(PROFILES, tf32=not precision.startswith("fp32"), capabilities=capabilities)
    plan = build(trt, content, settings, TimingCache(), label=label, show=False)
    grave = [line for line in trt.log.since(mark) if not line.startswith("INFO")]
    assert not grave, (label, capabilities, grave)
    assert plan[:4] == b"vtrt", "this is no plan of TensorRT for RTX"
    return plan


def has_gemm_in_fp32(content: bytes) -> bool:
    graph = onnx.load_from_string(content).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return any(
        node.op_type in ("Gemm", "MatMul") and kinds.get(node.input[1]) == TensorProto.FLOAT
        for node in graph.node
    )


def shipped_files() -> Iterator[tuple[str, bytes]]:
    for name in bundles.shipped():
        bundle = bundles.Bundle.load(name)
        for role in bundle.networks:
            if role in ("pose", "ks"):
                for precision in bundle.precisions(role):
                    yield f"{name} {role}: {precision}", bundle.network(role, precision).read()


def listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.items())


# ---- the library


def test_the_listing_matches_the_library(trt):
    assert trt.version == listings.full_version("rtx_1.7")
    assert list_api.listing(trt.trt)["classes"] == listings.read("rtx_1.7")


def test_loading_the_library_writes_nothing(trt, tmp_path):
    """Importing ONNX Runtime's plugin would write links into its own folder."""
    (folder,) = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx").submodule_search_locations
    if Path(folder, rtx.LIBRARIES[0]).is_symlink():
        pytest.skip(f"something else has imported the plugin: there are links in {folder}")
    before = sorted(os.listdir(folder))
    code = "from oaks.engines.plans.library import library; print(library('tensorrt_rtx').version)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == trt.version
    assert sorted(os.listdir(folder)) == before


def test_capabilities_match_the_library(trt):
    members = set(trt.trt.ComputeCapability.__members__) - {"NONE", "CURRENT"}
    assert members == {f"SM{capability}" for capability in rtx.CAPABILITIES}


def test_a_missing_driver_is_not_reported_as_a_damaged_plan(trt):
    from oaks.ops import native

    if native.cuda is not None and native.cuda.driver_version():
        pytest.skip("there is an NVIDIA driver here")
    (label, content) = next(shipped_files())
    mark = trt.log.mark()
    assert trt.runtime().deserialize_cuda_engine(built(trt, content, label)) is None
    assert "cudaError 35" in trt.log.tail(mark)


# ---- networks


def test_the_shipped_networks_build(trt, tell):
    counts: dict[str, int] = {}
    for label, content in shipped_files():
        for capabilities in ((), rtx.DEFAULT_CAPABILITIES):
            built(trt, content, label, capabilities)
        counts[label] = 2
    assert counts
    tell(f"plans of shipped networks: {listed(counts)}")


@pytest.mark.parametrize("name", SMALL)
def test_a_recipes_network_builds_in_every_precision(trt, exports, name):
    files = files_of(exports, name)
    assert [precision for precision, _ in files] == ["fp32", "fp16", "fp32 of fp16", "int8"]
    for precision, content in files:
        built(trt, content, f"{name}: {precision}")


def test_networks_left_to_the_slow_test_are_reported(exports, tell):
    """The networks that this run does not build are built by the test marked slow."""
    every = exportable.networks()
    assert set(SMALL) <= set(every)
    here = sum(len(files_of(exports, name)) for name in SMALL)
    tell(
        f"exported files built by TensorRT-RTX here: {here}, of {len(SMALL)} networks; "
        f"`make test-slow` builds {4 * len(every)}, of {len(every)} networks, for every capability"
    )
    assert here == 4 * len(SMALL)


@pytest.mark.parametrize("capability", rtx.CAPABILITIES)
def test_a_network_builds_for_each_capability_or_is_refused_with_a_reason(trt, exports, capability):
    for precision, content in files_of(exports, "rendered_ks_net"):
        label = f"rendered_ks_net: {precision}"
        if capability == "75" and has_gemm_in_fp32(content):
            with pytest.raises(TensorRTError, match=r"capability 7\.5: pass precision 'fp16'"):
                build(
                    trt,
                    content,
                    BuildSettings(PROFILES, capabilities=("75",)),
                    TimingCache(),
                    label=label,
                    show=False,
                )
        else:
            built(trt, content, label, (capability,))


def distinct_networks() -> list[tuple[str, ...]]:
    """Names of networks, grouped by equal architecture and input shape."""
    names: dict[str, tuple[str, ...]] = {}
    for name, network in exportable.networks().items():
        names[str(network)] = (*names.get(str(network), ()), name)
    return list(names.values())


@pytest.mark.slow
@pytest.mark.parametrize("names", distinct_networks(), ids=" = ".join)
def test_a_network_builds_for_every_capability(trt, names, tell):
    """A plan for several capabilities is refused if one of them is not supported."""
    counts = {"files": 0, "plans": 0, "refused for 7.5 as expected": 0}
    for precision, content in exportable.files(*exportable.networks()[names[0]]):
        label = f"{names[0]}: {precision}"
        capabilities = rtx.CAPABILITIES
        if has_gemm_in_fp32(content):
            settings = BuildSettings(PROFILES, capabilities=capabilities)
            with pytest.raises(TensorRTError, match="pass precision 'fp16'"):
                build(trt, content, settings, TimingCache(), label=label, show=False)
            counts["refused for 7.5 as expected"] += 1
            capabilities = tuple(c for c in capabilities if c != "75")
        for named in ((), capabilities):
            built(trt, content, label, named)
            counts["plans"] += 1
        counts["files"] += 1
    assert counts["files"] == 4
    tell(f"{' = '.join(names)}: {listed(counts)}")


# ---- precisions of the plans


def layers(content: bytes) -> list[dict[str, object]]:
    """Layers of the plan for an ONNX file: name, kind, and types of inputs and outputs."""
    own = library(RTX)
    trt = own.trt
    lines: list[str] = []

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, msg: str) -> None:
            lines.append(msg)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(content)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    shapes = builder.create_optimization_profile()
    tensor = network.get_input(0)
    shape = tuple(tensor.shape)[1:]
    shapes.set_shape(tensor.name, (1, *shape), (8, *shape), (8, *shape))
    config.add_optimization_profile(shapes)
    assert builder.build_serialized_network(network, config) is not None
    text = "\n".join(lines)
    found = []
    for line in text[text.index("\nLayers:\n") :].splitlines():
        if match := re.match(r"Name: (\S+), LayerType: (\w+), (.*)", line):
            inputs, _, outputs = match[3].partition("Outputs: ")
            types = [re.findall(r"Datatype: (\w+)", part) for part in (inputs, outputs)]
            found.append({"name": match[1], "kind": match[2], "inputs": types[0], "outputs": types[1]})
    assert found
    return found


def convolutions(content: bytes) -> list[str]:
    """Type of the first input of every convolution in the plan."""
    return [layer["inputs"][0] for layer in layers(content) if layer["kind"] == "correlation"]


def test_int8_convolutions_are_int8_in_the_plan(trt, exports):
    files = dict(files_of(exports, "rendered_oa_hpe"))
    graph = onnx.load_from_string(files["int8"]).graph
    quantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    expected = sum(node.op_type == "Conv" and node.input[0] in quantized for node in graph.node)
    types = convolutions(files["int8"])
    assert types.count("Int8") == expected > 15
    assert types.count("Float") == len(types) - expected == 1  # the heatmap layer


def test_fp16_convolutions_are_fp16_in_the_plan(trt, exports):
    assert set(convolutions(dict(files_of(exports, "rendered_oa_hpe"))["fp16"])) == {"Half"}


def test_a_plan_of_an_fp16_file_is_half_the_size(trt, exports):
    """Weights stored in fp16 but cast to fp32 in the network would stay fp32 in the plan."""
    files = dict(files_of(exports, "rendered_oa_hpe"))
    half, full = (len(built(trt, files[p], f"rendered_oa_hpe: {p}")) for p in ("fp16", "fp32 of fp16"))
    assert half < 0.75 * full


# ---- networks that TensorRT does not support


def odd_network(operator: str) -> bytes:
    node = helper.make_node(operator, ["x"], ["y"], name="the_odd_one", domain="of.nobody")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 4, 4]) for n in "xy"]
    graph = helper.make_graph([node], "odd", value[:1], value[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("of.nobody", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def test_the_error_for_an_unsupported_network_names_the_layer(trt):
    settings = BuildSettings(profiles_for([1]))
    with pytest.raises(
        TensorRTError, match=r"odd: TensorRT cannot read this ONNX model: Frobnicate 'the_odd_one': creator"
    ):
        build(trt, odd_network("Frobnicate"), settings, TimingCache(), label="odd", show=False)


# ---- ahead of time


def test_plans_built_ahead_of_time_are_in_the_bundle(trt, tmp_path, tell):
    folder = tmp_path / "shipped"
    shutil.copytree(bundles.SHIPPED / "tiny", folder)
    plans = plan_bundle(folder, precisions=("fp32",), max_batch=8, show=False)
    assert [plan.role for plan in plans] == [network.role for network in networks_of(folder)]
    tell(f"plans made ahead of time: {listed({f'bytes of {plan.file}': plan.bytes for plan in plans})}")
    for plan in bundles.Bundle.load(folder).plans:
        assert (plan.flavor, plan.version) == (RTX, trt.version)
        assert bundles.Bundle.load(folder).read(plan.file)[:4] == b"vtrt"


def networks_of(folder: Path) -> list[bundles.Network]:
    return choose_networks(bundles.Bundle.load(folder), "tensorrt", "fp32", True)[1]
