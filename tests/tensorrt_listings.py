"""TensorRT's names and signatures as list_api.py wrote them down, and what they say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

VERSIONS = ("10.16", "11.4", "rtx_1.7")
"""Of the listings; those of TensorRT for RTX begin with "rtx"."""

FOLDER = Path(__file__).parent / "engines" / "plans"


def read(version: str) -> dict[str, dict[str, str]]:
    """class -> member -> signature."""
    text = (FOLDER / f"tensorrt_api_{version}.json").read_text(encoding="utf-8")
    return json.loads(text)["classes"]


def flavor(version: str) -> str:
    """The flavor, in oaks' words, that a listing is of."""
    return "tensorrt_rtx" if version.startswith("rtx") else "tensorrt"


def full_version(version: str) -> str:
    text = (FOLDER / f"tensorrt_api_{version}.json").read_text(encoding="utf-8")
    return json.loads(text)["version"]


@dataclass(frozen=True)
class Parameter:
    name: str
    annotation: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    parameters: tuple[Parameter, ...]
    returns: str

    def bind(self, positional: list, keywords: dict) -> dict:
        """Arguments by name. TypeError if they do not fit."""
        if len(positional) > len(self.parameters):
            raise TypeError(f"{len(self.parameters)} arguments at most, got {len(positional)}")
        bound = {p.name: value for p, value in zip(self.parameters, positional, strict=False)}
        for name, value in keywords.items():
            if name in bound or name not in {p.name for p in self.parameters}:
                raise TypeError(f"no argument {name!r} here")
            bound[name] = value
        missing = [p.name for p in self.parameters if p.name not in bound and not p.optional]
        if missing:
            raise TypeError(f"arguments {missing} are missing")
        return bound


def overloads(text: str) -> list[Signature]:
    """The signatures in a listing's entry for a method."""
    found = []
    for part in text.split(" || "):
        match = re.fullmatch(r"\w+\(self: [\w:]+(?:, (.*))?\) -> (.*)", part)
        assert match, part
        found.append(Signature(tuple(map(_parameter, _split(match[1] or ""))), match[2]))
    return found


def property_of(text: str) -> tuple[str, str] | None:
    """("ro" | "rw" | "wo", type) if the entry is a property's."""
    match = re.fullmatch(r"property\((\w\w)\) -> (.*)", text)
    return (match[1], match[2]) if match else None


def _parameter(text: str) -> Parameter:
    name, _, rest = text.partition(": ")
    annotation, equals, _ = rest.partition(" = ")
    return Parameter(name, annotation, bool(equals))


def _split(text: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[<") - (letter in "]>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
