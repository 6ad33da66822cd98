"""Average precision in fp32, fp16 and int8, on people that the network was not trained on. One table.

    python benchmarks/int8_accuracy.py --data FOLDER [--bundle small] [--bundle tiny] [--people 300]

The people are those that the bundle's recipe NAME_pose holds out, in their annotated boxes. The int8 network is made as in
`oaks export`, calibrated on other held-out people, and added to a copy of the bundle, so that all precisions
share one scorer. All run on ONNX Runtime's CPU provider.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import oaks
from oaks import bundle as bundles
from oaks.benchmark import average_precision
from oaks.engines.export.precision import depthwise_layers, heatmap_layers, to_int8, with_half_weights
from oaks.engines.export.samples import load_crops
from oaks.files import write_json
from oaks.training.data.held_out import write_held_out
from oaks.val.ground_truth import GroundTruth

CALIBRATION = 64
"""Number of people that int8 is calibrated on."""
PRECISIONS = ("fp32", "fp16", "int8")


def first_people(content: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the first images of an annotation file that hold `count` annotated people, and the people in them."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for person in content["annotations"]:
        by_image.setdefault(person["image_id"], []).append(person)
    images, found = [], 0
    for image in content["images"]:
        if found >= count:
            break
        annotated = sum(person.get("num_keypoints", 0) > 0 for person in by_image.get(image["id"], []))
        if annotated:
            images.append(image)
            found += annotated
    kept = [person for image in images for person in by_image[image["id"]]]
    return {**content, "images": images, "annotations": kept}


def with_int8(bundle: bundles.Bundle, crops: np.ndarray, folder: Path) -> bundles.Bundle:
    """Return a copy of a bundle that also has its pose network in int8, placed as in `oaks export`."""
    shutil.copytree(bundle.path, folder)
    graph = onnx.load_from_string(bundle.network("pose", "fp32").read())
    kept = [*heatmap_layers(graph), *depthwise_layers(graph)]
    made = to_int8(graph, np.array_split(crops, -(-len(crops) // 8)), pairs="inputs", keep_float=kept)
    (folder / "pose.int8.onnx").write_bytes(with_half_weights(made).SerializeToString())
    description = json.loads((folder / bundles.DESCRIPTION).read_text(encoding="utf-8"))
    description["networks"]["pose"]["files"]["int8"] = "pose.int8.onnx"
    return bundles.write(folder, description)


def measured(
    name: str, data: Path, people: int, folder: Path
) -> tuple[dict[str, float], dict[str, int], int]:
    """Return the AP and the bytes of the pose network's file by precision, and the number of people compared."""
    bundle = bundles.Bundle.load(name)
    (annotations, images), *others = write_held_out(f"{name}_pose", data, folder / "held_out")
    chosen = first_people(json.loads(annotations.read_text(encoding="utf-8")), people)
    compared = folder / "compared.json"
    write_json(compared, chosen)
    description = {"input": bundle.description["networks"]["pose"]["input"], "padding": bundle.pose.padding}
    beside, pictures = others[0]
    shutil.copyfile(beside, folder / "calibration.json")
    (folder / "images").symlink_to(pictures.resolve())
    crops = load_crops(folder / "calibration.json", description, count=CALIBRATION)
    made = with_int8(bundle, crops, folder / name)
    truth = GroundTruth.load(compared, skeleton=bundle.skeleton)
    found, sizes = {}, {}
    for precision in PRECISIONS:
        with oaks.Engine(made, "onnxruntime", precision=precision, threads=1) as engine:
            found[precision] = average_precision(engine, truth, images)
        sizes[precision] = len(made.network("pose", precision).read())
    return found, sizes, int(truth.counted.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--bundle", action="append", help="shipped bundle; repeatable; default: small and tiny"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the recipes' paths are relative to"
    )
    parser.add_argument("--people", type=int, default=300)
    options = parser.parse_args()
    table = Table(title="AP on held-out people, ground-truth boxes")
    for heading in ("bundle", "people", *PRECISIONS, "fp16 - fp32", "int8 - fp32", "MB of int8"):
        table.add_column(heading, justify="left" if heading == "bundle" else "right")
    for name in options.bundle or ["small", "tiny"]:
        with tempfile.TemporaryDirectory() as folder:
            found, sizes, people = measured(name, options.data, options.people, Path(folder))
        apart = (f"{100 * (found[p] - found['fp32']):+.1f}" for p in PRECISIONS[1:])
        values = (f"{100 * found[p]:.1f}" for p in PRECISIONS)
        table.add_row(name, str(people), *values, *apart, f"{sizes['int8'] / 1e6:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
