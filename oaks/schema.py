"""Check parsed JSON against a JSON Schema, with errors that name the field.

Covers the keywords that the package's own schema files use, so that reading a file needs no further library.
Stricter than JSON Schema in two points: 1.0 is not an integer, and `$` does not match before a final newline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from oaks.errors import OaksError
from oaks.names import number_of

Schema = Mapping[str, Any]

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) is int or (type(value) is float and math.isfinite(value)),
    "boolean": lambda value: type(value) is bool,
    "null": lambda value: value is None,
}
_NAMES = {
    "object": "an object", "array": "an array", "string": "text", "integer": "an integer",
    "number": "a finite number", "boolean": "true or false", "null": "null",
}  # fmt: skip
_ANNOTATIONS = {"$schema", "$defs", "title", "description"}
KEYWORDS = _ANNOTATIONS | {
    "$ref", "type", "enum", "anyOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "items",
    "required", "properties", "additionalProperties", "minProperties", "maxProperties", "propertyNames",
}  # fmt: skip

_WITHOUT_TYPE = _ANNOTATIONS | {"$ref", "enum", "anyOf"}


class SchemaError(OaksError, ValueError):
    """A value does not fit a schema.

    Attributes:
        depth: the number of levels at which the offending value lies.
    """

    def __init__(self, message: str, depth: int) -> None:
        super().__init__(message)
        self.depth = depth


def check(value: Any, schema: Schema) -> None:
    """Check a parsed JSON value.

    Args:
        value: what json.loads returned.
        schema: the whole schema; `$ref` may point into its `$defs`.

    Raises:
        SchemaError: the value does not fit; the message names the field.
        OaksError: the schema uses a keyword that is not covered here. It is not a ValueError, as the value may be right.
    """
    _check(value, schema, schema, ())


def _check(value: Any, schema: Schema, root: Schema, at: tuple[Any, ...]) -> None:
    known = KEYWORDS if "type" in schema else _WITHOUT_TYPE
    if unknown := set(schema) - known:
        raise OaksError(f"keywords of a schema must be among {sorted(known)}, got {sorted(unknown)}")
    if "$ref" in schema:
        _check(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, at)
    if "anyOf" in schema:
        _check_any(value, schema["anyOf"], root, at)
    if "enum" in schema and not any(type(value) is type(c) and value == c for c in schema["enum"]):
        raise _error(at, f"one of {schema['enum']}", value)
    kind = schema.get("type")
    if kind is not None and not _TYPES[kind](value):
        raise _error(at, _range(schema), value)
    if kind in ("integer", "number"):
        _check_number(value, schema, at)
    elif kind == "string":
        _check_text(value, schema, at)
    elif kind == "array":
        _check_array(value, schema, root, at)
    elif kind == "object":
        _check_object(value, schema, root, at)


def _check_any(value: Any, choices: list[Schema], root: Schema, at: tuple[Any, ...]) -> None:
    """Report the error of the alternative that fits best: a misspelt field rather than "none of these"."""
    errors = []
    for choice in choices:
        try:
            return _check(value, choice, root, at)
        except SchemaError as error:
            # Without its traceback, which would refer to this frame and keep alive all that the callers hold.
            errors.append(error.with_traceback(None))
    try:
        raise max(errors, key=lambda error: error.depth)
    finally:
        errors.clear()


def _check_number(value: float, schema: Schema, at: tuple[Any, ...]) -> None:
    fits = (
        value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
    )
    if not fits:
        raise _error(at, _range(schema), value)


def _check_text(value: str, schema: Schema, at: tuple[Any, ...]) -> None:
    low, high = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if not low <= len(value) <= high:
        raise _error(at, f"text of {low} to {high} characters", value)
    pattern = schema.get("pattern")
    if pattern is not None and not re.search(pattern.replace("$", r"\Z"), value):
        raise _error(at, f"text that matches {pattern}", value)


def _check_array(value: list[Any], schema: Schema, root: Schema, at: tuple[Any, ...]) -> None:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        count = f"{low}" if low == high else f"{low} to {high}"
        raise SchemaError(f"{_path(at)} must have {count} entries, got {len(value)}", len(at))
    for index, entry in enumerate(value):
        _check(entry, schema.get("items", {}), root, (*at, index))
    if schema.get("uniqueItems") and len({repr(entry) for entry in value}) != len(value):
        raise _error(at, "an array of different entries", value)


def _check_object(value: dict[str, Any], schema: Schema, root: Schema, at: tuple[Any, ...]) -> None:
    low, high = schema.get("minProperties", 0), schema.get("maxProperties", math.inf)
    if not low <= len(value) <= high:
        raise SchemaError(f"{_path(at)} must have {low} to {high} entries, got {len(value)}", len(at))
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        raise SchemaError(f"{_path(at)} must have the fields {missing}, which are missing", len(at))
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, entry in value.items():
        if "propertyNames" in schema:
            _check(name, schema["propertyNames"], root, (*at, name))
        if name in properties:
            _check(entry, properties[name], root, (*at, name))
        elif others is False:
            known = f"known are {sorted(properties)}"
            raise SchemaError(f"{_path((*at, name))} is an unknown field; {known}", len(at))
        elif others is not True:
            _check(entry, others, root, (*at, name))


def _range(schema: Schema) -> str:
    """Describe what a value must be, from its type and bounds."""
    name = _NAMES[schema["type"]]
    parts = []
    if "minimum" in schema:
        parts.append(f"of at least {schema['minimum']:g}")
    if "exclusiveMinimum" in schema:
        parts.append(f"above {schema['exclusiveMinimum']:g}")
    if "maximum" in schema:
        parts.append(f"of at most {schema['maximum']:g}")
    if "exclusiveMaximum" in schema:
        parts.append(f"below {schema['exclusiveMaximum']:g}")
    return f"{name} {' and '.join(parts)}".strip()


def _error(at: tuple[Any, ...], requirement: str, value: Any) -> SchemaError:
    return SchemaError(f"{_path(at)} must be {requirement}, got {shortened(value)}", len(at))


def _path(at: tuple[Any, ...]) -> str:
    """Return the path of a field, such as networks.pose.input.size[0]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in at)
    return text.removeprefix(".") or "the file"


def _plain(name: str) -> str:
    short = name if len(name) <= 64 else name[:61] + "..."
    return short if short.isprintable() else ascii(short)[1:-1]


def shortened(value: Any, length: int = 80) -> str:
    """Return a value for a message, in at most `length` characters."""
    if isinstance(value, dict | list):
        kind = "object" if isinstance(value, dict) else "array"
        return f"an {kind} of {number_of(len(value), 'entry', 'entries')}"
    if isinstance(value, str):
        return ascii(value if len(value) <= length else value[: length - 3] + "...")
    if type(value) is int and abs(value) >= 10**length:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


__all__ = ["KEYWORDS", "SchemaError", "check", "shortened"]
