"""What the stand-in for TensorRT does: its plans hold the ONNX model and run on ONNX Runtime."""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorrt_stand_in as stand_in

MAGIC = b"ftrt"


class World:
    """One GPU with TensorRT. Attributes that tests set say what goes wrong.

    Attributes:
        streams: handle -> what has `enqueue(work)`; where execution is enqueued.
        built, deserialized: how often; `configs` are those that were built with.
    """

    trt: Any

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}
        self.no_gpu = False
        self.parse_errors: list[str] = []
        self.build_fails: str | None = None
        self.steps: Callable[[Any], bool] | None = None
        self.deserialize_fails = 0
        self.deserialize_says: str | None = None
        self.timings_rejected: list[bytes] = []
        self.refuses: set[str] = set()
        self.execute_fails = False
        self.built = self.deserialized = self.asked_capturable = 0
        self.configs: list[Any] = []
        self.threads: list[str] = []
        self.contexts: list[Any] = []
        self.logger: Any = None
        self.batch_fixed = False

    def make(self, name: str, /, **values: Any) -> Any:
        made = stand_in.new(self.trt, name)
        made._values.update(values)
        return made

    def dims(self, shape: Any) -> Any:
        return self.trt.Dims(tuple(shape))

    def say(self, severity: str, message: str) -> None:
        self.logger.log(getattr(self.trt.ILogger.Severity, severity), message)

    # ---- Dims, IHostMemory

    def Dims___init__(self, dims: Any, shape: Any = ()) -> None:
        dims._values["shape"] = tuple(shape)

    def Dims___len__(self, dims: Any) -> int:
        return len(dims._values["shape"])

    def Dims___getitem__(self, dims: Any, arg0: int) -> int:
        return dims._values["shape"][arg0]

    # ---- building

    def ILogger___init__(self, logger: Any) -> None:
        self.logger = logger

    def Builder___init__(self, builder: Any, logger: Any) -> None:
        assert logger is self.logger
        if self.no_gpu:
            self.say("ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def Builder_create_network(self, builder: Any, flags: int = 0) -> Any:
        assert flags == 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return self.make("INetworkDefinition")

    def Builder_create_builder_config(self, builder: Any) -> Any:
        return self.make("IBuilderConfig", profiles=[], cleared=[], set=[], capabilities=[])

    def Builder_create_optimization_profile(self, builder: Any) -> Any:
        return self.make("IOptimizationProfile", shapes={})

    def OnnxParser___init__(self, parser: Any, network: Any, logger: Any) -> None:
        parser._values.update(network=network, alive=True)

    def OnnxParser_parse(self, parser: Any, model: bytes, path: str | None = None) -> bool:
        if self.parse_errors:
            return False
        parser._values["network"]._values["onnx"] = bytes(model)
        return True

    def OnnxParser_num_errors(self, parser: Any) -> int:
        return len(self.parse_errors)

    def OnnxParser_get_error(self, parser: Any, index: int) -> Any:
        return self.make("ParserError", text=self.parse_errors[index])

    def ParserError_node_operator(self, error: Any) -> str:
        return "Conv"

    def ParserError_node_name(self, error: Any) -> str:
        return "node_3"

    def ParserError_desc(self, error: Any) -> str:
        return error._values["text"]

    def _inputs(self, network: Any) -> list[Any]:
        return list(onnx.load_from_string(network._values["onnx"]).graph.input)

    def INetworkDefinition_num_inputs(self, network: Any) -> int:
        return len(self._inputs(network))

    def INetworkDefinition_get_input(self, network: Any, index: int) -> Any:
        value = self._inputs(network)[index]
        return self.make("ITensor", name=value.name, shape=self.dims(_shape(value, self.batch_fixed)))

    def IOptimizationProfile_set_shape(self, profile: Any, input: str, min: Any, opt: Any, max: Any) -> None:
        profile._values["shapes"][input] = [list(min), list(opt), list(max)]

    def IBuilderConfig_add_optimization_profile(self, config: Any, profile: Any) -> int:
        if "profile" in self.refuses:
            self.say("ERROR", "profile is not consistent")
            return -1
        config._values["profiles"].append(profile._values["shapes"])
        return len(config._values["profiles"]) - 1

    def IBuilderConfig_clear_flag(self, config: Any, flag: Any) -> None:
        config._values["cleared"].append(flag.name)

    def IBuilderConfig_set_flag(self, config: Any, flag: Any) -> None:
        config._values["set"].append(flag.name)

    def IBuilderConfig_set_compute_capability(self, config: Any, compute_capability: Any, index: int) -> bool:
        assert index == len(config._values["capabilities"]) < config._values["num_compute_capabilities"]
        config._values["capabilities"].append(compute_capability.name)
        return "capability" not in self.refuses

    def IBuilderConfig_create_timing_cache(self, config: Any, serialized_timing_cache: bytes) -> Any:
        if bytes(serialized_timing_cache) in self.timings_rejected:
            return None
        return self.make("ITimingCache", content=bytes(serialized_timing_cache))

    def IBuilderConfig_set_timing_cache(self, config: Any, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if "timings" in self.refuses and cache._values["content"]:
            return False
        config._values["timings"] = cache
        return True

    def IBuilderConfig_get_timing_cache(self, config: Any) -> Any:
        return config._values.get("timings")

    def ITimingCache_serialize(self, cache: Any) -> Any:
        return self.make("IHostMemory", content=cache._values["content"])

    def Builder_build_serialized_network(self, builder: Any, network: Any, config: Any) -> Any:
        self.built += 1
        self.configs.append(config)
        self.threads.append(threading.current_thread().name)
        if "timings" in config._values:
            config._values["timings"]._values["content"] += b"|measured"
        if self.steps is not None and not self.steps(config._values["progress_monitor"]):
            return None
        if self.build_fails:
            self.say("ERROR", self.build_fails)
            return None
        plan = {"onnx": network._values["onnx"].hex(), "profiles": config._values["profiles"]}
        return self.make("IHostMemory", content=MAGIC + json.dumps(plan).encode())

    # ---- running

    def Runtime___init__(self, runtime: Any, logger: Any) -> None:
        self.Builder___init__(runtime, logger)

    def Runtime_deserialize_cuda_engine(self, runtime: Any, serialized_engine: bytes) -> Any:
        self.deserialized += 1
        if self.deserialize_says:
            self.say("WARNING", self.deserialize_says)
            self.deserialize_says = None
        plan = _plan(serialized_engine)
        if self.deserialize_fails or plan is None:
            self.deserialize_fails = max(self.deserialize_fails - 1, 0)
            self.say("ERROR", "Serialization assertion stdVersionRead == kVERSION failed")
            return None
        content = bytes.fromhex(plan["onnx"])
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        graph = onnx.load_from_string(content).graph
        tensors = {value.name: value for value in (*graph.input, *graph.output)}
        inputs = {value.name for value in graph.input}
        return self.make(
            "ICudaEngine", session=session, tensors=tensors, inputs=inputs, profiles=plan["profiles"]
        )

    def ICudaEngine_num_io_tensors(self, engine: Any) -> int:
        return len(engine._values["tensors"])

    def ICudaEngine_get_tensor_name(self, engine: Any, index: int) -> str:
        return list(engine._values["tensors"])[index]

    def ICudaEngine_get_tensor_mode(self, engine: Any, name: str) -> Any:
        mode = self.trt.TensorIOMode
        return mode.INPUT if name in engine._values["inputs"] else mode.OUTPUT

    def ICudaEngine_get_tensor_dtype(self, engine: Any, name: str) -> Any:
        kinds = {
            onnx.TensorProto.FLOAT: "FLOAT",
            onnx.TensorProto.FLOAT16: "HALF",
            onnx.TensorProto.INT32: "INT32",
        }
        return getattr(self.trt.DataType, kinds[engine._values["tensors"][name].type.tensor_type.elem_type])

    def ICudaEngine_get_tensor_location(self, engine: Any, name: str) -> Any:
        return self.trt.TensorLocation.HOST if "location" in self.refuses else self.trt.TensorLocation.DEVICE

    def ICudaEngine_get_tensor_shape(self, engine: Any, name: str) -> Any:
        return self.dims(_shape(engine._values["tensors"][name], self.batch_fixed))

    def ICudaEngine_get_device_memory_size_for_profile_v2(self, engine: Any, profile_index: int) -> int:
        return 1000 * (1 + profile_index)

    def ICudaEngine_create_runtime_config(self, engine: Any) -> Any:
        return self.make("IRuntimeConfig")

    def IRuntimeConfig_set_execution_context_allocation_strategy(self, config: Any, strategy: Any) -> None:
        config._values["allocation"] = strategy

    def IRuntimeConfig_create_runtime_cache(self, config: Any) -> Any:
        return self.make("IRuntimeCache", content=b"")

    def IRuntimeConfig_set_runtime_cache(self, config: Any, cache: Any) -> bool:
        config._values["cache"] = cache
        return True

    def IRuntimeCache_deserialize(self, cache: Any, blob: bytes) -> bool:
        cache._values["content"] = bytes(blob)
        return "kernels" not in self.refuses

    def IRuntimeCache_reset(self, cache: Any) -> bool:
        cache._values["content"] = b""
        return True

    def IRuntimeCache_serialize(self, cache: Any) -> Any:
        return self.make("IHostMemory", content=cache._values["content"])

    def ICudaEngine_create_execution_context(
        self, engine: Any, strategy: Any = None, runtime_config: Any = None
    ) -> Any:
        if runtime_config is not None:
            values = runtime_config._values
            strategy = values["allocation"]
            assert values["dynamic_shapes_kernel_specialization_strategy"].name == "EAGER"
            assert values["cuda_graph_strategy"].name == "DISABLED"
            values["cache"]._values["content"] += b"|kernel"
        assert (runtime_config is not None) == hasattr(self.trt, "ComputeCapability")
        assert strategy is self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if "context" in self.refuses:
            self.say("ERROR", "out of memory")
            return None
        self.contexts.append(self.make("IExecutionContext", engine=engine, shapes={}, addresses={}))
        return self.contexts[-1]

    def IExecutionContext_set_optimization_profile_async(
        self, context: Any, profile_index: int, stream_handle: int
    ) -> bool:
        assert stream_handle in self.streams
        context._values["profile"] = context._values["engine"]._values["profiles"][profile_index]
        return "set_profile" not in self.refuses

    def IExecutionContext_set_device_memory(self, context: Any, memory: int, size: int) -> None:
        assert memory % 256 == 0
        number = context._values["engine"]._values["profiles"].index(context._values["profile"])
        assert size >= 1000 * (1 + number)
        context._values["scratch"] = memory

    def IExecutionContext_set_input_shape(self, context: Any, name: str, shape: Any) -> bool:
        low, _, high = context._values["profile"][name]
        context._values["shapes"][name] = tuple(shape)
        if all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return True
        self.say("ERROR", f"IExecutionContext::setInputShape: {name} is outside of the profile")
        return False

    def IExecutionContext_infer_shapes(self, context: Any) -> list[str]:
        return ["crops"] if "shapes" in self.refuses else []

    def IExecutionContext_get_tensor_shape(self, context: Any, name: str) -> Any:
        batch = next(iter(context._values["shapes"].values()))[0]
        return self.dims((batch, *_shape(context._values["engine"]._values["tensors"][name])[1:]))

    def IExecutionContext_set_tensor_address(self, context: Any, name: str, memory: int) -> bool:
        assert memory % 256 == 0, "TensorRT wants 256 bytes of alignment"
        context._values["addresses"][name] = memory
        return "address" not in self.refuses

    def IExecutionContext_is_stream_capturable(self, context: Any, stream: int) -> bool:
        assert stream in self.streams
        self.asked_capturable += 1
        return "capture" not in self.refuses

    def IExecutionContext_execute_async_v3(self, context: Any, stream_handle: int) -> bool:
        if self.execute_fails:
            self.say("ERROR", "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime")
            return False
        assert "scratch" in context._values
        values = context._values["engine"]._values
        arrays = {
            name: _array(
                address,
                tuple(self.IExecutionContext_get_tensor_shape(context, name)),
                values["tensors"][name],
            )
            for name, address in context._values["addresses"].items()
        }

        def run() -> None:
            names = [name for name in arrays if name not in values["inputs"]]
            given = values["session"].run(names, {name: arrays[name] for name in values["inputs"]})
            for name, result in zip(names, given, strict=True):
                np.copyto(arrays[name], result)

        self.streams[stream_handle].enqueue(run)
        return True


def _plan(content: bytes) -> dict[str, Any] | None:
    """What build_serialized_network put into a plan; None if it is no such plan, or not whole."""
    try:
        return json.loads(content.removeprefix(MAGIC)) if content.startswith(MAGIC) else None
    except ValueError:
        return None


def _shape(value: onnx.ValueInfoProto, fixed: bool = False) -> tuple[int, ...]:
    sizes = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
    return (4, *sizes[1:]) if fixed else tuple(sizes)


def _array(address: int, shape: tuple[int, ...], value: onnx.ValueInfoProto) -> np.ndarray:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)
