"""Removes the end of MoveNet MultiPose's backbone, for the recipe `person_detector`.

    python -m oaks.training.shorten runs/pretrained/movenet_multipose.safetensors --images DIR --out FILE

The last block and the last convolution hold a third of the parameters. A convolution on the block before them replaces their
input to the pyramid; its weights are fitted to that input by ridge regression on pictures. The recipe starts from the
resulting weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from safetensors.torch import save
from torch import Tensor

from oaks.detector import letterbox
from oaks.errors import ArgumentError
from oaks.files import replacing
from oaks.images import images_in, readable_images
from oaks.training.networks.detector import PersonDetector
from oaks.training.networks.mobilenet import BLOCKS
from oaks.training.pretrained import read_state_dict

WIDTH, SIZE = 1.5, (320, 320)
"""Width of MultiPose's backbone; input size of the recipe `person_detector`."""
MEAN = STD = 127.5
"""MoveNet's input is from -1 to 1."""
RIDGE = 1e-4
LATERAL = "pyramid.lateral.3"


def shorten(state: dict[str, Tensor], pixels: list[np.ndarray]) -> tuple[dict[str, Tensor], float]:
    """Return the weights of a detector without the backbone's last block and last convolution.

    Args:
        state: state dict of `PersonDetector(width=1.5)`; other entries are ignored.
        pixels: (H, W, 3) uint8 RGB pictures to fit on, H and W multiples of 32.

    Returns:
        The float32 state dict of `PersonDetector(width=1.5, blocks=16)`, and the fraction of the variance of the pyramid's
        input that the fitted convolution explains.

    Raises:
        ArgumentError: weights are missing.
    """
    whole, cut = PersonDetector(width=WIDTH).eval(), PersonDetector(width=WIDTH, blocks=BLOCKS - 1).eval()
    if missing := sorted(set(whole.state_dict()) - set(state)):
        raise ArgumentError(f"weights must be those of MultiPose, got none of {missing[0]}")
    whole.load_state_dict({name: state[name].float() for name in whole.state_dict()})
    own = cut.state_dict()
    own |= {
        name: value
        for name, value in whole.state_dict().items()
        if name in own and not name.startswith(LATERAL)
    }
    cut.load_state_dict(own)
    inputs, outputs = [], []
    for picture in track(pixels, "fitting", console=Console(stderr=True)):
        x = (torch.from_numpy(picture).permute(2, 0, 1)[None].float() - MEAN) / STD
        with torch.inference_mode():
            inputs.append(cut.backbone(x)[3][0].flatten(1).T)
            outputs.append(whole.pyramid.lateral["3"](whole.backbone(x)[3])[0].flatten(1).T)
    x, y = torch.cat(inputs).double(), torch.cat(outputs).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    fitted = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    explained = 1 - ((x @ fitted - y).square().sum() / (y - y.mean(0)).square().sum()).item()
    own[f"{LATERAL}.weight"] = fitted[:-1].T.float()[:, :, None, None].contiguous()
    own[f"{LATERAL}.bias"] = fitted[-1].float()
    return own, explained


def main(
    weights: Annotated[
        Path, typer.Argument(help="MultiPose's weights, as oaks.training.movenet writes them.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of pictures with people, for training.")],
    out: Annotated[Path, typer.Option(help="New safetensors file.")],
    count: Annotated[int, typer.Option(min=20, help="Pictures to fit on.")] = 200,
) -> None:
    """Remove the end of MultiPose's backbone."""
    paths = images_in(images)
    chosen = [paths[at] for at in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    pixels = [letterbox(image, SIZE, swap=True)[0] for _, image in readable_images(chosen)]
    state, explained = shorten(read_state_dict(weights), pixels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        file.write(save({name: value.half() for name, value in state.items()}))
    typer.echo(
        f"{out}: {sum(value.numel() for value in state.values()):,} parameters, {explained:.1%} of the variance"
    )


if __name__ == "__main__":
    typer.run(main)


__all__ = ["shorten"]
