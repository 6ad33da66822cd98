"""The parts of bundle.json as typed values, and the rules between its fields.

The types and ranges of single fields are those of bundle.schema.json; `parse` takes what that accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oaks import schema
from oaks.bundle_files import DESCRIPTION
from oaks.errors import ArgumentError, BundleError
from oaks.skeleton import Skeleton

_NOTES = ("trained_on", "metrics", "recipe", "heatmap_sigma", "license")
"""Fields for readers, model cards and fine-tuning, which are not parsed."""


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(scale * logit + bias); scale and bias are (K,) or () float32."""

    scale: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class PosePart:
    """Description of the pose network in bundle.json.

    Attributes:
        kind: "heatmaps" or "simcc".
        files: precision, or "torch" -> file name.
        size: (width, height) of a crop.
        mean, std: on the 0-255 scale, in the order of `color`.
        color: channel order that the network takes, "rgb" or "bgr".
        padding: size of a crop relative to the box.
        stride: crop pixels per heatmap pixel; None for simcc.
        batch: 1 if the network takes one crop at a time, else None.
        alignment, refine, blur_sigma: how heatmaps are decoded (oaks.ops.decode).
        split: vector elements per crop pixel, for simcc.
        architecture: arguments of oaks.training.networks.build; empty if unknown.
    """

    kind: str
    files: Mapping[str, str]
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color: str = "rgb"
    padding: float = 1.25
    stride: int | None = None
    batch: int | None = None
    alignment: str = "half_pixel"
    refine: str = "second_peak"
    blur_sigma: float | None = None
    split: float = 2.0
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(width, height) of a heatmap.

        Raises:
            ArgumentError: the network gives no heatmaps.
        """
        if self.stride is None:
            raise ArgumentError(f"a pose network of kind {self.kind!r} gives no heatmaps")
        return self.size[0] // self.stride, self.size[1] // self.stride


@dataclass(frozen=True)
class KSPart:
    """Description of the KS network in bundle.json; fields as in PosePart."""

    files: Mapping[str, str]
    batch: int | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_THRESHOLD, DEFAULT_OVERLAP = 0.3, 0.65
"""Minimum score and NMS threshold of detectors that state none."""


@dataclass(frozen=True)
class DetectorPart:
    """Description of the person detector in bundle.json.

    Attributes:
        kind: "centers", "yolox" or "boxes": how its outputs are read (docs/bundles.md).
        size: (width, height) of its input.
        fill: gray level of the area that a picture of another aspect leaves free.
        threshold: minimum score of a person.
        nms: IoU above which the worse of two boxes is dropped.
        person: class index of a person.
        files, mean, std, color, stride, batch, architecture: as in PosePart.
    """

    kind: str
    files: Mapping[str, str]
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color: str = "rgb"
    fill: int = 114
    stride: int | None = None
    batch: int | None = None
    threshold: float = DEFAULT_THRESHOLD
    nms: float = DEFAULT_OVERLAP
    person: int = 0
    architecture: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SharedPart:
    """A network that another shipped bundle holds."""

    bundle: str


Part = PosePart | KSPart | DetectorPart | SharedPart


@dataclass(frozen=True)
class Estimator:
    """The frozen estimator that a scorer was fitted to.

    Attributes:
        name: for messages.
        keypoints: names, in order.
        network: SHA-256 of a file of its pose network; None if only its results are known.
        decoder: "kind", and the fields of "decoder" in bundle.json; None if only its results are known.
    """

    name: str
    keypoints: tuple[str, ...]
    network: str | None = None
    decoder: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SecondOpinion:
    """A second pose network whose poses a scorer uses.

    Attributes:
        bundle: name of the shipped bundle that holds it.
        estimator: the second estimator of the fit.
    """

    bundle: str
    estimator: Estimator


@dataclass(frozen=True)
class ScorerPart:
    """Description of the scorer in bundle.json: the source of keypoint similarity and, possibly, visibility.

    Attributes:
        kind: "ks_net" (the role "ks") or "forest" (boosted trees in `files`).
        estimator: the estimator that it was fitted to.
        files: "similarity" and "visibility" -> file name, of a forest.
        features: inputs of a forest: version and names of the features of the heatmaps, and whether crops are mirrored
            too.
        second: a second pose network whose poses a forest uses too, or None.
    """

    kind: str
    estimator: Estimator
    files: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    second: SecondOpinion | None = None


@dataclass(frozen=True)
class PlanPart:
    """A TensorRT plan in a bundle; `key` holds everything that it depends on (oaks.engines.plans)."""

    role: str
    precision: str
    flavor: str
    version: str
    file: str
    key: Mapping[str, Any]


def parse(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a Bundle from content that fits the schema.

    Raises:
        ArgumentError: two fields do not fit each other; the message names them.
    """
    skeleton = Skeleton.from_dict(content["skeleton"]) if "skeleton" in content else None
    networks = {role: _part(role, entry) for role, entry in content.get("networks", {}).items()}
    scorer = _scorer(content["scorer"]) if "scorer" in content else None
    if skeleton is None and ("pose" in networks or scorer is not None):
        raise ArgumentError("skeleton must be given with a pose network or a scorer, got none")
    if "ks" in networks and ("pose" not in networks or scorer is None):
        lacking = "scorer" if "pose" in networks else "networks.pose"
        raise ArgumentError(f"networks.ks must come with a pose network and a scorer, got no {lacking}")
    _check_files(content)
    calibration, count = content.get("calibration", {}), skeleton.count if skeleton else 0
    return {
        "name": content["name"],
        "license": content["license"],
        "networks": networks,
        "scorer": scorer,
        "visibility": _calibration("visibility", calibration, count),
        "similarity": _calibration("similarity", calibration, count),
        "score": content.get("score"),
        "box_score_power": float(content.get("box_score_power", 1)),
        "plans": tuple(PlanPart(**entry) for entry in content.get("plans", ())),
        "files": content["files"],
        "_skeleton": skeleton,
    }


def _part(role: str, entry: Mapping[str, Any]) -> Part:
    if "bundle" in entry:
        return SharedPart(entry["bundle"])
    fields = {name: value for name, value in entry.items() if name not in (*_NOTES, "input", "decoder")}
    fields.update(_input(entry))
    if role == "ks":
        return KSPart(**fields)
    where = f"networks.{role}"
    has_stride = entry["kind"] in ("heatmaps", "centers")
    if has_stride != ("stride" in entry):
        needed = "given" if has_stride else "left out"
        raise ArgumentError(
            f"{where}.stride must be {needed} with kind {entry['kind']!r}, got {entry.get('stride')}"
        )
    if has_stride and any(side % entry["stride"] for side in entry["input"]["size"]):
        raise ArgumentError(
            f"{where}.input.size must be a multiple of the stride {entry['stride']}, got {entry['input']['size']}"
        )
    if role == "detector":
        return DetectorPart(**fields)
    return PosePart(**fields, **_decoder(entry["kind"], entry.get("decoder", {})))


def _input(entry: Mapping[str, Any]) -> dict[str, Any]:
    content = entry.get("input", {})
    fields = {name: content[name] for name in ("color", "padding", "fill") if name in content}
    for name in ("size", "mean", "std"):
        if name in content:
            fields[name] = tuple(content[name])
    return fields


def _decoder(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    unfit = {"heatmaps": ("split",), "simcc": ("alignment", "refine", "blur_sigma")}[kind]
    if given := [name for name in unfit if name in content]:
        raise ArgumentError(
            f"networks.pose.decoder.{given[0]} must be left out with kind {kind!r}, got {content[given[0]]!r}"
        )
    if "blur_sigma" in content and content.get("refine") != "dark":
        refine = content.get("refine")
        raise ArgumentError(f"networks.pose.decoder.blur_sigma must come with refine 'dark', got {refine!r}")
    return dict(content)


def _scorer(entry: Mapping[str, Any]) -> ScorerPart:
    if (entry["kind"] == "forest") != ("files" in entry):
        needed = "given" if entry["kind"] == "forest" else "left out"
        raise ArgumentError(
            f"scorer.files must be {needed} with kind {entry['kind']!r}, got {entry.get('files')}"
        )
    if "second" in entry and entry["kind"] != "forest":
        raise ArgumentError(
            f"scorer.second must be left out with kind {entry['kind']!r}, got bundle {entry['second']['bundle']!r}"
        )
    fields = {name: value for name, value in entry.items() if name not in _NOTES}
    fields["estimator"] = _estimator(entry["estimator"])
    if "second" in entry:
        fields["second"] = SecondOpinion(entry["second"]["bundle"], _estimator(entry["second"]["estimator"]))
    return ScorerPart(**fields)


def _estimator(entry: Mapping[str, Any]) -> Estimator:
    return Estimator(**{**entry, "keypoints": tuple(entry["keypoints"])})


def _calibration(name: str, content: Mapping[str, Any], count: int) -> Calibration:
    parts = []
    for part, default in (("scale", 1.0), ("bias", 0.0)):
        value = np.asarray(content.get(name, {}).get(part, default), np.float32)
        if value.shape not in ((), (count,)):
            raise ArgumentError(
                f"calibration.{name}.{part} must be a number or {count} numbers, got {len(value)} numbers"
            )
        parts.append(value)
    return Calibration(*parts)


def decoder_identity(pose: PosePart) -> dict[str, Any]:
    """Return the settings of the decoder that change keypoints, with defaults filled in."""
    if pose.kind == "simcc":
        return {"kind": pose.kind, "split": pose.split}
    identity: dict[str, Any] = {"kind": pose.kind, "alignment": pose.alignment, "refine": pose.refine}
    if pose.refine == "dark":
        identity["blur_sigma"] = 2.0 if pose.blur_sigma is None else pose.blur_sigma
    return identity


def describe_estimator(estimator: Estimator) -> dict[str, Any]:
    """Return the entry of bundle.json for an estimator."""
    content: dict[str, Any] = {"name": estimator.name, "keypoints": list(estimator.keypoints)}
    if estimator.network is not None:
        content["network"] = estimator.network
    if estimator.decoder is not None:
        content["decoder"] = dict(estimator.decoder)
    return content


def check_estimator(expected: Estimator, given: Estimator, label: str) -> None:
    """Refuse a scorer that was fitted to another network, decoder or skeleton.

    Args:
        expected: the estimator that the scorer was fitted to.
        given: the estimator to be scored, for instance Bundle.estimator.
        label: what messages call the scorer.

    Raises:
        BundleError: they differ; the message names both, and in what they differ.
    """
    for what in ("keypoints", "decoder", "network"):
        ours, theirs = getattr(expected, what), getattr(given, what)
        if ours is None or theirs is None or ours == theirs:
            continue
        raise BundleError(
            f"{label} must be fitted to the estimator that it scores, got a scorer of {expected.name!r} for "
            f"{given.name!r}: their {what} differ ({schema.shortened(_for_message(ours))} and "
            f"{schema.shortened(_for_message(theirs))}); fit one with `oaks fit`"
        )


def _for_message(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value[name]}" for name in sorted(value))
    return ", ".join(value) if isinstance(value, tuple) else value[:12]


def files_of(part: Part | None) -> Mapping[str, str]:
    return getattr(part, "files", {})


def named_files(content: Mapping[str, Any]) -> set[str]:
    """Return every file that a description refers to, without malformed entries, which the schema refuses."""
    holders = [content.get("scorer")]
    if isinstance(networks := content.get("networks"), Mapping):
        holders += networks.values()
    names: list[Any] = [content["card"]] if "card" in content else []
    for holder in holders:
        if isinstance(holder, Mapping) and isinstance(holder.get("files"), Mapping):
            names += holder["files"].values()
    names += [plan.get("file") for plan in content.get("plans", ()) if isinstance(plan, Mapping)]
    return {name for name in names if isinstance(name, str)}


def _check_files(content: Mapping[str, Any]) -> None:
    named, listed = named_files(content), set(content["files"])
    if DESCRIPTION in listed:
        raise ArgumentError(f"files must list what lies beside {DESCRIPTION}, got {DESCRIPTION} itself")
    if missing := sorted(named - listed):
        raise ArgumentError(f"files must list every file that a field names, got none called {missing[0]!r}")
    if unused := sorted(listed - named):
        raise ArgumentError(f"files must be those that other fields name, got {unused[0]!r}, which none does")


__all__ = [
    "Calibration",
    "DetectorPart",
    "Estimator",
    "KSPart",
    "Part",
    "PlanPart",
    "PosePart",
    "ScorerPart",
    "SecondOpinion",
    "SharedPart",
    "check_estimator",
    "decoder_identity",
    "describe_estimator",
    "files_of",
    "named_files",
    "parse",
]
