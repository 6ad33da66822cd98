"""Cache of TensorRT plans. Each plan lies beside a note of everything that it depends on.

In the cache folder (OAKS_CACHE, or the user's cache folder) a plan has three files of the same stem, which ends in a
hash of what the plan depends on: .plan, .json (the note, with the plan's SHA-256) and .lock. The building process
holds the lock, so that two processes never build the same plan at once. A plan stored in the bundle is used if its
key fits; then nothing is built.
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
"""Increase it when plans change in a way that the note does not show."""

OTHER_DEVICE = "different models of devices"
"""Text of TensorRT's warning that a plan was built on another GPU model: it may run slowly or incorrectly."""

_BUILD_TIME = {TENSORRT: "minutes", RTX: "seconds"}
"""How long building takes, for messages."""


@dataclass(frozen=True)
class Plan:
    """A plan, ready to run.

    Attributes:
        engine: TensorRT's engine.
        runtime: the runtime that created the engine and must live as long.
        profiles: its batch sizes, in the order of the engine's profiles.
        path: its file, in the cache or in the bundle.
        kernels: cache file of the kernels that TensorRT for RTX compiles for this plan on this GPU.
    """

    engine: trt.ICudaEngine
    runtime: trt.Runtime
    profiles: tuple[Profile, ...]
    path: Path
    kernels: Path


def default_folder() -> Path:
    """Return the folder that OAKS_CACHE names, or oaks' folder in the user's cache folder."""
    import platformdirs

    named = os.environ.get("OAKS_CACHE")
    return (Path(named) if named else platformdirs.user_cache_path("oaks", appauthor=False)) / "tensorrt"


def load_plan(
    network: Network,
    device: Device,
    *,
    batches: Sequence[int],
    flavor: str = TENSORRT,
    folder: str | Path | None = None,
    show: bool = True,
) -> Plan:
    """Return the plan of a network on a device: the bundle's or the cached one if it fits and loads, else a new one.

    Args:
        network: a bundle's network; its ONNX file determines the precision.
        device: the GPU; its context must be current.
        batches: the batch sizes that will be run, ascending.
        flavor: "tensorrt" or "tensorrt_rtx".
        folder: the cache folder; None: default_folder().
        show: whether to show the progress of a build.

    Raises:
        BackendUnavailable: TensorRT is not installed, or there is no GPU that it can use.
        BundleError: the ONNX file differs from the one that bundle.json describes.
        TensorRTError: TensorRT cannot build the plan or cannot load the one it has just built, or the plan cannot be
            written.
        KeyboardInterrupt: Ctrl-C during the build.
    """
    library = tensorrt_library.library(flavor)
    settings = settings_for(network, batches, flavor, device.compute_capability)
    key = plan_key(library, network, settings, device)
    folder = Path(folder) if folder is not None else default_folder()
    stem = _stem(network, device, key)
    path = folder / f"{stem}.plan"
    kernels = folder / f"{stem}-{_file_name(device.name)}.kernels"
    runtime = library.runtime()
    if (found := _from_bundle(library, runtime, network, key)) is not None:
        return Plan(*found, kernels)
    with _with_advice(folder, "make"):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), f"another process is building {network.label}"):
        mark = library.log.mark()
        engine = _cached_engine(library, runtime, path, key)
        if engine is None:
            _build_into(library, network, settings, device, path, key, show)
            engine = _cached_engine(library, runtime, path, key)
        if engine is None:
            what = f"{network.label}: TensorRT does not load the plan that it has just built"
            raise library.failure(what, mark)
    return Plan(engine, runtime, settings.profiles, path, kernels)


def settings_for(
    network: Network, batches: Sequence[int], flavor: str, capability: str | None
) -> BuildSettings:
    """Return how the plan of a network is built.

    Args:
        batches: the batch sizes that will be run, ascending.
        flavor: "tensorrt" or "tensorrt_rtx".
        capability: compute capability of the GPU, "89" for 8.9; None: the default of TensorRT for RTX.

    Raises:
        BackendUnavailable: TensorRT for RTX does not support the capability.
    """
    if flavor == RTX and capability is not None and (reason := rtx.unavailable(capability)):
        raise BackendUnavailable(reason)
    named = rtx.capabilities_for(capability) if flavor == RTX and capability is not None else ()
    return BuildSettings(profiles_for(batches), tf32=network.precision != "fp32", capabilities=named)


def plan_key(
    library: Library, network: Network, settings: BuildSettings, device: Device | None
) -> dict[str, Any]:
    """Return everything that a plan depends on, under stable names, as enum numbers change between versions.

    The ONNX file holds the weights, with the scales of int8. No plugin libraries are loaded. A plan of TensorRT for
    RTX runs on several GPUs and operating systems, so its key does not contain them.

    Args:
        device: the plan's GPU; ignored for TensorRT for RTX, where it may be None.
    """
    place: dict[str, Any] = {}
    if library.flavor != RTX:
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
        "flavor": library.flavor,
        "version": library.version,
        **place,
        "onnx_sha256": network.sha256,
        "precision": network.precision,
        **json.loads(json.dumps(dataclasses.asdict(settings))),
    }


def _stem(network: Network, device: Device, key: Mapping[str, Any]) -> str:
    """Return a readable name followed by the hash that distinguishes plans."""
    place = "rtx" if key["flavor"] == RTX else f"sm{device.compute_capability}"
    readable = f"{network.bundle.name}-{network.role}-{network.precision}-{place}"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '', readable)}-{digest[:16]}"


def _from_bundle(
    library: Library, runtime: trt.Runtime, network: Network, key: Mapping[str, Any]
) -> tuple[trt.ICudaEngine, trt.Runtime, tuple[Profile, ...], Path] | None:
    """Return the engine and profiles of a plan stored in the bundle; None if none fits and loads."""
    for part in network.plans(library.flavor):
        source = network.bundle.path / part.file
        if (profiles := serves(part.key, key)) is None:
            log.info(
                "the plan %s is for another version, GPU or batch size; a fitting one is used instead", source
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


def serves(plan: Mapping[str, Any], required: Mapping[str, Any]) -> tuple[Profile, ...] | None:
    """Return the profiles of a plan if it fits the key of another, else None.

    All parts of the keys must be equal except the profiles: the plan's must cover the required batches.
    """
    if {**plan, "profiles": None} != {**required, "profiles": None}:
        return None
    try:
        profiles = tuple(Profile(**profile) for profile in plan["profiles"])
        largest = max(profile.largest for profile in profiles)
        return profiles if largest >= required["profiles"][-1]["largest"] else None
    except (TypeError, ValueError):
        return None


def _cached_engine(
    library: Library, runtime: trt.Runtime, path: Path, key: Mapping[str, Any]
) -> trt.ICudaEngine | None:
    """Return the engine of a cached plan; None if there is none, or if it was damaged and has been set aside."""
    if not path.exists():
        return None
    try:
        note = read_json(path.with_suffix(".json"))
    except (OSError, ValueError) as error:
        _set_aside(path, f"its note cannot be read: {error}")
        return None
    if not isinstance(note, dict) or note.get("key") != key:
        _set_aside(path, "its note describes another plan")
        return None
    plan = path.read_bytes()
    if hashlib.sha256(plan).hexdigest() != note.get("plan_sha256"):
        _set_aside(path, "it is damaged: its SHA-256 differs from the one in its note")
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
    """Rename a plan and its note, so that they can be inspected and are not tried again."""
    log.warning("the plan %s is renamed to .bad and built again: %s", path, reason)
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            os.replace(file, file.with_name(file.name + ".bad"))


def _build_into(
    library: Library,
    network: Network,
    settings: BuildSettings,
    device: Device,
    path: Path,
    key: Mapping[str, Any],
    show: bool,
) -> None:
    """Build a plan and write it with its note."""
    onnx = network.read()
    batches = ", ".join(f"{p.smallest}-{p.largest}" for p in settings.profiles)
    log.info("building the TensorRT plan of %s for batches %s", network.label, batches)
    if show:
        from rich.console import Console

        Console(stderr=True).print(
            f"Building the {library.name} plan of {network.label} for {device.name}: {_BUILD_TIME[library.flavor]}, "
            f"once. Kept in {path}"
        )
    started = time.monotonic()
    with _timings(path.parent, library, device) as timing:
        plan = build(library, onnx, settings, timing, label=network.label, active=device.active, show=show)
    note = {
        "key": key,
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "onnx": network.label,
        "built": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
    }
    # The note is written last: a plan without a note counts as unfinished.
    with _with_advice(path, f"write the {len(plan) / 1e6:.0f} MB of"):
        with replacing(path) as file:
            file.write(plan)
        write_json(path.with_suffix(".json"), note, indent=1)


def _file_name(text: str) -> str:
    """Return a text in a form that fits in a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)


@contextmanager
def _timings(folder: Path, library: Library, device: Device) -> Iterator[TimingCache]:
    """Layer timings of a TensorRT version and a device; written back even if the build is stopped."""
    if library.flavor == RTX:  # it ignores timing caches
        yield TimingCache()
        return
    name = _file_name(f"timings-{library.version}-{device.name}")
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
                    # They only save time: a finished plan must not be lost because they cannot be written.
                    log.warning("the timings in %s cannot be written: %s", path, error)


@contextmanager
def _locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock between processes and threads; log a warning if it has to wait."""
    import filelock

    lock = filelock.FileLock(path)
    with _with_advice(path, "lock"):
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
def _with_advice(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError into an error that says what was being done and what to do."""
    try:
        yield
    except OSError as error:
        raise TensorRTError(
            f"cannot {action} {path}: {error.strerror or error}. Plans are kept there; free space, or set "
            "OAKS_CACHE to another folder"
        ) from error


__all__ = ["Plan", "default_folder", "load_plan", "plan_key", "serves", "settings_for"]
