"""Connections to Ray: to a running cluster, or to one that is started on this machine, without usage reports."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from oaks import limits
from oaks.arguments import check_count
from oaks.errors import ArgumentError, BackendUnavailable

LOCAL = "local"
"""Special address: Ray is started on this machine and ends with the command."""

_STORE_BYTES = 300 << 20
"""Object store of a local Ray: it holds lists of files and poses, not pictures."""

_THREADS = 4
"""Default number of CPU threads of an Engine."""


def import_ray() -> Any:
    """Import ray, with usage reports off unless the environment enables them.

    Raises:
        BackendUnavailable: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray lowers the priority of its workers by 15, so that any other program would starve an Engine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # On a busy machine the default timeouts would restart the proxy of a service, which loses its requests.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S", "30")
    # What the proxy of a service runs first (oaks.ray.gate.middlewares).
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "oaks.ray.gate.middlewares")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise BackendUnavailable("ray is not installed; run: pip install 'oaks[ray]'") from error
    return ray


def connect(address: str | None = None, *, dashboard: bool = False) -> bool:
    """Connect to Ray unless this process already is.

    Args:
        address: of a cluster: HOST:PORT, or "auto" for the one that runs on this machine; None or "local" starts one
            on this machine.
        dashboard: whether a local Ray starts its dashboard.

    Returns:
        Whether this call connected, so that its caller should disconnect.

    Raises:
        BackendUnavailable: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address in (None, LOCAL):
        ray.init(
            address=LOCAL, object_store_memory=_STORE_BYTES, include_dashboard=dashboard,
            _node_ip_address="127.0.0.1", **quiet,
        )  # fmt: skip
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConnectionError(f"no Ray cluster at {address!r}: {error}") from error
    return True


@contextmanager
def connected(address: str | None = None, **settings: Any) -> Iterator[bool]:
    """A connection to Ray for a block; one that already exists stays open after it. Yields whether it is a new one."""
    own = connect(address, **settings)
    try:
        yield own
    finally:
        if own:
            import_ray().shutdown()


@dataclass(frozen=True)
class Pool:
    """A pool of Engines in a cluster.

    Attributes:
        workers: Engines.
        threads: CPU threads of each; Ray reserves as many CPUs.
        gpus: GPUs of each, 0 or 1.
    """

    workers: int
    threads: int
    gpus: int


def choose_pool(workers: int | None, threads: int | None, device: str | None) -> Pool:
    """Choose a pool that fits into the cluster: one Engine per GPU, or without GPUs one per `threads` CPUs.

    Args:
        workers: Engines; None: as many as the cluster has room for.
        threads: of each; None: 4, fewer where no machine has 4.
        device: "cpu": no GPUs are used; None or "cuda": GPUs are used where there are any.

    Raises:
        ArgumentError: no machine of the cluster has room for one Engine.
    """
    ray = import_ray()
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return fit_pool(machines, workers, threads, device)


def fit_pool(
    machines: list[dict[str, float]], workers: int | None, threads: int | None, device: str | None
) -> Pool:
    """Choose a pool as `choose_pool` does, for machines with these resources."""
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None:
            check_count(name, value)
    if threads is not None:
        limits.check("threads", "threads", threads)
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    if device not in (None, "cpu", "cuda"):
        raise ArgumentError(
            f"device must be None, 'cpu' or 'cuda' with Ray, which chooses the GPU, got {device!r}"
        )
    if device == "cuda" and not gpus:
        raise ArgumentError("device must be 'cpu' in a cluster without a GPU, got 'cuda'")
    per_worker = 1 if gpus and device != "cpu" else 0
    able = [int(machine.get("CPU", 0)) for machine in machines if machine.get("GPU", 0) >= per_worker]
    largest = max(able, default=0)
    if largest < (threads or 1):
        raise ArgumentError(
            f"threads must be at most {largest}, the CPUs of the largest machine, got {threads or 1}"
        )
    threads = threads or min(_THREADS, largest)
    room = gpus if per_worker else sum(count // threads for count in able)
    return Pool(workers or max(1, room), threads, per_worker)


__all__ = ["LOCAL", "Pool", "choose_pool", "connect", "connected", "fit_pool", "import_ray"]
