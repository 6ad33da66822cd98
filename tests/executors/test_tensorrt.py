"""The TensorRT backend on stand-ins for TensorRT, PyCUDA and the native module's CUDA half.

The stand-in for TensorRT runs the ONNX model on ONNX Runtime, at the addresses that it was given, when the
stream gets there; so the numbers tell whether every address, shape and order is right.
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pycuda_stand_in
import pytest
import tensorrt_listings as listings
import tensorrt_stand_in
from tensorrt_world import World

import oaks
from oaks import BundleError, executors
from oaks.engines.plans.library import TensorRTError
from oaks.executors import tensorrt as backend
from oaks.executors import tensorrt_rtx
from oaks.executors.base import Tensor
from oaks.executors.pycuda import DeviceMemory

from .pictures import boxes, frames


@pytest.fixture(params=listings.VERSIONS)
def world(request, monkeypatch, gpu, tmp_path):
    made = World()
    made.streams = gpu.streams
    tensorrt_stand_in.install(monkeypatch, request.param, made)
    if request.param.startswith("rtx"):
        gpu.capabilities[0] = (8, 9)
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path))
    return made


@pytest.fixture
def memory(gpu):
    made = DeviceMemory(0)
    with made.active():
        yield made
    made.close()
    assert gpu.leaks == []


@pytest.fixture
def executor(world, memory, tiny):
    return backend.open_executor(tiny.network("pose"), memory=memory, threads=None, batches=[1, 4, 16])


def arrays(executor, memory, batch: int):
    return tuple(
        {name: memory.empty((batch, *t.shape), t.dtype) for name, t in tensors.items()}
        for tensors in (executor.inputs, executor.outputs)
    )


# ---- through the Engine


@pytest.mark.parametrize("capture", [None, "cudaErrorStreamCaptureUnsupported"], ids=["graph", "no graph"])
@pytest.mark.parametrize("flip", [True, False], ids=["flip", "no flip"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_gives_what_onnx_runtime_gives(tiny, world, gpu, capture, flip, precision):
    gpu.capture_fails = capture
    settings = {"precision": precision, "flip": flip}
    with (
        oaks.Engine(tiny, backend="tensorrt", max_batch=8, **settings) as engine,
        oaks.Engine(tiny, backend="onnxruntime", **settings) as reference,
    ):
        for count in (1, 3, 8, 11, 27, 2):
            pictures, people = frames(2), [boxes(count), boxes(2)]
            poses, expected = (e.infer(pictures, boxes=people) for e in (engine, reference))
            for name in ("keypoints", "visibility", "similarity", "heat", "scores"):
                np.testing.assert_allclose(
                    getattr(poses, name), getattr(expected, name), atol=2e-3, err_msg=name
                )
        said = engine.describe()
        assert said["cuda_graphs"] == ("captured" if capture is None else f"failed: {capture}")
        assert said["networks"]["pose"]["runtime"] == f"{world.trt.__name__} {world.trt.__version__}"
        assert said["networks"]["pose"]["plan"].endswith(".plan")
        assert said["networks"]["pose"]["gpu"] == "Stand-In 9000"
    assert gpu.memory == {}
    assert gpu.leaks == []
    assert gpu.stack == []


def test_a_second_engine_builds_nothing(tiny, world):
    for _ in range(2):
        with oaks.Engine(tiny, backend="tensorrt", max_batch=2) as engine:
            engine.infer(frames(1), boxes="whole")
    assert world.built == 2  # the pose network's plan and the KS network's


def test_two_engines_live_side_by_side(tiny, world, gpu):
    with (
        oaks.Engine(tiny, backend="tensorrt", max_batch=2) as first,
        oaks.Engine(tiny, backend="tensorrt", max_batch=2) as second,
    ):
        a, b = first.infer(frames(1), boxes="whole"), second.infer(frames(1), boxes="whole")
    np.testing.assert_array_equal(a.keypoints, b.keypoints)
    assert gpu.memory == {}


def test_batches_share_the_memory_of_activations(tiny, world):
    with oaks.Engine(tiny, backend="tensorrt", max_batch=8) as engine:
        engine.warmup()
        assert len(world.contexts) == 2 * 4  # two networks, batches 1, 2, 4, 8
        assert len({context._values["scratch"] for context in world.contexts}) == 2


def test_auto_chooses_tensorrt_if_available(tiny, world):
    assert executors.choose_backend("auto", None) == ("tensorrt", "cuda", {})


# ---- the flavors


@pytest.fixture
def rtx(monkeypatch, gpu, tmp_path):
    made = World()
    made.streams = gpu.streams
    tensorrt_stand_in.install(monkeypatch, "rtx_1.7", made)
    gpu.capabilities[0] = (8, 9)
    monkeypatch.setenv("OAKS_CACHE", str(tmp_path))
    return made


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_tensorrt_for_rtx_runs_under_both_names(tiny, rtx, name):
    with oaks.Engine(tiny, backend=name, max_batch=2) as engine:
        engine.infer(frames(1), boxes="whole")
        said = engine.describe()
    assert said["backend"] == name
    assert said["networks"]["pose"]["runtime"] == "tensorrt_rtx 1.7.1.116"
    assert rtx.asked_capturable == 2  # once per network, before it is captured


def test_ordinary_tensorrt_comes_first_and_rtx_by_name_never_falls_back(world, rtx, monkeypatch):
    made = tensorrt_stand_in.make("11.4", world)
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    assert backend._choose("cuda", backend.FLAVORS) == ("tensorrt", None)
    assert backend._choose("cuda", ("tensorrt_rtx",)) == ("tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr("oaks.engines.plans.library._loaded", {})
    with pytest.raises(
        oaks.BackendUnavailable, match=r"backend 'tensorrt_rtx' on cuda: .*oaks\[tensorrt-rtx\]"
    ):
        executors.choose_backend("tensorrt_rtx", None)


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (7, 0)])
def test_unsupported_gpus_are_reported(rtx, gpu, capability):
    gpu.capabilities[0] = capability
    reason = tensorrt_rtx.unavailable("cuda")
    assert f"this GPU has {capability[0]}.{capability[1]}; `pip install 'oaks[tensorrt]'`" in reason


def test_compiled_kernels_are_saved_and_reused(tiny, rtx, tmp_path):
    contents = []
    for _ in range(2):
        with oaks.Engine(tiny, backend="tensorrt_rtx", max_batch=1) as engine:
            engine.infer(frames(1), boxes="whole")
        files = sorted((tmp_path / "tensorrt").glob("*-Stand-In-9000.kernels"))
        contents.append([path.read_bytes() for path in files])
    assert contents == [[b"|kernel"] * 2, [b"|kernel|kernel"] * 2]


def test_refused_kernels_are_discarded(tiny, rtx, tmp_path):
    with oaks.Engine(tiny, backend="tensorrt_rtx", max_batch=1) as engine:
        engine.infer(frames(1), boxes="whole")
    rtx.refuses.add("kernels")
    with oaks.Engine(tiny, backend="tensorrt_rtx", max_batch=1) as engine:
        engine.infer(frames(1), boxes="whole")
    files = list((tmp_path / "tensorrt").glob("*.kernels"))
    assert [path.read_bytes() for path in files] == [b"|kernel"] * 2


def test_a_stream_that_cannot_be_captured_runs_without_a_graph(tiny, rtx, gpu):
    rtx.refuses.add("capture")
    with oaks.Engine(tiny, backend="tensorrt_rtx", max_batch=1) as engine:
        assert len(engine.infer(frames(1), boxes="whole")) == 1
        assert engine.describe()["cuda_graphs"].endswith("TensorRT-RTX cannot be captured here. TensorRT-RTX "
                                                         "1.7.1.116 wrote:\n(TensorRT wrote nothing)")  # fmt: skip


def test_int8_on_rtx_is_advised_against(tiny, rtx, memory, caplog):
    network = dataclasses.replace(tiny.network("pose"), precision="int8", stored="int8")
    backend.open_executor(network, memory=memory, threads=None, batches=[1]).close()
    assert "prefer precision 'fp16'" in caplog.text


# ---- what there is, and what there is not


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cpu", "device must be 'cuda' or 'cuda:NUMBER', got 'cpu'"),
        ("cuda:", None),
        ("cuda:x", "got 'cuda:x'"),
        ("cuda:7", "there is no GPU 7; CUDA finds 1"),
        ("cuda", None),
        ("cuda:0", None),
    ],
)
def test_device_names_are_checked(world, device, reason):
    said = backend.unavailable(device)
    if device == "cuda:":
        assert said is not None
    elif reason is None:
        assert said is None
    else:
        assert reason in said


def test_missing_parts_are_reported(world, monkeypatch):
    with monkeypatch.context() as without:
        for name in ("tensorrt", "tensorrt_rtx"):
            without.setitem(sys.modules, name, None)
        without.setattr("oaks.engines.plans.library._loaded", {})
        assert "pip install 'oaks[tensorrt]'" in backend.unavailable("cuda")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "filelock", None)
        assert backend.unavailable("cuda").endswith("filelock halted; None in sys.modules; "
                                                    "`pip install 'oaks[tensorrt]'`")  # fmt: skip
    pycuda_stand_in.install(monkeypatch, cuda_half=False)
    assert "no CUDA support" in backend.unavailable("cuda")
    pycuda_stand_in.install(monkeypatch, devices=0)
    assert "CUDA does not start" in backend.unavailable("cuda")
    with pytest.raises(oaks.BackendUnavailable, match="backend 'tensorrt' on cuda: CUDA does not start"):
        executors.choose_backend("tensorrt", None)


def test_bf16_is_refused(world, memory, tiny):
    network = tiny.network("pose", "bf16")
    with pytest.raises(ValueError, match="precision must be that of an ONNX file with backend 'tensorrt'"):
        backend.open_executor(network, memory=memory, threads=None, batches=[1])


# ---- one executor


def test_inputs_and_outputs_are_read_from_the_engine(executor):
    assert executor.inputs == {"crops": Tensor((3, 64, 48), np.dtype("float32"))}
    assert executor.outputs == {
        "heatmaps": Tensor((3, 16, 12), np.dtype("float32")),
        "visibility": Tensor((3,), np.dtype("float32")),
    }


@pytest.mark.parametrize(
    ("batch", "profile"), [(1, [1, 1]), (2, [2, 4]), (4, [2, 4]), (5, [5, 16]), (16, [5, 16])]
)
def test_a_batch_runs_in_the_profile_that_covers_it(executor, world, memory, batch, profile):
    executor.bind(*arrays(executor, memory, batch))
    low, _, high = world.contexts[-1]._values["profile"]["crops"]
    assert [low[0], high[0]] == profile


def test_earlier_calls_stay_valid_when_others_are_bound(executor, memory, gpu):
    bound = []
    for batch in (2, 3):
        inputs, outputs = arrays(executor, memory, batch)
        bound.append((executor.bind(inputs, outputs), outputs, batch))
    for run, outputs, batch in bound:
        run()
        memory.synchronize()
        heat = gpu.at(outputs["heatmaps"].address, outputs["heatmaps"].nbytes).view(np.float32)
        assert np.isfinite(heat).all()
        assert outputs["heatmaps"].shape[0] == batch


def test_arrays_that_do_not_fit_are_named(executor, memory):
    inputs, outputs = arrays(executor, memory, 2)
    with pytest.raises(ValueError, match=r"inputs must be \['crops'\] and outputs .*, got \[\] and"):
        executor.bind({}, outputs)
    with pytest.raises(ValueError, match=r"got \['crops'\] and \['heatmaps'\]"):
        executor.bind(inputs, {"heatmaps": outputs["heatmaps"]})
    with pytest.raises(
        ValueError, match=r"'visibility' must be \(\(2, 3\), dtype\('float32'\)\), got .*float16"
    ):
        executor.bind(inputs, {**outputs, "visibility": memory.empty((2, 3), np.float16)})
    with pytest.raises(ValueError, match=r"'heatmaps' must be"):
        executor.bind(inputs, {**outputs, "heatmaps": memory.empty((1, 3, 16, 12), np.float32)})
    with pytest.raises(ValueError, match=r"the batch must be from 1 to 16, as the plan allows, got 17"):
        executor.bind(*arrays(executor, memory, 17))


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("context", r"cannot create an execution context(.|\n)*out of memory"),
        ("set_profile", r"refuses profile 0"),
        ("shapes", r"lacks the shapes of \['crops'\]"),
        ("address", r"refuses the memory of 'crops'"),
    ],
)
def test_refusals_of_tensorrt_raise_errors(executor, world, memory, refused, message):
    world.refuses.add(refused)
    with pytest.raises(TensorRTError, match=message):
        executor.bind(*arrays(executor, memory, 1))


def test_a_shape_outside_of_the_plan_is_an_error(executor, world, memory, monkeypatch):
    monkeypatch.setattr(world, "IExecutionContext_set_input_shape", lambda *_, **__: False)
    with pytest.raises(TensorRTError, match="a batch of 1 does not fit the plan"):
        executor.bind(*arrays(executor, memory, 1))


def test_outputs_of_another_shape_are_an_error(executor, world, memory, monkeypatch):
    monkeypatch.setattr(world, "IExecutionContext_get_tensor_shape", lambda *_, **__: world.dims((1, 9)))
    with pytest.raises(TensorRTError, match=r"'crops' must have shape \(1, 3, 64, 48\), got \(1, 9\)"):
        executor.bind(*arrays(executor, memory, 1))


def test_a_run_that_fails_is_an_error(executor, world, memory):
    run = executor.bind(*arrays(executor, memory, 1))
    world.execute_fails = True
    with pytest.raises(TensorRTError, match=r"could not run it(.|\n)*enqueueV3: Error Code 1"):
        run()


def test_a_failed_capture_falls_back_to_direct_calls(executor, world, memory, gpu):
    """TensorRT says False during a capture; then the call itself is used, and gives the same."""
    inputs, outputs = arrays(executor, memory, 1)
    bound, calls = executor.bind(inputs, outputs), []

    def work() -> None:
        calls.append(1)
        world.execute_fails = len(calls) == 2
        bound()

    run = memory.record(work)
    assert memory.graphs.startswith("failed: ")
    assert "TensorRT could not run it" in memory.graphs
    gpu.at(outputs["visibility"].address, outputs["visibility"].nbytes)[:] = 119
    run()
    memory.synchronize()
    assert not (gpu.at(outputs["visibility"].address, outputs["visibility"].nbytes) == 119).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda world: world.refuses.add("location"), "must be data on the device, got a shape tensor"),
        (
            lambda world: setattr(
                world, "ICudaEngine_get_tensor_dtype", lambda *_, **__: world.trt.DataType.INT32
            ),
            "must be float32 or float16, got DataType.INT32",
        ),
        (
            lambda world: setattr(world, "ICudaEngine_get_tensor_shape", lambda *_, **__: world.dims((4, 3))),
            r"'crops' must have a batch of any size, .*, got \[4, 3\]",
        ),
    ],
)
def test_an_engine_that_no_pose_network_has_is_refused(world, memory, tiny, change, message):
    change(world)
    with pytest.raises(BundleError, match=message):
        backend.open_executor(tiny.network("pose"), memory=memory, threads=None, batches=[1])
