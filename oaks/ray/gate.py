"""The gate of the service: refuses requests in Ray Serve's HTTP proxy while all queues are full.

Serve's proxy runs `middlewares`, because oaks.ray.cluster names it in the environment of a local Ray. A refusal here
costs neither the proxy's routing nor a call to a replica, and it does not wait for the replica's interpreter. On a
cluster that others have started, the proxy has no gate and the replicas refuse requests.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from oaks.ray.metrics import POST_SECONDS, Metrics
from oaks.ray.requests import FULL, QUEUE_FULL, STOPPING, Refused, refusal

BOARD = "oaks.board"
"""Name of the board (oaks.ray.metrics.Board) among Ray's actors, and of its namespace."""
NAME = "proxy"
"""Name of the gate among the replicas in the metrics."""

Post = Callable[[str, str], Awaitable[tuple[bool, int]]]


class Gate:
    """ASGI application that passes requests on, and refuses requests to /predict when no queue has room.

    It refuses nothing until the first reply of the board.

    Args:
        app: the application behind it.
        post: posts a name and its metrics, and returns whether the service is stopping and how many requests its
            replicas accept together (Board.post); None: the board of this Ray.
    """

    def __init__(self, app: Any, post: Post | None = None) -> None:
        self._app, self._post = app, post
        self._metrics = Metrics(NAME)
        self._places: float = math.inf
        self._stopping = False
        self._inside = 0
        self._rate = 0.0
        self._finished = 0
        self._posting: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._posting is None:
            self._posting = asyncio.get_running_loop().create_task(self._keep_posting())
        place = (scope.get("method"), scope.get("path"))
        if place == ("POST", "/predict"):
            await self._predict(scope, receive, send)
            return
        if place == ("GET", "/metrics"):
            await self._exchange()  # so that the reply counts the refusals up to now
        await self._app(scope, receive, send)

    async def _predict(self, scope: Any, receive: Any, send: Any) -> None:
        start = time.perf_counter()
        if self._stopping or self._inside >= self._places:
            refused = Refused(FULL, STOPPING if self._stopping else QUEUE_FULL, self._retry_after())
            await refusal(refused)(scope, receive, send)
            self._metrics.answered(FULL, time.perf_counter() - start, 0)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1
            self._finished += 1

    def _retry_after(self) -> int:
        """Seconds after which the requests that wait now should be answered."""
        return min(60, max(1, math.ceil(self._inside / self._rate))) if self._rate else 1

    async def _keep_posting(self) -> None:
        while True:
            await self._exchange()
            begin, self._finished = time.perf_counter(), 0
            await asyncio.sleep(POST_SECONDS)
            if self._finished:
                lately = self._finished / (time.perf_counter() - begin)
                self._rate += 0.2 * (lately - self._rate) if self._rate else lately

    async def _exchange(self) -> None:
        """Post the metrics, and fetch how many requests are accepted."""
        self._post = self._post or _board_post()
        if self._post is None:
            return
        try:
            self._stopping, self._places = await self._post(NAME, self._metrics.text())
        except Exception:  # the board ended with its service; the next service has another one
            self._post, self._stopping, self._places = None, False, math.inf


def _board_post() -> Post | None:
    """Return the method of this Ray's board, or None while there is no service."""
    import ray

    try:
        board = ray.get_actor(BOARD, namespace=BOARD)
    except ValueError:
        return None

    async def post(name: str, text: str) -> tuple[bool, int]:
        return await board.post.remote(name, text)

    return post


def middlewares() -> list[Any]:
    """Return the middleware that Serve's HTTP proxy runs before its own application."""
    from starlette.middleware import Middleware

    return [Middleware(Gate)]


__all__ = ["BOARD", "Gate", "middlewares"]
