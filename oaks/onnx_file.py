"""ONNX files as bytes: check them, change the precision they compute in, and read the torch weights they hold.

An ONNX file is a protobuf message. This module reads and rewrites the few fields it needs from the wire
format (protobuf.dev/programming-guides/encoding), so that no runtime has to load the onnx package. Field
numbers are those of onnx/onnx.proto.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oaks import onnx_sizes
from oaks.addresses import redacted
from oaks.errors import ArgumentError, BundleError, OaksError, OutOfMemory
from oaks.files import read_regular
from oaks.limits import BundleLimits

_FLOAT, _FLOAT16, _DOUBLE = 1, 10, 11
_DTYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8",
    12: "<u4", 13: "<u8",
}  # fmt: skip

# Message -> field -> the message that the field holds. Others hold numbers or bytes.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 11: "ValueInfo", 12: "ValueInfo", 13: "ValueInfo", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 14: "Type", 15: "Type", 22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "ValueInfo": {2: "Type"},
    "Type": {1: "TensorType", 4: "ElementType", 5: "MapType", 8: "TensorType", 9: "ElementType"},
    "ElementType": {1: "Type"},
    "MapType": {2: "Type"},
    "Tensor": {}, "TensorType": {},
}  # fmt: skip
_DEEPEST = 64
_SHORT = 4096
"""Maximum elements of a tensor whose values are read."""
_TYPE_ATTRIBUTES = (b"to", b"dtype", b"output_dtype")
_FOREIGN = (b"ORTM", b"TFL3")
"""Marks at byte 4 by which runtimes recognize ONNX Runtime's and TensorFlow Lite's own formats."""

WEIGHTS = "network."
"""Prefix of the names of torch parameters that nodes read."""
SPARE, SCALE = "torch:", "scale:"
"""Prefixes of the names of initializers that no node reads; see `state`."""

Field = tuple[int, int, Any]
"""(number, wire type, content): an int for wire type 0, otherwise the bytes."""
Message = memoryview | bytes


def read(path: str | Path, limits: BundleLimits | None = None) -> bytes:
    """Read an ONNX file that `check` accepts, from outside a bundle.

    Give runtimes these bytes, never the path, so that they cannot read another file.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: it cannot be read, is too large, or `check` refuses it.
    """
    limits = limits or BundleLimits()
    try:
        content = read_regular(path, limits.file_bytes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"ONNX file not found: {redacted(str(path))}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(f"{path} does not fit into memory") from error
    check(content, str(path), largest=limits.onnx_fields, elements=limits.tensor_elements)
    return content


def check(
    content: bytes, label: str, *, largest: int = BundleLimits.onnx_fields,
    elements: int = BundleLimits.tensor_elements,
) -> None:  # fmt: skip
    """Refuse anything but a self-contained ONNX model.

    External data would make a runtime read other files, or, by a special file name of ONNX Runtime's, the
    memory of this process; it is refused in initializers, attributes, subgraphs, functions and training
    graphs alike. So are ONNX Runtime's EPContext nodes, which may refer to files too.

    Args:
        content: the file.
        label: what messages call it.
        largest: maximum number of fields; a network of 10,000 nodes has about 200,000.
        elements: maximum elements of a tensor of the graph, by its lower bound (oaks.onnx_sizes).

    Raises:
        BundleError: it is not ONNX, is damaged, has more fields, refers to data outside of it, or asks for a tensor of
            more elements.
    """
    with _named(label):
        if content[4:8] in _FOREIGN:
            raise _RefusedError("must be an ONNX file, got another format")
        _check_messages(content, largest)
        parts = _by_number(content)
        functions = {_function(*(_text(body, field) for field in (10, 1, 13))): body for body in parts[25]}
        _Sizes(elements, functions, largest).check(_bytes(content, 7), {}, 0)


class _RefusedError(OaksError):
    """What is wrong with a file. `_named` turns it into a BundleError, in whose message it follows the file's name."""


_DAMAGED = "must be an ONNX file, got something else or a damaged one"


@contextmanager
def _named(label: str) -> Iterator[None]:
    try:
        yield
    except _RefusedError as error:
        raise BundleError(f"{label} {error}") from error.__cause__


def _check_messages(content: bytes, largest: int) -> None:
    """Look at every field of a model, whatever message it is in."""
    pending: list[tuple[str, Message, int]] = [("Model", content, 0)]
    graphs = seen = 0
    while pending:
        kind, message, depth = pending.pop()
        if depth > _DEEPEST:
            raise _RefusedError(f"must nest messages at most {_DEEPEST} levels deep, got {depth}")
        for number, wire, value in _fields(message):
            seen += 1
            if seen > largest:
                raise _RefusedError(f"must have at most {largest} protobuf fields, got more")
            if kind == "Tensor" and (number == 13 or (number == 14 and value)):
                raise _RefusedError(
                    f"must hold all its tensors, got external data for {_text(message, 8)!r}; save the model as one file"
                )
            if kind == "Node" and number == 4 and wire == 2 and bytes(value) == b"EPContext":
                raise _RefusedError("must be a plain ONNX graph, got an EPContext node")
            graphs += kind == "Model" and number == 7
            child = _MESSAGES[kind].get(number)
            if child is not None and wire == 2:
                pending.append((child, value, depth + 1))
    if graphs != 1:
        raise _RefusedError(f"must be an ONNX file with one graph, got {graphs} graphs")


@dataclass
class _Sizes:
    """Refuses tensors that are sure to have too many elements.

    Attributes:
        elements: that a tensor may have.
        functions: the model's own operations, by domain, name and overload.
        left: nodes that may still be looked at: functions that call functions can ask for any number.
    """

    elements: int
    functions: Mapping[tuple[str, str, str], Message]
    left: int

    def check(self, graph: Message, outer: Mapping[str, np.ndarray], depth: int) -> None:
        """Look at a graph, at those within its nodes, and at the functions that it calls.

        Args:
            graph: its message.
            outer: values that are known around it.
            depth: how many graphs and functions lie around it.
        """
        parts, constants = _by_number(graph), dict(outer)
        inputs = {_text(value, 1): _elements_of(value) for value in parts[11]}
        for tensor in parts[5]:
            small, size = _small_tensor(tensor)
            if small is None:
                inputs[_text(tensor, 8)] = size
            else:
                constants[_text(tensor, 8)] = small
        self.follow(parts[1], inputs, constants, depth)

    def follow(
        self,
        nodes: Sequence[memoryview],
        inputs: Mapping[str, int],
        constants: dict[str, np.ndarray],
        depth: int,
    ) -> None:
        """Look at nodes; arguments as `check` and `onnx_sizes.largest` have them."""
        self.left -= len(nodes)
        if self.left < 0 or depth > _DEEPEST:
            raise _RefusedError("must call its functions less often, got too many nodes in all")
        found, inner = [], []
        for node in nodes:
            made, graphs = _node(node)
            found.append(made)
            inner += graphs
            if made.operation == "Constant" and isinstance(made.attributes.get("value"), np.ndarray):
                constants.setdefault(made.outputs[0] if made.outputs else "", made.attributes["value"])
        size, operation, known = onnx_sizes.largest(found, inputs, constants)
        if size > self.elements:
            raise _RefusedError(
                f"must have tensors of at most {self.elements} elements, got one of {size} from node {operation[:32]!a}"
            )
        for nested in inner:
            self.check(nested, known, depth + 1)
        for made in found:
            body = self.functions.get(_function(made.domain, made.operation, made.overload))
            if body is not None:
                parts = _by_number(body)
                names = zip(_texts(parts[4]), made.inputs, strict=False)
                given = {own: known[outer] for own, outer in names if outer in known}
                self.follow(parts[7], {}, given, depth + 1)


def _function(domain: str, name: str, overload: str) -> tuple[str, str, str]:
    """Return what tells functions apart; ONNX's own domain has two names."""
    return "" if domain == "ai.onnx" else domain, name, overload


def _node(message: Message) -> tuple[onnx_sizes.Node, list[memoryview]]:
    """Return a node, and the graphs in its attributes."""
    parts, graphs = _by_number(message), list[memoryview]()
    attributes = dict(_attribute(value, graphs) for value in parts[5])
    operation, domain, overload = ((_texts(parts[number]) or [""])[-1] for number in (4, 7, 8))
    inputs, outputs = _texts(parts[1]), _texts(parts[2])
    return onnx_sizes.Node(operation, inputs, outputs, attributes, domain, overload), graphs


def _attribute(message: Message, graphs: list[memoryview]) -> tuple[str, Any]:
    """Return an attribute's name, and its value if that is a small tensor, a number or several; add to `graphs`."""
    content: float | np.ndarray | None = None
    several: list[float] = []
    for number, wire, value in _fields(message):
        if number == 2 and wire == 5:
            content = float(np.frombuffer(value, "<f4")[0])
        elif number == 3 and wire == 0:
            content = _signed(value)
        elif number == 5 and wire == 2:
            content = _small_tensor(value)[0]
        elif number in (6, 11) and wire == 2:
            graphs.append(value)
        elif number == 7 and wire in (2, 5) and len(value) % 4 == 0 and len(several) < _SHORT:
            several += np.frombuffer(value, "<f4")[:_SHORT].tolist()
        elif number == 8 and len(several) < _SHORT and _few_integers(wire, value):
            several += _integers(wire, value)
    return _text(message, 1), several if several else content


def _few_integers(wire: int, value: Any) -> bool:
    return wire == 0 or (wire == 2 and len(value) < 10 * _SHORT)


def _small_tensor(message: Message) -> tuple[np.ndarray | None, int]:
    """Return a tensor's values if they are few and of a supported type, and their number."""
    shape: list[int] = []
    for number, wire, value in _fields(message):
        if number == 1 and _few_integers(wire, value):
            shape += _integers(wire, value)
    size = math.prod(max(side, 0) for side in shape)
    if size > _SHORT or len(message) > 16 * _SHORT:
        return None, size
    try:
        return _array(message), size
    except _RefusedError:  # of a type that sizes are never computed from
        return None, size


def _elements_of(message: Message) -> int:
    """Return the elements of a graph's input; unstated sides count as 1."""
    shape = _bytes(_bytes(_bytes(message, 2), 1), 2)
    return math.prod(max(_signed(_number(side, 1)), 1) for side in _by_number(shape)[1])


def in_precision(content: bytes, stored: str, precision: str, label: str) -> bytes:
    """Return the model for a runtime: in a precision, without casts of weights and without unused initializers.

    Args:
        content: an ONNX file that `check` accepts.
        stored: the precision of the file: "fp32", "fp16" or "int8".
        precision: the one to compute in: `stored`, or "fp32" of a file stored as fp16. Widening is exact.
        label: what messages call the file.

    Raises:
        BundleError: the file is damaged.
        ArgumentError: the precision cannot be made from the stored one.
    """
    if precision != stored and (stored, precision) != ("fp16", "fp32"):
        raise ArgumentError(f"precision must be {stored!r} for a file stored as {stored}, got {precision!r}")

    def change(message: Message) -> bytes:
        graph = _without_casts(field for field in _fields(message) if not _is_spare(field))
        return _encoded(graph if precision == stored else _widened("Graph", graph))

    with _named(label):
        return _encoded(
            (number, wire, change(value)) if number == 7 else (number, wire, value)
            for number, wire, value in _fields(content)
        )


def state(content: bytes, label: str) -> dict[str, np.ndarray]:
    """Return the torch parameters and buffers of an exported file, by their torch names.

    `network.NAME` is a parameter that nodes read; `torch:NAME` is one that the graph does not use, such as those of a
    folded batch normalization; `scale:NAME` is the factor by which folding has multiplied NAME.

    Args:
        content: an ONNX file written by `oaks export`.
        label: what messages call the file.

    Returns:
        Arrays as they are stored: float16 weights stay float16, unscaled ones are float32.

    Raises:
        BundleError: the file is damaged.
    """
    with _named(label):
        tensors = [tensor for graph in _by_number(content)[7] for tensor in _by_number(graph)[5]]
        arrays = {_text(tensor, 8): _array(tensor) for tensor in tensors}
    found = {
        name.removeprefix(prefix): array
        for prefix in (WEIGHTS, SPARE)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    for name, factor in arrays.items():
        if name.startswith(SCALE):
            weight = found.get(name.removeprefix(SCALE))
            if weight is None or not _spreads_over(factor, weight):
                raise BundleError(f"{label}: {name!r} scales no parameter of the file")
            safe = np.where(factor == 0, np.float32(1), factor)
            found[name.removeprefix(SCALE)] = weight.astype(np.float32) / safe
    return found


def _spreads_over(factor: np.ndarray, weight: np.ndarray) -> bool:
    """Return whether multiplying by `factor` keeps the shape of `weight`."""
    return factor.ndim == weight.ndim and all(
        ours in (1, theirs) for ours, theirs in zip(factor.shape, weight.shape, strict=True)
    )


def _is_spare(field: Field) -> bool:
    """Return whether a graph's field is an initializer that no node reads."""
    return field[0] == 5 and _text(field[2], 8).startswith((SPARE, SCALE))


def _without_casts(graph: Iterable[Field]) -> list[Field]:
    """Replace float16 initializers that only a Cast to float32 reads by float32 ones."""
    fields = list(graph)
    halves = {
        _text(value, 8): index
        for index, (number, _, value) in enumerate(fields)
        if number == 5 and _number(value, 2) == _FLOAT16
    }
    readers: dict[str, list[int]] = {name: [] for name in halves}
    for index, (number, _, value) in enumerate(fields):
        for name in _reads(value) if number == 1 else ():
            if name in readers:
                readers[name].append(index)
    dropped: set[int] = set()
    for name, nodes in readers.items():
        targets = [_cast_target(fields[index][2]) for index in nodes]
        if len(nodes) == 1 and targets[0] is not None:
            wide = [field for field in _wide_tensor(fields[halves[name]][2]) if field[0] != 8]
            fields[halves[name]] = (5, 2, _encoded([*wide, (8, 2, targets[0].encode())]))
            dropped.add(nodes[0])
    return [field for index, field in enumerate(fields) if index not in dropped]


def _reads(node: Message) -> Iterator[str]:
    """Yield the tensors that a node reads, its subgraphs' nodes included."""
    parts = _by_number(node)
    yield from _texts(parts[1])
    for held in map(_by_number, parts[5]):
        for graph in (*held[6], *held[11]):
            for nested in _by_number(graph)[1]:
                yield from _reads(nested)


def _cast_target(node: Message) -> str | None:
    """Return the output of a node that casts to float32; None for other nodes."""
    parts = _by_number(node)
    to = [_number(attribute, 3) for attribute in parts[5] if _bytes(attribute, 1) == b"to"]
    outputs = _texts(parts[2])
    return outputs[-1] if outputs and parts[4][-1:] == [b"Cast"] and to[-1:] == [_FLOAT] else None


def _widened(kind: str, fields: Iterable[Field]) -> Iterator[Field]:
    """Widen every float16 of a message to float32: tensors, types and attributes that name a type."""
    fields = list(fields)
    names_type = kind == "Attribute" and any(
        n == 1 and w == 2 and bytes(v) in _TYPE_ATTRIBUTES for n, w, v in fields
    )
    for number, wire, value in fields:
        child = _MESSAGES[kind].get(number)
        if child == "Tensor" and wire == 2:
            yield number, wire, _encoded(_wide_tensor(value))
        elif child is not None and wire == 2:
            yield number, wire, _encoded(_widened(child, _fields(value)))
        elif wire == 0 and value == _FLOAT16 and (names_type or kind == "TensorType") and number in (1, 3):
            yield number, wire, _FLOAT
        else:
            yield number, wire, value


def _wide_tensor(tensor: Message) -> Iterator[Field]:
    fields = list(_fields(tensor))
    if not any(number == 2 and value == _FLOAT16 for number, _, value in fields):
        yield from fields
        return
    values = _array(tensor).astype("<f4")
    for number, wire, value in fields:
        if number == 2:
            yield number, wire, _FLOAT
        elif number not in (5, 9):
            yield number, wire, value
    yield 9, 2, values.tobytes()


def _array(tensor: Message) -> np.ndarray:
    """Return a TensorProto's values."""
    shape: list[int] = []
    kind, raw = 0, None
    numbers: list[int] = []
    floats = doubles = b""
    for number, wire, value in _fields(tensor):
        if number == 1 and wire in (0, 2):
            shape += _integers(wire, value)
        elif number == 2 and wire == 0:
            kind = value
        elif number == 9 and wire == 2:
            raw = value
        elif number in (5, 7, 11) and wire in (0, 2):
            numbers += _integers(wire, value)
        elif number == 4 and wire in (2, 5):
            floats += bytes(value)
        elif number == 10 and wire in (1, 2):
            doubles += bytes(value)
    if kind not in _DTYPES or any(size < 0 for size in shape):
        raise _RefusedError(
            f"must hold tensors of a known type and shape, got {_text(tensor, 8)!r} of type {kind} and shape {shape}"
        )
    dtype = np.dtype(_DTYPES[kind])
    try:
        if raw is not None:
            values = np.frombuffer(raw, dtype)
        elif kind in (_FLOAT, _DOUBLE):
            values = np.frombuffer(floats if kind == _FLOAT else doubles, dtype)
        elif kind == _FLOAT16:
            values = np.array(numbers, np.uint16).view(dtype)
        else:
            values = np.array(numbers, np.int64).astype(dtype)
        return values.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise _RefusedError(f"must hold undamaged tensors, got {_text(tensor, 8)!r}: {error}") from error


def _integers(wire: int, value: Any) -> list[int]:
    """Return a repeated integer, alone or packed, as signed 64-bit numbers."""
    if wire == 0:
        return [_signed(value)]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(_signed(number))
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _by_number(message: Message) -> Mapping[int, list[memoryview]]:
    """Return the content of the fields that hold bytes, which are messages or texts, by the fields' numbers."""
    found: defaultdict[int, list[memoryview]] = defaultdict(list)
    for number, wire, value in _fields(message):
        if wire == 2:
            found[number].append(value)
    return found


def _texts(values: Iterable[memoryview]) -> list[str]:
    return [bytes(value).decode("utf-8", "replace") for value in values]


def _text(message: Message, number: int) -> str:
    return bytes(_bytes(message, number)).decode("utf-8", "replace")


def _bytes(message: Message, number: int) -> Message:
    """Return a field's bytes, the last if there are several; empty if there is none."""
    return (_by_number(message)[number] or [memoryview(b"")])[-1]


def _number(message: Message, field: int) -> int:
    """Return a field's number, the last if there are several; 0 if there is none."""
    found = 0
    for number, wire, value in _fields(message):
        if number == field and wire == 0:
            found = value
    return found


def _fields(message: Message) -> Iterator[Field]:
    """Yield the fields of a protobuf message, in the order of the file."""
    if isinstance(message, int):  # where a message is expected: a damaged field of another wire type
        raise _RefusedError(_DAMAGED)
    message = memoryview(message)
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        # The runtimes' parsers drop the bits above 32, and would see another field than this function does.
        if tag >> 32 or number == 0:
            raise _RefusedError(_DAMAGED)
        if wire == 0:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _RefusedError(_DAMAGED)
        if at + length > end:
            raise _RefusedError(_DAMAGED)
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise _RefusedError(_DAMAGED)


def _encoded(fields: Iterable[Field]) -> bytes:
    parts = bytearray()
    for number, wire, value in fields:
        _add_varint(parts, number << 3 | wire)
        if wire == 0:
            _add_varint(parts, value)
            continue
        if wire == 2:
            _add_varint(parts, len(value))
        parts += value
    return bytes(parts)


def _add_varint(parts: bytearray, value: int) -> None:
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)


__all__ = ["SCALE", "SPARE", "WEIGHTS", "check", "in_precision", "read", "state"]
