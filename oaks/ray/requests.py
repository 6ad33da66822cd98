"""Requests to the service: a JPEG or PNG picture, and boxes. Everything is checked before it is computed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks import limits
from oaks.arguments import check_count
from oaks.boxes import FARTHEST
from oaks.errors import ArgumentError, OaksError, OutOfMemory
from oaks.images import decode_image
from oaks.inference import WHOLE

if TYPE_CHECKING:
    from starlette.responses import Response

TOO_LARGE, UNUSABLE, FAILED, FULL = 413, 422, 500, 503
QUEUE_FULL, STOPPING = "the queue is full", "the service is stopping"
"""Reasons for 503."""
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_BESIDE = 1 << 20
"""Bytes that a body may have in addition to its picture: boxes, and the overhead of multipart and JSON."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits on one request.

    Attributes:
        bytes: size of the encoded picture.
        pixels: width times height.
        people: boxes, or people whom the detector finds.
    """

    bytes: int = 20 << 20
    pixels: int = 40_000_000
    people: int = 100

    def __post_init__(self) -> None:
        for name in ("bytes", "pixels", "people"):
            check_count(name, getattr(self, name))


class Refused(OaksError):
    """A request that is refused.

    Args:
        status: HTTP status.
        reason: one sentence for the caller.
        retry_after: seconds after which the caller should try again, or None.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


@dataclass(frozen=True)
class Query:
    """A request that has been read.

    Attributes:
        content: the encoded picture.
        boxes: (N, 4) float32 xyxy, "whole", or None.
    """

    content: bytes
    boxes: np.ndarray | str | None = None


def refusal(refused: Refused, *, allow: str | None = None) -> Response:
    """Return the reply to a refused request; `allow` names the methods of the address."""
    from starlette.responses import JSONResponse

    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after is not None else {}
    headers |= {"Allow": allow} if allow else {}
    if refused.status == TOO_LARGE:  # otherwise the server would read and discard the rest of the body
        headers["Connection"] = "close"
    return JSONResponse({"error": refused.reason}, refused.status, headers)


async def read_query(
    headers: Mapping[str, str],
    parameters: Mapping[str, str],
    body: AsyncIterator[bytes],
    bounds: RequestLimits,
) -> Query:
    """Read a request's body, no further than its limits allow.

    Args:
        headers: names in lower case.
        parameters: query parameters; boxes, unless the body has them.
        body: the pieces of the body.
        bounds: limits on the request.

    Raises:
        Refused: 413 or 422.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    encoded = kind == "application/json"
    largest = (-(-bounds.bytes // 3) * 4 if encoded else bounds.bytes) + _BESIDE
    stated = headers.get("content-length", "")
    if stated.isdecimal() and len(stated) < 19:
        _check_bytes(int(stated), largest, bounds)
    pieces, size = [], 0
    async for piece in body:
        size += len(piece)
        _check_bytes(size, largest, bounds)
        pieces.append(piece)
    content = b"".join(pieces)
    # In threads, because decoding megabytes of base64 or of a form would delay all other replies.
    if encoded:
        query = await asyncio.to_thread(_from_json, content, bounds)
    elif kind == "multipart/form-data":
        query = await asyncio.to_thread(_from_form, headers["content-type"], content, bounds)
    else:
        query = Query(content)
    if "boxes" in parameters:
        if query.boxes is not None:
            raise Refused(UNUSABLE, "boxes must be given once, got them in the address and in the body")
        query = replace(query, boxes=_boxes(_parsed(parameters["boxes"]), bounds))
    if not query.content:
        raise Refused(UNUSABLE, "the request must hold a picture, got an empty body")
    _check_bytes(len(query.content), bounds.bytes, bounds)
    return query


def decode(query: Query, bounds: RequestLimits) -> np.ndarray:
    """Return the picture of a request: (H, W, 3) uint8 BGR, upright.

    Raises:
        Refused: 413, 422, or 503 if it does not fit into memory.
    """
    if not query.content.startswith(_SIGNATURES):
        raise Refused(UNUSABLE, "the picture must be JPEG or PNG, got something else")
    own = limits.Limits(image_bytes=bounds.bytes, image_pixels=bounds.pixels)
    try:
        return decode_image(query.content, "picture", bounds=own)
    except limits.LimitError as error:
        raise Refused(TOO_LARGE, str(error).partition("; set ")[0]) from error
    except ArgumentError as error:
        raise Refused(UNUSABLE, str(error)) from error
    except OutOfMemory as error:
        raise Refused(FULL, str(error), 1) from error


def _check_bytes(size: int, largest: int, bounds: RequestLimits) -> None:
    if size > largest:
        raise Refused(TOO_LARGE, f"the picture must have at most {bounds.bytes} bytes, got more")


def _from_json(content: bytes, bounds: RequestLimits) -> Query:
    given = _parsed(content)
    if not isinstance(given, dict) or not isinstance(given.get("image"), str):
        raise Refused(UNUSABLE, "the body must be an object with image, a base64 text")
    if unknown := sorted(set(given) - {"image", "boxes"}):
        raise Refused(UNUSABLE, f"the body must hold image and boxes only, got {unknown[0][:64]!a}")
    try:
        picture = base64.b64decode(given["image"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(UNUSABLE, f"image must be base64: {error}") from error
    return Query(picture, _boxes(given.get("boxes"), bounds))


def _from_form(content_type: str, content: bytes, bounds: RequestLimits) -> Query:
    import python_multipart
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import parse_options_header

    found: dict[str, bytes] = {}

    def take(name: bytes | None, value: bytes) -> None:
        key = (name or b"").decode("latin-1")
        if key not in ("image", "boxes") or key in found:
            raise Refused(UNUSABLE, f"the form must hold image and boxes, each once, got {key[:64]!a}")
        found[key] = value

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        take(file.field_name, file.file_object.read())
        file.close()

    try:
        python_multipart.parse_form(
            {"Content-Type": content_type.encode("latin-1")},
            io.BytesIO(content),
            lambda entry: take(entry.field_name, entry.value or b""),
            on_file,
        )
    except (FormParserError, ValueError) as error:
        raise Refused(UNUSABLE, f"the form cannot be read: {error}") from error
    end = b"--" + parse_options_header(content_type)[1].get(b"boundary", b"") + b"--"
    if end not in content:  # the parser has dropped the part at which the body ends
        raise Refused(UNUSABLE, "the form must end with its boundary, got a body that was cut off")
    if "image" not in found:
        raise Refused(UNUSABLE, "the form must hold a file image")
    return Query(found["image"], _boxes(_parsed(found["boxes"]) if "boxes" in found else None, bounds))


def _parsed(text: str | bytes) -> Any:
    if text in (WHOLE, WHOLE.encode()):
        return WHOLE
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(UNUSABLE, f"JSON expected: {str(error)[:128]}") from error


def _boxes(value: Any, bounds: RequestLimits) -> np.ndarray | str | None:
    """Return boxes [x, y, width, height] as xyxy."""
    if value is None or value == WHOLE:
        return value
    form = "boxes must be 'whole' or a list of [x, y, width, height], finite numbers with a positive extent"
    if not isinstance(value, list):
        raise Refused(UNUSABLE, f"{form}, got {type(value).__name__}")
    plain = all(
        isinstance(box, list) and len(box) == 4 and all(type(number) in (int, float) for number in box)
        for box in value
    )
    if plain and len(value) > bounds.people:
        raise Refused(UNUSABLE, f"boxes must be at most {bounds.people}, got {len(value)}")
    try:
        boxes = np.array(value if plain else [[np.nan] * 4], float).reshape(-1, 4)
    except OverflowError:  # an integer beyond every float
        boxes = np.full((1, 4), np.inf)
    if not np.isfinite(boxes).all() or not (boxes[:, 2:] > 0).all():
        raise Refused(UNUSABLE, f"{form}, got {str(value)[:128]}")
    boxes[:, 2:] += boxes[:, :2]
    if not (np.abs(boxes) <= FARTHEST).all():
        raise Refused(UNUSABLE, f"boxes must lie within {FARTHEST:g} pixels, got {str(value)[:128]}")
    return boxes.astype(np.float32)


__all__ = [
    "FAILED", "FULL", "QUEUE_FULL", "STOPPING", "TOO_LARGE", "UNUSABLE", "Query", "Refused", "RequestLimits", "decode",
    "read_query", "refusal",
]  # fmt: skip
