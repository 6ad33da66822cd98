"""Converts a torch network to a plain ONNX graph: batch norm folded, batch dynamic, nothing computed from shapes."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.errors import ArgumentError

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18
"""Supported by TensorRT 10 and 11, ONNX Runtime and OpenVINO; the lowest opset that torch exports directly."""

IR_VERSION = 8
"""The IR version of opset 18. Older runtimes refuse newer ones."""


def to_onnx(
    network: torch.nn.Module, example: torch.Tensor, *, input_name: str, output_names: Sequence[str]
) -> onnx.ModelProto:
    """Return the ONNX graph of a network with one input.

    Args:
        network: network in eval mode; returns a tensor, or a tuple of tensors and None.
        example: (N, ...) float32 with N of 2 or more; only its shape matters.
        input_name: name of the input.
        output_names: names of the outputs that are not None, in their order.

    Returns:
        A checked model. Axis 0 of its input and outputs is dynamic and named "batch".

    Raises:
        ArgumentError: the network is in training mode, or returns another number of outputs.
    """
    import torch

    if network.training:
        raise ArgumentError("network must be in eval mode, got training mode; call network.eval()")
    network = _without_none(network)
    with torch.no_grad():
        given = len(network(example))
    if given != len(output_names):
        raise ArgumentError(
            f"output_names must be {given}, as many as the network returns, got {list(output_names)}"
        )
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return _plain(program.model_proto)


def _without_none(network: torch.nn.Module) -> torch.nn.Module:
    import torch

    class Tensors(torch.nn.Module):
        """A network without the outputs that are None, which ONNX cannot express."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = self.network(x)
            return tuple(o for o in outputs if o is not None) if isinstance(outputs, tuple) else (outputs,)

    return Tensors().eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's warnings about its own internals (deprecated calls, no torchvision)."""
    exporter = logging.getLogger("torch.onnx")
    before = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(before)


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same arithmetic with constant resize scales, and without dead nodes, traces and file names."""
    import onnx

    model.ir_version = IR_VERSION
    _scales_for_sizes(model)
    _pad_in_convolutions(model.graph)
    _drop_unused(model.graph)
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info,
                 *model.graph.input, *model.graph.output):  # fmt: skip
        for field in ("metadata_props", "doc_string"):
            part.ClearField(field)
    model.producer_name, model.producer_version = "oaks", ""
    onnx.checker.check_model(model, full_check=True)
    return model


def _scales_for_sizes(model: onnx.ModelProto) -> None:
    """Give every Resize constant scales in place of sizes computed from the batch at run time.

    Computing the batch entry of a size needs a shape subgraph, which runtimes run on the host and which hides the
    network's shapes from them.
    """
    import onnx

    shapes: dict[str, list[Any]] = {
        value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    for node in model.graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or not node.input[3]:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if not before or not after or None in before[1:] or None in after[1:]:
            continue
        factors = [1.0, *(_scale(small, large) for small, large in zip(before[1:], after[1:], strict=True))]
        name = f"{node.name}_scales"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(factors, np.float32), name))
        node.input[2] = name
        del node.input[3]


def _pad_in_convolutions(graph: onnx.GraphProto) -> None:
    """Move zero padding from a Pad node into the convolution after it, which saves a copy of the tensor."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.input[1] not in constants or (len(pad.input) > 3 and pad.input[3]):
            continue
        settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in pad.attribute}
        named = len(pad.input) > 2 and pad.input[2]
        fill = constants.get(pad.input[2]) if named else None
        zero = not named or (fill is not None and not onnx.numpy_helper.to_array(fill).any())
        around = onnx.numpy_helper.to_array(constants[pad.input[1]]).tolist()
        half = len(around) // 2
        outer = around[:2] + around[half : half + 2]
        own = {attribute.name: attribute for attribute in node.attribute}
        automatic = own["auto_pad"].s not in (b"", b"NOTSET") if "auto_pad" in own else False
        if (
            settings.get("mode", b"constant") != b"constant"
            or not zero
            or any(outer)
            or min(around) < 0
            or automatic
        ):
            continue
        before = list(own["pads"].ints) if "pads" in own else [0] * (len(around) - 4)
        added = around[2:half] + around[half + 2 :]
        if "pads" in own:
            node.attribute.remove(own["pads"])
        node.attribute.append(
            onnx.helper.make_attribute("pads", [a + b for a, b in zip(before, added, strict=True)])
        )
        node.input[0] = pad.input[0]


def _scale(small: int, large: int) -> np.float32:
    """Return the smallest float32 scale with which runtimes, rounding down, turn `small` into `large`: 5 * 1.8 is 8."""
    scale = np.float32(large / small)
    while math.floor(small * float(scale)) < large:  # in float32 the product may round up to the integer
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes whose outputs are never read, then unused initializers and value infos."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name)
            kept.append(node)
    kept.reverse()
    _replace(graph.node, kept)
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    _replace(graph.value_info, [value for value in graph.value_info if value.name in needed])


def _replace(field: Any, content: list) -> None:
    copies = [type(part).FromString(part.SerializeToString()) for part in content]
    del field[:]
    field.extend(copies)


__all__ = ["IR_VERSION", "OPSET", "to_onnx"]
