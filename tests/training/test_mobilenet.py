"""MobileNetV2 with MoveNet's pyramid: shapes, published sizes, and the names of MoveNet's published weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from oaks.errors import ArgumentError
from oaks.training import movenet
from oaks.training.losses import pose_loss
from oaks.training.networks import build
from oaks.training.networks.mobilenet import SameConvolution, divisible_by_eight

SMALL = {"name": "mobile_oa_hpe", "width": 0.25, "input": [64, 96], "visibility_hidden": 8}
PREFIX = "StatefulPartitionedCall/"
EXTRACTOR = f"{PREFIX}center_net_mobile_net_v2fpn_feature_extractor/model_1/"


OTHER_HEADS = 2_713 + 2 * 5_914
"""Parameters of MoveNet's center, regression and offset heads, which the pose network lacks."""


@pytest.mark.parametrize(
    ("width", "channels", "published"),
    [(1.0, [24, 32, 64, 1280], 2_317_974), (1.75, [40, 56, 112, 1280], 6_226_046)],
)
def test_network_has_movenets_size(width: float, channels: list[int], published: int) -> None:
    """Parameters of the published Lightning and Thunder graphs, batch norm folded."""
    with torch.device("meta"):
        network = build({"name": "mobile_oa_hpe", "width": width, "visibility": False})
    assert network.backbone.channels == channels
    assert sum(p.numel() for p in network.parameters()) + OTHER_HEADS == published


@pytest.mark.parametrize(
    ("channels", "rounded"), [(42, 40), (28, 32), (36, 40), (4, 8), (44, 48), (11.9, 16)]
)
def test_channels_are_rounded_as_by_the_width_multiplier(channels: float, rounded: int) -> None:
    """The rule of the MobileNet papers' code: the nearest multiple of 8 that is at least nine tenths."""
    assert divisible_by_eight(channels) == rounded


def test_heatmaps_are_probabilities_at_stride_four() -> None:
    network = build(SMALL).eval()
    with torch.no_grad():
        heatmaps, visibility = network(torch.rand(2, 3, 96, 64))
        logits, _ = network.logits(torch.rand(2, 3, 96, 64))
    assert heatmaps.shape == logits.shape == (2, 17, 24, 16)
    assert visibility.shape == (2, 17)
    assert float(heatmaps.min()) > 0
    assert float(heatmaps.max()) < 1


def test_input_must_be_multiples_of_32() -> None:
    with pytest.raises(ValueError, match=r"input must be multiples of 32 .*, got \(64, 100\)"):
        build({**SMALL, "input": [64, 100]})


def test_at_stride_two_the_padding_is_on_the_right_and_at_the_bottom() -> None:
    """Output (i, j) is the sum over rows 2i to 2i + 2 and columns 2j to 2j + 2."""
    layer = SameConvolution(1, 1, 3, 2, bias=False)
    image, kernel = torch.rand(1, 1, 6, 8), layer.weight.detach()[0, 0]
    padded = np.pad(image[0, 0].numpy(), ((0, 1), (0, 1)))
    expected = [
        [(padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * kernel.numpy()).sum() for j in range(4)]
        for i in range(3)
    ]
    np.testing.assert_allclose(layer(image).detach()[0, 0], expected, rtol=1e-5)


def test_visibility_has_no_gradient_through_the_heatmaps() -> None:
    torch.manual_seed(0)  # so few channels may all be 0 behind a ReLU
    network = build(SMALL)
    network(torch.rand(2, 3, 96, 64))[1].sum().backward()
    assert network.heatmap.output.weight.grad is None
    assert float(network.backbone.last.weight.grad.abs().max()) > 0


def test_cross_entropy_of_heatmaps_is_least_at_the_targets() -> None:
    points, one = torch.tensor([[[9.5, 5.5]]]), torch.ones(1, 1)
    named = {"stride": 4, "sigma": 1.0, "kind": "cross_entropy"}
    height, width = 4, 6
    x, y = (9.5 + 0.5) / 4 - 0.5, (5.5 + 0.5) / 4 - 0.5
    target = np.array(
        [[np.exp(-((j - x) ** 2 + (i - y) ** 2) / 2) for j in range(width)] for i in range(height)]
    )
    target = torch.tensor(target.astype(np.float32)).clip(1e-6, 1 - 1e-6)
    exact = torch.logit(target)[None, None]
    entropy = -(target * target.log() + (1 - target) * (1 - target).log()).sum()
    losses = [
        float(pose_loss(exact + shift, None, points, one, one, **named).heatmap) for shift in (0.0, 0.3, -0.3)
    ]
    assert losses[0] == pytest.approx(float(entropy), rel=1e-3)
    assert losses[0] < min(losses[1:])


def published_graph(folder: Path, state: dict[str, torch.Tensor], cut: int = 0) -> Path:
    """Write a TensorFlow.js graph with the published names of some weights, stored in half precision."""
    names = {
        "backbone.stem.weight": EXTRACTOR + "model/Conv1/Conv2D_weights",
        "backbone.stem.bias": EXTRACTOR + "model/Conv1/Conv2D_bn_offset",
        "backbone.blocks.0.depthwise.weight": EXTRACTOR + "model/expanded_conv_depthwise/depthwise_weights",
        "backbone.blocks.3.expand.weight": EXTRACTOR + "model/block_3_expand/Conv2D_weights",
        "pyramid.lateral.1.weight": EXTRACTOR + "conv2d_2/Conv2D/ReadVariableOp",
        "pyramid.lateral.1.bias": EXTRACTOR + "conv2d_2/BiasAdd/ReadVariableOp",
        "pyramid.smooth.2.depthwise.weight": EXTRACTOR + "separable_conv2d/separable_conv2d/ReadVariableOp",
        "pyramid.smooth.2.pointwise.bias": EXTRACTOR + "separable_conv2d/separable_conv2d_bn_offset",
        "heatmap.hidden.depthwise.weight": PREFIX + "kpt_heatmap_0/separable_conv2d_4/separable_conv2d/ReadVariableOp",
        "heatmap.hidden.pointwise.weight": PREFIX + "kpt_heatmap_0/separable_conv2d_4/separable_conv2d/ReadVariableOp_1",
        "heatmap.output.weight": PREFIX + "kpt_heatmap_0/conv2d_5/Conv2D/ReadVariableOp",
        "heatmap.output.bias": PREFIX + "kpt_heatmap_0/conv2d_5/BiasAdd/ReadVariableOp",
    }  # fmt: skip
    weights = [{"name": f"{PREFIX}ArgMax/dimension", "shape": [], "dtype": "int32"}]
    content = np.int32(1).tobytes()
    for place, name in names.items():
        value = state[place].numpy()
        if value.ndim == 4:  # to height, width, inputs, outputs; depthwise: height, width, channels, 1
            value = (
                np.moveaxis(value, (2, 3), (0, 1)) if ".depthwise." in place else value.transpose(2, 3, 1, 0)
            )
        half = {"dtype": "float16", "original_dtype": "float32"}
        weights.append({"name": name, "shape": list(value.shape), "dtype": "float32", "quantization": half})
        content += np.ascontiguousarray(value, "<f2").tobytes()
    (folder / "graph.bin").write_bytes(content[: len(content) - cut])
    graph = folder / "graph.json"
    graph.write_text(json.dumps({"weightsManifest": [{"paths": ["graph.bin"], "weights": weights}]}))
    return graph


def test_published_weights_are_converted(tmp_path: Path) -> None:
    state = {name: value.half().float() for name, value in build(SMALL).state_dict().items()}
    graph, out = published_graph(tmp_path, state), tmp_path / "new" / "movenet.safetensors"
    app = typer.Typer()
    app.command()(movenet.main)
    result = CliRunner().invoke(app, [str(graph), "--out", str(out)])
    assert result.exit_code == 0, result.output
    converted = load_file(out)
    assert len(converted) == 12
    for name, value in converted.items():
        assert value.dtype == torch.float16
        torch.testing.assert_close(value.float(), state[name], rtol=0, atol=0, msg=name)


def test_files_that_are_not_movenets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"graph not found: .*none\.json"):
        movenet.movenet_state(tmp_path / "none.json")
    damaged = tmp_path / "damaged.json"
    (tmp_path / "part.bin").mkdir()
    odd_shape = [{"shape": ["a"], "dtype": "float32"}]
    for groups in (5, [5], [{}], [{"paths": 5}], [{"paths": [], "weights": odd_shape}], None):
        damaged.write_text(json.dumps({"weightsManifest": groups} if groups else []))
        with pytest.raises(ArgumentError, match=r"damaged\.json must be a TensorFlow\.js graph"):
            movenet.movenet_state(damaged)
    damaged.write_text(json.dumps({"weightsManifest": [{"paths": ["part.bin"], "weights": []}]}))
    with pytest.raises(ArgumentError, match=r"part\.bin must be a file, got a folder, FIFO or device"):
        movenet.movenet_state(damaged)
    state = build(SMALL).state_dict()
    with pytest.raises(ValueError, match=r"weights must have \d+ bytes for .*BiasAdd.*, got \d+"):
        movenet.movenet_state(published_graph(tmp_path, state, cut=2))
