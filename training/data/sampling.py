"""The order in which people are drawn, and the loader that turns draws into batches.

Every draw has a number, and everything random about it follows from the seed and that number. So a training
that stops at any step continues exactly, whatever the number of loading processes.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from oaks.errors import ArgumentError
from oaks.skeleton import Skeleton
from oaks.training.data.augmentation import augment
from oaks.training.data.people import DamagedImage, People, Person
from oaks.training.recipe import Augmentation

log = logging.getLogger("oaks.training")

BLOCK = 1 << 16


@dataclass(frozen=True)
class Draw:
    """One person drawn."""

    source: int
    index: int  # of the person within the source
    number: int  # of the draw since the training began


class PeopleSampler(Sampler[list[Draw]]):
    """Batches of draws: each source's people in one random order after another, sources mixed by weight.

    Args:
        lengths: people in each source.
        weights: how often a source is drawn from; in proportion to these.
        batch: draws per step and process; process `rank` of `processes` gets its share of each step's draws.
        steps: in the whole training.
        start: steps that are done already.
        seed: of the order.
        rank: of this process.
        processes: number of training processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        *,
        batch: int,
        steps: int,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.lengths, self.weights = list(lengths), np.asarray(weights, float) / sum(weights)
        self.batch, self.steps, self.start, self.seed = batch, steps, start, seed
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        whole = self.batch * self.processes
        draws = self._draws(self.start * whole)
        for _ in range(self.start, self.steps):
            step = [next(draws) for _ in range(whole)]
            yield step[self.rank :: self.processes]

    def _draws(self, begin: int) -> Iterator[Draw]:
        taken = np.zeros(len(self.lengths), np.int64)  # from each source, before the present block
        orders: dict[int, tuple[int, np.ndarray]] = {}
        block = 0
        while True:
            first, sources = block * BLOCK, self._sources(block)
            if first + BLOCK <= begin:
                taken += np.bincount(sources, minlength=len(taken))
                block += 1
                continue
            for place, source in enumerate(sources.tolist()):
                count = int(taken[source])
                taken[source] += 1
                if first + place < begin:
                    continue
                turn, index = divmod(count, self.lengths[source])
                if orders.get(source, (-1,))[0] != turn:
                    rng = np.random.default_rng([self.seed, 1, source, turn])
                    orders[source] = (turn, rng.permutation(self.lengths[source]))
                yield Draw(source, int(orders[source][1][index]), first + place)
            block += 1

    def _sources(self, block: int) -> np.ndarray:
        if len(self.lengths) == 1:
            return np.zeros(BLOCK, np.int64)
        return np.random.default_rng([self.seed, 0, block]).choice(len(self.lengths), BLOCK, p=self.weights)


@cache  # a damaged image is met in every epoch
def warn_once(message: str) -> None:
    """Logs a warning if this process has not logged it yet."""
    log.warning(message)


def sample_readable(people: People, index: int, rng: np.random.Generator) -> tuple[np.ndarray, Person, int]:
    """The person at `index`, or the next one whose image can be decoded, and how many were skipped.

    Raises:
        ArgumentError: nobody's can; the message names a file.
    """
    for damaged in range(len(people)):
        try:
            return *people.sample((index + damaged) % len(people), rng), damaged
        except DamagedImage as error:
            warn_once(f"{error}; the next person is taken instead")
            last = error
    raise ArgumentError(f"{people.name}: none of {len(people)} people's images can be decoded: {last}")


class AugmentedPeople(Dataset[dict[str, Any]]):
    """Augmented samples of several sources, addressed by draws."""

    def __init__(
        self,
        sources: Sequence[People],
        settings: Augmentation,
        *,
        size: tuple[int, int],
        padding: float,
        skeleton: Skeleton,
        seed: int,
    ) -> None:
        self.sources, self.seed = list(sources), seed
        self.cut = partial(augment, settings=settings, size=size, padding=padding, skeleton=skeleton)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, 2, draw.number])
        people = self.sources[draw.source]
        image, person, damaged = sample_readable(people, draw.index, rng)

        def another() -> np.ndarray:
            return sample_readable(people, int(rng.integers(len(people))), rng)[0]

        return {**self.cut(image, person, rng, another=another)._asdict(), "damaged": damaged}


SECONDS_TO_STOP = 180
"""For which a loading process outlives SIGTERM: what it loads for ends with the step, or with the validation."""


class ResumableLoader(DataLoader):
    """A loader whose sampler starts where the training stands; Lightning asks loaders whether they can."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the number of steps done tells where to start."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def init_worker(worker: int) -> None:  # noqa: ARG001
    """Limit a loader worker to one thread; it ignores SIGINT and delays SIGTERM.

    Ctrl-C and `timeout` signal the whole group: a loading process that died of it would break the step after which
    the training wants to stop, and save. SIGTERM is also how the training ends a loading process, so that it waits
    for a step, or a validation that is under way, alone.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_TO_STOP))


def make_loader(samples: Dataset[dict[str, Any]], draws: PeopleSampler, workers: int) -> ResumableLoader:
    """Batches of samples: crop (B,H,W,3) uint8, points (B,K,2), visible, annotatable (B,K), damaged (B,)."""
    return ResumableLoader(
        samples,
        batch_sampler=draws,
        num_workers=workers,
        worker_init_fn=init_worker,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
    )


__all__ = [
    "AugmentedPeople",
    "Draw",
    "PeopleSampler",
    "ResumableLoader",
    "init_worker",
    "make_loader",
    "sample_readable",
    "warn_once",
]  # fmt: skip
