"""Pretrained weights of torchvision's ResNet and MobileNetV2, Simple Baselines, HRNet and MoveNet, by name and shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oaks import onnx_file
from oaks.errors import ArgumentError
from oaks.names import number_of
from oaks.training.checkpoint import check_archive, may_be_damage
from oaks.training.networks import KSNet, MobilePoseNetwork, PersonDetector, PoseNetwork
from oaks.training.recipe import InitialWeights

WRAPPINGS = ("state_dict", "model", "net", "model_state_dict")
"""Keys of state dicts in checkpoints."""
_MOBILENET_KEYS = {"features.0.1.running_var", "features.1.conv.1.weight", "features.18.0.weight"}
"""Entries that torchvision's MobileNetV2 has, and its other networks lack."""
_MOBILENET_LAYER = re.compile(r"features\.(\d+)\..+")
_EPSILON = 1e-5
"""Added to the variance by torchvision's batch norm."""
PREFIXES = ("module.", "model.", "network.")
"""Prefixes that DataParallel and training loops add to names."""


@dataclass(frozen=True)
class LoadedWeights:
    """Result of loading a file's weights into a network. Its text is a list for people.

    Attributes:
        path: the file, the first of several.
        loaded: pairs of names, in the file and in the network, in the network's order.
        missing: parameters of the network that keep their values.
        unexpected: unused entries of the file.
        misshapen: entries of the file with another shape than in the network, with both shapes.
        averaged_with: the further files whose weights were averaged with it.
        not_averaged: entries that not all of these files have in the same shape.
    """

    path: Path
    loaded: list[tuple[str, str]]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    averaged_with: list[Path]
    not_averaged: list[str]

    def __str__(self) -> str:
        modules = {place.partition(".")[0]: None for _, place in self.loaded}
        lines = [f"{self.path}: {number_of(len(self.loaded), 'entry', 'entries')} loaded"]
        lines += [f"  {line}" for module in modules for line in self._folded(module)]
        lines += [f"  averaged with {path}" for path in self.averaged_with]
        others = {
            "not averaged": self.not_averaged,
            "not in the file": self.missing,
            "unused": self.unexpected,
            "unused because of their shape": self.misshapen,
        }
        for title, names in others.items():
            if names:
                lines.append(f"  {title} ({len(names)}): {', '.join(names)}")
        return "\n".join(lines)

    def _folded(self, module: str) -> list[str]:
        """Return lines about a module or entry of the network: one line if all its names share a prefix in the file."""
        pairs = [(name, place[len(module) + 1 :]) for name, place in self.loaded if _lies_in(place, module)]
        origins = {name.removesuffix(rest) if name.endswith(rest) else None for name, rest in pairs}
        origin = origins.pop()
        if not origins and origin is not None and not any(_lies_in(name, module) for name in self.missing):
            entry = pairs[0][1] == ""
            return [f"{origin} -> {module}" if entry else f"{origin}* -> {module}.* ({len(pairs)})"]
        parts = {f"{module}.{rest.partition('.')[0]}": None for _, rest in pairs}
        return [line for part in parts for line in self._folded(part)]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, without wrappings and common prefixes.

    Args:
        path: a .safetensors file, a PyTorch checkpoint, or the .onnx file of a bundle that `oaks export` wrote.

    Raises:
        FileNotFoundError: the file is missing.
        ArgumentError: the file holds no state dict; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights not found: {path}")
    if path.suffix == ".onnx":
        held = onnx_file.state(onnx_file.read(path), str(path))
        if not held:
            raise ArgumentError(f"{path} must hold torch weights, got none; export the bundle again")
        return {name: torch.from_numpy(value.copy()) for name, value in held.items()}
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            check_archive(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ArgumentError:
        raise
    except Exception as error:
        if not may_be_damage(error):
            raise
        raise ArgumentError(
            f"{path} must be a file of weights that can be read safely, got {error}"
        ) from error
    for key in WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    state = {n: v for n, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        raise ArgumentError(f"{path} must hold a state dict, got none")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def folded_mobilenet(state: dict[str, Tensor], label: object) -> dict[str, Tensor]:
    """Return torchvision's MobileNetV2 under the names of ours, with batch norm folded into the convolutions.

    Any other state dict is returned as it is. torchvision pads convolutions of stride 2 on all sides, our network on the
    right and at the bottom only, so its features lie up to a cell apart; training adapts to that. `label` is for messages.

    Raises:
        ArgumentError: a convolution has no batch norm.
    """
    if not state.keys() >= _MOBILENET_KEYS:
        return state
    convolutions: dict[int, list[str]] = {}
    norms: dict[int, list[str]] = {}
    for name, value in state.items():
        if found := _MOBILENET_LAYER.fullmatch(name):
            if name.endswith(".weight") and value.ndim == 4:
                convolutions.setdefault(int(found[1]), []).append(name.removesuffix(".weight"))
            elif name.endswith(".running_var"):
                norms.setdefault(int(found[1]), []).append(name.removesuffix(".running_var"))
    folded = {name: value for name, value in state.items() if not _MOBILENET_LAYER.fullmatch(name)}
    for number, own in convolutions.items():
        if len(norms.get(number, [])) != len(own):
            raise ArgumentError(
                f"{label}: every convolution of features.{number} must have a batch norm, got {own}"
            )
        for place, convolution, norm in zip(_places(number, len(own)), own, norms[number], strict=True):
            factor = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPSILON).sqrt()
            folded[f"{place}.weight"] = state[f"{convolution}.weight"] * factor[:, None, None, None]
            folded[f"{place}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor
    return folded


def _places(number: int, convolutions: int) -> list[str]:
    """Return what the convolutions of a layer of torchvision's MobileNetV2 are called in ours."""
    if convolutions == 1:
        return ["stem" if number == 0 else "last"]
    return [f"blocks.{number - 1}.{name}" for name in ("expand", "depthwise", "project")[-convolutions:]]


def candidate_names(network: nn.Module, name: str) -> list[str]:
    """Return the names that an entry `name` of a file may have in a network, the likeliest first."""
    if isinstance(network, PoseNetwork):  # torchvision and Simple Baselines have no prefix for the backbone
        return [name, f"backbone.{name}", f"head.{name}"]
    if isinstance(network, KSNet | MobilePoseNetwork | PersonDetector):
        return [name, f"backbone.{name}"]
    return [name]


def average(states: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the mean of state dicts, and the names of the entries that stay those of the first.

    These are the entries that not all of them have in the same shape. Integers, such as counts of batches, stay those of the
    first too, without being named.
    """
    first, *others = states
    mean, kept = dict(first), []
    for name, value in first.items():
        if not value.is_floating_point():
            continue
        if all(name in state and state[name].shape == value.shape for state in others):
            mean[name] = torch.stack([state[name].float() for state in states]).mean(dim=0).to(value.dtype)
        else:
            kept.append(name)
    return mean, kept


def load_weights(network: nn.Module, initial: InitialWeights) -> LoadedWeights:
    """Load the entries of a file, or the mean of several, into a network if name and shape agree.

    Args:
        network: changed in place; unchanged if an error is raised.
        initial: the files, and patterns of the entries that may be missing or unused.

    Raises:
        FileNotFoundError: a file is missing.
        ArgumentError: an entry has another shape, or one is missing or unused without permission; or files to average
            have nothing in common.
    """
    states = [folded_mobilenet(read_state_dict(path), path) for path in (initial.path, *initial.average_with)]
    (state, kept), own = average(states), network.state_dict()
    if initial.average_with and len(kept) == sum(value.is_floating_point() for value in state.values()):
        names = ", ".join(map(str, initial.average_with))
        raise ArgumentError(f"initial.average_with must be networks like {initial.path}, got {names}")
    loaded: dict[str, str] = {}
    unexpected, misshapen = [], []
    for name, value in state.items():
        place = next((place for place in candidate_names(network, name) if place in own), None)
        if place is None:
            unexpected.append(name)
        elif own[place].shape != value.shape:
            misshapen.append(f"{name} {tuple(value.shape)} for {place} {tuple(own[place].shape)}")
        else:
            loaded[place] = name
    missing = [place for place in own if place not in loaded]
    # Checkpoints from before 2018 lack this count of batches, which nothing depends on.
    missing = [place for place in missing if not place.endswith("num_batches_tracked")]
    refused = [f"  missing: {name}" for name in missing if not _any(name, initial.allow_missing)]
    refused += [f"  unexpected: {name}" for name in unexpected if not _any(name, initial.allow_unexpected)]
    refused += [
        f"  other shape: {line}" for line in misshapen if not _any(line.split()[0], initial.allow_unexpected)
    ]
    if refused or not loaded:
        fitting = f"{initial.path} must fit this {type(network).__name__}, got {len(loaded)} entries that do"
        raise ArgumentError("\n".join([fitting, *refused]))
    own.update({place: state[name].to(own[place].dtype) for place, name in loaded.items()})
    network.load_state_dict(own)
    pairs = [(loaded[place], place) for place in own if place in loaded]
    return LoadedWeights(initial.path, pairs, missing, unexpected, misshapen, initial.average_with, kept)


def freeze(network: nn.Module, patterns: list[str]) -> None:
    """Exclude the parameters whose names match a pattern from training.

    Raises:
        ArgumentError: a pattern matches no parameter.
    """
    names = [name for name, _ in network.named_parameters()]
    if unknown := [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]:
        raise ArgumentError(
            f"initial.freeze must match parameters of {type(network).__name__}, got {unknown}"
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not _any(name, patterns))


def _lies_in(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _any(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


__all__ = [
    "LoadedWeights",
    "average",
    "candidate_names",
    "folded_mobilenet",
    "freeze",
    "load_weights",
    "read_state_dict",
]
