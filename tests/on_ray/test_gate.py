"""The gate in front of the replicas, without Ray: what it refuses, what it passes on, and what it tells the board."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
from importlib import import_module

import pytest

from oaks.ray.cluster import import_ray
from oaks.ray.gate import NAME, Gate, middlewares


def in_a_loop(test):
    """Run an asynchronous test in an event loop of its own, for 30 s at most."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 30))

    return run


class Inside:
    """An application that answers /predict when it is let, and counts what comes to it."""

    def __init__(self):
        self.go, self.paths = asyncio.Event(), []

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        if (scope["method"], scope["path"]) == ("POST", "/predict"):
            await self.go.wait()
        if scope.get("fails"):
            raise RuntimeError("the replica died")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


class Board:
    def __init__(self, stopping=False, places=2):
        self.told, self.texts, self.gone = (stopping, places), [], False

    async def post(self, name, text):
        assert name == NAME
        if self.gone:
            raise RuntimeError("the board has ended")
        self.texts.append(text)
        return self.told


async def ask(gate, path="/predict", method="POST", **scope):
    """Status, headers and content of the reply. The body must not be asked for."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("the body was read")

    await gate({"type": "http", "method": method, "path": path, **scope}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(part.get("body", b"") for part in sent[1:])


async def full(board):
    """A gate with as many requests inside as the board allows."""
    inside = Inside()
    gate = Gate(inside, board.post)
    await ask(gate, "/healthz", "GET")
    await asyncio.sleep(0)  # now the board has answered
    waiting = [asyncio.create_task(ask(gate)) for _ in range(board.told[1])]
    while inside.paths.count("/predict") < board.told[1]:
        await asyncio.sleep(0)
    return gate, inside, waiting


@in_a_loop
async def test_requests_beyond_the_places_are_refused_before_their_body_is_read():
    board = Board()
    gate, inside, waiting = await full(board)
    for _ in range(3):
        status, headers, content = await ask(gate)
        assert (status, json.loads(content)) == (503, {"error": "the queue is full"})
        assert 1 <= int(headers[b"retry-after"]) <= 60
        assert b"connection" not in headers
    assert inside.paths.count("/predict") == 2
    for path in ("/healthz", "/", "/model"):
        assert (await ask(gate, path, "GET"))[0] == 200
    assert (await ask(gate, "/predict", "GET"))[0] == 200  # the replica says that it must be POST
    inside.go.set()
    assert [(await reply)[0] for reply in waiting] == [200, 200]
    assert (await ask(gate))[0] == 200


@in_a_loop
async def test_a_reply_of_metrics_counts_the_refusals_before_it():
    board = Board()
    gate, *_ = await full(board)
    for _ in range(5):
        await ask(gate)
    await ask(gate, "/metrics", "GET")
    assert 'oaks_requests_total{replica="proxy",status="503"} 5.0' in board.texts[-1]
    assert not re.search(r"^oaks_queue_\w+{", board.texts[-1], re.MULTILINE), "it has no queue of its own"


@in_a_loop
async def test_a_request_that_fails_leaves_its_place():
    gate, inside, waiting = await full(Board())
    inside.go.set()
    await asyncio.gather(*waiting)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="died"):
            await ask(gate, fails=True)
    assert (await ask(gate))[0] == 200


@in_a_loop
async def test_the_gate_refuses_requests_to_a_stopping_service():
    board = Board(stopping=True)
    inside = Inside()
    gate = Gate(inside, board.post)
    await ask(gate, "/metrics", "GET")
    status, headers, content = await ask(gate)
    assert (status, json.loads(content)["error"]) == (503, "the service is stopping")
    assert b"retry-after" in headers
    assert inside.paths == ["/metrics"]


@in_a_loop
async def test_without_a_board_nothing_is_refused(monkeypatch):
    board = Board(places=1)
    gate, inside, waiting = await full(board)
    assert (await ask(gate))[0] == 503
    inside.go.set()
    await waiting[0]
    board.gone = True
    gate._post = board.post
    monkeypatch.setattr("oaks.ray.gate._board_post", lambda: None)
    await ask(gate, "/metrics", "GET")
    assert {status for status, _, _ in await asyncio.gather(*(ask(gate) for _ in range(9)))} == {200}


def test_the_proxy_finds_the_gate(monkeypatch):
    monkeypatch.delenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", raising=False)
    import_ray()
    module, _, name = os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rpartition(".")
    assert getattr(import_module(module), name) is middlewares
    (made,) = middlewares()
    assert made.cls is Gate
