"""The torch weights that an exported graph does not hold unchanged, stored beside it (docs/bundles.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from oaks.onnx_file import SCALE, SPARE, WEIGHTS

if TYPE_CHECKING:
    import onnx
    import torch

_SAME = 1e-5
"""Largest difference, relative to a tensor's largest value, that counts as the same tensor."""


def spares(graph: onnx.ModelProto, weights: Mapping[str, torch.Tensor]) -> list[onnx.TensorProto]:
    """Return initializers to add to an exported graph, so that oaks.onnx_file.state returns all torch weights.

    Args:
        graph: float32 graph, as to_onnx returns it.
        weights: the network's state_dict.

    Returns:
        For a tensor that the graph holds under its own name: nothing, or, if folding has multiplied it, the factors,
        one per output channel. All other tensors unchanged.
    """
    from onnx import numpy_helper

    held = {tensor.name: tensor for tensor in graph.graph.initializer}
    added = []
    for name, value in weights.items():
        array = value.detach().cpu().numpy()
        factor = None
        if (tensor := held.get(WEIGHTS + name)) is not None:
            factor = _factor(numpy_helper.to_array(tensor), array)
        if factor is None:
            added.append(numpy_helper.from_array(array, SPARE + name))
        elif factor.size:
            added.append(numpy_helper.from_array(factor, SCALE + name))
    return added


def rename_folded(graph: onnx.ModelProto, weights: Mapping[str, torch.Tensor]) -> None:
    """Remove the prefix of torch parameters from initializers that are none, such as biases made by folding."""
    others = {
        tensor.name: f"folded.{tensor.name.removeprefix(WEIGHTS)}"
        for tensor in graph.graph.initializer
        if tensor.name.startswith(WEIGHTS) and tensor.name.removeprefix(WEIGHTS) not in weights
    }
    for value in (*graph.graph.initializer, *graph.graph.value_info):
        value.name = others.get(value.name, value.name)
    for node in graph.graph.node:
        node.input[:] = [others.get(name, name) for name in node.input]


def _factor(held: np.ndarray, array: np.ndarray) -> np.ndarray | None:
    """Return the factors with held = array * factors; empty if both are equal, None if there are no such factors."""
    if held.shape != array.shape or held.dtype != array.dtype:
        return None
    if _close(held, array):
        return np.zeros(0, np.float32)
    for axis in range(min(array.ndim, 2)):  # output channels: axis 0 of a convolution, 1 of a deconvolution
        others = tuple(i for i in range(array.ndim) if i != axis)
        wide = array.astype(np.float64)
        norm = (wide * wide).sum(others, keepdims=True)
        factor = (wide * held).sum(others, keepdims=True) / np.where(norm == 0, 1, norm)
        if _close(held, wide * factor) and (factor != 0).all():
            return factor.astype(np.float32)
    return None


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max(initial=0) <= _SAME * max(np.abs(a).max(initial=0), 1e-30))


__all__ = ["rename_folded", "spares"]
