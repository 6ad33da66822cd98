"""Hostile inputs: values of all kinds, JSON from a schema, and corrupted valid files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import hypothesis.strategies as st
import numpy as np

Schema = Mapping[str, Any]

STRANGE = (
    None, True, False, 0, 1, -1, 2, 17, 255, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, 10**400,
    0.0, -0.0, 0.5, 2.7, -1.5, 1e-30, 1e9, 1e38, 3e38, 1e308, float("nan"), float("inf"), float("-inf"), "", "a", "0",
    "1", "NaN", "../x", "/etc/passwd", "a\0b", "\udcff", "\x1b[31m", "[red]", "a" * 300, "ä", "a/b", "a\\b", "-",
    "true", "2020-01-01", [], [[]], [None], [0], [1, 2], [1, 2, 3, 4], [0.0] * 51, {}, {"a": 1}, {"": {}}, [[1, 2], [3]],
    "x" * 70_000, list(range(2000)), {"id": 1}, {"bundle": "tiny"}, ["person"], "person", 1_000_000,
)  # fmt: skip
"""Values that readers have failed on before."""

values = st.one_of(
    st.sampled_from(STRANGE),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-1000, 1000), st.floats(-1e3, 1e3), st.text(max_size=5)
        ),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=8,
    ),
)


def places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values lie in parsed JSON, of long lists the first three."""
    found = [at]
    if isinstance(content, dict):
        for name, value in content.items():
            found += places(value, (*at, name))
    elif isinstance(content, list):
        for index, value in enumerate(content[:3]):
            found += places(value, (*at, index))
    return found


@st.composite
def changed(draw: st.DrawFn, content: Any, most: int = 3) -> Any:
    """Parsed JSON with up to `most` changes: a value replaced, dropped, doubled, renamed, or one added."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, most))):
        everywhere = places(content)
        at = everywhere[draw(st.integers(0, len(everywhere) - 1))]
        if not at:
            if draw(st.integers(0, 9)) == 0:
                return draw(values)
            continue
        parent = content
        for part in at[:-1]:
            parent = parent[part]
        how = draw(st.sampled_from(("replace", "replace", "replace", "drop", "double", "add", "swap")))
        if how == "replace":
            parent[at[-1]] = deepcopy(draw(values))  # one object may be drawn twice, and change within itself
        elif how == "drop":
            del parent[at[-1]]
        elif how == "double" and isinstance(parent, list):
            parent.append(deepcopy(parent[at[-1]]))
        elif how == "add" and isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = deepcopy(draw(values))
        elif how == "swap":
            other = everywhere[draw(st.integers(0, len(everywhere) - 1))]
            value = content
            for part in other:
                value = value[part] if isinstance(value, dict | list) and _has(value, part) else None
            parent[at[-1]] = json.loads(json.dumps(value))
    return content


def _has(content: Any, part: Any) -> bool:
    return part in content if isinstance(content, dict) else isinstance(part, int) and part < len(content)


def as_json(content: Any) -> bytes:
    """Its JSON, with NaN, infinities and lone surrogates as Python writes them."""
    return json.dumps(content).encode()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's bytes with some overwritten, cut off, repeated, inserted or taken out."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(
            st.sampled_from(("set", "set", "flip", "cut", "insert", "remove", "repeat", "number", "fill"))
        )
        if how == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif how == "number":
            width = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(
                st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63))
            )
            order = draw(st.sampled_from(("little", "big")))
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)
        else:
            stop = at + draw(st.integers(1, 64))
            data[at:stop] = bytes([draw(st.sampled_from((0, 0xFF)))]) * len(data[at:stop])
    return bytes(data)


SPOILT = (
    b"", b"null", b"3", b"[]", b"{}", b'"a"', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"-" * 1000, b"\xff\xfe",
    b"\xef\xbb\xbf{}", b'{"a": 1, "a": 2}', b"[1e999]", b"nan", b"\0" * 100, b"[" + b"1," * 10_000 + b"1]",
    b"\x80\x04K\x01.", b"&a [*a]", b"a: &a [1]\nb: [*a, *a]", b"!!python/object/apply:os.system [ls]", b"? [a]\n: b",
    b"1:" * 5000 + b"1",
    b"%YAML 9.9\n---\na", b"0" * 5000, b"0x" + b"f" * 6000, b"---\n---\n", b"- " * 3000, b"a: b: c", b"\t- a", b"<html>",
)  # fmt: skip
"""Contents that are not such a file, or that take a parser long."""


def files(content: Any, text: bytes | None = None) -> st.SearchStrategy[bytes]:
    """A structured file gone wrong: changed values for the most part, then damaged bytes, then something else."""
    text = as_json(content) if text is None else text
    return st.one_of(
        changed(content).map(as_json), changed(content).map(as_json), damaged(text), st.sampled_from(SPOILT)
    )


def from_schema(
    schema: Schema, root: Schema | None = None, made: dict[str, Any] | None = None
) -> st.SearchStrategy[Any]:
    """Values that fit a JSON Schema; the keywords are those of oaks.schema. `made` holds those of its `$defs`."""
    root, made = schema if root is None else root, {} if made is None else made
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name not in made:
            made[name] = st.deferred(lambda: made[f"{name}!"])
            made[f"{name}!"] = from_schema(root["$defs"][name], root, made)
        return made[name]
    if "anyOf" in schema:
        return st.one_of([from_schema(choice, root, made) for choice in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return _of_type(schema, root, made)


def _of_type(schema: Schema, root: Schema, made: dict[str, Any]) -> st.SearchStrategy[Any]:
    kind = schema.get("type")
    if kind == "integer":
        return st.integers(int(schema.get("minimum", -10)), int(schema.get("maximum", 4096)))
    if kind == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1e6))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 1e6))
        return st.floats(low, high)
    if kind == "string":
        if "pattern" in schema:
            return st.from_regex(schema["pattern"].replace("$", r"\Z"))
        return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 12), 12))
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        low = schema.get("minItems", 0)
        items = from_schema(schema.get("items", {}), root, made)
        return st.lists(items, min_size=low, max_size=max(low, min(schema.get("maxItems", 3), 3)))
    if kind == "object":
        return _object(schema, root, made)
    return values


def _object(schema: Schema, root: Schema, made: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties, needed = schema.get("properties", {}), set(schema.get("required", ()))
    if not properties:
        others = schema.get("additionalProperties", {})
        names = from_schema({"type": "string", **schema.get("propertyNames", {})}, root, made)
        inner = from_schema(others if isinstance(others, Mapping) else {}, root, made)
        return st.dictionaries(names, inner, max_size=2)
    entries = {name: from_schema(entry, root, made) for name, entry in properties.items()}
    return st.fixed_dictionaries(
        {name: entries[name] for name in entries if name in needed},
        optional={name: entries[name] for name in entries if name not in needed},
    )


class Odd:
    """An object that arrays cannot be made of."""

    def __len__(self) -> int:
        return 3


arguments = st.one_of(
    st.sampled_from((
        None, True, 0, 1, -1, 3.5, float("nan"), 2**40, 10**400, 1 + 2j, "whole", "1 2 3 4", b"abc", "", [], (), {}, set(),
        object(), Odd(), np.float32(2), np.int8(3), np.datetime64("2020-01-01"), [["1", "2", "3", "4"]], [[1, 2, 3, "4"]],
        [None], [[None] * 4], [[1, 2, 3, 4], [1, 2]], np.ma.array([[1, 2, 3, 4]], mask=[[0, 1, 0, 0]]), iter([1]), range(4),
    )),
    st.builds(
        lambda shape, dtype, fill: np.full(shape, fill).astype(dtype),
        st.lists(st.integers(0, 5), max_size=4),
        st.sampled_from(("u1", "i1", "i8", "u8", "f2", "f4", "f8", "?", "c8", "S3", "U3", "M8[s]", "O")),
        st.sampled_from((0, 1, 3, 100)),
    ),
    st.lists(
        st.lists(
            st.sampled_from((0, 1, -1, 5.5, 80, 1e30, 3e38, 1e300, float("nan"), float("inf"))), min_size=4, max_size=4
        ),
        max_size=3,
    ),
)  # fmt: skip
"""Values that somebody may pass as pictures, boxes, scores or numbers."""

__all__ = ["arguments", "as_json", "changed", "damaged", "files", "from_schema", "values"]
