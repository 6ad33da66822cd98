"""ONNX graphs of torch networks: equal outputs for every batch, and the form that runtimes require."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from oaks.engines.export.onnx_graph import OPSET, to_onnx
from oaks.engines.export.precision import to_fp16
from oaks.training.networks import KSNet
from tests.engines.conftest import SIZE, Small, noise, settle

OUTPUTS = ["heatmaps", "visibility"]


def run(model: onnx.ModelProto, inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"crops": inputs})


def export(network: nn.Module, outputs=OUTPUTS) -> onnx.ModelProto:
    return to_onnx(network, torch.zeros(2, 3, SIZE[1], SIZE[0]), input_name="crops", output_names=outputs)


@pytest.fixture(scope="module", params=["nearest", "bilinear"])
def exported(request):
    torch.manual_seed(0)
    network = settle(Small(upsample=request.param), torch.from_numpy(noise(8, 3, SIZE[1], SIZE[0])))
    return network, export(network)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_outputs_are_those_of_torch_for_any_batch(exported, batch):
    network, model = exported
    crops = noise(batch, 3, SIZE[1], SIZE[0], seed=batch)
    with torch.no_grad():
        expected = [output.numpy() for output in network(torch.from_numpy(crops))]
    for ours, theirs in zip(run(model, crops), expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_names_and_shapes_are_those_of_bundles(exported):
    graph = exported[1].graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "crops": ["batch", 3, 64, 48],
        "heatmaps": ["batch", 5, 16, 12],
        "visibility": ["batch", 5],
    }


def test_batch_norm_is_folded_and_nothing_is_computed_from_shapes(exported):
    kinds = {node.op_type for node in exported[1].graph.node}
    assert kinds == {"Conv", "Relu", "MaxPool", "Add", "ConvTranspose", "Resize", "ReduceMean", "Gemm"}


def test_only_the_standard_opset_is_used(exported):
    model = exported[1]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.ir_version == 8
    assert {node.domain for node in model.graph.node} == {""}


def test_the_model_names_no_source_files(exported):
    """torch records the source line of every node."""
    content = exported[1].SerializeToString()
    assert b".py" not in content
    assert not exported[1].metadata_props
    assert not any(node.metadata_props for node in exported[1].graph.node)


def test_an_output_that_is_none_is_omitted():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 4, 4)

        def forward(self, x):
            return self.layer(x), None

    model = export(Half().eval(), ["heatmaps"])
    assert [output.name for output in model.graph.output] == ["heatmaps"]


def test_a_network_in_training_mode_is_refused(small):
    with pytest.raises(ValueError, match=r"network must be in eval mode"):
        export(small.train())


def test_another_number_of_outputs_is_refused(small):
    with pytest.raises(ValueError, match=r"output_names must be 2.*\['heatmaps'\]"):
        export(small, ["heatmaps"])


@pytest.mark.parametrize("head", ["fpn", "deconv"])
def test_the_graphs_of_all_heads_are_plain(head):
    from oaks.training.networks import build

    architecture = {"name": "oa_hpe", "backbone": "resnet18", "channels": [8, 8, 8, 8], "head": head,
                    "head_channels": 8, "visibility_channels": 4, "visibility_hidden": 8,
                    "input": [64, 64]}  # fmt: skip
    torch.manual_seed(0)
    network = build(architecture).eval()
    model = to_onnx(network, torch.zeros(2, 3, 64, 64), input_name="crops", output_names=OUTPUTS)
    unwanted = {"Shape", "Gather", "Concat", "BatchNormalization"}
    assert not {node.op_type for node in model.graph.node} & unwanted
    crops = noise(3, 3, 64, 64)
    with torch.no_grad():
        expected = network(torch.from_numpy(crops))[0].numpy()
    np.testing.assert_allclose(run(model, crops)[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 5), (48, 144), (13, 10), (7, 3), (18, 10)])
def test_resized_maps_have_torchs_size_for_any_ratio(size):
    """In a pyramid over a map of odd size 5 columns become 9, although 5 times 1.8 in float32 is less than 9."""

    class Enlarge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(x, size=[size[0], size[0]], mode="nearest")

    maps = torch.from_numpy(noise(3, 2, size[1], size[1]))
    model = to_onnx(Enlarge().eval(), maps[:2], input_name="crops", output_names=["y"])
    np.testing.assert_array_equal(run(model, maps.numpy())[0], Enlarge()(maps).numpy())


@pytest.mark.parametrize("convert", [lambda model: model, to_fp16])
def test_outputs_of_a_ks_net_with_map_figures_are_those_of_torch(convert):
    torch.manual_seed(0)
    maps = torch.from_numpy(np.abs(noise(8, 5, 32, 24)).astype(np.float32) ** 2)
    network = settle(KSNet(width=0.125, fine=True, figures=True, hidden=16, keypoints=5), maps)
    model = convert(to_onnx(network, maps[:2], input_name="heatmaps", output_names=["similarity"]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(maps).numpy()
    (ours,) = session.run(None, {"heatmaps": maps.numpy()})
    np.testing.assert_allclose(ours, expected, atol=1e-5 if convert is not to_fp16 else 0.02)
