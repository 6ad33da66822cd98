"""Trained networks on disk: safetensors files whose metadata describe the network; and the networks of bundles."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from oaks import onnx_file
from oaks.arguments import check_choice
from oaks.bundle import TORCH, Network
from oaks.errors import ArgumentError
from oaks.files import replacing
from oaks.structured import parse_json, safetensors_metadata
from oaks.training.networks import build

FORMAT = 1
KINDS = ("pose", "ks", "detector")
_LARGEST_SIZE = 8192
"""Largest number in an architecture that is read from a file."""


def save_network(
    path: str | Path, network: nn.Module, description: dict[str, Any], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a network atomically.

    Args:
        path: the safetensors file.
        network: a network that `build(description["architecture"])` returns.
        description: "kind" (one of KINDS), "architecture", and optionally skeleton, input, stride, alignment,
            heatmap_sigma, refine, padding, trained_on, metrics, recipe, calibration, license.
        dtype: type of the stored weights: float32, or float16 for half the size.

    Raises:
        ArgumentError: the kind is unknown, or the architecture does not describe this network.
    """
    check_choice("description: kind", description.get("kind"), KINDS)
    state = network.state_dict()
    if {name: tuple(value.shape) for name, value in state.items()} != _shapes(description["architecture"]):
        raise ArgumentError(
            "description: architecture must describe the network's parameters, got another one"
        )
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in state.items()
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(save(tensors, metadata={"oaks": json.dumps({"format": FORMAT, **description})}))


def may_be_damage(error: Exception) -> bool:
    """Whether an error while reading a file may be caused by its content, not by the disk, permissions or memory."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL  # a parser sought to an impossible position
    return not isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)


def check_archive(path: str | Path) -> None:
    """Verify the checksums in a file of torch.save, which torch.load ignores.

    Raises:
        ArgumentError: a part is damaged; the message names the file.
        OSError: the file cannot be read.
    """
    try:
        # The old format has no checksums. A missing file is reported by torch.load.
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except Exception as error:  # zipfile raises many types of errors for damaged files
        if not may_be_damage(error):
            raise
        raise ArgumentError(f"{path} must be as it was written, got a damaged file: {error}") from error
    if part is not None:
        raise ArgumentError(
            f"{path} must be as it was written, got another checksum of its part {part[:64]!a}"
        )


def read_description(path: str | Path) -> dict[str, Any]:
    """Return the description in a network's file.

    Raises:
        FileNotFoundError: the file is missing.
        ArgumentError: the file is not a network saved by oaks, or has another format; the message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    try:
        content = parse_json(safetensors_metadata(path)["oaks"].encode(), path, top=dict)
    except (ArgumentError, KeyError) as error:
        raise ArgumentError(
            f"{path} must be a network saved by oaks, got another file ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(content.get("architecture"), dict):
        raise ArgumentError(
            f"{path}: architecture must be an object, got {type(content.get('architecture')).__name__}"
        )
    if content.get("format") != FORMAT or content.get("kind") not in KINDS:
        raise ArgumentError(
            f"{path} must have format {FORMAT} and kind {', '.join(KINDS)}, got {content.get('format')!r} and "
            f"{content.get('kind')!r}"
        )
    return content


def _shapes(architecture: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a network, without allocating memory for them.

    Raises:
        ArgumentError: `architecture` describes no network.
    """
    if not isinstance(architecture, dict):
        raise ArgumentError(f"architecture must be an object, got {type(architecture).__name__}")
    for name, value in architecture.items():
        sizes = value if isinstance(value, list) else [value]
        if any(isinstance(size, int | float) and not abs(size) <= _LARGEST_SIZE for size in sizes):
            raise ArgumentError(
                f"architecture: {name[:64]!a} must be at most {_LARGEST_SIZE}, got {str(value)[:64]}"
            )
    try:
        with torch.device("meta"):
            return {name: tuple(value.shape) for name, value in build(architecture).state_dict().items()}
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(f"architecture: {type(error).__name__}: {error}") from error


def load_network(path: str | Path, kind: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network in evaluation mode with float32 weights on the CPU, and its description.

    Args:
        path: the safetensors file.
        kind: the expected one of KINDS; None takes any.

    Raises:
        FileNotFoundError: the file is missing.
        ArgumentError: the file is not a network saved by oaks, is of another kind, or is damaged; the message names it.
    """
    description = read_description(path)
    if kind is not None and description["kind"] != kind:
        raise ArgumentError(f"{path} must be a network of kind {kind!r}, got {description['kind']!r}")
    try:
        expected = _shapes(description["architecture"])
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if found != expected:  # before memory is allocated for the description's shapes
                differ = sorted(
                    name for name in found.keys() | expected if found.get(name) != expected.get(name)
                )
                raise ArgumentError(f"{len(differ)} of them differ, such as {differ[0][:64]!a}")
            state = {name: file.get_tensor(name) for name in found}
        network = build(description["architecture"])
        network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in state.items()})
    except (SafetensorError, RuntimeError, ArgumentError) as error:
        raise ArgumentError(f"{path}: weights must fit their description, got others: {error}") from error
    return network.eval(), description


def load_from_bundle(network: Network) -> tuple[nn.Module, dict[str, Any]]:
    """Return a bundle's network in evaluation mode with float32 weights on the CPU, and its description.

    Args:
        network: an entry of Bundle.weights: a safetensors file, or an ONNX file that `oaks export` wrote.

    Returns:
        The network, and its description as `save_network` takes it.

    Raises:
        BundleError: the file is damaged.
        ArgumentError: its weights do not fit the architecture.
    """
    if network.stored == TORCH:
        with network.bundle.open_path(network.file) as path:
            return load_network(path)
    content = network.bundle.read(network.file)
    onnx_file.check(content, network.label, largest=network.bundle.limits.onnx_fields)
    found = onnx_file.state(content, network.label)
    description = _description(network)
    module = build(description["architecture"])
    expected = module.state_dict()
    if missing := sorted(set(expected) - set(found)):
        raise ArgumentError(
            f"{network.label} must hold all weights, got none of {missing[:3]}; export the bundle again"
        )
    try:
        module.load_state_dict(
            {name: torch.tensor(found[name]).to(value.dtype) for name, value in expected.items()}
        )
    except RuntimeError as error:
        raise ArgumentError(
            f"{network.label}: weights must fit their architecture, got others: {error}"
        ) from error
    return module.eval(), description


def _description(network: Network) -> dict[str, Any]:
    """Return the description of a bundle's network, with the keys of a checkpoint's metadata."""
    bundle, entry = network.bundle, network.bundle.description["networks"][network.role]
    notes = ("architecture", "trained_on", "metrics", "recipe", "heatmap_sigma")
    description = {"kind": network.role, **{name: entry[name] for name in notes if name in entry}}
    description["license"] = entry.get("license", bundle.license)
    part: Any = bundle.detector if network.role == "detector" else bundle.pose
    description["input"] = {name: list(getattr(part, name)) for name in ("size", "mean", "std")}
    if network.role == "detector":
        return description | {"stride": part.stride, "overlap": part.nms}
    description["skeleton"] = bundle.skeleton.to_dict()
    pose = bundle.pose
    description |= {name: getattr(pose, name) for name in ("stride", "padding", "alignment", "refine")}
    if pose.blur_sigma is not None:
        description["blur_sigma"] = pose.blur_sigma
    kind = "visibility" if network.role == "pose" else "similarity"
    if kind in (calibration := bundle.description.get("calibration", {})):
        description["calibration"] = {kind: calibration[kind]}
    return description


__all__ = [
    "check_archive",
    "load_from_bundle",
    "load_network",
    "may_be_damage",
    "read_description",
    "save_network",
]
