"""The service behind a real HTTP server, without Ray; and requests to any service."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import oaks
from oaks.ray.service import Service, ServiceSettings, application


@contextlib.contextmanager
def served(bundle, *, detect=None, engine=None, max_batch=4, **settings) -> Iterator[tuple[str, Service]]:
    """A service on a free port."""
    import uvicorn

    made, ready, finished = {}, threading.Event(), threading.Event()

    async def main() -> None:
        opened = engine or oaks.Engine(bundle, "onnxruntime", threads=1, max_batch=max_batch)
        service = Service(opened, detect, ServiceSettings(**settings))
        server = uvicorn.Server(
            uvicorn.Config(application(service), port=0, log_level="error", lifespan="off")
        )
        made.update(service=service, server=server, loop=asyncio.get_running_loop())
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        made["port"] = server.servers[0].sockets[0].getsockname()[1]
        ready.set()
        await running
        await service.close()
        if engine is None:
            opened.close()

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            ready.set()
            finished.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{made['port']}", made["service"]
    finally:
        made["server"].should_exit = True
        thread.join(20)
        assert finished.is_set()


def ask(
    address: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of a reply."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        reply = connection.getresponse()
        return reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def predict(address: str, picture: bytes, boxes: str = "whole") -> dict:
    """The reply to a picture."""
    status, _, content = ask(address, f"/predict?boxes={boxes}", picture)
    assert status == 200, content
    return json.loads(content)
