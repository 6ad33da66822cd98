"""Valid requests, and the reasons why others are refused."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest

from oaks.errors import ArgumentError
from oaks.ray.requests import Query, Refused, RequestLimits, decode, read_query

from .conftest import dots, encoded

BOUNDS = RequestLimits(bytes=4000, pixels=48 * 64, people=2)
PICTURE = encoded(1)


def read(content: bytes, kind: str = "image/png", *, boxes=None, pieces=1000, headers=None) -> Query:
    async def body():
        for at in range(0, len(content), pieces):
            yield content[at : at + pieces]

    parameters = {} if boxes is None else {"boxes": boxes}
    return asyncio.run(read_query({"content-type": kind, **(headers or {})}, parameters, body(), BOUNDS))


def as_json(**content) -> bytes:
    return json.dumps(content).encode()


def as_form(**parts: bytes | str) -> tuple[bytes, str]:
    lines = []
    for name, value in parts.items():
        is_file = isinstance(value, bytes)
        lines.append(b'--frame\r\nContent-Disposition: form-data; name="%s"' % name.encode())
        lines.append(b'; filename="a.png"\r\n\r\n' if is_file else b"\r\n\r\n")
        lines.append((value if is_file else value.encode()) + b"\r\n")
    return b"".join([*lines, b"--frame--\r\n"]), "multipart/form-data; boundary=frame"


TEXT = base64.b64encode(PICTURE).decode()
BOX = "[[1, 2, 30, 40.5]]"


@pytest.mark.parametrize("boxes", [None, BOX, "whole", '"whole"', "[]", "null"])
@pytest.mark.parametrize("form", ["raw", "json", "multipart"])
def test_a_picture_comes_in_three_forms(form, boxes):
    if form == "raw":
        query = read(PICTURE, boxes=boxes)
    elif form == "json":
        given = {} if boxes is None else {"boxes": "whole" if boxes == "whole" else json.loads(boxes)}
        query = read(as_json(image=TEXT, **given), "application/json; charset=utf-8")
    else:
        query = read(*as_form(image=PICTURE, **({} if boxes is None else {"boxes": boxes})))
    assert query.content == PICTURE
    if boxes in (None, "null"):
        assert query.boxes is None
    elif boxes == "[]":
        assert query.boxes.shape == (0, 4)
    elif boxes == BOX:
        assert query.boxes.tolist() == [[1, 2, 31, 42.5]]
    else:
        assert query.boxes == "whole"
    assert np.array_equal(decode(query, BOUNDS), dots(1))


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", "image/png", "got an empty body"),
        (b"[]", "application/json", "must be an object with image"),
        (b"{", "application/json", "JSON expected"),
        (b"[" * 2000, "application/json", "JSON expected"),
        (b'{"image": 3}', "application/json", "must be an object with image"),
        (as_json(image="@@"), "application/json", "must be base64"),
        (as_json(image=TEXT, size=3), "application/json", "image and boxes only, got 'size'"),
        (as_json(image=""), "application/json", "got an empty body"),
        (b"nothing", "multipart/form-data", "the form cannot be read"),
        (b"nothing", "multipart/form-data; boundary=frame", "the form"),
        (as_form(picture=PICTURE)[0], as_form()[1], "image and boxes, each once, got 'picture'"),
        (as_form(boxes=BOX)[0], as_form()[1], "must hold a file image"),
        # Cut off behind the picture: the boxes that its sender wrote must not be left out silently.
        (as_form(image=PICTURE, boxes=BOX)[0][:-10], as_form()[1], "must end with its boundary"),
        (as_form(image=PICTURE, boxes=BOX)[0][:-25], as_form()[1], "must end with its boundary"),
    ],
)
def test_bodies_without_a_picture_are_refused(content, kind, reason):
    with pytest.raises(Refused, match=reason) as refused:
        read(content, kind)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ("[[1, 2, 3]]", "boxes must be 'whole' or a list"),
        ("[1, 2, 3, 4]", "boxes must be 'whole' or a list"),
        ("{}", "got dict"),
        ("7", "got int"),
        ('[["1", 2, 3, 4]]', "finite numbers"),
        ("[[true, 2, 3, 4]]", "finite numbers"),
        ("[[1, 2, 0, 4]]", "positive extent"),
        ("[[1, 2, 3, -4]]", "positive extent"),
        ("[[NaN, 2, 3, 4]]", "finite numbers"),
        ("[[1e999, 2, 3, 4]]", "finite numbers"),
        (f"[[1{'0' * 400}, 2, 3, 4]]", "finite numbers"),
        ("[[3e38, 2, 3e38, 4]]", "within 1e\\+09 pixels"),
        ("[[0, 0, 1e39, 4]]", "within 1e\\+09 pixels"),
        ("[[0, 0, 2e9, 4]]", "within 1e\\+09 pixels"),
        ("[[-2e9, 0, 1, 4]]", "within 1e\\+09 pixels"),
        ("[[1,2,3,4],[1,2,3,4],[1,2,3,4]]", "at most 2, got 3"),
        ("half", "JSON expected"),
    ],
)
def test_invalid_boxes_are_refused(boxes, reason):
    with pytest.raises(Refused, match=reason) as refused:
        read(PICTURE, boxes=boxes)
    assert refused.value.status == 422


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_boxes_in_the_address_count_for_every_form(form):
    def body(**boxes):
        if form == "json":
            given = {name: json.loads(value) for name, value in boxes.items()}
            return as_json(image=TEXT, **given), "application/json"
        return as_form(image=PICTURE, **boxes)

    assert read(*body(), boxes=BOX).boxes.tolist() == [[1, 2, 31, 42.5]]
    assert read(*body(boxes="null"), boxes="whole").boxes == "whole"
    with pytest.raises(Refused, match="once, got them in the address and in the body"):
        read(*body(boxes=BOX), boxes="whole")


def test_bytes_are_bounded_before_they_are_read():
    taken = []

    async def endless():
        while True:
            taken.append(1)
            yield bytes(1 << 18)

    with pytest.raises(Refused, match="at most 4000 bytes") as refused:
        asyncio.run(read_query({}, {}, endless(), BOUNDS))
    assert refused.value.status == 413
    assert len(taken) < 8
    with pytest.raises(Refused, match="at most 4000 bytes"):
        read(PICTURE, headers={"content-length": str(10**9)})
    for content, kind in (
        (bytes(4001), "image/png"), (as_json(image=base64.b64encode(bytes(4001)).decode()), "application/json"),
        as_form(image=bytes(4001)),
    ):  # fmt: skip
        with pytest.raises(Refused, match="at most 4000 bytes") as refused:
            read(content, kind)
        assert refused.value.status == 413


def test_pixels_are_bounded_before_they_are_decoded():
    assert decode(Query(PICTURE), RequestLimits(pixels=48 * 64)).shape == (64, 48, 3)
    with pytest.raises(Refused, match="at most 3071, got 3072") as refused:
        decode(Query(PICTURE), RequestLimits(pixels=48 * 64 - 1))
    assert refused.value.status == 413
    assert "OAKS_LIMIT" not in refused.value.reason  # nothing that a caller could set


@pytest.mark.parametrize(
    "content", [b"GIF89a", b"no picture", PICTURE[:200], encoded(1, ".bmp"), encoded(1, ".jpg")[:-40]]
)
def test_pictures_that_cannot_be_used_are_refused(content):
    with pytest.raises(Refused) as refused:
        decode(Query(content), BOUNDS)
    assert refused.value.status == 422
    assert "picture" in refused.value.reason


def test_limits_are_positive():
    for name in ("bytes", "pixels", "people"):
        with pytest.raises(ArgumentError, match=name):
            RequestLimits(**{name: 0})
