"""TensorRT plans, kept from one run to the next beside a note of everything that they depend on.

In the cache folder (OAKS_CACHE, or the user's own) a plan is three files of the same stem, which ends in a
hash of what the plan depends on: .plan, .json (the note, with the plan's SHA-256) and .lock. The process that
builds holds the lock, so two processes never build the same plan at once. A plan that a bundle brings along is
used where its key fits, and nothing is built then.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import logging
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oaks.engines.plans import library as tensorrt_library
from oaks.engines.plans import rtx
from oaks.engines.plans.library import RTX, TENSORRT, Library, TensorRTError
from oaks.engines.plans.plan import BuildSettings, Profile, TimingCache, build, profiles_for
from oaks.errors import BackendUnavailable
from oaks.files import replacing, write_json
from oaks.structured import read_json

if TYPE_CHECKING:
    import tensorrt as trt

    from oaks.bundle import Network
    from oaks.executors.pycuda import Device

log = logging.getLogger("oaks.plans")

SCHEMA = 1
"""Raised when what a plan is made of changes in a way that the note does not tell."""

OTHER_DEVICE = "different models of devices"
"""TensorRT's warning that a plan was built on another GPU: it runs, but slowly or wrongly."""

_PATIENCE = {TENSORRT: "minutes", RTX: "seconds"}
"""How long building takes."""


@dataclass(frozen=True)
class Plan:
    """A plan, ready to run.

    Attributes:
        engine: TensorRT's engine.
        runtime: what made the engine; must live as long.
        profiles: its batch sizes, in the order of the engine's profiles.
        path: of its file, in the cache or in the bundle.
        kernels: where TensorRT for RTX keeps the kernels that it finishes for this plan on this GPU.
    """

    engine: trt.ICudaEngine
    runtime: trt.Runtime
    profiles: tuple[Profile, ...]
    path: Path
    kernels: Path


def default_folder() -> Path:
    """The folder that OAKS_CACHE names, or oaks' folder among the user's caches."""
    import platformdirs

    named = os.environ.get("OAKS_CACHE")
    return (Path(named) if named else platformdirs.user_cache_path("oaks", appauthor=False)) / "tensorrt"


def load_plan(
    network: Network,
    device: Device,
    *,
    batches: Sequence[int],
    flavour: str = TENSORRT,
    folder: str | Path | None = None,
    show: bool = True,
) -> Plan:
    """The plan of a network on a device: the bundle's or the kept one if it fits and loads, else a new one.

    Args:
        network: of a bundle; its ONNX file decides the precision.
        device: whose context is current.
        batches: the batch sizes that will be run, ascending.
        flavour: "tensorrt" or "tensorrt_rtx".
        folder: where plans are kept; default_folder() if None.
        show: whether to show that a plan is being built, and its progress.

    Raises:
        BackendUnavailable: TensorRT is not installed, or there is no GPU that it can use.
        BundleError: the ONNX file is not the one that bundle.json names.
        TensorRTError: TensorRT cannot build the plan, does not load the one that it has just built, or the
            plan cannot be written.
        KeyboardInterrupt: Ctrl-C during the build.
    """
    library = tensorrt_library.library(flavour)
    recipe = settings_for(network, batches, flavour, device.compute_capability)
    key = plan_key(library, network, recipe, device)
    folder = Path(folder) if folder is not None else default_folder()
    stem = _stem(network, device, key)
    path = folder / f"{stem}.plan"
    kernels = folder / f"{stem}-{_named(device.name)}.kernels"
    runtime = library.runtime()
    if (found := _from_bundle(library, runtime, network, key)) is not None:
        return Plan(*found, kernels)
    with _explained(folder, "make"):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), f"another process is building {network.label}"):
        mark = library.log.mark()
        engine = _kept(library, runtime, path, key)
        if engine is None:
            _build_into(library, network, recipe, device, path, key, show)
            engine = _kept(library, runtime, path, key)
        if engine is None:
            what = f"{network.label}: TensorRT does not load the plan that it has just built"
            raise library.failure(what, mark)
    return Plan(engine, runtime, recipe.profiles, path, kernels)


def settings_for(
    network: Network, batches: Sequence[int], flavour: str, capability: str | None
) -> BuildSettings:
    """How the plan of a network is built.

    Args:
        batches: the batch sizes that will be run, ascending.
        flavour: "tensorrt" or "tensorrt_rtx".
        capability: of the GPU, "89" for 8.9; None for those that TensorRT for RTX serves by default.

    Raises:
        BackendUnavailable: TensorRT for RTX does not serve the capability.
    """
    if flavour == RTX and capability is not None and (reason := rtx.unavailable(capability)):
        raise BackendUnavailable(reason)
    named = rtx.capabilities_for(capability) if flavour == RTX and capability is not None else ()
    return BuildSettings(profiles_for(batches), tf32=network.precision != "fp32", capabilities=named)


def plan_key(
    library: Library, network: Network, recipe: BuildSettings, device: Device | None
) -> dict[str, Any]:
    """Everything that a plan depends on, under names that last: enum numbers change between versions.

    The ONNX file holds its weights, and int8's scales with them. No plugin libraries are loaded. A plan of
    TensorRT for RTX serves several GPUs and operating systems, so these are not in its key.

    Args:
        device: whose plan it is; not looked at, and may be None, for TensorRT for RTX.
    """
    place: dict[str, Any] = {}
    if library.flavour != RTX:
        assert device is not None
        place = {
            "cuda": device.cuda_major,
            "system": f"{platform.system()} {platform.machine()}".lower(),
            "device": {
                "name": device.name,
                "compute_capability": device.compute_capability,
                "multiprocessors": device.multiprocessors,
            },
        }
    return {
        "schema": SCHEMA,
        "flavour": library.flavour,
        "version": library.version,
        **place,
        "onnx_sha256": network.sha256,
        "precision": network.precision,
        **json.loads(json.dumps(dataclasses.asdict(recipe))),
    }


def _stem(network: Network, device: Device, key: Mapping[str, Any]) -> str:
    """A name that people recognise, then the hash that tells plans apart."""
    place = "rtx" if key["flavour"] == RTX else f"sm{device.compute_capability}"
    readable = f"{network.bundle.name}-{network.role}-{network.precision}-{place}"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '', readable)}-{digest[:16]}"


def _from_bundle(
    library: Library, runtime: trt.Runtime, network: Network, key: Mapping[str, Any]
) -> tuple[trt.ICudaEngine, trt.Runtime, tuple[Profile, ...], Path] | None:
    """The engine of a plan that the bundle brings along, with its profiles; None if none fits and loads."""
    for part in network.plans(library.flavour):
        source = network.bundle.path / part.file
        if (profiles := serves(part.key, key)) is None:
            log.info(
                "the plan %s is for another version, GPU or batch size; one that fits is used instead", source
            )
            continue
        mark = library.log.mark()
        engine = runtime.deserialize_cuda_engine(network.bundle.read(part.file))
        if engine is not None:
            return engine, runtime, profiles, source
        log.warning(
            "%s does not load %s, so it is built again: %s", library.name, source, library.log.tail(mark)
        )
    return None


def serves(plan: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Profile, ...] | None:
    """The profiles of a plan if it can be used where another key is wanted, else None.

    Every part of the keys must be equal but the profiles, of which the plan's must cover the wanted batches.
    """
    if {**plan, "profiles": None} != {**wanted, "profiles": None}:
        return None
    try:
        profiles = tuple(Profile(**profile) for profile in plan["profiles"])
        largest = max(profile.largest for profile in profiles)
        return profiles if largest >= wanted["profiles"][-1]["largest"] else None
    except (TypeError, ValueError):
        return None


def _kept(
    library: Library, runtime: trt.Runtime, path: Path, key: Mapping[str, Any]
) -> trt.ICudaEngine | None:
    """The engine of the plan in a file; None if there is none, or after setting aside one that is no good."""
    if not path.exists():
        return None
    try:
        note = read_json(path.with_suffix(".json"))
    except (OSError, ValueError) as error:
        _set_aside(path, f"its note cannot be read: {error}")
        return None
    if not isinstance(note, dict) or note.get("key") != key:
        _set_aside(path, "its note is about something else")
        return None
    plan = path.read_bytes()
    if hashlib.sha256(plan).hexdigest() != note.get("plan_sha256"):
        _set_aside(path, "it is damaged: its SHA-256 is not the noted one")
        return None
    mark = library.log.mark()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        _set_aside(path, f"TensorRT does not load it: {library.log.tail(mark)}")
        return None
    if any(OTHER_DEVICE in line for line in library.log.since(mark)):
        _set_aside(path, "it was built on another GPU")
        return None
    return engine


def _set_aside(path: Path, reason: str) -> None:
    """Renames a plan and its note, so that they can be looked at and are not tried again."""
    log.warning("the plan %s is set aside as .bad and built anew: %s", path, reason)
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            os.replace(file, file.with_name(file.name + ".bad"))


def _build_into(
    library: Library,
    network: Network,
    recipe: BuildSettings,
    device: Device,
    path: Path,
    key: Mapping[str, Any],
    show: bool,
) -> None:
    """Builds a plan and writes it with its note."""
    onnx = network.read()
    batches = ", ".join(f"{p.smallest}-{p.largest}" for p in recipe.profiles)
    log.info("building the TensorRT plan of %s for batches %s", network.label, batches)
    if show:
        from rich.console import Console

        Console(stderr=True).print(
            f"Building the {library.name} plan of {network.label} for {device.name}: {_PATIENCE[library.flavour]}, "
            f"once. Kept in {path}"
        )
    started = time.monotonic()
    with _timings(path.parent, library, device) as timing:
        plan = build(library, onnx, recipe, timing, label=network.label, active=device.active, show=show)
    note = {
        "key": key,
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "onnx": network.label,
        "built": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
    }
    # The note last: a plan without one counts as unfinished.
    with _explained(path, f"write the {len(plan) / 1e6:.0f} MB of"):
        with replacing(path) as file:
            file.write(plan)
        write_json(path.with_suffix(".json"), note, indent=1)


def _named(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)


@contextmanager
def _timings(folder: Path, library: Library, device: Device) -> Iterator[TimingCache]:
    """The layer timings of a TensorRT version and a device; written back even if the build is stopped."""
    if library.flavour == RTX:  # whose timing caches do nothing
        yield TimingCache()
        return
    name = _named(f"timings-{library.version}-{device.name}")
    path = folder / f"{name}.cache"
    with _locked(path.with_suffix(".lock"), "another process is writing timings"):
        timing = TimingCache(path.read_bytes() if path.exists() else b"")
    before = timing.content
    try:
        yield timing
    finally:
        if timing.content != before:
            with _locked(path.with_suffix(".lock"), "another process is writing timings"):
                try:
                    with replacing(path) as file:
                        file.write(timing.content)
                except OSError as error:
                    # They only save time; a build that is done should not be lost for them.
                    log.warning("the timings in %s cannot be written: %s", path, error)


@contextmanager
def _locked(path: Path, busy: str) -> Iterator[None]:
    """Holds a lock between processes and threads; says so if that means waiting."""
    import filelock

    lock = filelock.FileLock(path)
    with _explained(path, "lock"):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.warning("%s; waiting for it (%s)", busy, path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained(path: Path, action: str) -> Iterator[None]:
    """Makes an error of the disk say what was wanted and what to do."""
    try:
        yield
    except OSError as error:
        raise TensorRTError(
            f"cannot {action} {path}: {error.strerror or error}. Plans are kept there; free space, or set "
            "OAKS_CACHE to a folder elsewhere"
        ) from error


__all__ = ["Plan", "default_folder", "load_plan", "plan_key", "serves", "settings_for"]
