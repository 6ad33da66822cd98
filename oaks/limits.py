"""Limits on what untrusted input may ask for, checked before anything of that size is read or allocated.

A caller who needs more passes changed limits: `Bundle.load(path, limits=BundleLimits(file_bytes=8 << 30))`.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    description_bytes: int = 1 << 20
    description_depth: int = 32
    file_bytes: int = (2 << 30) - 1
    bundle_bytes: int = 4 << 30
    directory_bytes: int = 1 << 20
    onnx_fields: int = 2_000_000


__all__ = ["BundleLimits"]
