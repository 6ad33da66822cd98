"""Bundles small enough to compute by hand: one convolution as pose network, one pooling as KS network.

Heatmap k is the mean over 4x4 crop pixels of color channel k % 3 (R, G, B), 0 to 1, plus a faint slope that
makes every map's two largest values unique. Visibility logits are 8 * maximum - 4 per map, similarity logits
6 * maximum - 3 of the averaged map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from oaks import COCO17, Skeleton
from oaks import bundle as bundles

RGB = Skeleton(
    name="rgb", keypoints=("red", "green", "blue"), sigmas=(0.05, 0.05, 0.05), limbs=((0, 1), (1, 2))
)
SIZE = (48, 64)
STRIDE = 4
DETECTOR_INPUT, DETECTOR_STRIDE, PERSON = (96, 64), 8, (16.0, 24.0)
"""The detector's input, its cells, and width and height of everybody it finds: one person around each white cell."""
VISIBILITY = (8.0, -4.0)
SIMILARITY = (6.0, -3.0)


def slope(keypoints: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(K, h, w) float32, below 1e-3: what is added to the maps."""
    width, height = size[0] // STRIDE, size[1] // STRIDE
    steps = np.random.default_rng(0).permuted(np.tile(np.arange(height * width), (keypoints, 1)), axis=1)
    return (steps / (height * width) * 1e-3).astype(np.float32).reshape(keypoints, height, width)


def pose_network(keypoints: int, size: tuple[int, int], *, visibility: bool, half: bool = False) -> bytes:
    width, height = size
    kernel = np.zeros((keypoints, 3, STRIDE, STRIDE), np.float32)
    for k in range(keypoints):
        kernel[k, k % 3] = 1 / STRIDE**2
    nodes = [
        helper.make_node("Conv", ["crops", "kernel"], ["means"], strides=[STRIDE, STRIDE]),
        helper.make_node("Add", ["means", "slope"], ["heatmaps"]),
    ]
    constants = {"kernel": kernel, "slope": slope(keypoints, size)[None]}
    outputs = {"heatmaps": ("N", keypoints, height // STRIDE, width // STRIDE)}
    if visibility:
        nodes += _logits("heatmaps", "visibility", VISIBILITY, constants, keypoints)
        outputs["visibility"] = ("N", keypoints)
    return _model(nodes, constants, {"crops": ("N", 3, height, width)}, outputs, half)


def ks_network(
    keypoints: int,
    size: tuple[int, int],
    *,
    half: bool = False,
    visibility: tuple[float, float] | None = None,
) -> bytes:
    """With `visibility`, the network gives visibility logits too: that scale and bias of the averaged maps' maxima."""
    constants: dict[str, np.ndarray] = {}
    nodes = _logits("heatmaps", "similarity", SIMILARITY, constants, keypoints)
    outputs = {"similarity": ("N", keypoints)}
    if visibility is not None:
        nodes += _logits("heatmaps", "visibility", visibility, constants, keypoints)
        outputs["visibility"] = ("N", keypoints)
    shape = ("N", keypoints, size[1] // STRIDE, size[0] // STRIDE)
    return _model(nodes, constants, {"heatmaps": shape}, outputs, half)


def write(
    folder: Path,
    *,
    skeleton: Skeleton = RGB,
    size: tuple[int, int] = SIZE,
    visibility: bool = True,
    ks: bool = True,
    half: bool = False,
    **description: object,
) -> bundles.Bundle:
    """Write a bundle into a new folder. With `half`, the same networks in fp16 are in it too."""
    folder.mkdir(parents=True)
    for precision in ("fp32", "fp16") if half else ("fp32",):
        made = {"pose": pose_network(skeleton.count, size, visibility=visibility, half=precision == "fp16")}
        if ks:
            made["ks"] = ks_network(skeleton.count, size, half=precision == "fp16")
        for role, content in made.items():
            (folder / f"{role}.{precision}.onnx").write_bytes(content)
    return rewrite(folder, skeleton=skeleton, size=size, **description)


def detector_network() -> bytes:
    """Center logits are 20 * the cell's mean brightness - 10; sizes and offsets are constant."""
    width, height = DETECTOR_INPUT
    side, cells = DETECTOR_STRIDE, (height // DETECTOR_STRIDE, width // DETECTOR_STRIDE)
    constants = {
        "brightness": np.full((1, 3, side, side), 20.0 / 3 / side**2, np.float32),
        "bias": np.array([-10.0], np.float32),
        "nothing": np.zeros((2, 3, side, side), np.float32),
        "extent": np.array(PERSON, np.float32),
        "shift": np.zeros(2, np.float32),
    }
    inputs = {
        "centers": ["pixels", "brightness", "bias"],
        "sizes": ["pixels", "nothing", "extent"],
        "offsets": ["pixels", "nothing", "shift"],
    }
    nodes = [helper.make_node("Conv", taken, [name], strides=[side, side]) for name, taken in inputs.items()]
    outputs = {name: ("N", 1 if name == "centers" else 2, *cells) for name in inputs}
    return _model(nodes, constants, {"pixels": ("N", 3, height, width)}, outputs, half=False)


def write_with_detector(folder: Path, *, skeleton: Skeleton = RGB, half: bool = False) -> bundles.Bundle:
    """Write a bundle that finds people too."""
    write(folder, skeleton=skeleton, half=half)
    (folder / "detector.fp32.onnx").write_bytes(detector_network())
    made = described(sorted(path.name for path in folder.glob("*.onnx")), skeleton=skeleton)
    made["networks"]["detector"] |= {
        "kind": "centers",
        "stride": DETECTOR_STRIDE,
        "input": {"size": list(DETECTOR_INPUT), "mean": [0, 0, 0], "std": [255, 255, 255]},
        "threshold": 0.5,
        "nms": 0.9,
    }
    return bundles.write(folder, made)


def rewrite(folder: Path, names: Iterable[str] | None = None, **description: object) -> bundles.Bundle:
    """Write bundle.json for the files in a folder, or those of them in `names`: ROLE.PRECISION.onnx, ROLE.safetensors."""
    if names is None:
        names = sorted(path.name for path in folder.iterdir() if path.suffix in (".onnx", ".safetensors"))
    return bundles.write(folder, described(names, **description))


def described(
    names: Iterable[str] = (),
    *,
    skeleton: Skeleton = RGB,
    size: tuple[int, int] = SIZE,
    decoder: Mapping[str, object] | None = None,
    input: Mapping[str, object] | None = None,
    **more: object,
) -> dict[str, object]:
    """The description of such a bundle; `decoder` and `input` are the pose network's."""
    files: dict[str, dict[str, str]] = {}
    for name in names:
        role, kind = name.split(".")[:2]
        files.setdefault(role, {})["torch" if kind == "safetensors" else kind] = name
    networks: dict[str, dict[str, object]] = {role: {"files": listed} for role, listed in files.items()}
    if "pose" in networks:
        networks["pose"] |= {
            "kind": "heatmaps",
            "input": {"size": list(size), "mean": [0, 0, 0], "std": [255, 255, 255], **(input or {})},
            "stride": STRIDE,
            "decoder": dict(decoder or {}),
        }
    return {
        "name": "tiny",
        "license": "CC0-1.0",
        "skeleton": skeleton.to_dict(),
        "networks": networks,
        **more,
    }


def expected_maps(crops: np.ndarray, keypoints: int) -> np.ndarray:
    """(N, K, h, w) float64: the pose network's heatmaps for crops (N, 3, H, W), in NumPy."""
    count, _, height, width = crops.shape
    blocks = crops.reshape(count, 3, height // STRIDE, STRIDE, width // STRIDE, STRIDE).astype(np.float64)
    means = blocks.mean(axis=(3, 5))
    return means[:, np.arange(keypoints) % 3] + slope(keypoints, (width, height))


def picture(dots: dict[str, tuple[int, int]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A black BGR image of the input size with a 4x4 dot of full color at each heatmap cell (x, y)."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for name, (x, y) in dots.items():
        image[STRIDE * y : STRIDE * (y + 1), STRIDE * x : STRIDE * (x + 1), "bgr".index(name[0])] = 255
    return image


def _logits(
    source: str, target: str, line: tuple[float, float], constants: dict[str, np.ndarray], keypoints: int
) -> list[onnx.NodeProto]:
    constants[f"{target}_scale"] = np.full((1, keypoints), line[0], np.float32)
    constants[f"{target}_bias"] = np.full((1, keypoints), line[1], np.float32)
    return [
        helper.make_node("GlobalMaxPool", [source], [f"{target}_maximum"]),
        helper.make_node("Flatten", [f"{target}_maximum"], [f"{target}_flat"]),
        helper.make_node("Mul", [f"{target}_flat", f"{target}_scale"], [f"{target}_scaled"]),
        helper.make_node("Add", [f"{target}_scaled", f"{target}_bias"], [target]),
    ]


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: dict[str, tuple[object, ...]],
    outputs: dict[str, tuple[object, ...]],
    half: bool,
) -> bytes:
    element, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


__all__ = [
    "COCO17", "DETECTOR_INPUT", "DETECTOR_STRIDE", "PERSON", "RGB", "SIZE", "STRIDE", "described", "expected_maps",
    "picture", "write", "write_with_detector",
]  # fmt: skip
