"""Model bundles: a folder, or a zip of it, with bundle.json and the files that it names (docs/bundles.md).

bundle.json says what the networks expect and what their outputs mean: skeleton, input, decoder, scorer,
calibration, license, and the size and SHA-256 of every file. Its types and ranges are in bundle.schema.json;
the rules between fields are in this module.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from oaks import onnx_file, schema
from oaks.bundle_files import BundleFiles, parse_json
from oaks.errors import BundleError
from oaks.files import write_json
from oaks.limits import BundleLimits
from oaks.skeleton import Skeleton

FORMAT = 1
"""The newest format of bundle.json that this version reads, and the one it writes."""

DESCRIPTION = "bundle.json"
SHIPPED = Path(__file__).parent / "data"
ROLES = ("pose", "ks", "detector")
PRECISIONS = ("fp32", "fp16", "int8")
TORCH = "torch"
"""The key of a network's safetensors file, beside the precisions of its ONNX files."""
REFINEMENTS = ("second_peak", "gradient", "dark", "none")
SCORES = ("oaks", "conventional")

T = TypeVar("T")


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(scale * logit + bias); scale and bias are (K,) or () float32."""

    scale: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class PosePart:
    """What bundle.json says about the pose network.

    Attributes:
        kind: "heatmaps" or "simcc".
        files: precision, or "torch" -> file name.
        size: (width, height) of a crop.
        mean, std: on the 0-255 scale, in the order of `color`.
        color: channel order that the network takes, "rgb" or "bgr".
        padding: how much larger than the box a crop is.
        stride: crop pixels per heatmap pixel; None for simcc.
        batch: 1 if the network takes one crop at a time, else None.
        alignment, refine, blur_sigma: how heatmaps are decoded (oaks.ops.decode).
        split: vector elements per crop pixel, for simcc.
        architecture: how oaks.training.networks.build makes it; empty if it cannot.
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
            ValueError: the network gives no heatmaps.
        """
        if self.stride is None:
            raise ValueError(f"a pose network of kind {self.kind!r} gives no heatmaps")
        return self.size[0] // self.stride, self.size[1] // self.stride


@dataclass(frozen=True)
class KSPart:
    """What bundle.json says about the KS network; fields as in PosePart."""

    files: Mapping[str, str]
    batch: int | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectorPart:
    """What bundle.json says about the person detector.

    Attributes:
        kind: "centers", "yolox" or "boxes": how its outputs are read (docs/bundles.md).
        size: (width, height) of its input.
        fill: grey level beside a picture of another aspect.
        threshold: smallest score of a person.
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
    threshold: float = 0.3
    nms: float = 0.65
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
class ScorerPart:
    """What bundle.json says about where keypoint similarity, and perhaps visibility, come from.

    Attributes:
        kind: "ks_net" (the role "ks") or "forest" (boosted trees in `files`).
        estimator: whom it was fitted to.
        inputs: "maps" (heatmaps) or "results" (keypoints, their scores, boxes).
        files: "similarity" and "visibility" -> file name, of a forest.
        features: which features a forest takes, in its own terms.
        second_opinion: the shipped bundle whose poses give further features, or None.
    """

    kind: str
    estimator: Estimator
    inputs: str = "maps"
    files: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    second_opinion: str | None = None


@dataclass(frozen=True)
class PlanPart:
    """A TensorRT plan in a bundle; `key` holds everything that it depends on (oaks.engines.plans)."""

    role: str
    precision: str
    flavour: str
    version: str
    file: str
    key: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """One network's file in a bundle, and the precision in which to run it."""

    bundle: Bundle
    role: str
    file: str
    precision: str
    """"fp32", "fp16", "int8", or "bf16": the fp32 network, run in bfloat16."""

    stored: str
    """The precision of the file, or "torch" for a safetensors file."""

    @property
    def sha256(self) -> str:
        """That of the file as it is stored."""
        return str(self.bundle.files[self.file]["sha256"])

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.bundle.path}/{self.file}"

    def read(self) -> bytes:
        """The ONNX model in this precision, checked: what a runtime should load.

        Raises:
            BundleError: the file is damaged or another one, refers to external data, or is no ONNX file.
        """
        content = self.bundle.read(self.file)
        onnx_file.check(content, self.label, largest=self.bundle.limits.onnx_fields)
        wanted = "fp32" if self.precision == "bf16" else self.precision
        return onnx_file.in_precision(content, self.stored, wanted, self.label)

    def plans(self, flavour: str) -> list[PlanPart]:
        """The plans made ahead of time for this network in this precision."""
        wanted = (self.role, self.precision, flavour)
        return [plan for plan in self.bundle.plans if (plan.role, plan.precision, plan.flavour) == wanted]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model bundle: what bundle.json says, and the files. docs/bundles.md describes every field.

    Attributes:
        path: the folder or zip file.
        name: what the bundle is called.
        license: of the weights, apart from the code's.
        networks: role -> what bundle.json says about the network, see PosePart, KSPart and DetectorPart.
        scorer: where similarity comes from, or None.
        visibility, similarity: calibration of the two kinds of logits.
        score: which score Poses.scores is, "oaks" or "conventional"; None: OAKS where the bundle gives it.
        plans: TensorRT plans made ahead of time.
        files: file name -> {"sha256", "bytes"}.
        description: the whole of bundle.json.
        sha256: of bundle.json as it was read; it holds those of all files, and so names exactly this bundle.
        limits: those under which it was loaded.
    """

    path: Path
    name: str
    license: str
    networks: Mapping[str, Part]
    scorer: ScorerPart | None
    visibility: Calibration
    similarity: Calibration
    score: str | None
    plans: tuple[PlanPart, ...]
    files: Mapping[str, Mapping[str, Any]]
    description: Mapping[str, Any] = field(repr=False)
    sha256: str
    limits: BundleLimits = field(repr=False)
    _skeleton: Skeleton | None = field(repr=False)

    @classmethod
    def load(cls, source: str | Path, *, plans: bool = True, limits: BundleLimits | None = None) -> Bundle:
        """Reads and checks a bundle: its description, and the size and SHA-256 of every file.

        Args:
            source: a folder, a zip file, or the name of a shipped bundle.
            plans: whether to take TensorRT plans from it. A plan is machine code: False for a bundle from
                someone you do not trust.
            limits: on sizes; the default ones if None.

        Raises:
            FileNotFoundError: there is no such folder, file or shipped bundle.
            BundleError: damaged, foreign, of a newer format, or beyond a limit; the message names the file.
        """
        limits = limits or BundleLimits()
        files = BundleFiles(_find(source), limits)
        text = files.read(DESCRIPTION, limits.description_bytes)
        label = f"{files.path}/{DESCRIPTION}"
        description = parse_json(text, label, limits.description_depth)
        bundle = _from_description(files.path, description, hashlib.sha256(text).hexdigest(), limits)
        if not plans:
            object.__setattr__(bundle, "plans", ())
        stored_onnx = _onnx_files(bundle)
        for name in bundle.files:
            content = bundle.read(name)
            if name in stored_onnx:
                onnx_file.check(content, f"{bundle.path}/{name}", largest=limits.onnx_fields)
        return bundle

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints, in the order of the pose network's outputs.

        Raises:
            ValueError: the bundle has none.
        """
        if self._skeleton is None:
            raise ValueError(f"bundle {self.name!r} ({self.path}) has no skeleton")
        return self._skeleton

    @property
    def pose(self) -> PosePart:
        """What bundle.json says about the pose network.

        Raises:
            ValueError: the bundle has none.
        """
        return self._part("pose", PosePart)

    @property
    def ks(self) -> KSPart:
        """What bundle.json says about the KS network.

        Raises:
            ValueError: the bundle has none.
        """
        return self._part("ks", KSPart)

    @property
    def detector(self) -> DetectorPart:
        """What bundle.json says about the detector, or that of the shipped bundle which holds it.

        Raises:
            ValueError: the bundle has none.
            BundleError: the bundle that should hold it does not.
        """
        return self._holder("detector")._part("detector", DetectorPart)

    def _part(self, role: str, kind: type[T]) -> T:
        part = self.networks.get(role)
        if not isinstance(part, kind):
            has = sorted(self.networks) or "none"
            raise ValueError(f"bundle {self.name!r} ({self.path}) has no {role} network; its networks: {has}")
        return part

    def _holder(self, role: str) -> Bundle:
        """The bundle that holds a role's files: this one, or the shipped one it names."""
        part = self.networks.get(role)
        if not isinstance(part, SharedPart):
            return self
        if part.bundle not in shipped():
            raise BundleError(
                f"{self.path}/{DESCRIPTION}: networks.{role}.bundle must be a shipped bundle, {shipped()}, "
                f"got {part.bundle!r}"
            )
        other = _shipped_bundle(SHIPPED / part.bundle)
        if isinstance(other.networks.get(role), SharedPart | None):
            raise BundleError(f"{other.path}/{DESCRIPTION}: no {role} network, which {self.path} expects")
        return other

    def has(self, role: str) -> bool:
        """Whether the bundle has a network in this role, its own or a shared one."""
        return role in self.networks

    def precisions(self, role: str) -> list[str]:
        """The precisions in which the ONNX files of a role can be had; empty if it has none."""
        if role not in self.networks:
            return []
        files = _files_of(self._holder(role).networks[role])
        return [p for p in PRECISIONS if p in files or (p == "fp32" and "fp16" in files)]

    def network(self, role: str, precision: str = "fp32") -> Network:
        """The ONNX network of a role in a precision; bf16 takes the fp32 network.

        Raises:
            ValueError: the bundle cannot give it; the message says what it can.
            BundleError: the shipped bundle that should hold it does not.
        """
        holder = self._holder(role)
        files = _files_of(holder.networks.get(role))
        wanted = "fp32" if precision == "bf16" else precision
        stored = "fp16" if wanted == "fp32" and "fp32" not in files else wanted
        if stored not in PRECISIONS or stored not in files:
            can = self.precisions(role) or "none"
            raise ValueError(
                f"precision: {precision!r} needs the {role} network in {wanted}, and bundle {self.name!r} "
                f"({self.path}) has it in {can}; `oaks export` writes others"
            )
        return Network(holder, role, files[stored], precision, stored)

    def holds(self, role: str, precision: str) -> bool:
        """Whether `network(role, precision)` works, for a precision of PRECISIONS."""
        return precision in self.precisions(role)

    def has_weights(self, role: str) -> bool:
        """Whether the torch network can be made: from a safetensors file, or from ONNX and an architecture."""
        files, architecture = _files_of(self.networks.get(role)), self.architecture(role)
        return TORCH in files or bool(architecture and {"fp32", "fp16"} & set(files))

    def weights(self, precision: str = "fp32") -> list[Network]:
        """The files with torch weights, pose network first, for executors that build the networks themselves.

        Raises:
            ValueError: the bundle has no weights of a pose network.
        """
        if not self.has_weights("pose"):
            raise ValueError(
                f"bundle: backend 'torch' needs the pose network's weights, and {self.name!r} ({self.path}) "
                "has none; `oaks export` writes them"
            )
        found = []
        for role in ("pose", "ks"):
            if self.has_weights(role):
                files = _files_of(self.networks[role])
                stored = next(key for key in (TORCH, "fp32", "fp16") if key in files)
                found.append(Network(self, role, files[stored], precision, stored))
        return found

    def architecture(self, role: str) -> Mapping[str, Any]:
        """How oaks.training.networks.build makes a role's network; empty if it cannot."""
        return getattr(self.networks.get(role), "architecture", {})

    @property
    def estimator(self) -> Estimator:
        """What a scorer that is fitted to this bundle's pose network should name.

        Raises:
            ValueError: the bundle has no pose network.
        """
        pose = self.pose
        first = next(pose.files[key] for key in ("fp16", "fp32", "int8", TORCH) if key in pose.files)
        sha256 = str(self.files[first]["sha256"])
        return Estimator(self.name, self.skeleton.keypoints, sha256, _decoder_identity(pose))

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            BundleError: it is damaged, or gone or another one since the bundle was loaded.
        """
        entry = self.files[name]
        content = BundleFiles(self.path, self.limits).read(name, entry["bytes"])
        if len(content) != entry["bytes"]:
            raise BundleError(
                f"{self.path}/{name} is damaged or another file: it must have {entry['bytes']} bytes, got "
                f"{len(content)}"
            )
        if (found := hashlib.sha256(content).hexdigest()) != entry["sha256"]:
            raise BundleError(
                f"{self.path}/{name} is damaged or another file: its SHA-256 must be {entry['sha256']}, got {found}"
            )
        return content

    @contextmanager
    def open_path(self, name: str) -> Iterator[Path]:
        """A path under which a checked copy of a file can be opened while the block runs."""
        with tempfile.TemporaryDirectory(prefix="oaks-") as folder:
            path = Path(folder) / name
            path.write_bytes(self.read(name))
            yield path


def write(folder: str | Path, description: Mapping[str, Any]) -> Bundle:
    """Writes bundle.json beside the files that it names, which already lie in a folder.

    Args:
        folder: where the files lie.
        description: bundle.json's content. "format" and "files" are filled in here, and so is the "scorer"
            of a bundle that has a KS network and names none: that network, fitted to this pose network.

    Returns:
        The bundle, loaded and checked as anyone would load it.

    Raises:
        BundleError: the description or a file does not fit; bundle.json is then as it was before.
    """
    folder, limits = Path(folder), BundleLimits()
    source = BundleFiles(folder, limits)
    entries = {}
    for name in sorted(_named_files(description)):
        content = source.read(name, limits.file_bytes)
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    content = {**description, "format": FORMAT, "files": entries}
    networks = content.get("networks")
    if isinstance(networks, Mapping) and "ks" in networks and "scorer" not in content:
        bare = {**content, "networks": {"pose": networks.get("pose")}, "score": "conventional"}
        bare["files"] = {name: entries[name] for name in _named_files(bare) if name in entries}
        estimator = _from_description(folder, _plain(folder, bare), "", limits).estimator
        content["scorer"] = {"kind": "ks_net", "estimator": describe_estimator(estimator)}
    _from_description(folder, _plain(folder, content), "", limits)
    write_json(folder / DESCRIPTION, content, indent=1)
    return Bundle.load(folder)


def describe_estimator(estimator: Estimator) -> dict[str, Any]:
    """An estimator as bundle.json has it."""
    content: dict[str, Any] = {"name": estimator.name, "keypoints": list(estimator.keypoints)}
    if estimator.network is not None:
        content["network"] = estimator.network
    if estimator.decoder is not None:
        content["decoder"] = dict(estimator.decoder)
    return content


def check_estimator(expected: Estimator, given: Estimator, label: str) -> None:
    """Refuses a scorer that was fitted to another network, decoder or skeleton.

    Args:
        expected: whom the scorer was fitted to.
        given: the one to be scored, Bundle.estimator for instance.
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


def shipped() -> list[str]:
    """The names of the bundles that come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / DESCRIPTION).is_file())


@functools.lru_cache(maxsize=8)
def _shipped_bundle(path: Path) -> Bundle:
    return Bundle.load(path)


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file() or (path / DESCRIPTION).is_file():
        return path
    if str(source) in shipped():
        return SHIPPED / str(source)
    if path.is_dir():
        raise BundleError(f"{path} is no bundle: it holds no {DESCRIPTION}")
    raise FileNotFoundError(
        f"bundle: a folder, a zip file or one of the shipped {shipped()} wanted, got {str(source)!r}"
    )


def _plain(folder: Path, content: Mapping[str, Any]) -> Any:
    """The content as JSON would give it back: no tuples, no NumPy numbers, no NaN."""
    try:
        return json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(f"{folder}/{DESCRIPTION}: {error}") from error


@functools.cache
def _schema() -> Mapping[str, Any]:
    return json.loads((Path(__file__).parent / "bundle.schema.json").read_text(encoding="utf-8"))


def _from_description(path: Path, content: Any, sha256: str, limits: BundleLimits) -> Bundle:
    """Checks bundle.json: its types and ranges, then the rules between fields."""
    where = f"{path}/{DESCRIPTION}"
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT:
        raise BundleError(
            f"{where}: format {version} is newer than {FORMAT}, the newest that this version of oaks reads: "
            "upgrade oaks"
        )
    try:
        schema.check(content, _schema())
        fields = _fields(content)
        _check_files(content)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error
    bundle = Bundle(path=path, description=content, sha256=sha256, limits=limits, **fields)
    _check_scorer(bundle, where)
    total = sum(entry["bytes"] for entry in bundle.files.values())
    if total > limits.bundle_bytes:
        raise BundleError(f"{where}: all files must have at most {limits.bundle_bytes} bytes, got {total}")
    return bundle


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a Bundle; ValueError says which field does not fit."""
    skeleton = Skeleton.from_dict(content["skeleton"]) if "skeleton" in content else None
    networks = {role: _part(role, entry) for role, entry in content.get("networks", {}).items()}
    scorer = _scorer(content["scorer"]) if "scorer" in content else None
    if skeleton is None and ("pose" in networks or scorer is not None):
        raise ValueError("skeleton must be given with a pose network or a scorer")
    if "ks" in networks and ("pose" not in networks or scorer is None):
        raise ValueError("networks.ks must come with a pose network and a scorer")
    calibration, count = content.get("calibration", {}), skeleton.count if skeleton else 0
    return {
        "name": content["name"],
        "license": content["license"],
        "networks": networks,
        "scorer": scorer,
        "visibility": _calibration("visibility", calibration, count),
        "similarity": _calibration("similarity", calibration, count),
        "score": content.get("score"),
        "plans": tuple(PlanPart(**entry) for entry in content.get("plans", ())),
        "files": content["files"],
        "_skeleton": skeleton,
    }


_NOTES = ("trained_on", "metrics", "recipe", "heatmap_sigma", "license")


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
        raise ValueError(f"{where}.stride must be {needed} with kind {entry['kind']!r}")
    if has_stride and any(side % entry["stride"] for side in entry["input"]["size"]):
        raise ValueError(
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
        raise ValueError(f"networks.pose.decoder.{given[0]} must be left out with kind {kind!r}")
    if "blur_sigma" in content and content.get("refine") != "dark":
        raise ValueError("networks.pose.decoder.blur_sigma must come with refine 'dark'")
    return dict(content)


def _decoder_identity(pose: PosePart) -> dict[str, Any]:
    """What of the decoder moves keypoints, defaults filled in."""
    if pose.kind == "simcc":
        return {"kind": pose.kind, "split": pose.split}
    identity: dict[str, Any] = {"kind": pose.kind, "alignment": pose.alignment, "refine": pose.refine}
    if pose.refine == "dark":
        identity["blur_sigma"] = 2.0 if pose.blur_sigma is None else pose.blur_sigma
    return identity


def _scorer(entry: Mapping[str, Any]) -> ScorerPart:
    if (entry["kind"] == "forest") != ("files" in entry):
        needed = "given" if entry["kind"] == "forest" else "left out"
        raise ValueError(f"scorer.files must be {needed} with kind {entry['kind']!r}")
    if entry["kind"] == "ks_net" and entry.get("inputs", "maps") != "maps":
        raise ValueError("scorer.inputs must be 'maps' with kind 'ks_net'")
    whom = entry["estimator"]
    estimator = Estimator(**{**whom, "keypoints": tuple(whom["keypoints"])})
    fields = {name: value for name, value in entry.items() if name not in _NOTES}
    return ScorerPart(**{**fields, "estimator": estimator})


def _check_scorer(bundle: Bundle, where: str) -> None:
    """Whether the scorer has what it needs, and is this pose network's."""
    scorer = bundle.scorer
    if scorer is None:
        if bundle.score == "oaks":
            raise BundleError(f"{where}: score must be 'conventional' in a bundle without a scorer")
        return
    if scorer.kind == "ks_net" and "ks" not in bundle.networks:
        raise BundleError(f"{where}: scorer.kind 'ks_net' must come with the network 'ks'")
    given = Estimator(bundle.name, bundle.skeleton.keypoints)
    if isinstance(pose := bundle.networks.get("pose"), PosePart):
        checksums = {str(bundle.files[name]["sha256"]) for name in pose.files.values()}
        network = scorer.estimator.network
        same = network in checksums
        given = Estimator(
            bundle.name, given.keypoints, network if same else min(checksums), _decoder_identity(pose)
        )
    check_estimator(scorer.estimator, given, f"{where}: scorer")


def _files_of(part: Part | None) -> Mapping[str, str]:
    return getattr(part, "files", {})


def _onnx_files(bundle: Bundle) -> set[str]:
    return {
        name
        for part in bundle.networks.values()
        for precision, name in _files_of(part).items()
        if precision in PRECISIONS
    }


def _named_files(content: Mapping[str, Any]) -> set[str]:
    """Every file that a description refers to; what does not fit is left to the schema."""
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
    named, listed = _named_files(content), set(content["files"])
    if DESCRIPTION in listed:
        raise ValueError(f"files must not list {DESCRIPTION}")
    if missing := sorted(named - listed):
        raise ValueError(f"files must list {missing[0]!r}, which another field names")
    if unused := sorted(listed - named):
        raise ValueError(f"files.{unused[0]} must be named by another field, a network's for instance")


def _calibration(name: str, content: Mapping[str, Any], count: int) -> Calibration:
    parts = []
    for part, default in (("scale", 1.0), ("bias", 0.0)):
        value = np.asarray(content.get(name, {}).get(part, default), np.float32)
        if value.shape not in ((), (count,)):
            raise ValueError(
                f"calibration.{name}.{part} must be a number or {count} numbers, got {len(value)} numbers"
            )
        parts.append(value)
    return Calibration(*parts)


__all__ = [
    "FORMAT",
    "Bundle",
    "Calibration",
    "DetectorPart",
    "Estimator",
    "KSPart",
    "Network",
    "PlanPart",
    "PosePart",
    "ScorerPart",
    "SharedPart",
    "check_estimator",
    "describe_estimator",
    "shipped",
    "write",
]
