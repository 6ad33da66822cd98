"""The service on Ray Serve: one replica per GPU, or per `threads` CPU cores, behind one port."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oaks import ops
from oaks.errors import ArgumentError, OaksError
from oaks.ray.batches import BoxesFor, make_settings
from oaks.ray.cluster import LOCAL, choose_pool, connected, import_ray
from oaks.ray.gate import BOARD
from oaks.ray.metrics import POST_SECONDS, Board
from oaks.ray.requests import RequestLimits
from oaks.ray.service import Service, ServiceSettings
from oaks.ray.worker import WorkerSettings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

NAME = "oaks"
_SERVE = "serve"
"""Namespace of Serve's own actors."""
_TAKEN = 10_000
"""Maximum requests that Serve passes to a replica at a time; the replica refuses those beyond its queue."""
_STOP_SECONDS = 120.0
"""Time limit for a stopping replica to answer the requests that it has accepted."""


@dataclass(frozen=True)
class _Options:
    settings: WorkerSettings
    service: ServiceSettings
    board: Any


class Replica:
    """One Engine of the service; a class for Ray Serve.

    Args:
        options: the same for all replicas.
    """

    def __init__(self, options: _Options) -> None:
        from ray import serve

        self._engine = options.settings.open_engine()
        self._engine.warmup()
        self._name = serve.get_replica_context().replica_tag
        self._board = options.board
        self._service = Service(
            self._engine,
            options.settings.source(self._engine),
            options.service,
            replica=self._name,
            snapshots=self._exchange,
        )
        self._posting: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Response:
        if self._posting is None:
            self._posting = asyncio.get_running_loop().create_task(self._post())
        return await self._service.respond(request)

    async def _exchange(self, text: str) -> str:
        """Return the metrics of all replicas."""
        return str(await self._board.exchange.remote(self._name, text))

    async def _post(self) -> None:
        while True:
            text = self._service.metrics.text()
            self._service.stopping, _ = await self._board.post.remote(self._name, text)
            await asyncio.sleep(POST_SECONDS)


def serve(
    bundle: str | Path = "small",
    *,
    ready: Callable[[str], object] = lambda _address: None,
    **settings: Any,
) -> None:
    """Serve a bundle over HTTP until SIGINT or SIGTERM; then answer all accepted requests, and return.

    Args:
        bundle: path or name of a bundle; the same on every machine.
        ready: callback with the address, called when the service accepts requests.
        settings: the arguments of `running`: host, port, address, replicas, threads, device, boxes, detector, nms,
            queue, wait, bounds, and those of oaks.Engine.

    Raises:
        ArgumentError: it was called outside the main thread, or as for `running`.
        BackendUnavailable, ConnectionError, OaksError: as for `running`.
    """
    if threading.current_thread() is not threading.main_thread():
        name = threading.current_thread().name
        raise ArgumentError(
            f"serve must be called in the main thread, got thread {name!r}; use oaks.ray.running instead"
        )
    stop = threading.Event()
    # Signals are taken over after Ray, which takes over SIGTERM too.
    with running(bundle, **settings) as place, stopping_on_signals(stop):
        ready(place)
        while not stop.wait(0.5):
            pass


@contextmanager
def running(
    bundle: str | Path = "small",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    address: str | None = None,
    replicas: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    boxes: str | BoxesFor | None = None,
    detector: str | Path | None = None,
    nms: float | None = ops.OKS_THRESHOLD,
    queue: int = 64,
    wait: float = 0.002,
    bounds: RequestLimits | None = None,
    **engine: Any,
) -> Iterator[str]:
    """Serve a bundle over HTTP for a block, and yield the address. At its end, all accepted requests are answered.

    Args:
        host: address to listen on; "0.0.0.0" for all of the machine's.
        port: TCP port.
        address: of a Ray cluster (oaks.ray.connect); None starts Ray on this machine.
        replicas: Engines; None: one per GPU, or without GPUs one per `threads` CPUs.
        threads: CPU threads of an Engine; None: 4, fewer where no machine has 4.
        boxes: source of boxes for requests without any. "whole": the picture is one person; or a function that returns a
            BoxSource for a replica's Engine. None: a detector finds the people, if there is one.
        queue: maximum requests of a replica that are being computed or waiting; more get 503 and Retry-After.
        wait: seconds that the first request of a batch waits for others.
        bounds: limits on one request.
        bundle, device, detector, nms, engine: as for oaks.ray.predict.

    Raises:
        ArgumentError: an argument is wrong.
        BackendUnavailable: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        OaksError: the service cannot start.
    """
    if not 1 <= port <= 65535:
        raise ArgumentError(f"port must be an integer from 1 to 65535, got {port!r}")
    service = ServiceSettings(bounds or RequestLimits(), queue, wait, nms)
    import_ray()
    with connected(address) as own:
        import ray
        import ray.exceptions
        from ray import serve as ray_serve
        from ray.util import list_named_actors

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        actors: Any = list_named_actors(all_namespaces=True)  # dicts; Ray's annotation knows only names
        if any(actor["namespace"] == _SERVE for actor in actors):
            # It would keep its own host and port, and its applications would end with this service.
            raise OaksError(
                "Ray Serve must not run in the cluster already, got a running one; pass another cluster"
            )
        pool = choose_pool(replicas, threads, device)
        settings = make_settings(bundle, boxes, detector, nms, pool, engine, required=False)
        deployment = ray_serve.deployment(
            name=NAME,
            num_replicas=pool.workers,
            ray_actor_options={"num_cpus": pool.threads, "num_gpus": pool.gpus},
            max_ongoing_requests=_TAKEN,
            graceful_shutdown_timeout_s=_STOP_SECONDS,
            graceful_shutdown_wait_loop_s=0.1,
            health_check_period_s=2.0,
        )(Replica)
        with _board(queue * pool.workers) as board:
            try:
                ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
                ray_serve.run(
                    deployment.bind(_Options(settings, service, board)), name=NAME, route_prefix="/",
                    logging_config={"log_level": "WARNING", "enable_access_log": False},
                )  # fmt: skip
            except (RuntimeError, ray.exceptions.RayError) as error:
                ray_serve.shutdown()
                raise OaksError(f"the service cannot start: {error}") from error
            try:
                yield f"http://{host}:{port}"
            finally:
                ray.get(board.stop.remote())
                time.sleep(2 * POST_SECONDS)  # by then all replicas refuse new requests
                ray_serve.delete(NAME)
                if not own or address not in (None, LOCAL):
                    ray_serve.shutdown()  # otherwise Serve ends with the Ray that was started for it


@contextmanager
def _board(places: int) -> Iterator[Any]:
    """The board of the service: an actor that the proxy finds by its name."""
    import ray

    # Ray types a handle's methods as the class's own, without the `remote` that they have.
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Board)
    try:
        board = actor.options(name=BOARD, namespace=BOARD).remote(places)
    except ValueError as error:
        raise OaksError("the cluster must have no other service of oaks, got a second one") from error
    try:
        yield board
    finally:
        ray.kill(board)


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set an event on SIGINT and SIGTERM; a second signal has its usual effect."""
    before: Mapping[int, Any] = {}

    def handle(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["NAME", "Replica", "running", "serve", "stopping_on_signals"]
