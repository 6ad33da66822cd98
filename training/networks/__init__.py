"""All networks, by name."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from oaks.arguments import check_choice
from oaks.errors import ArgumentError
from oaks.training.networks.detector import PersonDetector
from oaks.training.networks.hrnet import HRNet
from oaks.training.networks.ks_net import KSNet
from oaks.training.networks.mobilenet import MobilePoseNetwork
from oaks.training.networks.pose import PoseNetwork
from oaks.training.networks.resnet import ResNet

NETWORKS: dict[str, type[nn.Module]] = {
    "oa_hpe": PoseNetwork,
    "mobile_oa_hpe": MobilePoseNetwork,
    "hrnet": HRNet,
    "ks_net": KSNet,
    "person_detector": PersonDetector,
}


def build(architecture: dict[str, Any]) -> nn.Module:
    """Return the network that `architecture` describes, with random weights, in training mode.

    "oa_hpe", "mobile_oa_hpe" and "hrnet" map normalized crops (N,3,H,W) to heatmaps (N,K,h,w) and visibility logits (N,K)
    or None; "person_detector" maps pixels to centers, sizes and offsets of person boxes; "ks_net" maps flip-averaged
    heatmaps (N,K,h,w) to KS logits (N,K), and with `visibility` to visibility logits too.

    Args:
        architecture: "name" (a key of NETWORKS) and the keyword arguments of that network.

    Raises:
        ArgumentError: a name or an argument is unknown, or a value does not fit.
    """
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    check_choice("architecture: name", name, NETWORKS)
    known = set(inspect.signature(NETWORKS[name]).parameters)
    if unknown := set(arguments) - known:
        raise ArgumentError(
            f"architecture: arguments must be some of {sorted(known)} for {name}, got {sorted(unknown)}"
        )
    return NETWORKS[name](**arguments)


def channels_last(network: nn.Module) -> nn.Module:
    """Convert a network's weights to the memory format with the fastest convolutions."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads lack it


__all__ = [
    "NETWORKS",
    "HRNet",
    "KSNet",
    "MobilePoseNetwork",
    "PersonDetector",
    "PoseNetwork",
    "ResNet",
    "build",
    "channels_last",
]
