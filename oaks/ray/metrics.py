"""Metrics of the service in Prometheus's text format: each replica counts its own requests, one reply lists all replicas."""

from __future__ import annotations

import time
from collections.abc import Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_PEOPLE = (1, 2, 4, 8, 16, 32, 64, 128)
POST_SECONDS = 1.0
"""Interval at which metrics are posted to the board, and at which a replica learns whether the service is stopping."""
_SILENT = 30.0
"""Seconds without a post after which a replica is left out."""


class Metrics:
    """The counts of one replica, or of the proxy in front of all.

    Args:
        replica: its name.
        queue: maximum requests that it accepts at a time; None for the proxy, which has no queue of its own.
    """

    def __init__(self, replica: str, queue: int | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

        disable_created_metrics()
        self._registry = CollectorRegistry()
        named, registry = ["replica"], self._registry
        self._requests = Counter(
            "oaks_requests", "Requests to /predict by HTTP status.", [*named, "status"], registry=registry
        )

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, named, buckets=buckets, registry=registry).labels(replica)

        self._seconds = histogram(
            "oaks_request_seconds", "Seconds from a request's arrival to its reply.", _SECONDS
        )
        self._batch = histogram("oaks_batch_people", "People per batch.", _PEOPLE)
        self._batch_seconds = histogram(
            "oaks_batch_seconds", "Seconds that the Engine takes for a batch.", _SECONDS
        )
        self._people = Counter("oaks_people", "Poses in replies.", named, registry=registry).labels(replica)
        self._waiting = Gauge(
            "oaks_queue_requests", "Requests being computed or waiting.", named, registry=registry
        )
        limit = Gauge(
            "oaks_queue_limit", "Maximum requests that are accepted at a time.", named, registry=registry
        )
        if queue is not None:
            self._waiting.labels(replica).set(0)
            limit.labels(replica).set(queue)
        self._replica = replica

    def answered(self, status: int, seconds: float, people: int) -> None:
        """Count a reply."""
        self._requests.labels(self._replica, str(status)).inc()
        self._seconds.observe(seconds)
        self._people.inc(people)

    def ran(self, people: int, seconds: float) -> None:
        """Count a batch."""
        self._batch.observe(people)
        self._batch_seconds.observe(seconds)

    def waiting(self, requests: int) -> None:
        """Set the number of accepted requests."""
        self._waiting.labels(self._replica).set(requests)

    def text(self) -> str:
        """In Prometheus's text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry).decode()


def merged(texts: Iterable[str]) -> str:
    """Return the metrics of several replicas as one text, in which each family is described once."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.metrics_core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            if family.name in families:
                families[family.name].samples.extend(family.samples)
            else:
                families[family.name] = family

    class Families:
        def collect(self) -> Iterable[Metric]:
            return families.values()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    return generate_latest(registry).decode()


class Board:
    """The latest metrics of each replica, and whether the service is stopping; one actor for all.

    Args:
        places: maximum requests that all replicas accept together.
    """

    def __init__(self, places: int) -> None:
        self._texts: dict[str, tuple[float, str]] = {}
        self._stopping, self._places = False, places

    def stop(self) -> None:
        """Make all replicas refuse new requests from their next post on."""
        self._stopping = True

    def post(self, replica: str, text: str) -> tuple[bool, int]:
        """Replace the metrics of a replica; return whether the service is stopping, and `places`."""
        self._texts[replica] = time.monotonic(), text
        return self._stopping, self._places

    def exchange(self, replica: str, text: str) -> str:
        """Post the metrics of a replica and return those of all."""
        self.post(replica, text)
        oldest = time.monotonic() - _SILENT
        self._texts = {name: entry for name, entry in self._texts.items() if entry[0] >= oldest}
        return merged(entry[1] for entry in self._texts.values())


__all__ = ["CONTENT_TYPE", "POST_SECONDS", "Board", "Metrics", "merged"]
