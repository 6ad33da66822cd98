"""Every network that recipes can export, as the ONNX files that a runtime loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oaks import onnx_file, training
from oaks.engines.export import precision
from oaks.engines.export.onnx_graph import to_onnx
from oaks.training.networks import build
from oaks.training.networks.ks_net import BACKBONES
from oaks.training.recipe import DetectorRecipe, PoseRecipe, read_recipe

RECIPES = Path(training.__file__).parent / "recipes"
KEYPOINTS = 17

Shape = tuple[int, int, int]
"""(channels, height, width) of a network's input."""


def networks() -> dict[str, tuple[dict[str, Any], Shape]]:
    """Name -> (architecture, input shape): the recipes' networks, then other supported architectures."""
    found: dict[str, tuple[dict[str, Any], Shape]] = {}
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = read_recipe(path)
        shape: Shape = (KEYPOINTS, 64, 48)
        if isinstance(recipe, PoseRecipe | DetectorRecipe):
            shape = (3, recipe.input[1], recipe.input[0])
        elif path.stem.startswith("paper"):
            shape = (KEYPOINTS, 96, 72)
        found[path.stem] = (recipe.architecture(), shape)
    for head in ("deconv", "upsample"):
        architecture = {"name": "oa_hpe", "backbone": "resnet18", "head": head, "input": [192, 256]}
        found[f"head {head}"] = (architecture, (3, 256, 192))
    found["hrnet"] = ({"name": "hrnet", "width": 32}, (3, 256, 192))
    for backbone in BACKBONES:
        found[f"ks_net {backbone}"] = ({"name": "ks_net", "backbone": backbone}, (KEYPOINTS, 64, 48))
    return found


def files(architecture: dict[str, Any], shape: Shape) -> Iterator[tuple[str, bytes]]:
    """(precision, ONNX) in fp32, fp16, fp32 of a file stored as fp16, and int8 with half-stored weights.

    The weights are random: what can be built does not depend on them.
    """
    torch.manual_seed(0)
    network = build(architecture).eval()
    inputs = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    if architecture["name"] == "ks_net":
        names = {"input_name": "heatmaps", "output_names": ["similarity"]}
    elif architecture["name"] == "person_detector":
        names = {"input_name": "pixels", "output_names": ["centers", "sizes", "offsets"]}
    else:
        outputs = network(torch.from_numpy(inputs))
        has_visibility = isinstance(outputs, tuple) and outputs[1] is not None
        names = {"input_name": "crops", "output_names": ["heatmaps", "visibility"][: 1 + has_visibility]}
    plain = to_onnx(network, torch.from_numpy(inputs), **names)
    half = precision.to_fp16(plain).SerializeToString()
    small = precision.with_half_weights(precision.to_int8(plain, [inputs])).SerializeToString()
    yield "fp32", plain.SerializeToString()
    yield "fp16", half
    yield "fp32 of fp16", onnx_file.in_precision(half, "fp16", "fp32", "half")
    yield "int8", onnx_file.in_precision(small, "int8", "int8", "small")
