"""Size and cost of networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from oaks.training.networks import ResNet, build


class Size(NamedTuple):
    """Number of parameters, and multiply-accumulates of a forward pass on one person."""

    parameters: int
    macs: int


def measure(network: nn.Module, shape: tuple[int, ...]) -> Size:
    """Return the size of a network for an input of `shape` (without the batch axis).

    As in published figures, only convolutions and fully connected layers count as multiply-accumulates.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call = network.classify if isinstance(network, ResNet) and network.fc is not None else network
        call(torch.zeros(1, *shape, device=device))
    network.train(was_training)
    return Size(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


def describe(architecture: dict[str, Any], size: tuple[int, int]) -> Size:
    """Return the size of the network that `architecture` describes, for crops of `size` (width, height).

    The input of a KS-net is heatmaps of a quarter of that size.
    """
    network = build(architecture)
    width, height = size
    if architecture["name"] == "ks_net":
        return measure(network, (architecture.get("keypoints", 17), height // 4, width // 4))
    return measure(network, (3, height, width))


__all__ = ["Size", "describe", "measure"]
