"""The service over HTTP, without Ray: replies, schema, refusals, a full queue, metrics and a graceful stop."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import jsonschema
import numpy as np
import pytest

import oaks
from oaks.boxes import BoxSource
from oaks.errors import ArgumentError
from oaks.ray.metrics import Board, Metrics, merged
from oaks.ray.requests import RequestLimits
from oaks.ray.service import ServiceSettings

from .conftest import dots, encoded
from .server import ask, predict, served


@pytest.fixture(scope="module")
def service(tiny):
    with served(tiny, bounds=RequestLimits(people=3)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def engine(tiny):
    with oaks.Engine(tiny, "onnxruntime", threads=1, max_batch=4) as opened:
        yield opened


def rows(engine, number, boxes=((0, 0, 48, 64),)):
    """What a service should say of `dots(number)`."""
    poses = engine.infer(dots(number), boxes=boxes)
    return [
        {k: v for k, v in row.items() if k not in ("image_id", "category_id")} for row in poses.to_coco(0)
    ]


def same(found, expected):
    """Keypoints to 1e-4 pixel beside their rounding to 1e-3: batches may be composed otherwise."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, atol=1.1e-3 if name == "keypoints" else 1e-5)


def test_the_poses_are_those_of_the_engine(service, engine):
    reply = predict(service, encoded(3))
    assert (reply["width"], reply["height"], reply["model"], reply["score_kind"]) == (48, 64, "tiny", "oaks")
    same(reply["poses"], rows(engine, 3))
    two = predict(service, encoded(3), "[[0,0,48,64],[10,10,20,30]]".replace(" ", ""))
    same(two["poses"], rows(engine, 3, [(0, 0, 48, 64), (10, 10, 30, 40)]))
    assert predict(service, encoded(3), "[]")["poses"] == []


def schema(address, name):
    described = json.loads(ask(address, "/openapi.json")[2])
    return {**described, "$ref": f"#/components/schemas/{name}"}


def valid(content, described):
    jsonschema.Draft202012Validator(described).validate(content)


def test_replies_keep_to_the_published_schema(service):
    valid(predict(service, encoded(3)), schema(service, "Reply"))
    valid(json.loads(ask(service, "/model")[2]), schema(service, "Model"))
    valid(json.loads(ask(service, "/healthz")[2]), schema(service, "Health"))
    valid(json.loads(ask(service, "/predict", b"no picture")[2]), schema(service, "Error"))
    valid({"image": "AAAA", "boxes": [[1, 2, 3, 4]]}, schema(service, "Request"))
    for wrong, name in (({"poses": []}, "Reply"), ({"image": "", "boxes": [[1]]}, "Request"), ({}, "Error")):
        with pytest.raises(jsonschema.ValidationError):
            valid(wrong, schema(service, name))


def test_the_schema_is_openapi(service):
    described = json.loads(ask(service, "/openapi.json")[2])
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]) == {"/predict", "/model", "/healthz", "/metrics", "/openapi.json", "/"}
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert references == set(described["components"]["schemas"]) - {"Pose"} | {"Pose"}
    for name, own in described["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(own), name
    for path, operations in described["paths"].items():
        if "get" in operations:
            status, headers, _ = ask(service, path)
            assert status == 200
            assert headers["content-type"].partition(";")[0] in json.dumps(
                operations["get"]["responses"]["200"]
            )


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/predict?boxes=whole", b"no picture", 422, "must be JPEG or PNG"),
        ("/predict?boxes=whole", b"", 422, "empty body"),
        ("/predict", encoded(1), 422, "the model has no detector"),
        ("/predict?boxes=[[1,2,3]]", encoded(1), 422, "boxes must be"),
        ("/predict?boxes=[[1,2,3,4],[1,2,3,4],[1,2,3,4],[1,2,3,4]]", encoded(1), 422, "at most 3, got 4"),
        ("/predict?boxes=whole", bytes(23 << 20), 413, "at most 20971520 bytes"),
        ("/predict", None, 405, "must be POST"),
        ("/healthz", b"", 405, "must be GET"),
        ("/nothing", None, 404, "/predict"),
        ("/predict/", b"", 404, "/predict"),
        ("/predict?boxes=[[0,0,1e30,1e30]]", encoded(1), 422, "within 1e+09 pixels"),
    ],
)
def test_refusals_give_a_reason(service, path, body, status, reason):
    try:
        found, headers, content = ask(service, path, body)
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413  # the reply came before the body was sent, and the connection was closed
        return
    assert found == status
    assert reason in json.loads(content)["error"]
    assert headers["content-type"] == "application/json"


def test_nothing_is_mixed_up_between_requests(service, engine):
    """Many callers at once, good and bad: every reply belongs to its picture."""

    def one(number):
        if number % 7 == 3:
            return ask(service, "/predict?boxes=whole", encoded(number)[:100])[0]
        return predict(service, encoded(number))["poses"]

    with ThreadPoolExecutor(16) as callers:
        replies = list(callers.map(one, range(120)))
    for number, reply in enumerate(replies):
        if number % 7 == 3:
            assert reply == 422
        else:
            same(reply, rows(engine, number))
    text = ask(service, "/metrics")[2].decode()
    batches, people = (
        float(re.search(rf"oaks_batch_people_{end}{{.*}} (\S+)", text)[1]) for end in ("count", "sum")
    )
    assert people > batches, "no two requests shared a batch"


class Held:
    """An Engine that waits where a test holds it, and fails where the picture is black."""

    def __init__(self, engine):
        self.engine, self.go, self.calls = engine, threading.Event(), []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def infer(self, frames, **given):
        self.calls.append(len(frames))
        assert self.go.wait(30)
        if any(not frame.any() for frame in frames):
            raise RuntimeError("the picture is black")
        return self.engine.infer(frames, **given)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_a_full_queue_refuses_at_once_and_answers_all_accepted(tiny, engine):
    held = Held(engine)
    with served(tiny, engine=held, queue=5) as (address, service), ThreadPoolExecutor(5) as callers:
        inside = [callers.submit(predict, address, encoded(number)) for number in range(5)]
        until(lambda: service._inside == 5)
        for _ in range(3):
            status, headers, content = ask(address, "/predict?boxes=whole", encoded(9))
            assert (status, json.loads(content)["error"]) == (503, "the queue is full")
            assert 1 <= int(headers["retry-after"]) <= 60
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        for _ in range(2):  # the body that nobody reads ends no connection
            connection.request("POST", "/predict", bytes(8 << 20))
            reply = connection.getresponse()
            assert (reply.status, json.loads(reply.read())["error"]) == (503, "the queue is full")
        connection.close()
        assert ask(address, "/healthz")[0] == 200
        assert b'oaks_queue_requests{replica="0"} 5.0' in ask(address, "/metrics")[2]
        held.go.set()
        for number, reply in enumerate(inside):
            same(reply.result(30)["poses"], rows(engine, number))
        same(predict(address, encoded(7))["poses"], rows(engine, 7))


def test_a_disconnected_caller_frees_its_place(tiny):
    with served(tiny, queue=1) as (address, service):
        place = address.removeprefix("http://").split(":")
        with socket.create_connection((place[0], int(place[1]))) as caller:
            caller.sendall(
                b"POST /predict?boxes=whole HTTP/1.1\r\nHost: oaks\r\nContent-Length: 5000\r\n\r\nhalf"
            )
            until(lambda: service._inside == 1)
        until(lambda: service._inside == 0)
        assert b'oaks_requests_total{replica="0",status="499"} 1.0' in ask(address, "/metrics")[2]
        assert predict(address, encoded(5))["poses"]


def test_a_failing_picture_does_not_fail_others(tiny, engine):
    import cv2

    black = cv2.imencode(".png", np.zeros((64, 48, 3), np.uint8))[1].tobytes()
    held = Held(engine)
    with served(tiny, engine=held) as (address, service), ThreadPoolExecutor(4) as callers:
        replies = [callers.submit(ask, address, "/predict?boxes=whole", picture)
                   for picture in (encoded(0), black, encoded(2), encoded(3))]  # fmt: skip
        until(lambda: service._inside == 4)
        held.go.set()
        statuses = [reply.result(30)[0] for reply in replies]
        assert statuses == [200, 500, 200, 200]
        valid(json.loads(replies[1].result()[2]), schema(address, "Error"))
        same(json.loads(replies[2].result()[2])["poses"], rows(engine, 2))
        assert predict(address, encoded(5))["poses"]
        assert b'oaks_requests_total{replica="0",status="500"} 1.0' in ask(address, "/metrics")[2]


def test_a_stopping_service_answers_accepted_requests(tiny, engine):
    held = Held(engine)
    with ThreadPoolExecutor(3) as callers:
        with served(tiny, engine=held) as (address, service):
            inside = [callers.submit(predict, address, encoded(number)) for number in range(3)]
            until(lambda: service._inside == 3)
            service.stopping = True
            assert ask(address, "/predict?boxes=whole", encoded(9))[0] == 503
            assert ask(address, "/healthz")[0] == 503
            held.go.set()
        for number, reply in enumerate(inside):
            same(reply.result(30)["poses"], rows(engine, number))


def test_a_detector_finds_people_without_boxes(tiny, engine):
    """It finds as many as there are red pixels in the corner, best first."""

    def find(image):
        count = int(image.image[0, 0, 2])
        boxes = np.tile(np.float32([0, 0, 48, 64]), (count, 1)) + np.arange(count, dtype=np.float32)[:, None]
        return boxes, np.linspace(0.9, 0.8, count, dtype=np.float32)

    def picture(count):
        import cv2

        pixels = dots(1)
        pixels[0, 0] = 0, 0, count
        return cv2.imencode(".png", pixels)[1].tobytes()

    detect = BoxSource("test", find, detected=True)
    with served(tiny, engine=engine, detect=detect, bounds=RequestLimits(people=3), nms=0.5) as (address, _):
        for count, expected in ((0, 0), (1, 1), (3, 1)):  # three alike: one is left by NMS
            status, _, content = ask(address, "/predict", picture(count))
            poses = json.loads(content)["poses"]
            assert (status, len(poses)) == (200, expected)
            if poses:
                assert poses[0]["box_score"] == pytest.approx(0.9)
        status, _, content = ask(address, "/predict", picture(4))
        assert (status, json.loads(content)["error"]) == (
            422,
            "the picture must show at most 3 people, got 4; pass boxes",
        )
        assert len(predict(address, picture(4), "[[0,0,48,64],[0,0,48,64]]")["poses"]) == 2, (
            "given boxes are all kept"
        )


def test_metrics_of_replicas_make_one_text():
    first, second = Metrics("a", 4), Metrics("b", 8)
    first.answered(200, 0.02, 2)
    second.answered(200, 0.02, 3)
    second.answered(503, 0.001, 0)
    second.ran(3, 0.01)
    text = merged([first.text(), second.text()])
    assert text.count("# TYPE oaks_requests_total counter") == 1
    assert 'oaks_requests_total{replica="a",status="200"} 1.0' in text
    assert 'oaks_requests_total{replica="b",status="503"} 1.0' in text
    assert 'oaks_people_total{replica="b"} 3.0' in text
    assert 'oaks_batch_people_bucket{le="4.0",replica="b"} 1.0' in text
    assert 'oaks_queue_limit{replica="a"} 4.0' in text
    assert merged([text]) == text


def test_silent_replicas_are_left_out(monkeypatch):
    from oaks.ray import metrics

    now = [0.0]
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: now[0]))
    board, a, b = Board(7), Metrics("a", 1).text(), Metrics("b", 1).text()
    assert board.post("a", a) == (False, 7)
    now[0] = 20.0
    assert 'replica="a"' in board.exchange("b", b)
    now[0] = 40.0
    text = board.exchange("b", b)
    assert 'replica="a"' not in text
    assert 'replica="b"' in text
    board.stop()
    assert board.post("a", a) == (True, 7)


def test_settings_are_checked():
    for wrong in ({"queue": 0}, {"wait": 2}, {"wait": -1}, {"nms": 0}, {"nms": 1.5}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            ServiceSettings(**wrong)


def test_closing_waits_for_the_last_reply(tiny, engine):
    """The thread of the Engine ends with the service."""
    before = threading.active_count()
    with served(tiny, engine=engine) as (address, service):
        predict(address, encoded(0))
        assert asyncio.iscoroutinefunction(service.close)
    until(lambda: threading.active_count() <= before)
