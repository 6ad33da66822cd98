"""Limits on what untrusted input may ask for, checked before anything of that size is read or allocated.

To allow more, pass other limits, `Bundle.load(path, limits=BundleLimits(file_bytes=8 << 30))`, or set an environment
variable, which child processes inherit: OAKS_LIMIT_IMAGE_PIXELS=400000000.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace

from oaks.errors import ArgumentError


@dataclass(frozen=True)
class BundleLimits:
    """Limits on a model bundle (docs/bundles.md).

    Attributes:
        description_bytes: size of bundle.json.
        description_depth: levels of objects and arrays in bundle.json.
        file_bytes: size of one file, after decompression. ONNX files cannot be larger than 2 GiB - 1.
        bundle_bytes: size of all files together, after decompression, and of a zip.
        directory_bytes: size of a zip's directory, about 100 bytes per file.
        onnx_fields: protobuf fields in an ONNX file; a network of 10,000 nodes has about 200,000.
        tensor_elements: elements of a tensor within a network, at a batch of 1, where its size is known beforehand.
    """

    description_bytes: int = 1 << 20
    description_depth: int = 32
    file_bytes: int = (2 << 30) - 1
    bundle_bytes: int = 4 << 30
    directory_bytes: int = 1 << 20
    onnx_fields: int = 2_000_000
    tensor_elements: int = 1 << 27


@dataclass(frozen=True)
class Limits:
    """Limits on everything else that is read.

    Each can be changed by the environment variable OAKS_LIMIT_ and its name in capitals.

    Attributes:
        image_bytes: size of an image file.
        image_pixels: width times height of an image. Decoding takes 3 to 9 bytes per pixel, rotating 6.
        video_pixels: width times height of a video's frames. Decoders keep up to 16 frames.
        json_bytes: size of a JSON or MOT file. Parsing takes about ten times as much memory.
        yaml_bytes: size of a YAML file. Parsing takes a second per 100 kB.
        json_depth: levels of objects and arrays in a JSON or YAML file.
        array_bytes: size of the arrays of an .npz file together, after decompression.
        metadata_bytes: size of the metadata of a .safetensors file.
        read_ahead_bytes: decoded video frames that wait to be processed, all together.
        threads: CPU threads.
        batch: crops in one batch.
        buffer_bytes: crops and heatmaps of an Engine's largest batch.
    """

    image_bytes: int = 1 << 29
    image_pixels: int = 1 << 26
    video_pixels: int = 1 << 25
    json_bytes: int = 1 << 30
    yaml_bytes: int = 1 << 20
    json_depth: int = 64
    array_bytes: int = 1 << 29
    metadata_bytes: int = 16 << 20
    read_ahead_bytes: int = 1 << 29
    threads: int = 1024
    batch: int = 4096
    buffer_bytes: int = 4 << 30


def current() -> Limits:
    """Return the default limits with the changes of the environment.

    Raises:
        ArgumentError: an environment variable is not a positive integer.
    """
    changes = {}
    for entry in fields(Limits):
        name = variable(entry.name)
        if (text := os.environ.get(name)) is None:
            continue
        if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
            raise ArgumentError(f"{name} must be a positive integer below 10**18, got {text[:64]!r}")
        changes[entry.name] = int(text)
    return replace(Limits(), **changes)


def variable(name: str) -> str:
    """Return the environment variable that changes a limit."""
    return f"OAKS_LIMIT_{name.upper()}"


class LimitError(ArgumentError):
    """Input exceeds one of the limits."""


def check(what: str, name: str, size: int, limits: Limits | None = None) -> None:
    """Refuse a size beyond a limit.

    Args:
        what: name of the thing and its unit, for messages: "a.jpg: width times height".
        name: of the limit, an attribute of Limits.
        size: to be checked.
        limits: those of `current()` if None.

    Raises:
        LimitError: the size is larger; the message says how to raise the limit.
    """
    largest = getattr(limits or current(), name)
    if size > largest:
        raise LimitError(f"{what} must be at most {largest}, got {size}; set {variable(name)} to allow more")


__all__ = ["BundleLimits", "LimitError", "Limits", "check", "current", "variable"]
