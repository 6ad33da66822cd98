"""The schema checker against the jsonschema package."""

from __future__ import annotations

import json
import random
from pathlib import Path

import jsonschema
import pytest

import oaks
from oaks import schema

SHIPPED = sorted(Path(oaks.__file__).parent.rglob("*.schema.json"))

CASES = [
    {"type": "integer", "minimum": 0, "maximum": 3},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 2},
    {"type": "string", "minLength": 1, "maxLength": 2},
    {"type": "string", "pattern": "^[ab]$"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
    {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "null"}},
        "additionalProperties": False,
    },
    {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1, "maxProperties": 1},
    {"type": "object", "propertyNames": {"type": "string", "pattern": "^a"}},
    {"enum": [1, "a", None]},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]},
    {"$ref": "#/$defs/b", "$defs": {"b": {"type": "array", "maxItems": 1}}},
]
VALUES = [
    0, 1, 3, 4, -1, 10**400, 0.5, 2.0, 1e300, "", "a", "b", "ab", "abc", None, True, False, [], [1], [1, 1], [1, 2],
    ["a"], [1, 2, 3], [[]], {}, {"a": None}, {"a": 1}, {"a": True}, {"b": True}, {"a": None, "b": 1},
]  # fmt: skip


@pytest.mark.parametrize("rules", CASES, ids=str)
def test_it_agrees_with_jsonschema(rules):
    outcomes = set()
    for value in VALUES:
        valid = jsonschema.Draft202012Validator(rules).is_valid(value)
        whole = type(value) is float and value.is_integer()
        if whole and "integer" in (rules.get("type"), rules.get("anyOf", [{}])[0].get("type")):
            valid = False  # an integer in JSON Schema, a float in Python's json
        outcomes.add(valid)
        if valid:
            schema.check(value, rules)
        else:
            with pytest.raises(schema.SchemaError) as caught:
                schema.check(value, rules)
            assert len(str(caught.value)) < 300
    assert outcomes == {True, False}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_schemas_are_schemas_and_use_known_keywords_only(path):
    rules = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(rules)

    def walk(part):
        unknown = set(part) - schema.KEYWORDS
        assert not unknown, unknown
        for name in ("properties", "$defs"):
            for entry in part.get(name, {}).values():
                walk(entry)
        for name in ("items", "additionalProperties", "propertyNames"):
            if isinstance(part.get(name), dict):
                walk(part[name])
        for entry in part.get("anyOf", ()):
            walk(entry)

    walk(rules)


def test_a_keyword_it_does_not_know_is_an_error_of_the_schema():
    with pytest.raises(
        oaks.OaksError, match=r"keywords of a schema must be among .*, got \['oneOf'\]"
    ) as caught:
        schema.check(1, {"oneOf": []})
    assert not isinstance(caught.value, ValueError)  # which would blame the file that is checked
    with pytest.raises(oaks.OaksError, match=r"got \['minimum'\]"):
        schema.check(1, {"minimum": 2})  # which would hold nobody to anything, without a type


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1, "x"]}}, r"a\.b\[1\] must be an integer of at least 0 and of at most 5, got 'x'"),
        ({"a": {"b": [9]}}, r"a\.b\[0\] must be an integer of at least 0 and of at most 5, got 9"),
        ({"a": {"b": [True]}}, r"a\.b\[0\] must be an integer .*, got True"),
        ({"a": {"c": 1}}, r"a\.c is an unknown field; known are \['b'\]"),
        ({"a": {"b\x1b[31m": 1}}, r"a\.b\\x1b\[31m is an unknown field"),
        ({"a": {"b": ["y" * 10_000]}}, r"got 'y{70,80}\.\.\.'$"),
        ({"a": {"b": [{"q": 1}]}}, r"got an object of 1 entry"),
        ([], r"the file must be an object, got an array of 0 entries"),
    ],
)
def test_messages_name_the_field_and_stay_short(value, message):
    rules = {
        "type": "object",
        "properties": {
            "a": {
                "type": "object", "additionalProperties": False,
                "properties": {"b": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 5}}},
            }
        },
    }  # fmt: skip
    with pytest.raises(schema.SchemaError, match=message):
        schema.check(value, rules)


def test_the_error_of_the_closest_alternative_is_reported():
    rules = {"anyOf": [
        {"type": "object", "required": ["bundle"], "additionalProperties": False, "properties": {"bundle": {}}},
        {"type": "object", "properties": {"size": {"type": "array", "items": {"type": "integer"}}}},
    ]}  # fmt: skip
    with pytest.raises(schema.SchemaError, match=r"size\[0\] must be an integer, got 1.5"):
        schema.check({"size": [1.5]}, rules)


def test_random_json_never_gives_another_error():
    draw = random.Random(0)
    rules = json.loads(SHIPPED[0].read_text(encoding="utf-8"))

    def value(depth):
        kind = draw.randrange(8 if depth else 6)
        plain = (None, True, draw.randrange(-3, 300), draw.uniform(-1, 1e9), "a" * draw.randrange(4), 10**400)
        if kind < 6:
            return plain[kind]
        if kind == 6:
            return [value(depth - 1) for _ in range(draw.randrange(4))]
        names = draw.sample([*rules["properties"], *rules["$defs"], "pose", "kind", "input"], 4)
        return {name: value(depth - 1) for name in names}

    for _ in range(2000):
        made = {
            "format": 1,
            "name": "a",
            "license": "b",
            "files": {},
            **{k: value(3) for k in rules["properties"]},
        }
        with pytest.raises(schema.SchemaError):
            schema.check(made, rules)
