"""Exports a trained person detector to a bundle: ONNX in each precision, compared with the torch network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks import bundle
from oaks.arguments import check_share
from oaks.detector import letterbox
from oaks.engines.export import compare, precision
from oaks.engines.export.export import (
    CALIBRATED,
    COMPARED,
    TrainedNetwork,
    check_differences,
    check_out,
    check_precisions,
    graph_of,
    load_checkpoint,
    models,
    network_entry,
    progress_on,
    write_models,
)
from oaks.engines.export.samples import split
from oaks.errors import ArgumentError
from oaks.files import replacing_folder
from oaks.images import images_in, readable_images

if TYPE_CHECKING:
    from oaks.bundle import Bundle


def export_detector(
    checkpoint: str | Path,
    *,
    images: str | Path,
    out: str | Path,
    threshold: float,
    precisions: Sequence[str] = ("fp16", "int8"),
    tolerance: Mapping[str, float] | None = None,
    name: str | None = None,
    card: str | Path | None = None,
    show: bool = True,
) -> Bundle:
    """Write a bundle with the role `detector` from a trained person detector.

    Args:
        checkpoint: .safetensors file of a training with the recipe `person_detector`.
        images: folder of pictures to compare on and to calibrate int8 on.
        out: the bundle's folder; an existing bundle is replaced once the new one is complete.
        threshold: smallest score of a person, chosen on held-out images.
        precisions: of "fp32", "fp16", "int8"; an fp16 file serves fp32 and the torch backend too.
        tolerance: precision -> largest typical difference; default: oaks.engines.export.compare.TOLERANCE.
        name: name of the bundle; default: the folder's name.
        card: the model card, copied into the bundle as README.md.
        show: whether to show progress and print the differences, on standard error.

    Returns:
        The bundle, loaded and checked.

    Raises:
        ArgumentError: an argument does not fit.
        FileNotFoundError: the checkpoint, the card or the images are missing.
        ExportError: a precision differs from the torch network by more than its tolerance; nothing is written.
    """
    out, precisions = Path(out), check_precisions(precisions, tolerance)
    check_share("threshold", threshold)
    check_out(out)
    network, description = load_checkpoint(checkpoint, "detector")
    with progress_on(show) as progress:
        step = progress.add_task("reading images", total=None)
        compared, calibrated = split(_inputs(Path(images), description), COMPARED)
        part = TrainedNetwork("detector", Path(checkpoint), network, description, compared, calibrated)
        progress.update(step, description="exporting", total=len(precisions))
        graph = graph_of(part)
        kept = [*precision.layers_after_backbone(graph), *precision.depthwise_layers(graph)]
        converted = models(part, graph, precisions, tolerance or {}, kept)
        with replacing_folder(out) as folder:
            files, rows = write_models(folder, "detector", converted, lambda: progress.advance(step))
            progress.console.print(compare.table(rows))
            check_differences(rows)
            described = _describe(name or out.name, description, files, threshold, rows, Path(images).name)
            if card is not None:
                (folder / "README.md").write_bytes(Path(card).read_bytes())
                described["card"] = "README.md"
            bundle.write(folder, described)
    return bundle.Bundle.load(out)


def _inputs(folder: Path, description: Mapping[str, Any]) -> np.ndarray:
    """(N, 3, H, W) float32: pictures of a folder, evenly spread, as the detector takes them; unreadable ones are skipped."""
    paths = images_in(folder)
    if len(paths) < 2:
        raise ArgumentError(f"images must be a folder of 2 or more pictures, got {folder} with {len(paths)}")
    count = min(COMPARED + CALIBRATED // 4, len(paths))
    taken = description["input"]
    mean, std = np.float32(taken["mean"]), np.float32(taken["std"])
    chosen = [paths[at] for at in np.linspace(0, len(paths) - 1, count).astype(int)]
    pixels = [letterbox(image, tuple(taken["size"]), swap=True)[0] for _, image in readable_images(chosen)]
    if len(pixels) < 2:
        raise ArgumentError(
            f"images must hold 2 or more pictures that can be read, got {folder} with {len(pixels)}"
        )
    return np.stack([((value - mean) / std).transpose(2, 0, 1) for value in pixels]).astype(np.float32)


def _describe(
    name: str,
    description: Mapping[str, Any],
    files: Mapping[str, str],
    threshold: float,
    rows: Sequence[compare.Difference],
    images: str,
) -> dict[str, Any]:
    network = network_entry(description, files) | {
        "kind": "centers",
        "stride": description["stride"],
        "input": {key: list(description["input"][key]) for key in ("size", "mean", "std")},
        "threshold": threshold,
        "nms": description["overlap"],
    }
    return {
        "name": name,
        "license": description.get("license") or "unspecified",
        "networks": {"detector": network},
        "extra": {"export": {"images": images, "differences": [asdict(row) for row in rows]}},
    }


__all__ = ["export_detector"]
