"""TensorRT plans built ahead of time and stored in a bundle. TensorRT for RTX needs no GPU for this."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oaks import bundle as bundles
from oaks.bundle import Bundle, Network
from oaks.engines.plans.cache import plan_key, settings_for
from oaks.engines.plans.library import RTX, TENSORRT, Library, library
from oaks.engines.plans.plan import TimingCache, build
from oaks.errors import ArgumentError
from oaks.files import replacing

if TYPE_CHECKING:
    from oaks.executors.pycuda import Device


@dataclass(frozen=True)
class MadePlan:
    """A plan written to a bundle.

    Attributes:
        role, precision: role and precision of the network.
        capabilities: the compute capabilities that it was built for; empty: TensorRT's default.
        file: its file in the bundle.
        bytes: its size.
        seconds: build time.
    """

    role: str
    precision: str
    capabilities: tuple[str, ...]
    file: str
    bytes: int
    seconds: float


def plan_bundle(
    folder: str | Path,
    *,
    precisions: Sequence[str] = ("auto",),
    flavor: str = RTX,
    capabilities: Sequence[str] = (),
    max_batch: int | None = None,
    flip: bool = True,
    device: int = 0,
    show: bool = True,
) -> list[MadePlan]:
    """Build the plans of a bundle's pose and KS networks and write them to the bundle.

    An Engine that loads the bundle uses a plan that fits: the same TensorRT version and network, a GPU that the plan
    supports, and batches up to the plan's. Plans that the bundle already holds for the same purpose are replaced.

    Args:
        folder: the bundle's folder.
        precisions: each "fp32", "fp16", "int8", or "auto": the precision that an Engine chooses on a GPU.
        flavor: "tensorrt_rtx", which needs no GPU; or "tensorrt", whose plans run only on this machine's GPU.
        capabilities: compute capabilities that TensorRT for RTX builds for, "75" for 7.5; empty: its default. They
            share one plan, except 7.5, which gets its own.
        max_batch: the most people in one pass; None: the Engine's default on a GPU.
        flip: whether the plans are for an Engine with `flip`; they then also fit one without it.
        device: index of the GPU, for flavor "tensorrt".
        show: whether to show progress, on standard error.

    Returns:
        The plans, in the order in which they were built.

    Raises:
        ArgumentError: an argument does not fit, the bundle is not a folder, or it lacks a precision.
        BackendUnavailable: TensorRT is not installed, or does not support a capability or device.
        TensorRTError: a plan cannot be built; the bundle is then unchanged.
        KeyboardInterrupt: Ctrl-C; the bundle is then unchanged.
    """
    from oaks.executors import pycuda as gpus
    from oaks.inference import batch_sizes, choose_networks

    bundle = Bundle.load(folder)
    if not bundle.path.is_dir():
        raise ArgumentError(
            f"folder must be a bundle's folder, got the zip file {bundle.path}; unpack it first"
        )
    if flavor not in (RTX, TENSORRT):
        raise ArgumentError(f"flavor must be {RTX!r} or {TENSORRT!r}, got {flavor!r}")
    if flavor == TENSORRT and capabilities:
        raise ArgumentError(
            f"capabilities must be left out with flavor {TENSORRT!r}, got {list(capabilities)}"
        )
    trt = library(flavor)
    place = gpus.device(device) if flavor == TENSORRT else None
    batches, copies = batch_sizes(max_batch, True), 2 if flip else 1
    made: list[tuple[MadePlan, dict[str, Any]]] = []
    with _WrittenFiles(bundle.path) as written:
        for network in _networks(bundle, precisions, choose_networks):
            sizes = [copies * batch for batch in batches] if network.role == "pose" else batches
            for settings in dict.fromkeys(
                settings_for(network, sizes, flavor, capability) for capability in capabilities or (None,)
            ):
                made.append(_build_one(trt, network, settings, place, written, show))
        _update_description(bundle, [entry for _, entry in made])
        written.keep()
    return [plan for plan, _ in made]


def _networks(bundle: Bundle, precisions: Sequence[str], choose: Any) -> list[Network]:
    """Return the networks that an Engine would run in these precisions, each once."""
    found: dict[tuple[str, str], Network] = {}
    for precision in precisions:
        for network in choose(bundle, TENSORRT, precision, True)[1]:
            found.setdefault((network.role, network.precision), network)
    return list(found.values())


def _build_one(
    trt: Library, network: Network, settings: Any, place: Device | None, written: _WrittenFiles, show: bool
) -> tuple[MadePlan, dict[str, Any]]:
    """Build one plan and write its file; return the plan and its entry in bundle.json."""
    started = time.monotonic()
    active = place.active if place is not None else nullcontext
    content = build(
        trt, network.read(), settings, TimingCache(), label=network.label, active=active, show=show
    )
    seconds = time.monotonic() - started
    short = "rtx" if trt.flavor == RTX else "trt"
    name = f"{network.role}.{network.precision}.{short}-{hashlib.sha256(content).hexdigest()[:8]}.plan"
    written.write(name, content)
    entry = {
        "role": network.role,
        "precision": network.precision,
        "flavor": trt.flavor,
        "version": trt.version,
        "file": name,
        "key": plan_key(trt, network, settings, place),
    }
    plan = MadePlan(network.role, network.precision, settings.capabilities, name, len(content), seconds)
    return plan, entry


def _update_description(bundle: Bundle, entries: Sequence[Mapping[str, Any]]) -> None:
    """Enter the plans in bundle.json, replace those for the same purpose, and remove files that it no longer names."""
    old = list(bundle.description.get("plans", ()))
    replaced = {_purpose(entry) for entry in entries}
    kept = [entry for entry in old if _purpose(entry) not in replaced]
    bundles.write(bundle.path, {**bundle.description, "plans": [*kept, *entries]})
    named = {entry["file"] for entry in (*kept, *entries)}
    for entry in old:
        if entry["file"] not in named:
            (bundle.path / entry["file"]).unlink(missing_ok=True)


def _purpose(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what identifies a plan's purpose: network, flavor and GPU. A bundle holds one plan for each."""
    key = entry["key"]
    place = key.get("capabilities") if entry["flavor"] == RTX else key.get("device")
    return entry["role"], entry["precision"], entry["flavor"], repr(place)


class _WrittenFiles:
    """Files written so far; they are removed unless `keep` is called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []

    def __enter__(self) -> _WrittenFiles:
        return self

    def write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        if not path.exists():  # a plan with the same bytes may already exist
            self._paths.append(path)
            with replacing(path) as file:
                file.write(content)

    def keep(self) -> None:
        self._paths.clear()

    def __exit__(self, *exception: object) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)


__all__ = ["MadePlan", "plan_bundle"]
