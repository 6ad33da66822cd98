"""Model bundles: a folder, or a zip of it, with bundle.json and the files that it names (docs/bundles.md).

bundle.json describes the networks' inputs and outputs: skeleton, input, decoder, scorer, calibration, license, and the
size and SHA-256 of every file. Types and ranges are in bundle.schema.json, rules
between fields in bundle_parts.py, how files are read in bundle_files.py.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from oaks import onnx_file, schema
from oaks.addresses import redacted
from oaks.arguments import as_path, check_flags
from oaks.bundle_files import DESCRIPTION, BundleFiles
from oaks.bundle_parts import (
    Calibration,
    DetectorPart,
    Estimator,
    KSPart,
    Part,
    PlanPart,
    PosePart,
    ScorerPart,
    SharedPart,
    check_estimator,
    decoder_identity,
    describe_estimator,
    files_of,
    named_files,
    parse,
)
from oaks.errors import ArgumentError, BundleError
from oaks.files import write_json
from oaks.limits import BundleLimits, Limits
from oaks.skeleton import Skeleton
from oaks.structured import parse_json

FORMAT = 1
"""The newest format of bundle.json that this version reads, and the one it writes."""

SHIPPED = Path(__file__).parent / "data"
PRECISIONS = ("fp32", "fp16", "int8")
TORCH = "torch"
"""The key of a network's safetensors file, beside the precisions of its ONNX files."""

T = TypeVar("T")


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
        """SHA-256 of the stored file."""
        return str(self.bundle.files[self.file]["sha256"])

    @property
    def batch(self) -> int | None:
        """1 if the network takes one image at a time; None: any number."""
        return getattr(self.bundle.networks[self.role], "batch", None)

    @property
    def label(self) -> str:
        """Name of the file in messages."""
        return f"{self.bundle.path}/{self.file}"

    def read(self) -> bytes:
        """Return the checked ONNX model in this precision, for a runtime to load.

        Raises:
            BundleError: the file is damaged or another one, refers to external data, or is not an ONNX file.
        """
        content = self.bundle.read(self.file)
        self.bundle._check_onnx(content, self.label)
        expected = "fp32" if self.precision == "bf16" else self.precision
        return onnx_file.in_precision(content, self.stored, expected, self.label)

    def plans(self, flavor: str) -> list[PlanPart]:
        """Return the plans made ahead of time for this network in this precision."""
        expected = (self.role, self.precision, flavor)
        return [plan for plan in self.bundle.plans if (plan.role, plan.precision, plan.flavor) == expected]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model bundle: the content of bundle.json, and the files. docs/bundles.md describes every field.

    Attributes:
        path: the folder or zip file.
        name: what the bundle is called.
        license: of the weights, apart from the code's.
        networks: role -> description of the network: PosePart, KSPart, DetectorPart or SharedPart.
        scorer: where similarity comes from, or None.
        visibility, similarity: calibration of the two kinds of logits.
        score: which score Poses.scores is, "oaks" or "conventional"; None: OAKS where the bundle gives it.
        box_score_power: power of the box score that the OAKS score is multiplied by, 0 to 1.
        plans: TensorRT plans made ahead of time.
        files: file name -> {"sha256", "bytes"}.
        description: the whole of bundle.json.
        sha256: of bundle.json as it was read; since that holds the hashes of all files, it identifies the bundle.
        limits: the limits it was loaded with.
    """

    path: Path
    name: str
    license: str
    networks: Mapping[str, Part]
    scorer: ScorerPart | None
    visibility: Calibration
    similarity: Calibration
    score: str | None
    box_score_power: float
    plans: tuple[PlanPart, ...]
    files: Mapping[str, Mapping[str, Any]]
    description: Mapping[str, Any]
    sha256: str
    limits: BundleLimits
    _skeleton: Skeleton | None

    def __post_init__(self) -> None:
        for name in ("networks", "files"):  # an Engine looks at them again at every call
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __getstate__(self) -> dict[str, Any]:
        """Read-only views cannot be pickled or copied; `__setstate__` makes them anew."""
        return {**self.__dict__, "networks": dict(self.networks), "files": dict(self.files)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __repr__(self) -> str:
        return f"Bundle(name={self.name!r}, path={str(self.path)!r})"

    @classmethod
    def load(cls, source: str | Path, *, plans: bool = True, limits: BundleLimits | None = None) -> Bundle:
        """Read and check a bundle: its description, and the size and SHA-256 of every file.

        Args:
            source: a folder, a zip file, or the name of a shipped bundle.
            plans: whether to load its TensorRT plans. A plan is machine code: pass False for an untrusted bundle.
            limits: on sizes; the default ones if None.

        Raises:
            FileNotFoundError: there is no such folder, file or shipped bundle.
            BundleError: damaged, foreign, of a newer format, or beyond a limit; the message names the file.
        """
        check_flags(plans=plans)
        if not isinstance(limits, BundleLimits | None):
            raise ArgumentError(f"limits must be BundleLimits, got {limits!r}")
        limits = limits or BundleLimits()
        files = BundleFiles(_find(source), limits)
        text = files.read(DESCRIPTION, limits.description_bytes)
        label = f"{files.path}/{DESCRIPTION}"
        try:
            description = parse_json(text, label, bounds=Limits(json_depth=limits.description_depth))
        except ArgumentError as error:
            raise BundleError(str(error)) from error
        bundle = _from_description(files.path, description, hashlib.sha256(text).hexdigest(), limits)
        if not plans:
            object.__setattr__(bundle, "plans", ())
        stored_onnx = _onnx_files(bundle)
        for name in bundle.files:
            content = bundle.read(name)
            if name in stored_onnx:
                bundle._check_onnx(content, f"{bundle.path}/{name}")
        return bundle

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints, in the order of the pose network's outputs.

        Raises:
            ArgumentError: the bundle has none.
        """
        if self._skeleton is None:
            raise ArgumentError(f"bundle must have a skeleton, got {self.name!r} ({self.path}) without one")
        return self._skeleton

    @property
    def pose(self) -> PosePart:
        """Description of the pose network in bundle.json.

        Raises:
            ArgumentError: the bundle has none.
        """
        return self._part("pose", PosePart)

    @property
    def ks(self) -> KSPart:
        """Description of the KS network in bundle.json.

        Raises:
            ArgumentError: the bundle has none.
        """
        return self._part("ks", KSPart)

    @property
    def detector(self) -> DetectorPart:
        """Description of the detector in bundle.json, or in that of the shipped bundle it refers to.

        Raises:
            ArgumentError: the bundle has none.
            BundleError: the bundle that should hold it does not.
        """
        return self._holder("detector")._part("detector", DetectorPart)

    def _part(self, role: str, kind: type[T]) -> T:
        part = self.networks.get(role)
        if not isinstance(part, kind):
            has = sorted(self.networks) or "none"
            raise ArgumentError(
                f"bundle must have a {role} network, got {self.name!r} ({self.path}) with networks: {has}"
            )
        return part

    def _holder(self, role: str) -> Bundle:
        """Return the bundle that holds a role's files: this one, or the shipped one it refers to."""
        part = self.networks.get(role)
        if not isinstance(part, SharedPart):
            return self
        other = self._shipped(part.bundle, f"networks.{role}.bundle")
        if isinstance(other.networks.get(role), SharedPart | None):
            raise BundleError(f"{other.path}/{DESCRIPTION}: no {role} network, which {self.path} expects")
        return other

    def _shipped(self, name: str, field: str) -> Bundle:
        """Return the shipped bundle that a field of bundle.json names."""
        if name not in shipped():
            raise BundleError(
                f"{self.path}/{DESCRIPTION}: {field} must be a shipped bundle, {shipped()}, got {name!r}"
            )
        return _shipped_bundle(SHIPPED / name)

    def second_opinion(self) -> Bundle | None:
        """Return the shipped bundle of the scorer's second opinion, or None.

        Raises:
            BundleError: it is not shipped, or not the one that the scorer was fitted with.
        """
        if self.scorer is None or self.scorer.second is None:
            return None
        stated = self.scorer.second
        other = self._shipped(stated.bundle, "scorer.second.bundle")
        check_estimator(stated.estimator, other.estimator, f"{self.path}/{DESCRIPTION}: scorer.second")
        return other

    def has(self, role: str) -> bool:
        """Return whether the bundle has a network in this role, its own or a shared one."""
        return role in self.networks

    def precisions(self, role: str) -> list[str]:
        """Return the available precisions of a role's ONNX files."""
        if role not in self.networks:
            return []
        files = files_of(self._holder(role).networks[role])
        return [p for p in PRECISIONS if p in files or (p == "fp32" and "fp16" in files)]

    def network(self, role: str, precision: str = "fp32") -> Network:
        """Return the ONNX network of a role in a precision; bf16 uses the fp32 network.

        Raises:
            ArgumentError: the bundle lacks it; the message lists what it has.
            BundleError: the shipped bundle that should hold it does not.
        """
        holder = self._holder(role)
        files = files_of(holder.networks.get(role))
        expected = "fp32" if precision == "bf16" else precision
        stored = "fp16" if expected == "fp32" and "fp32" not in files else expected
        if stored not in PRECISIONS or stored not in files:
            can = self.precisions(role) or "none"
            raise ArgumentError(
                f"precision must be one that bundle {self.name!r} ({self.path}) has its {role} network in, {can}, "
                f"got {precision!r}; `oaks export` writes others"
            )
        return Network(holder, role, files[stored], precision, stored)

    def holds(self, role: str, precision: str) -> bool:
        """Return whether `network(role, precision)` works, for a precision of PRECISIONS."""
        return precision in self.precisions(role)

    def has_weights(self, role: str) -> bool:
        """Return whether the torch network can be built: from a safetensors file, or from ONNX and an architecture."""
        files, architecture = files_of(self.networks.get(role)), self.architecture(role)
        return TORCH in files or bool(architecture and {"fp32", "fp16"} & set(files))

    def weights(self, precision: str = "fp32") -> list[Network]:
        """Return the files with torch weights, pose network first, for executors that build the networks themselves.

        Raises:
            ArgumentError: the bundle has no weights of a pose network.
        """
        if not self.has_weights("pose"):
            raise ArgumentError(
                f"bundle must have the pose network's weights for backend 'torch', got {self.name!r} ({self.path}) "
                "without them; `oaks export` writes them"
            )
        return [self.torch_network(role, precision) for role in ("pose", "ks") if self.has_weights(role)]

    def holds_weights(self, role: str) -> bool:
        """Return whether `torch_network(role)` works, also for a shared role."""
        return role in self.networks and self._holder(role).has_weights(role)

    def torch_network(self, role: str, precision: str = "fp32") -> Network:
        """Return the file with a role's torch weights.

        Raises:
            ArgumentError: the bundle has none.
            BundleError: the shipped bundle that should hold them does not.
        """
        holder = self._holder(role)
        if not holder.has_weights(role):
            raise ArgumentError(
                f"bundle must have torch weights of a {role} network, got {self.name!r} ({self.path}) without them"
            )
        files = files_of(holder.networks[role])
        stored = next(key for key in (TORCH, "fp32", "fp16") if key in files)
        return Network(holder, role, files[stored], precision, stored)

    def architecture(self, role: str) -> Mapping[str, Any]:
        """Return the architecture of a role's network, for oaks.training.networks.build; empty if unknown."""
        return getattr(self.networks.get(role), "architecture", {})

    @property
    def estimator(self) -> Estimator:
        """The estimator that a scorer fitted to this bundle's pose network must name.

        Raises:
            ArgumentError: the bundle has no pose network.
        """
        pose = self.pose
        first = next(pose.files[key] for key in ("fp16", "fp32", "int8", TORCH) if key in pose.files)
        sha256 = str(self.files[first]["sha256"])
        return Estimator(self.name, self.skeleton.keypoints, sha256, decoder_identity(pose))

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            BundleError: it is damaged, or was removed or replaced since the bundle was loaded.
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

    def _check_onnx(self, content: bytes, label: str) -> None:
        limits = self.limits
        onnx_file.check(content, label, largest=limits.onnx_fields, elements=limits.tensor_elements)

    @contextmanager
    def open_path(self, name: str) -> Iterator[Path]:
        """Path of a checked copy of a file, valid within the block."""
        with tempfile.TemporaryDirectory(prefix="oaks-") as folder:
            path = Path(folder) / name
            path.write_bytes(self.read(name))
            yield path


def write(folder: str | Path, description: Mapping[str, Any]) -> Bundle:
    """Write bundle.json into a folder that already holds the files it names.

    Args:
        folder: where the files lie.
        description: bundle.json's content. "format" and "files" are filled in. Without a "scorer", a KS network
            becomes the scorer, fitted to this pose network.

    Returns:
        The bundle, loaded and checked.

    Raises:
        BundleError: the description or a file does not fit; bundle.json is then as it was before.
    """
    folder, limits = Path(folder), BundleLimits()
    source = BundleFiles(folder, limits)
    entries = {}
    for name in sorted(named_files(description)):
        read = source.read(name, limits.file_bytes)
        entries[name] = {"sha256": hashlib.sha256(read).hexdigest(), "bytes": len(read)}
    content: dict[str, Any] = {**description, "format": FORMAT, "files": entries}
    networks = content.get("networks")
    if isinstance(networks, Mapping) and "ks" in networks and "scorer" not in content:
        bare = {**content, "networks": {"pose": networks.get("pose")}, "score": "conventional"}
        bare["files"] = {name: entries[name] for name in named_files(bare) if name in entries}
        estimator = _from_description(folder, _plain(folder, bare), "", limits).estimator
        content["scorer"] = {"kind": "ks_net", "estimator": describe_estimator(estimator)}
    _from_description(folder, _plain(folder, content), "", limits)
    write_json(folder / DESCRIPTION, content, indent=1)
    return Bundle.load(folder)


def shipped() -> list[str]:
    """Return the names of the bundles that come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / DESCRIPTION).is_file())


@functools.lru_cache(maxsize=8)
def _shipped_bundle(path: Path) -> Bundle:
    return Bundle.load(path)


def _find(source: str | Path) -> Path:
    path = as_path("bundle", source)
    if path.is_file() or (path / DESCRIPTION).is_file():
        return path
    if str(source) in shipped():
        return SHIPPED / str(source)
    if path.is_dir():
        raise BundleError(f"{path} is not a bundle: it holds no {DESCRIPTION}")
    raise FileNotFoundError(
        f"bundle must be a folder, a zip file or one of the shipped {shipped()}, got {redacted(str(source))!r}"
    )


def _plain(folder: Path, content: Mapping[str, Any]) -> Any:
    """Return the content as JSON reads it back: no tuples, NumPy numbers or NaN."""
    try:
        return json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(f"{folder}/{DESCRIPTION}: {error}") from error


@functools.cache
def _schema() -> Mapping[str, Any]:
    return json.loads((Path(__file__).parent / "bundle.schema.json").read_text(encoding="utf-8"))


def _from_description(path: Path, content: Any, sha256: str, limits: BundleLimits) -> Bundle:
    """Check bundle.json: types and ranges, then the rules between fields."""
    where = f"{path}/{DESCRIPTION}"
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT:
        raise BundleError(
            f"{where}: format {version} is newer than {FORMAT}, the newest that this version of oaks reads: "
            "upgrade oaks"
        )
    try:
        schema.check(content, _schema())
        fields = parse(content)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error
    bundle = Bundle(path=path, description=content, sha256=sha256, limits=limits, **fields)
    _check_scorer(bundle, where)
    total = sum(entry["bytes"] for entry in bundle.files.values())
    if total > limits.bundle_bytes:
        raise BundleError(f"{where}: all files must have at most {limits.bundle_bytes} bytes, got {total}")
    return bundle


def _check_scorer(bundle: Bundle, where: str) -> None:
    """Check that the scorer's files and networks exist, and that it was fitted to this pose network."""
    scorer = bundle.scorer
    if scorer is None:
        if bundle.score == "oaks":
            raise BundleError(
                f"{where}: score must be 'conventional' in a bundle without a scorer, got 'oaks'"
            )
        return
    if scorer.kind == "ks_net" and "ks" not in bundle.networks:
        raise BundleError(
            f"{where}: networks must have 'ks' with scorer.kind 'ks_net', got {sorted(bundle.networks)}"
        )
    given = Estimator(bundle.name, bundle.skeleton.keypoints)
    if isinstance(pose := bundle.networks.get("pose"), PosePart):
        checksums = {str(bundle.files[name]["sha256"]) for name in pose.files.values()}
        network = scorer.estimator.network
        same = network in checksums
        given = Estimator(
            bundle.name, given.keypoints, network if same else min(checksums), decoder_identity(pose)
        )
    check_estimator(scorer.estimator, given, f"{where}: scorer")


def _onnx_files(bundle: Bundle) -> set[str]:
    return {
        name
        for part in bundle.networks.values()
        for precision, name in files_of(part).items()
        if precision in PRECISIONS
    }


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
