"""The service on a real Ray Serve: a replica that dies is started again, nothing is lost or mixed up, memory stays flat."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import oaks
from oaks.ray.requests import RequestLimits
from oaks.ray.serving import running

from .conftest import encoded
from .server import ask, predict
from .test_service import rows, same

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def replicas() -> dict[int, int]:
    """Process of each replica -> its resident memory in bytes."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and b"ServeReplica:oaks" in (folder / "cmdline").read_bytes():
                pages = int((folder / "statm").read_text().split()[1])
                found[int(folder.name)] = pages * os.sysconf("SC_PAGE_SIZE")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def engine(tiny) -> Iterator[oaks.Engine]:
    with oaks.Engine(tiny, "onnxruntime", threads=1) as opened:
        yield opened


def patient(address: str, number: int) -> tuple[int, list[dict]]:
    """Poses in `dots(number)`; asks again, as callers do, while a replica is down. And how often it asked."""
    for attempt in range(1, 200):
        try:
            status, _, content = ask(address, "/predict?boxes=whole", encoded(number))
        except (http.client.HTTPException, ConnectionError):
            status = 0
        if status == 200:
            return attempt, json.loads(content)["poses"]
        assert status in (0, 500, 503), content
        time.sleep(0.2)
    raise AssertionError("no reply")


def test_a_replica_that_dies_is_started_again_and_nothing_is_mixed_up(tiny, engine):
    with running(
        tiny, port=free_port(), replicas=2, threads=1, backend="onnxruntime", boxes="whole"
    ) as address:
        assert predict(address, encoded(0))["poses"]
        before = set(replicas())
        assert len(before) == 2
        with ThreadPoolExecutor(8) as callers:
            replies = [callers.submit(patient, address, number) for number in range(400)]
            until(lambda: sum(reply.done() for reply in replies) > 100)
            os.kill(min(before), signal.SIGKILL)
            for number, reply in enumerate(replies):
                same(reply.result(300)[1], rows(engine, number))
        until(lambda: len(replicas()) == 2 and min(before) not in replicas())
        until(lambda: _names_in_metrics(address) >= 2)
        text = ask(address, "/metrics")[2].decode()
        assert text.count("# TYPE oaks_requests_total counter") == 1
        assert ask(address, "/healthz")[0] == 200
        assert json.loads(ask(address, "/openapi.json")[2])["openapi"] == "3.1.0"


def _names_in_metrics(address: str) -> int:
    for number in range(8):  # a replica posts from its first request on
        patient(address, number)
    text = ask(address, "/metrics")[2].decode()
    return len(set(re.findall(r'oaks_queue_limit{replica="([^"]+)"}', text)))


def test_a_stop_answers_accepted_requests_and_a_full_queue_refuses(tiny, engine):
    boxes = json.dumps([[0, 0, 48, 64]] * 400).replace(" ", "")
    with ThreadPoolExecutor(64) as callers:
        with running(
            tiny, port=free_port(), replicas=1, threads=1, backend="onnxruntime", boxes="whole", queue=16,
            bounds=RequestLimits(people=400),
        ) as address:  # fmt: skip
            inside = [callers.submit(ask, address, f"/predict?boxes={boxes}", encoded(n)) for n in range(16)]
            full = b'oaks_queue_requests{replica="'
            until(lambda: _waiting(address, full) >= 8)
            # More than the queue has room for, whatever was answered meanwhile.
            late = [callers.submit(ask, address, f"/predict?boxes={boxes}", encoded(n)) for n in range(48)]
            until(lambda: any(reply.done() for reply in late))
        statuses = [reply.result(300)[0] for reply in inside]
        assert statuses == [200] * 16
        for number, reply in enumerate(inside):
            poses = json.loads(reply.result()[2])["poses"]
            assert len(poses) == 400
            same(poses[:1], rows(engine, number))
        refused = [reply.result(300) for reply in late]
        assert {status for status, _, _ in refused} <= {200, 503}
        assert any(status == 503 for status, _, _ in refused)
        assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in refused if status == 503)


def _waiting(address: str, name: bytes) -> float:
    text = ask(address, "/metrics")[2]
    found = re.search(re.escape(name) + rb'[^"]*"} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_memory_is_flat_over_twenty_thousand_requests(tiny, engine):
    """Counted from the 4,000th on, when every buffer and pool has been used."""
    with running(
        tiny, port=free_port(), replicas=1, threads=1, backend="onnxruntime", boxes="whole"
    ) as address:
        pictures = [encoded(number) for number in range(50)]
        expected = [rows(engine, number) for number in range(50)]
        host = address.removeprefix("http://")

        def caller(count: int) -> int:
            connection, wrong = http.client.HTTPConnection(host, timeout=120), 0
            for number in range(count):
                connection.request("POST", "/predict?boxes=whole", pictures[number % 50])
                reply = connection.getresponse()
                found = json.loads(reply.read())
                wrong += reply.status != 200
                same(found["poses"], expected[number % 50])
            connection.close()
            return wrong

        with ThreadPoolExecutor(8) as callers:
            assert sum(callers.map(caller, [500] * 8)) == 0
            (process,) = before = replicas()
            assert sum(callers.map(caller, [2000] * 8)) == 0
            after = replicas()
        assert list(after) == [process]
        assert after[process] - before[process] < 24 << 20
        text = ask(address, "/metrics")[2].decode()
        assert re.search(r'oaks_requests_total{replica="[^"]+",status="200"} 20000.0', text)


def test_the_command_ends_well_on_sigterm(tiny):
    port = free_port()
    words = ["-m", "oaks", "serve", str(tiny), "--port", str(port), "--boxes", "whole", "--threads", "1",
             "--workers", "1", "--backend", "onnxruntime"]  # fmt: skip
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert f"at http://127.0.0.1:{port}" in line
        assert predict(f"http://127.0.0.1:{port}", encoded(1))["poses"]
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=180)
        assert (process.returncode, said.splitlines()[-1]) == (0, "stopped")
    finally:
        process.kill()
        process.wait(30)
