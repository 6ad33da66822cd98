"""Lower bounds on the sizes of an ONNX graph's tensors, known before it runs.

A few bytes can ask for any amount of memory: a Range, a Tile, an Expand of constant size. Lower bounds are propagated
through the graph, for a batch of 1 and with small constants evaluated, so that a modest network is never refused.
Sizes that depend on the picture stay unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_LARGEST_CONSTANT = 4096
"""Maximum elements of a constant that is evaluated; shapes have far fewer."""

_SAME = frozenset((
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "CumSum", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuantizeLinear",
    "DequantizeLinear",
    "Reciprocal", "Relu", "Reshape", "Flatten", "Round", "Sigmoid", "Sign", "Sin", "Cos", "Softmax", "Softplus", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze", "Where", "Xor", "BatchNormalization", "LayerNormalization",
    "InstanceNormalization", "Dropout", "DepthToSpace", "SpaceToDepth",
))  # fmt: skip
"""Operations whose result has at least as many elements as the largest of their inputs."""


@dataclass(frozen=True)
class Node:
    """A node of a graph: its operation, the names it reads and writes, and its attributes that are numbers or tensors.

    Its domain and overload tell which of the file's own functions of that name it calls, if any.
    """

    operation: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    overload: str = ""


def largest(
    nodes: Sequence[Node], inputs: Mapping[str, int], constants: Mapping[str, np.ndarray]
) -> tuple[int, str, dict[str, np.ndarray]]:
    """Return the largest lower bound of a tensor's elements, the operation that makes it, and the known values.

    Args:
        nodes: in an order in which they can run.
        inputs: elements of the graph's inputs, and of initializers too large to be evaluated.
        constants: values of small tensors.
    """
    sizes = dict(inputs)
    known = {name: np.asarray(value) for name, value in constants.items() if value.size <= _LARGEST_CONSTANT}
    sizes |= {name: int(value.size) for name, value in known.items()}
    worst, culprit = 0, ""
    with np.errstate(all="ignore"):
        for node in nodes:
            given = [known.get(name) for name in node.inputs]
            size = _size(node, given, [sizes.get(name, 0) for name in node.inputs])
            if size > worst:
                worst, culprit = size, node.operation
            for name in node.outputs:
                sizes[name] = size
            value = _value(node, given) if size <= _LARGEST_CONSTANT else None
            if value is not None and len(node.outputs) == 1 and value.size <= _LARGEST_CONSTANT:
                known[node.outputs[0]] = value
                sizes[node.outputs[0]] = int(value.size)
    return worst, culprit, known


def _size(node: Node, given: list[np.ndarray | None], sizes: list[int]) -> int:
    """Lower bound of the elements of a node's result."""
    first = sizes[0] if sizes else 0

    def constant(place: int) -> list[float] | None:
        value = given[place] if place < len(given) else None
        return None if value is None else value.ravel().tolist()

    operation = node.operation
    if operation == "ConstantOfShape":
        return _product(constant(0))
    if operation == "Expand":
        return max(first, _product(constant(1)))
    if operation == "Tile":
        return max(first, 1) * max(_product(constant(1)), 1)
    if operation == "Range":
        start, limit, delta = (constant(place) for place in range(3))
        if not (start and limit and delta):
            return 0
        count = (limit[0] - start[0]) / delta[0] if delta[0] else 0
        return math.ceil(count) if 0 < count < 1e30 else (int(1e30) if count >= 1e30 else 0)
    if operation in ("Resize", "Upsample"):
        scales = constant(2 if operation == "Resize" else 1) or constant(1) or node.attributes.get("scales")
        return max(_product(constant(3)), int(min(first * math.prod(scales), 1e30)) if scales else 0)
    if operation == "Pad":
        return first + int(
            sum(value for value in constant(1) or node.attributes.get("pads") or () if value > 0)
        )
    if operation == "OneHot":
        return first * int((constant(1) or [0])[0])
    if operation in ("RandomNormal", "RandomUniform"):
        return _product(node.attributes.get("shape"))
    if operation == "Concat":
        return sum(sizes)
    return max(sizes, default=0) if operation in _SAME else 0


def _product(values: Sequence[float] | None) -> int:
    """Product of sizes; 0 if they are unknown or one is not positive."""
    if not values or min(values) <= 0:
        return 0
    return math.prod(int(value) for value in values)


def _value(node: Node, given: list[np.ndarray | None]) -> np.ndarray | None:
    """Evaluate a node on small constants; None where that is not supported."""
    if node.operation == "Constant":
        values = (
            node.attributes.get(name)
            for name in ("value", "value_int", "value_ints", "value_float", "value_floats")
        )
        found = next((value for value in values if value is not None), None)
        return None if found is None else np.asarray(found)
    if any(value is None for value in given):
        return None
    compute = _COMPUTED.get(node.operation)
    if compute is None:
        return None
    try:
        return np.asarray(compute(node, given))
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError, MemoryError):
        return None


def _axis(node: Node, otherwise: int = 0) -> int:
    return int(node.attributes.get("axis", otherwise))


_COMPUTED: Mapping[str, Callable[[Node, list[Any]], Any]] = {
    "Identity": lambda _, given: given[0],
    "Cast": lambda _, given: given[0],
    "Add": lambda _, given: given[0] + given[1],
    "Sub": lambda _, given: given[0] - given[1],
    "Mul": lambda _, given: given[0] * given[1],
    "Div": lambda _, given: given[0] / given[1] if given[0].dtype.kind == "f" else given[0] // given[1],
    "Pow": lambda _, given: given[0].astype(float) ** given[1],
    "Neg": lambda _, given: -given[0],
    "Max": lambda _, given: np.maximum.reduce(given),
    "Min": lambda _, given: np.minimum.reduce(given),
    "Floor": lambda _, given: np.floor(given[0]),
    "Ceil": lambda _, given: np.ceil(given[0]),
    "Exp": lambda _, given: np.exp(given[0].astype(float)),
    "Sqrt": lambda _, given: np.sqrt(given[0].astype(float)),
    "ReduceProd": lambda _, given: given[0].prod(),
    "ReduceSum": lambda _, given: given[0].sum(),
    "Shape": lambda _, given: np.array(given[0].shape, np.int64),
    "Size": lambda _, given: given[0].size,
    "Concat": lambda node, given: np.concatenate([np.atleast_1d(value) for value in given], axis=_axis(node)),
    "Gather": lambda node, given: np.take(given[0], given[1].astype(int), axis=_axis(node)),
    "Unsqueeze": lambda _, given: np.atleast_1d(given[0]),
    "Squeeze": lambda _, given: np.squeeze(given[0]),
    "Reshape": lambda _, given: given[0].ravel(),
    "Flatten": lambda _, given: given[0].ravel(),
    "Transpose": lambda _, given: given[0].T,
    "Slice": lambda _, given: given[0][int(given[1].ravel()[0]) : int(given[2].ravel()[0])],
    "Where": lambda _, given: np.where(*given),
    "Tile": lambda _, given: np.tile(given[0], given[1].astype(int)),
    "Expand": lambda _, given: np.broadcast_to(given[0], np.broadcast_shapes(given[0].shape, tuple(given[1].astype(int)))),
    "ConstantOfShape": lambda node, given: np.full(
        given[0].astype(int), np.asarray(node.attributes.get("value", 0.0)).ravel()[0]
    ),
    "Range": lambda _, given: np.arange(*(value.item() for value in given)),
}  # fmt: skip


__all__ = ["Node", "largest"]
