"""Exports checkpoints to a bundle: ONNX in each precision, compared with the torch network before it is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks import bundle, onnx_file, ops
from oaks.boxes import to_xyxy
from oaks.bundle_files import DESCRIPTION
from oaks.engines.export import compare, precision, torch_weights
from oaks.engines.export.onnx_graph import to_onnx
from oaks.engines.export.samples import crop_of, load_crops, split
from oaks.errors import ArgumentError, OaksError
from oaks.files import replacing_folder
from oaks.names import number_of
from oaks.skeleton import Skeleton

if TYPE_CHECKING:
    import onnx
    import torch
    from rich.progress import Progress

    from oaks.bundle import Bundle

COMPARED, CALIBRATED = 32, 256
"""Number of crops for the comparison, and the most other crops for the calibration of int8."""

RENDERED = "rendered"
"""Value of `crops` for rendered people."""

_SEED = 20190616

WIDENED = "fp32 of fp16"
"""Name, in the table of differences, of the fp32 network that is made from an fp16 file (docs/bundles.md)."""


class ExportError(OaksError, RuntimeError):
    """An exported network is too far from the torch network. Nothing has been written."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A checkpoint, and the inputs that its exports are compared and calibrated on."""

    kind: str
    checkpoint: Path
    network: torch.nn.Module
    description: Mapping[str, Any]
    compared: np.ndarray
    calibrated: np.ndarray


def export(
    pose: str | Path,
    ks: str | Path | None = None,
    *,
    out: str | Path,
    precisions: Sequence[str] = ("fp16",),
    crops: str | Path | np.ndarray | None = None,
    tolerance: Mapping[str, float] | None = None,
    keep_float: Sequence[str] | None = None,
    name: str | None = None,
    float_ks: bool = False,
    detector: str | None = None,
    show: bool = True,
) -> Bundle:
    """Write a bundle from trained networks.

    Args:
        pose: checkpoint (.safetensors) of a pose network.
        ks: checkpoint of the KS network for its heatmaps, if there is one.
        out: the bundle's folder; an existing bundle is replaced once the new one is complete.
        precisions: of "fp32", "fp16", "int8"; both networks are written in each. An fp16 file serves fp32,
            the torch backend and fine-tuning too, so "fp32" is for networks whose values float16 cannot hold.
        crops: pictures of people to compare on and to calibrate int8 on (oaks.engines.export.samples.load_crops).
            None: rendered people, which int8 needs to be given explicitly, as "rendered".
        tolerance: precision -> largest typical difference; default: oaks.engines.export.compare.TOLERANCE.
        keep_float: names of ONNX nodes of either network that int8 leaves in float32; default: those that output
            heatmaps, and depthwise convolutions.
        name: name of the bundle; default: the folder's name.
        float_ks: whether the KS network is written in fp16 in place of int8; the Engine then runs it in fp32 beside
            the pose network in int8. It is the cheaper of the two, and int8 changes its outputs more.
        detector: name of a shipped bundle whose detector this bundle uses.
        show: whether to show progress and print the differences, on standard error.

    Returns:
        The bundle, loaded and checked. It holds pose.PRECISION.onnx and ks.PRECISION.onnx.

    Raises:
        ArgumentError: an argument does not fit, or the checkpoints do not fit each other.
        FileNotFoundError: a checkpoint or the crops do not exist.
        ExportError: a precision differs from the torch network by more than its tolerance; nothing is written.
    """
    precisions = check_precisions(precisions, tolerance)
    if "int8" in precisions and crops is None:
        raise ArgumentError(
            f"crops must be given for int8, got None; pass pictures of people to calibrate on, or {RENDERED!r}"
        )
    if detector is not None and detector not in bundle.shipped():
        raise ArgumentError(f"detector must be a shipped bundle, {bundle.shipped()}, got {detector!r}")
    out = Path(out)
    check_out(out)
    with progress_on(show) as progress:
        step = progress.add_task("reading people")
        trained = _load(Path(pose), ks, RENDERED if crops is None else crops, precisions)
        progress.update(step, description="exporting", total=len(trained) * len(precisions))
        graphs = [graph_of(part) for part in trained]
        if unknown := set(keep_float or ()) - {node.name for graph in graphs for node in graph.graph.node}:
            raise ArgumentError(f"keep_float must be names of nodes of the networks, got {sorted(unknown)}")
        with replacing_folder(out) as folder:
            files: dict[str, dict[str, str]] = {}
            rows: list[compare.Difference] = []
            for part, graph in zip(trained, graphs, strict=True):
                kinds: Sequence[str] = precisions
                if part.kind == "ks" and float_ks:
                    kinds = list(dict.fromkeys("fp16" if kind == "int8" else kind for kind in precisions))
                converted = models(part, graph, kinds, tolerance or {}, keep_float)
                files[part.kind], found = write_models(
                    folder, part.kind, converted, lambda: progress.advance(step)
                )
                rows += found
            progress.console.print(compare.table(rows))
            check_differences(rows)
            people = "array" if isinstance(crops, np.ndarray) else Path(crops or RENDERED).name
            described = _describe(name or out.name, trained, files, rows, people)
            if detector is not None:
                described["networks"]["detector"] = {"bundle": detector}
            bundle.write(folder, described)
    return bundle.Bundle.load(out)


def check_out(out: Path) -> None:
    """Raise an error if a bundle must not be written to `out`."""
    if out.exists() and not (out / DESCRIPTION).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ArgumentError(f"out must be a new folder or a bundle to replace, got {out}, which is neither")


def progress_on(show: bool) -> Progress:
    """Progress bars. Their console also prints the differences."""
    from oaks.progress import bars, plain_console

    return bars(shown=show, console=plain_console(quiet=not show))


def check_precisions(precisions: Sequence[str], tolerance: Mapping[str, float] | None) -> tuple[str, ...]:
    """Return the precisions without duplicates; raise an error if they or the tolerances are unknown."""
    precisions = (precisions,) if isinstance(precisions, str) else tuple(dict.fromkeys(precisions))
    if not precisions or set(precisions) - set(bundle.PRECISIONS):
        raise ArgumentError(f"precisions must be some of {list(bundle.PRECISIONS)}, got {list(precisions)}")
    if unknown := set(tolerance or {}) - set(precisions):
        raise ArgumentError(
            f"tolerance must be for precisions that are exported, {list(precisions)}, got {sorted(unknown)}"
        )
    return precisions


def _load(
    pose: Path, ks: str | Path | None, crops: str | Path | np.ndarray, precisions: Sequence[str]
) -> list[TrainedNetwork]:
    """Load the checkpoints with their inputs: crops of people; for the KS network, heatmaps of these crops."""
    network, description = load_checkpoint(pose, "pose")
    count = COMPARED + CALIBRATED if "int8" in precisions else COMPARED
    if isinstance(crops, str) and crops == RENDERED:
        people = _rendered(description, count)
    else:
        people = load_crops(crops, description, count=count)
    if "int8" in precisions and len(people) < 2:
        raise ArgumentError("crops must be 2 or more, to calibrate int8 on some and compare on others, got 1")
    trained = [TrainedNetwork("pose", pose, network, description, *split(people, COMPARED))]
    if ks is not None:
        ks_network, ks_description = load_checkpoint(ks, "ks")
        given, taken = (Skeleton.from_dict(d["skeleton"]).keypoints for d in (description, ks_description))
        if given != taken:
            raise ArgumentError(f"ks must have the pose network's keypoints {given}, got {taken}")
        heatmaps = _averaged(network, description, people)
        trained.append(TrainedNetwork("ks", Path(ks), ks_network, ks_description, *split(heatmaps, COMPARED)))
    return trained


def load_checkpoint(path: str | Path, kind: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a trained network of a kind; here the export of networks meets their training."""
    from oaks.training.checkpoint import load_network

    return load_network(path, kind)


def _rendered(description: Mapping[str, Any], count: int) -> np.ndarray:
    """Return crops (count, 3, height, width) of rendered people, the same in every run."""
    from oaks.training.render import RenderedPeople

    def crops() -> Iterator[np.ndarray]:
        pictures, padding = RenderedPeople(seed=_SEED), float(description.get("padding", 1.25))
        for index in itertools.count():
            image, people = pictures.sample(index)
            for person in people:
                yield crop_of(image, to_xyxy(person["bbox"]), description, padding)

    return np.stack(list(itertools.islice(crops(), count)))


def _averaged(pose: torch.nn.Module, description: Mapping[str, Any], people: np.ndarray) -> np.ndarray:
    straight = compare.torch_outputs(pose, people)[0]
    mirrored = compare.torch_outputs(pose, np.ascontiguousarray(people[..., ::-1]))[0]
    pairs = Skeleton.from_dict(description["skeleton"]).pairs
    alignment = description.get("alignment", "half_pixel")
    return ops.decode(straight, mirrored, flip_pairs=pairs, alignment=alignment, average=True).heatmaps


def graph_of(part: TrainedNetwork) -> onnx.ModelProto:
    """Return the ONNX graph of a network in float32, with the input and output names of bundles."""
    import torch

    input_name, names = {
        "pose": ("crops", ["heatmaps", "visibility"]),
        "ks": ("heatmaps", ["similarity", "visibility"]),
        "detector": ("pixels", ["centers", "sizes", "offsets"]),
    }[part.kind]
    outputs = names[: len(compare.torch_outputs(part.network, part.compared[:1]))]
    example = torch.from_numpy(np.repeat(part.compared[:1], 2, axis=0))
    graph = to_onnx(part.network, example, input_name=input_name, output_names=outputs)
    torch_weights.rename_folded(graph, part.network.state_dict())
    return graph


def models(
    part: TrainedNetwork,
    graph: onnx.ModelProto,
    precisions: Sequence[str],
    tolerance: Mapping[str, float],
    keep_float: Sequence[str] | None,
) -> Iterator[tuple[str, onnx.ModelProto, list[compare.Difference]]]:
    """Yield (precision, model, differences from the torch network) for each precision."""
    expected = compare.torch_outputs(part.network, part.compared)
    spares = torch_weights.spares(graph, part.network.state_dict())
    for kind in precisions:
        model = _in_precision(kind, graph, part, keep_float)
        settings: dict[str, Any] = {"network": part.kind, "tolerance": tolerance.get(kind)}
        rows = compare.differences(model, expected, part.compared, precision=kind, **settings)
        if kind == "fp16" and "fp32" not in precisions:
            wide = _widened(model)
            rows += compare.differences(wide, expected, part.compared, precision=WIDENED, **settings)
        if kind != "int8":
            model.graph.initializer.extend(spares)
        yield kind, model, rows


def write_models(
    folder: Path,
    role: str,
    converted: Iterable[tuple[str, onnx.ModelProto, list[compare.Difference]]],
    advance: Callable[[], object],
) -> tuple[dict[str, str], list[compare.Difference]]:
    """Write the models of one role to ROLE.PRECISION.onnx; return their file names by precision, and the differences."""
    files, rows = {}, []
    for kind, model, found in converted:
        files[kind] = f"{role}.{kind}.onnx"
        (folder / files[kind]).write_bytes(model.SerializeToString())
        rows += found
        advance()
    return files, rows


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    content = onnx_file.in_precision(model.SerializeToString(), "fp16", "fp32", "the fp16 network")
    wide = onnx.load_from_string(content)
    onnx.checker.check_model(wide, full_check=True)
    return wide


def _in_precision(
    kind: str, plain: onnx.ModelProto, part: TrainedNetwork, keep_float: Sequence[str] | None
) -> onnx.ModelProto:
    if kind == "fp16":
        if beyond := compare.exceeds_half_range(plain, part.compared):
            worst = max(beyond, key=beyond.__getitem__)
            raise ExportError(
                f"the {part.kind} network in fp16: {number_of(len(beyond), 'tensor holds', 'tensors hold')} values above "
                f"{precision.HALF_MAX:.0f}, which float16 cannot hold; {worst!r} reaches {beyond[worst]:.3g}. "
                "Export fp32 or int8"
            )
        return precision.to_fp16(plain)
    if kind == "int8":
        names = {node.name for node in plain.graph.node}
        kept = None if keep_float is None else [node for node in keep_float if node in names]
        batches = np.array_split(part.calibrated, -(-len(part.calibrated) // compare.BATCH))
        return precision.with_half_weights(precision.to_int8(plain, batches, keep_float=kept))
    return plain


def check_differences(rows: Sequence[compare.Difference]) -> None:
    if far := [row for row in rows if not row.accepted]:
        listed = "; ".join(
            f"{row.network} {row.precision} {row.output} by {row.typical:.3g}, tolerance {row.tolerance:.3g}"
            for row in far
        )
        raise ExportError(
            f"differences from the torch network exceed the tolerance, so nothing is written: {listed}"
        )


def _describe(
    name: str,
    trained: Sequence[TrainedNetwork],
    files: Mapping[str, Mapping[str, str]],
    rows: Sequence[compare.Difference],
    people: str,
) -> dict[str, Any]:
    """Return the content of bundle.json, except format, files and scorer."""
    pose = trained[0].description
    calibration: dict[str, Any] = {}
    for part in trained:
        calibration.update(part.description.get("calibration") or {})
    networks = {part.kind: network_entry(part.description, files[part.kind]) for part in trained}
    given = {"alignment", "refine"} | ({"blur_sigma"} if pose.get("refine") == "dark" else set())
    networks["pose"] |= {
        "kind": "heatmaps",
        "stride": pose["stride"],
        "input": {key: list(pose["input"][key]) for key in ("size", "mean", "std")},
        "decoder": {key: pose[key] for key in sorted(given) if pose.get(key) is not None},
    }
    if pose.get("padding") is not None:
        networks["pose"]["input"]["padding"] = pose["padding"]
    if pose.get("heatmap_sigma") is not None:
        networks["pose"]["heatmap_sigma"] = pose["heatmap_sigma"]
    description: dict[str, Any] = {
        "name": name,
        "license": "; ".join(
            dict.fromkeys(part.description.get("license") or "unspecified" for part in trained)
        ),
        "skeleton": pose["skeleton"],
        "networks": networks,
        "score": "oaks" if {"visibility", "similarity"} <= {r.output for r in rows} else "conventional",
    }
    if calibration:
        description["calibration"] = calibration
    description["extra"] = {
        "export": {
            "people": people,
            "compared_on": len(trained[0].compared),
            "calibrated_on": len(trained[0].calibrated) if any(r.precision == "int8" for r in rows) else 0,
            "differences": [asdict(row) for row in rows],
        }
    }
    return description


def network_entry(description: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"files": dict(files)}
    if set(files) != {"int8"}:  # an int8 file holds no weights that torch can load
        entry["architecture"] = description["architecture"]
    for key in ("trained_on", "metrics"):
        if description.get(key):
            entry[key] = description[key]
    return entry


__all__ = ["CALIBRATED", "COMPARED", "ExportError", "export"]
