"""Writes the bundle of a network with the scorer that was fitted to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oaks import bundle as bundles
from oaks import forest_file
from oaks.bundle import Bundle
from oaks.bundle_parts import named_files
from oaks.files import replacing_folder
from oaks.fit.report import Fitted
from oaks.scorer import FEATURES_VERSION, Scorer

KS_FILE = "ks.fp16.onnx"
BOX_SCORE_POWER = 0.25
"""Power of the box score in the scores of a fitted bundle. With power 1 its OAKS scores hardly ranked poses in detected
boxes better than the conventional score, because box scores are lower for occluded people (benchmarks/found_boxes.py)."""
FORESTS = {"similarity": "similarity.forest.json", "visibility": "visibility.forest.json"}


def write_bundle(bundle: Bundle, fitted: Fitted, out: Path, name: str) -> Path:
    """Write the model's bundle with the scorer atomically to a new folder; return the folder."""
    with replacing_folder(out) as staged:
        content = scored_description(bundle, fitted, name)
        for file in named_files(content) & bundle.files.keys():
            (staged / file).write_bytes(bundle.read(file))
        if isinstance(fitted.scorer, Scorer):
            write_forests(staged, fitted.scorer)
        else:
            (staged / KS_FILE).write_bytes(fitted.scorer.onnx)
        bundles.write(staged, content)
    return out


def write_forests(folder: Path, scorer: Scorer) -> None:
    """Write a scorer's forests into a folder, as the files FORESTS."""
    forest_file.write(folder / FORESTS["similarity"], scorer.similarity)
    forest_file.write(folder / FORESTS["visibility"], scorer.visibility)


def scored_description(bundle: Bundle, fitted: Fitted, name: str) -> dict[str, Any]:
    """Return the content of bundle.json for a bundle with this scorer in place of its own."""
    kept = ("license", "sources", "skeleton", "card", "extra")
    content = {key: value for key, value in bundle.description.items() if key in kept}
    card = fitted.scorer.card
    networks = {role: part for role, part in bundle.description["networks"].items() if role != "ks"}
    shared = {
        "estimator": bundles.describe_estimator(bundle.estimator),
        "metrics": {"fitted_on": dict(card.fitted_on), "out_of_fold": dict(card.out_of_fold)},
    }
    content |= {"name": name, "networks": networks, "score": "oaks", "box_score_power": BOX_SCORE_POWER}
    if isinstance(fitted.scorer, Scorer):
        features = {"version": FEATURES_VERSION, "names": list(card.features), "flip": True}
        content["scorer"] = {"kind": "forest", "files": dict(FORESTS), "features": features, **shared}
        if card.second_opinion is not None:
            other = bundles.describe_estimator(Bundle.load(card.second_opinion).estimator)
            content["scorer"]["second"] = {"bundle": card.second_opinion, "estimator": other}
    else:
        ks = {"files": {"fp16": KS_FILE}, "architecture": dict(fitted.scorer.architecture)}
        content["networks"] = {**networks, "ks": ks}
        content["scorer"] = {"kind": "ks_net", **shared}
        content["calibration"] = dict(fitted.scorer.calibration)
    return content


__all__ = ["scored_description", "write_bundle", "write_forests"]
