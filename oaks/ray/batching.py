"""Dynamic batching: items that arrive within a few milliseconds, or while a batch is computed, form the next batch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("oaks")


@dataclass(frozen=True)
class _Waiting(Generic[T, R]):
    item: T
    weight: int
    result: asyncio.Future[R]


class Batcher(Generic[T, R]):
    """Runs items in batches, one batch at a time, in a thread of its own.

    Args:
        run: items -> a result for each, in their order; an exception among the results is raised for its item alone.
            If `run` itself raises, each item is run once more alone, so that a bad one does not fail the others.
        largest: maximum weight of a batch; a heavier item runs alone.
        wait: seconds that the first item of a batch waits for others while nothing runs.
        ran: callback with the weight and seconds of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R | BaseException]],
        *,
        largest: int,
        wait: float,
        ran: Callable[[int, float], object] = lambda _weight, _seconds: None,
    ) -> None:
        self._run, self._largest, self._wait, self._ran = run, largest, wait, ran
        self._queue: asyncio.Queue[_Waiting[T, R]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "oaks-engine")
        self._loop: asyncio.Task[None] | None = None
        self.rate = 0.0
        """Weight per second of recent batches; 0 before the first."""

    async def submit(self, item: T, weight: int = 1) -> R:
        """Run an item in a batch, and return its result.

        Raises:
            Exception: what `run` raised for this item.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(self._work())
        waiting = _Waiting[T, R](item, weight, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.result

    async def close(self) -> None:
        """End the thread after the running batch."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._thread.shutdown()

    async def _work(self) -> None:
        first: _Waiting[T, R] | None = None
        while True:
            batch, first = await self._gather(first)
            batch = [waiting for waiting in batch if not waiting.result.cancelled()]
            if not batch:
                continue
            start, weight = time.perf_counter(), sum(waiting.weight for waiting in batch)
            results = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._guarded, [waiting.item for waiting in batch]
            )
            seconds = time.perf_counter() - start
            self.rate += 0.2 * (weight / seconds - self.rate) if self.rate else weight / seconds
            self._ran(weight, seconds)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.result.cancelled():
                    continue
                if isinstance(result, BaseException):
                    waiting.result.set_exception(result)
                else:
                    waiting.result.set_result(result)

    async def _gather(
        self, first: _Waiting[T, R] | None
    ) -> tuple[list[_Waiting[T, R]], _Waiting[T, R] | None]:
        """Return the next batch, and the item after it if that has been taken from the queue."""
        batch = [await self._queue.get() if first is None else first]
        weight, deadline = batch[0].weight, time.perf_counter() + self._wait
        while weight < self._largest:
            try:
                following = self._queue.get_nowait()
            except asyncio.QueueEmpty:
                left = deadline - time.perf_counter()
                if left <= 0:
                    break
                try:
                    following = await asyncio.wait_for(self._queue.get(), left)
                except asyncio.TimeoutError:
                    break
            if weight + following.weight > self._largest:
                return batch, following
            batch.append(following)
            weight += following.weight
        return batch, None

    def _guarded(self, items: list[T]) -> Sequence[R | BaseException]:
        try:
            return self._run(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            log.warning("a batch of %d failed, each is run alone: %s", len(items), error)
            return [result for item in items for result in self._guarded([item])]


__all__ = ["Batcher"]
