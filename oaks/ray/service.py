"""The service without its server: requests in, replies out, one Engine, and a bounded queue."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oaks.arguments import check_count, check_threshold
from oaks.boxes import BoxSource, whole_image
from oaks.errors import ArgumentError
from oaks.images import in_order
from oaks.inference import Engine
from oaks.poses import Poses
from oaks.ray.batching import Batcher
from oaks.ray.metrics import CONTENT_TYPE, Metrics
from oaks.ray.openapi import openapi
from oaks.ray.requests import (
    FAILED,
    FULL,
    QUEUE_FULL,
    STOPPING,
    UNUSABLE,
    Query,
    Refused,
    RequestLimits,
    decode,
    read_query,
    refusal,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

GONE = 499
"""Status in the metrics for a caller that closed the connection before its picture had arrived, as in nginx."""

log = logging.getLogger("oaks")

_PLACES = ("/", "/predict", "/healthz", "/metrics", "/openapi.json", "/model")
_PAGE = Path(__file__).with_name("page.html")
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of a service.

    Attributes:
        bounds: limits on one request.
        queue: maximum requests that are being computed or waiting; more are answered with 503.
        wait: seconds that the first request of a batch waits for others.
        nms: OKS threshold for NMS of poses in detected boxes, or None.
    """

    bounds: RequestLimits = field(default_factory=RequestLimits)
    queue: int = 64
    wait: float = 0.002
    nms: float | None = None

    def __post_init__(self) -> None:
        check_count("queue", self.queue)
        if not 0 <= self.wait <= 1:
            raise ArgumentError(f"wait must be 0 to 1 second, got {self.wait!r}")
        if self.nms is not None:
            check_threshold("nms", self.nms)


@dataclass(frozen=True)
class _Item:
    """A request's picture, as box sources take it, and its boxes."""

    image: np.ndarray
    boxes: np.ndarray | str | None
    index: int = 0
    name: str = ""


class Service:
    """Answers requests with the poses that an Engine finds.

    Args:
        engine: estimates the poses.
        detect: source of boxes for requests without any; None: such requests are refused.
        settings: limits, queue and batching.
        replica: name of this process in the metrics.
        snapshots: returns the metrics of all replicas of the service; None: this is the only one.
    """

    def __init__(
        self,
        engine: Engine,
        detect: BoxSource | None,
        settings: ServiceSettings,
        *,
        replica: str = "0",
        snapshots: Callable[[str], Any] | None = None,
    ) -> None:
        self.engine, self.detect, self.settings, self.replica = engine, detect, settings, replica
        self.metrics = Metrics(replica, settings.queue)
        self._snapshots = snapshots
        largest = engine.describe()["batches"][-1]
        self._batcher = Batcher[_Item, Poses](
            self._infer, largest=largest, wait=settings.wait, ran=self.metrics.ran
        )
        # Decoded pictures that wait for the Engine take more memory than anything else in a service.
        self._decoders = ThreadPoolExecutor(2, "oaks-decode")
        self._decoded = asyncio.Semaphore(2 * largest)
        self._inside = self._people = 0
        self.stopping = False

    async def respond(self, request: Request) -> Response:
        """Return the reply to a request."""
        from starlette.responses import JSONResponse, PlainTextResponse
        from starlette.responses import Response as Plain

        place = (request.method, request.url.path)
        if place == ("POST", "/predict"):
            return await self._predict(request)
        if request.url.path == "/predict":
            return refusal(Refused(405, "the method of /predict must be POST"), allow="POST")
        if request.url.path not in _PLACES:
            return refusal(Refused(404, f"the address must be one of {', '.join(_PLACES)}"))
        if request.method not in ("GET", "HEAD"):
            return refusal(Refused(405, "the method must be GET"), allow="GET, HEAD")
        if request.url.path == "/healthz":
            state = "stopping" if self.stopping else "ok"
            return JSONResponse({"status": state}, FULL if self.stopping else 200)
        if request.url.path == "/metrics":
            own = self.metrics.text()
            text = own if self._snapshots is None else await self._snapshots(own)
            return Plain(text, media_type=CONTENT_TYPE)
        if request.url.path == "/openapi.json":
            return JSONResponse(openapi(self.model(), self.settings.bounds))
        if request.url.path == "/model":
            return JSONResponse(self.model())
        return PlainTextResponse(
            _PAGE.read_text("utf-8"),
            media_type="text/html",
            headers={"Content-Security-Policy": _PAGE_POLICY},
        )

    def model(self) -> dict[str, Any]:
        """Return the reply of /model: keypoints, and limits on requests."""
        skeleton, bounds = self.engine.bundle.skeleton, self.settings.bounds
        return {
            "name": self.engine.bundle.name,
            "keypoints": list(skeleton.keypoints),
            "limbs": [list(limb) for limb in skeleton.limbs],
            "score": self.engine.score_kind,
            "detector": self.detect is not None,
            "max_bytes": bounds.bytes,
            "max_pixels": bounds.pixels,
            "max_people": bounds.people,
        }

    async def _predict(self, request: Request) -> Response:
        from starlette.requests import ClientDisconnect
        from starlette.responses import Response as Plain

        start = time.perf_counter()
        if self.stopping or self._inside >= self.settings.queue:
            reason = STOPPING if self.stopping else QUEUE_FULL
            self.metrics.answered(FULL, time.perf_counter() - start, 0)
            return refusal(Refused(FULL, reason, self._retry_after()))
        self._inside += 1
        self.metrics.waiting(self._inside)
        status, people = FAILED, 0
        try:
            query = await read_query(
                request.headers, request.query_params, request.stream(), self.settings.bounds
            )
            self._check_boxes(query)
            image, poses = await self._poses(query)
            status, people = 200, len(poses)
            return Plain(self._reply(image, poses), media_type="application/json")
        except Refused as refused:
            status = refused.status
            return refusal(refused)
        except ClientDisconnect:  # nobody reads the reply; the status is for the metrics
            status = GONE
            return Plain(status_code=GONE)
        except Exception as error:
            status, people = FAILED, 0
            log.exception("a request failed")
            return refusal(Refused(FAILED, f"the poses could not be computed: {type(error).__name__}"))
        finally:
            self._inside -= 1
            self.metrics.waiting(self._inside)
            self.metrics.answered(status, time.perf_counter() - start, people)

    def _check_boxes(self, query: Query) -> None:
        if query.boxes is None and self.detect is None:
            raise Refused(
                UNUSABLE, "boxes must be given ('whole' for one person), because the model has no detector"
            )

    async def _poses(self, query: Query) -> tuple[np.ndarray, Poses]:
        async with self._decoded:
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(self._decoders, decode, query, self.settings.bounds)
            weight = max(1, len(query.boxes)) if isinstance(query.boxes, np.ndarray) else 1
            self._people += weight
            try:
                return image, await self._batcher.submit(_Item(image, query.boxes), weight)
            finally:
                self._people -= weight

    def _infer(self, items: Sequence[_Item]) -> Sequence[Poses | BaseException]:
        """Return the poses of a batch of requests, each its own."""
        found: list[tuple[np.ndarray, np.ndarray] | Refused] = [self._located(item) for item in items]
        kept = [i for i, own in enumerate(found) if not isinstance(own, Refused)]
        located = [own for own in found if not isinstance(own, Refused)]
        poses = self.engine.infer(
            [in_order(items[i].image, self.engine.color) for i in kept],
            boxes=[boxes for boxes, _ in located],
            box_scores=[scores for _, scores in located],
        )
        results: list[Poses | BaseException] = [
            own if isinstance(own, Refused) else Poses.empty() for own in found
        ]
        for number, i in enumerate(kept):
            own = poses[poses.frame_index == number]
            detected = items[i].boxes is None and self.detect is not None and self.detect.detected
            results[i] = (
                own
                if not detected or self.settings.nms is None
                else own.without_duplicates(self.settings.nms)
            )
        return results

    def _located(self, item: _Item) -> tuple[np.ndarray, np.ndarray] | Refused:
        """Return boxes and scores of the people of a request."""
        if isinstance(item.boxes, np.ndarray):
            return item.boxes, np.ones(len(item.boxes), np.float32)
        source = whole_image() if isinstance(item.boxes, str) or self.detect is None else self.detect
        boxes, scores = source.find(item)
        if len(boxes) > self.settings.bounds.people:
            reason = f"the picture must show at most {self.settings.bounds.people} people, got {len(boxes)}; pass boxes"
            return Refused(UNUSABLE, reason)
        return boxes, scores

    def _reply(self, image: np.ndarray, poses: Poses) -> bytes:
        height, width = image.shape[:2]
        rows = poses.to_coco(0)
        for row in rows:
            del row["image_id"], row["category_id"]
        content = {
            "model": self.engine.bundle.name, "score_kind": poses.score_kind, "width": width, "height": height,
            "poses": rows,
        }  # fmt: skip
        return json.dumps(content, allow_nan=False).encode()

    def _retry_after(self) -> int:
        """Return the seconds after which the queue should have room."""
        rate = self._batcher.rate
        return min(60, max(1, math.ceil(max(self._people, self._inside) / rate))) if rate else 1

    async def close(self) -> None:
        """Answer all accepted requests and end the threads; new requests are refused."""
        self.stopping = True
        while self._inside:
            await asyncio.sleep(0.01)
        await self._batcher.close()
        self._decoders.shutdown()


def application(service: Service) -> Any:
    """Return the service as an ASGI application."""
    from starlette.requests import Request

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            response = await service.respond(Request(scope, receive))
            await response(scope, receive, send)

    return answer


__all__ = ["Service", "ServiceSettings", "application"]
