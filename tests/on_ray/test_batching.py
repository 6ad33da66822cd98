"""Batches form by themselves, keep every result with its item, and a bad item spoils no other."""

from __future__ import annotations

import asyncio
import threading

import pytest

from oaks.ray.batching import Batcher


class Recorder:
    """Squares numbers, remembers its batches, and waits where a test holds it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.threads: set[str] = set()

    def __call__(self, items):
        self.threads.add(threading.current_thread().name)
        self.batches.append(list(items))
        assert self.go.wait(10)
        if 13 in items:
            raise ValueError("13 is no number")
        return [KeyError(item) if item < 0 else item * item for item in items]


def play(run, steps, **settings):
    """Run a coroutine function with a batcher."""

    async def main():
        batcher = Batcher(run, **{"largest": 4, "wait": 0.005, **settings})
        try:
            return await asyncio.wait_for(steps(batcher), 20)
        finally:
            await batcher.close()

    return asyncio.run(main())


async def started(batcher, recorder):
    """The task of an item whose batch has begun."""
    first = asyncio.create_task(batcher.submit(1))
    while not recorder.batches:
        await asyncio.sleep(0.001)
    return first


def test_items_that_come_together_go_together():
    recorder = Recorder()

    async def steps(batcher):
        return await asyncio.gather(*(batcher.submit(n) for n in range(10)))

    assert play(recorder, steps) == [n * n for n in range(10)]
    assert recorder.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(recorder.threads) == 1


def test_items_gather_while_others_are_computed():
    recorder = Recorder()
    recorder.go.clear()

    async def steps(batcher):
        first = await started(batcher, recorder)
        others = [asyncio.create_task(batcher.submit(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0.02)  # they do not come together, and go together even so
        others.append(asyncio.create_task(batcher.submit(5)))
        await asyncio.sleep(0.02)
        recorder.go.set()
        return await asyncio.gather(first, *others)

    assert play(recorder, steps, wait=0.0) == [1, 4, 9, 16, 25]
    assert recorder.batches == [[1], [2, 3, 4, 5]]


def test_a_single_item_does_not_wait():
    recorder = Recorder()

    async def steps(batcher):
        return await batcher.submit(3), await batcher.submit(4)

    assert play(recorder, steps) == (9, 16)
    assert recorder.batches == [[3], [4]]


def test_weights_bound_a_batch():
    recorder, ran = Recorder(), []

    async def steps(batcher):
        weights = {1: 3, 2: 2, 3: 2, 4: 9, 5: 1}
        return await asyncio.gather(*(batcher.submit(n, weight) for n, weight in weights.items()))

    assert play(recorder, steps, ran=lambda weight, _seconds: ran.append(weight)) == [1, 4, 9, 16, 25]
    assert recorder.batches == [[1], [2, 3], [4], [5]]
    assert ran == [3, 4, 9, 1]


def test_a_bad_item_does_not_fail_others():
    recorder = Recorder()

    async def steps(batcher):
        return await asyncio.gather(*(batcher.submit(n) for n in (1, 13, 2, -1)), return_exceptions=True)

    first, bad, second, own = play(recorder, steps)
    assert (first, second) == (1, 4)
    assert isinstance(bad, ValueError)
    assert isinstance(own, KeyError)
    assert recorder.batches == [[1, 13, 2, -1], [1], [13], [2], [-1]]


def test_cancelled_items_are_not_computed():
    recorder = Recorder()
    recorder.go.clear()

    async def steps(batcher):
        first = await started(batcher, recorder)
        gone, kept = (asyncio.create_task(batcher.submit(n)) for n in (2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        recorder.go.set()
        return await asyncio.gather(first, kept)

    assert play(recorder, steps) == [1, 9]
    assert recorder.batches == [[1], [3]]


def test_the_rate_is_that_of_the_batches():
    async def steps(batcher):
        assert batcher.rate == 0
        await batcher.submit(1, 2)
        return batcher.rate

    assert play(Recorder(), steps) > 0


def test_closing_waits_for_the_batch_that_runs():
    recorder = Recorder()

    async def main():
        batcher = Batcher(recorder, largest=1, wait=0)
        result = await batcher.submit(2)
        await batcher.close()
        return result

    assert asyncio.run(main()) == 4
    assert not [thread for thread in threading.enumerate() if thread.name in recorder.threads]


@pytest.mark.parametrize("count", [1, 50])
def test_nothing_is_mixed_up(count):
    async def steps(batcher):
        return await asyncio.gather(*(batcher.submit(n) for n in range(count) if n != 13))

    assert play(Recorder(), steps, wait=0) == [n * n for n in range(count) if n != 13]
