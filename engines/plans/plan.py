"""Builds a TensorRT plan from ONNX: strongly typed, so that the ONNX alone determines the precision."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oaks.engines.plans import rtx
from oaks.engines.plans.library import RTX, Library, TensorRTError
from oaks.engines.plans.progress import Phases, monitor, run_in_worker
from oaks.errors import ArgumentError

if TYPE_CHECKING:
    import tensorrt as trt
    from rich.progress import Progress

SPAN = 4
"""A profile covers batches down to 1/SPAN of the batch that it is tuned for."""


@dataclass(frozen=True)
class Profile:
    """The batch sizes from `smallest` to `largest`, tuned for the largest."""

    smallest: int
    largest: int


def profiles_for(batches: Sequence[int]) -> tuple[Profile, ...]:
    """Return profiles that cover 1 to the largest batch, each tuned for a batch that will be run.

    One profile for all sizes makes small batches slow; one per size makes building slow.

    Args:
        batches: the batch sizes that will be run, ascending.

    Raises:
        ArgumentError: no batch sizes, or one below 1.
    """
    if not batches or min(batches) < 1:
        raise ArgumentError(f"batches must be numbers of 1 or more, got {list(batches)}")
    tops = [max(batches)]
    while lower := [batch for batch in batches if batch * SPAN <= tops[-1]]:
        tops.append(max(lower))
    tops.reverse()
    return tuple(Profile(below + 1, top) for below, top in zip([0, *tops[:-1]], tops, strict=True))


@dataclass(frozen=True)
class BuildSettings:
    """The settings of a build on which the plan depends.

    Attributes:
        profiles: the batch sizes.
        tf32: whether float32 layers may round their inputs to TF32 (10 bits of mantissa), TensorRT's default.
        level: TensorRT's builder_optimization_level, 0 to 5.
        capabilities: compute capabilities to build for, ("75",) for 7.5; only for TensorRT for RTX.
    """

    profiles: tuple[Profile, ...]
    tf32: bool = False
    level: int = 3
    capabilities: tuple[str, ...] = ()


@dataclass
class TimingCache:
    """The builder's measurements of layers, which another build on the same device can reuse.

    Attributes:
        content: from an earlier build, or empty; `build` replaces it.
    """

    content: bytes = b""


def build(
    library: Library,
    onnx: bytes,
    settings: BuildSettings,
    timing: TimingCache,
    *,
    label: str,
    active: Callable[[], AbstractContextManager[Any]] = nullcontext,
    show: bool = True,
) -> bytes:
    """Build a plan in a worker thread, with progress bars; Ctrl-C stops it.

    Args:
        library: TensorRT.
        onnx: the model, with its weights.
        settings: how to build it.
        timing: read, and updated even if the build fails; TensorRT for RTX ignores it.
        label: name of the network in messages.
        active: makes the GPU to build for current in the building thread.
        show: whether to show progress bars.

    Returns:
        The plan.

    Raises:
        TensorRTError: TensorRT cannot parse or build it; the message says why.
        BackendUnavailable: TensorRT can use no GPU.
        KeyboardInterrupt: Ctrl-C.
    """

    def work(cancelled: threading.Event) -> bytes:
        with active():
            return _build(library, onnx, settings, timing, label, Phases(progress, cancelled))

    progress: Progress | None = None
    if show:
        from oaks.progress import bars

        progress = bars()
    with progress or nullcontext():
        return run_in_worker(work)


def _build(
    library: Library, onnx: bytes, settings: BuildSettings, timing: TimingCache, label: str, phases: Phases
) -> bytes:
    mark = library.log.mark()
    builder = library.builder()
    trt = library.trt
    # TensorRT 10 needs the flag, 11 ignores it. Its number differs between them, and << does not accept the enum.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    # The parser owns the network's weights and must live until the plan is built.
    parser = _parse(library, network, onnx, label, mark)
    config = builder.create_builder_config()
    for number, profile in enumerate(settings.profiles):
        _add_profile(library, builder, network, config, profile, number, label)
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = settings.level
    watching = monitor(library, phases)
    config.progress_monitor = watching
    if library.flavor == RTX:
        rtx.configure(library, config, settings.capabilities)
    else:
        _set_timing_cache(library, config, timing)
    plan = builder.build_serialized_network(network, config)
    if library.flavor != RTX:  # it ignores timing caches
        measured = config.get_timing_cache()
        if measured is not None:
            timing.content = bytes(measured.serialize())
    del parser
    if phases.failure is not None:
        raise TensorRTError(f"{label}: showing the progress of the build failed") from phases.failure
    if plan is None:
        raise library.failure(f"{label}: TensorRT could not build a plan{_advice(library, mark)}", mark)
    return bytes(plan)


def _advice(library: Library, mark: int) -> str:
    """Return what to do about a failure with a known cause; else an empty text."""
    if any("FP32 GEMM is not supported" in line for line in library.log.since(mark)):
        return (
            "; TensorRT-RTX has no fully connected layers in fp32 for compute capability 7.5: pass precision "
            "'fp16', or `pip install 'oaks[tensorrt]'`"
        )
    return ""


def _parse(
    library: Library, network: trt.INetworkDefinition, onnx: bytes, label: str, mark: int
) -> trt.OnnxParser:
    trt = library.trt
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(onnx):
        errors = []
        for index in range(parser.num_errors):
            error = parser.get_error(index)
            errors.append(f"{error.node_operator()} {error.node_name()!r}: {error.desc()}")
        raise library.failure(f"{label}: TensorRT cannot read this ONNX model: {'; '.join(errors)}", mark)
    return parser


def _add_profile(
    library: Library,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    profile: Profile,
    number: int,
    label: str,
) -> None:
    """Add a profile: every input gets its batch sizes; the other sizes are the model's."""
    shapes = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] != -1 or -1 in shape[1:]:
            raise TensorRTError(
                f"{label}: only axis 0, the batch, may vary; {tensor.name!r} has shape {shape}"
            )
        smallest, largest = (profile.smallest, *shape[1:]), (profile.largest, *shape[1:])
        shapes.set_shape(tensor.name, smallest, largest, largest)
    if config.add_optimization_profile(shapes) != number:
        raise library.failure(f"{label}: TensorRT refuses batches {profile.smallest} to {profile.largest}")


def _set_timing_cache(library: Library, config: trt.IBuilderConfig, timing: TimingCache) -> None:
    """Give the builder the earlier timings, or an empty cache if TensorRT does not accept them."""
    known = config.create_timing_cache(timing.content)
    if known is not None and config.set_timing_cache(known, False):
        return
    timing.content = b""
    empty = config.create_timing_cache(b"")
    if empty is None or not config.set_timing_cache(empty, False):
        raise library.failure("TensorRT accepts no timing cache, not even an empty one")


__all__ = ["SPAN", "BuildSettings", "Profile", "TimingCache", "build", "profiles_for"]
