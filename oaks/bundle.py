"""Model bundles: a folder, or a zip of it, with bundle.json and the networks' files (docs/bundles.md).

bundle.json says what the networks expect and what their outputs mean, so that nothing about a model is
folklore: skeleton, input, alignment, decoder, calibration, licence, and a SHA-256 for every file.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oaks.errors import BundleError
from oaks.files import write_json
from oaks.ops import native
from oaks.skeleton import Skeleton

FORMAT = 1
"""The newest format of bundle.json that this version reads, and the one it writes."""

DESCRIPTION = "bundle.json"
SHIPPED = Path(__file__).parent / "data"
ROLES = ("pose", "ks", "weights")
PRECISIONS = ("fp32", "fp16", "int8")
ALIGNMENTS = ("half_pixel", "hrnet", "udp")
REFINEMENTS = ("second_peak", "gradient", "dark", "none")
SCORES = ("oaks", "conventional")
KINDS: Mapping[str, type] = {
    "name": str, "license": str, "stride": int, "skeleton": dict, "input": dict, "files": dict,
    "calibration": dict, "architecture": dict, "metrics": dict, "recipe": dict, "trained_on": list,
}  # fmt: skip
LARGEST_BLUR_SIGMA = 64.0
"""That the native decoder takes (csrc/core/decode.h)."""
REQUIRED = ("format", "name", "skeleton", "input", "stride", "license", "files")


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(scale * logit + bias); scale and bias are (K,) or () float32."""

    scale: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Network:
    """One network's file in a bundle, and the precision in which to run it."""

    bundle: Bundle
    role: str
    file: str
    precision: str
    """"fp32", "fp16", "int8", or "bf16": the fp32 file, run in bfloat16."""

    @property
    def sha256(self) -> str:
        return self.bundle.files[self.file]["sha256"]

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.bundle.path}/{self.file}"

    def read(self) -> bytes:
        return self.bundle.read(self.file)


@dataclass(frozen=True, eq=False)
class Bundle:
    """What bundle.json says. docs/bundles.md describes every field.

    Attributes:
        path: the folder or zip file.
        name: what the bundle is called.
        skeleton: the keypoints, in the order of the heatmaps.
        size: (width, height) of a crop.
        mean, std: RGB, on the 0-255 scale.
        color: "bgr" or "rgb", the order of arrays handed in; the network always gets RGB.
        stride: crop pixels per heatmap pixel.
        alignment, refine, blur_sigma: how heatmaps are decoded (oaks.ops.decode).
        padding: how much larger than the box a crop is.
        visibility, similarity: calibration of the two kinds of logits.
        score: which score Poses.scores is, "oaks" or "conventional"; None: OAKS where the networks give it.
        license: of the weights, apart from the code's.
        files: file name -> {"sha256", "role", "precision"}.
        description: the whole of bundle.json.
        sha256: of bundle.json as it was read; it holds those of all files, and so names exactly this bundle.
    """

    path: Path
    name: str
    skeleton: Skeleton
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color: str
    stride: int
    alignment: str
    refine: str
    blur_sigma: float | None
    padding: float
    visibility: Calibration
    similarity: Calibration
    score: str | None
    license: str
    files: Mapping[str, Mapping[str, str]]
    description: Mapping[str, Any] = field(repr=False)
    sha256: str

    @classmethod
    def load(cls, source: str | Path) -> Bundle:
        """Reads and checks a bundle: its description, and the SHA-256 of every file.

        Args:
            source: a folder, a zip file, or the name of a shipped bundle.

        Raises:
            FileNotFoundError: there is no such folder, file or shipped bundle.
            BundleError: damaged, foreign, or of a newer format; the message names the file.
        """
        path = _find(source)
        try:
            description = json.loads((text := _read(path, DESCRIPTION)).decode("utf-8"))
        except ValueError as error:
            raise BundleError(f"{path}/{DESCRIPTION} is not JSON: {error}") from error
        bundle = _from_description(path, description, hashlib.sha256(text).hexdigest())
        for name in bundle.files:
            bundle.read(name)
        return bundle

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(width, height) of a heatmap."""
        return self.size[0] // self.stride, self.size[1] // self.stride

    def has(self, role: str) -> bool:
        """Whether any file has this role."""
        return any(entry["role"] == role for entry in self.files.values())

    def network(self, role: str, precision: str = "fp32") -> Network:
        """The ONNX file of a network in a precision; bf16 takes the fp32 file.

        Raises:
            ValueError: the bundle has no such file; the message says which it has.
        """
        wanted = "fp32" if precision == "bf16" else precision
        there = {e["precision"]: name for name, e in self.files.items() if e["role"] == role}
        if wanted not in there:
            raise ValueError(
                f"precision: {precision!r} needs the {role} network in {wanted}, and bundle {self.name!r} "
                f"({self.path}) has it in {sorted(there) or 'none'}; `oaks export` writes others"
            )
        return Network(self, role, there[wanted], precision)

    def holds(self, role: str, precision: str) -> bool:
        """Whether a file has this role and precision."""
        return any((e["role"], e["precision"]) == (role, precision) for e in self.files.values())

    def weights(self, precision: str = "fp32") -> list[Network]:
        """The safetensors files, pose network first, for executors that build the networks themselves.

        Raises:
            ValueError: the bundle has no weights of a pose network.
            BundleError: a weights file does not say which network it holds.
        """
        found = {}
        for name, entry in self.files.items():
            if entry["role"] == "weights":
                kind = weights_description(f"{self.path}/{name}", self.read(name)).get("kind")
                found[kind] = Network(self, str(kind), name, precision)
        if "pose" not in found:
            raise ValueError(
                f"bundle: backend 'torch' needs the pose network's weights, and {self.name!r} ({self.path}) "
                "has none; `oaks export` writes them"
            )
        return [found[kind] for kind in ("pose", "ks") if kind in found]

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            BundleError: it is damaged, or gone or another one since the bundle was loaded.
        """
        content, wanted = _read(self.path, name), self.files[name]["sha256"]
        if (found := hashlib.sha256(content).hexdigest()) != wanted:
            raise BundleError(
                f"{self.path}/{name} is damaged or another file: its SHA-256 should be {wanted} and is {found}"
            )
        return content

    @contextmanager
    def open_path(self, name: str) -> Iterator[Path]:
        """A path under which a file can be opened while the block runs, from a zip too."""
        if self.path.is_dir():
            yield self.path / name
            return
        with tempfile.TemporaryDirectory(prefix="oaks-") as folder:
            path = Path(folder) / name
            path.write_bytes(self.read(name))
            yield path


def write(
    folder: str | Path, description: Mapping[str, Any], files: Mapping[str, Mapping[str, str]]
) -> Bundle:
    """Writes bundle.json, with checksums, beside files that already lie in a folder.

    Args:
        folder: where the files lie.
        description: bundle.json's content; "format" and "files" are filled in here.
        files: file name -> {"role": "pose" | "ks" | "weights", "precision": "fp32" | "fp16" | "int8"}.

    Returns:
        The bundle, loaded and checked as anyone would load it.

    Raises:
        BundleError: the description or a file does not fit; bundle.json is then as it was before.
    """
    folder = Path(folder)
    entries = {
        name: {"sha256": hashlib.sha256(_read(folder, name)).hexdigest(), **dict(entry)}
        for name, entry in files.items()
    }
    content = {**description, "format": FORMAT, "files": entries}
    _from_description(folder, content, sha256="")
    try:
        write_json(folder / DESCRIPTION, content, indent=1)
    except ValueError as error:
        raise BundleError(f"{folder}/{DESCRIPTION}: {error}") from error
    return Bundle.load(folder)


def weights_description(label: str, content: bytes) -> dict[str, Any]:
    """What a trained network's safetensors file says about itself, under "oaks" in its metadata.

    Raises:
        BundleError: it is no such file; `label` names it.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["oaks"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{label}: no safetensors file of a network that oaks trained") from error


def shipped() -> list[str]:
    """The names of the bundles that come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / DESCRIPTION).is_file())


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


def _read(path: Path, name: str) -> bytes:
    """A file of a bundle, from its folder or zip."""
    try:
        if path.is_dir():
            return (path / name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(_member(archive, name))
    except (
        OSError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, RuntimeError
    ) as error:  # fmt: skip
        raise BundleError(f"{path}/{name} cannot be read: {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> str:
    """A zip holds its files at the top, or in one folder; what some systems add beside that does not matter."""
    if name in archive.namelist():
        return name
    folders = [entry.rpartition("/")[0] for entry in archive.namelist() if entry.endswith(f"/{DESCRIPTION}")]
    return f"{folders[0]}/{name}" if len(folders) == 1 else name


def _from_description(path: Path, content: Any, sha256: str) -> Bundle:
    """Checks bundle.json field by field."""
    where = f"{path}/{DESCRIPTION}"

    def need(condition: bool, message: str) -> None:
        if not condition:
            raise BundleError(f"{where}: {message}")

    need(isinstance(content, Mapping), f"an object wanted, got {type(content).__name__}")
    version = content.get("format")
    need(isinstance(version, int) and version >= 1, f"format: a whole number wanted, got {version!r}")
    need(
        version <= FORMAT,
        f"format {version} is newer than {FORMAT}, the newest that this version of oaks reads: upgrade oaks",
    )
    missing = [name for name in REQUIRED if name not in content]
    need(not missing, f"fields {missing} are missing")
    try:
        return Bundle(path=path, description=content, sha256=sha256, **_fields(content))
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{where}: {detail}") from error


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """bundle.json's fields in their types; ValueError says which does not fit."""
    for name, kind in KINDS.items():
        value = content.get(name, kind())
        if not isinstance(value, kind) or (name in ("name", "license") and not value):
            wanted = {str: "text", int: "a whole number", dict: "an object", list: "a list"}[kind]
            raise ValueError(f"{name}: {wanted} wanted, got {value!r}")
    if not all(isinstance(source, str) for source in content.get("trained_on", ())):
        raise ValueError(f"trained_on: texts wanted, got {content['trained_on']}")
    if not all(isinstance(made, dict) for made in content.get("architecture", {}).values()):
        raise ValueError(f"architecture: an object for each role wanted, got {content['architecture']}")
    if "score" in content:
        _one_of("score", content["score"], SCORES)
    skeleton = Skeleton.from_dict(content["skeleton"])
    if skeleton.count > native.max_keypoints:
        raise ValueError(f"skeleton: at most {native.max_keypoints} keypoints wanted, got {skeleton.count}")
    network_input, calibration = content["input"], content.get("calibration", {})
    size = _numbers("input.size", network_input["size"], 2)
    stride = content["stride"]
    if stride < 1 or any(side < stride or side % stride or side != int(side) for side in size):
        raise ValueError(f"input.size: multiples of the stride {stride} wanted, got {network_input['size']}")
    std = _numbers("input.std", network_input["std"], 3)
    if min(std) <= 0:
        raise ValueError(f"input.std: positive numbers wanted, got {std}")
    files = {name: _file(name, entry) for name, entry in content["files"].items()}
    kinds = [(entry["role"], entry["precision"]) for entry in files.values() if entry["role"] != "weights"]
    if len(set(kinds)) != len(kinds):
        raise ValueError(f"files: two files have the same role and precision: {sorted(files)}")
    if not any(entry["role"] in ("pose", "weights") for entry in files.values()):
        raise ValueError("files: none has the role 'pose' or 'weights'")
    # Weights may hold a KS network, and visibility is an output of the pose network: those the Engine looks for.
    if content.get("score") == "oaks" and not any(e["role"] in ("ks", "weights") for e in files.values()):
        raise ValueError("score: 'oaks' needs a KS network, and no file has the role 'ks'")
    sigmas = {
        name: None if content.get(name) is None else _numbers(name, [content[name]], 1)[0]
        for name in ("heatmap_sigma", "blur_sigma")
    }
    for name, sigma in sigmas.items():
        if sigma is not None and sigma <= 0:
            raise ValueError(f"{name}: a positive number wanted, got {sigma}")
    if (sigmas["blur_sigma"] or 0) > LARGEST_BLUR_SIGMA:
        raise ValueError(f"blur_sigma: at most {LARGEST_BLUR_SIGMA:g} wanted, got {sigmas['blur_sigma']}")
    if unknown := set(calibration) - {"visibility", "similarity"}:
        raise ValueError(f"calibration: visibility and similarity are known, got {sorted(unknown)}")
    padding = float(content.get("padding", 1.25))
    if not 0 < padding < 10:
        raise ValueError(f"padding: a number above 0 and below 10 wanted, got {padding}")
    return {
        "name": content["name"],
        "skeleton": skeleton,
        "size": (int(size[0]), int(size[1])),
        "mean": _numbers("input.mean", network_input["mean"], 3),
        "std": std,
        "color": _one_of("input.color", network_input.get("color", "bgr"), ("bgr", "rgb")),
        "stride": stride,
        "alignment": _one_of("alignment", content.get("alignment", "half_pixel"), ALIGNMENTS),
        "refine": _one_of("refine", content.get("refine", "second_peak"), REFINEMENTS),
        "blur_sigma": sigmas["blur_sigma"],
        "padding": padding,
        "visibility": _calibration("visibility", calibration.get("visibility", {}), skeleton.count),
        "similarity": _calibration("similarity", calibration.get("similarity", {}), skeleton.count),
        "score": content.get("score"),
        "license": content["license"],
        "files": files,
    }


def _file(name: str, entry: Mapping[str, str]) -> dict[str, str]:
    if name != Path(name).name or name in ("", ".", "..", DESCRIPTION) or "\\" in name:
        raise ValueError(f"files: a plain file name wanted, got {name!r}")
    checksum = str(entry["sha256"])
    if len(checksum) != 64 or set(checksum) - set("0123456789abcdef"):
        raise ValueError(f"files: {name}: sha256 must be 64 lower-case hexadecimal digits, got {checksum!r}")
    return {
        "sha256": checksum,
        "role": _one_of(f"files: {name}: role", entry["role"], ROLES),
        "precision": _one_of(f"files: {name}: precision", entry["precision"], PRECISIONS),
    }


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}: one of {list(choices)} wanted, got {value!r}")
    return value


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name}: {count} finite numbers wanted, got {values}")
    return numbers


def _calibration(name: str, content: Any, count: int) -> Calibration:
    if not isinstance(content, Mapping) or set(content) - {"scale", "bias"}:
        raise ValueError(f"calibration.{name}: an object with scale and bias wanted, got {content}")
    scale = np.asarray(content.get("scale", 1.0), np.float32)
    bias = np.asarray(content.get("bias", 0.0), np.float32)
    for part, value in (("scale", scale), ("bias", bias)):
        if value.shape not in ((), (count,)) or not np.isfinite(value).all():
            raise ValueError(f"calibration.{name}.{part}: a number or {count} numbers wanted, got {value}")
    return Calibration(scale, bias)


__all__ = ["FORMAT", "Bundle", "Calibration", "Network", "shipped", "write"]
