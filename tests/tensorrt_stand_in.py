"""A module `tensorrt` or `tensorrt_rtx` made from a listing of the real one: it takes what is listed, and no more.

What its methods do comes from a World: method `Builder_create_network` of the World is called for
Builder.create_network, with the instance and the arguments by name. A method without one gives None.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import tensorrt_listings as listings


class Enum:
    """A member of a pybind11 enum: int() works, arithmetic does not."""

    def __init__(self, owner: str, name: str, value: int) -> None:
        self._owner, self.name, self._value = owner, name, value

    def __int__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return hash((self._owner, self._value))

    def __repr__(self) -> str:
        return f"{self._owner}.{self.name}"


class Instance:
    """The base of every class; `_values` is there once __init__ has been called, as pybind11 demands."""

    __slots__ = ("_values",)

    def __bytes__(self) -> bytes:
        """IHostMemory has the buffer protocol, which a listing does not show."""
        return self._values["content"]


def make(version: str, world: Any) -> ModuleType:
    """The module for one of the listings, its behavior given by `world`, which gets it as `world.trt`."""
    name = listings.flavor(version)
    module = ModuleType(name)
    module.__version__ = listings.full_version(version)
    module.__spec__ = ModuleSpec(name, None)  # importlib.util.find_spec asks for it
    for name, members in listings.read(version).items():
        if all(text.startswith("enum member") for text in members.values()):
            made: Any = type(name, (), {k: Enum(name, k, int(t.split("= ")[1])) for k, t in members.items()})
        else:
            made = type(name, (Instance,), {"__slots__": (), **_members(module, world, name, members)})
        setattr(module, name, made)
    world.trt = module
    return module


def install(monkeypatch: pytest.MonkeyPatch, version: str, world: Any) -> ModuleType:
    """Put the stand-in where imports find it, and no other TensorRT; make oaks import it anew."""
    from oaks.engines.plans import library

    module = make(version, world)
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, module if name == module.__name__ else None)
    monkeypatch.setattr(library, "_loaded", {})
    return module


def new(module: ModuleType, name: str) -> Any:
    """An instance of a class that Python code cannot construct."""
    made = Instance.__new__(getattr(module, name))
    Instance._values.__set__(made, {})
    return made


def _members(module: ModuleType, world: Any, owner: str, members: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, text in members.items():
        if text.startswith("nested enum: "):
            pairs = (pair.split("=") for pair in text.removeprefix("nested enum: ").split(", "))
            made[name] = type(name, (), {key: Enum(name, key, int(value)) for key, value in pairs})
        elif kind := listings.property_of(text):
            made[name] = _property(world, owner, name, kind[0])
        elif text.startswith("not constructible"):
            made["__init__"] = _forbidden(owner)
        elif not text.startswith("constant"):
            made[name] = _method(module, world, owner, name, listings.overloads(text))
    return made


def _forbidden(owner: str) -> Any:
    def __init__(self: Any, *_: Any, **__: Any) -> None:
        raise TypeError(f"{owner}: No constructor defined!")

    return __init__


def _property(world: Any, owner: str, name: str, access: str) -> property:
    def fetch(self: Any) -> Any:
        if name in self._values:
            return self._values[name]
        given = getattr(world, f"{owner}_{name}", None)
        assert given is not None, f"the stand-in does not know what {owner}.{name} is"
        return given(self)

    def store(self: Any, value: Any) -> None:
        self._values[name] = value

    return property(None if access == "wo" else fetch, None if access == "ro" else store)


def _method(
    module: ModuleType, world: Any, owner: str, name: str, signatures: list[listings.Signature]
) -> Any:
    def call(self: Any, *positional: Any, **keywords: Any) -> Any:
        if name == "__init__":
            Instance._values.__set__(self, {})
        arguments = _bind(module, f"{owner}.{name}", signatures, list(positional), keywords)
        given = getattr(world, f"{owner}_{name}", None)
        if given is None:
            assert signatures[0].returns == "None", f"the stand-in does not know what {owner}.{name} does"
            return None
        return given(self, **arguments)

    call.__name__ = name
    return call


def _bind(
    module: ModuleType, name: str, signatures: list[listings.Signature], positional: list, keywords: dict
) -> dict[str, Any]:
    reasons = []
    for signature in signatures:
        try:
            bound = signature.bind(positional, keywords)
            for parameter in signature.parameters:
                if parameter.name in bound:
                    _check(module, parameter, bound[parameter.name])
        except TypeError as error:
            reasons.append(str(error))
        else:
            return bound
    raise TypeError(f"{name}(): incompatible function arguments: {'; '.join(reasons)}")


def _check(module: ModuleType, parameter: listings.Parameter, value: Any) -> None:
    """Whether pybind11 would convert the value; annotations that it would not know here pass."""
    if value is None and parameter.optional:
        return
    simple = {"str": str, "bool": bool, "tuple": tuple, "list": list}
    annotation = parameter.annotation
    if annotation in simple:
        fits = isinstance(value, simple[annotation])
    elif annotation == "typing.SupportsInt":
        fits = hasattr(value, "__int__") and not isinstance(value, str | Enum)
    elif annotation == "typing_extensions.Buffer":
        fits = isinstance(value, bytes | bytearray | memoryview)
    elif annotation == "Dims":
        fits = isinstance(value, tuple | list | module.Dims)
    elif annotation.startswith("collections.abc.Sequence"):
        fits = isinstance(value, Sequence)
    elif annotation == "ILogger.Severity" or not isinstance(getattr(module, annotation, None), type):
        fits = True
    else:
        expected = getattr(module, annotation)
        fits = isinstance(value, expected) or (isinstance(value, Enum) and value._owner == annotation)
    if not fits:
        raise TypeError(f"{parameter.name} must be {annotation}, got {value!r}")
    if isinstance(value, Instance):
        assert hasattr(value, "_values"), f"{type(value).__name__}: base __init__ was not called"
