"""The order in which samples are drawn, and the loader that makes batches of them.

Every draw has a number, and all its random numbers depend only on the seed and that number. A training that stops at any
step therefore resumes exactly, with any number of loader workers.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from oaks.errors import ArgumentError
from oaks.skeleton import Skeleton
from oaks.training.data.augmentation import augment
from oaks.training.data.people import DamagedImage, ImageSource, People
from oaks.training.recipe import Augmentation

Label = TypeVar("Label")

log = logging.getLogger("oaks.training")

BLOCK = 1 << 16
"""Draws whose sources are chosen together."""


@dataclass(frozen=True)
class Draw:
    """One drawn sample."""

    source: int
    index: int  # within the source
    number: int  # of the draw, counted from the start of the training


class PeopleSampler(Sampler[list[Draw]]):
    """Batches of draws: sources are mixed by weight, and each is drawn in a new random order in every turn.

    Args:
        lengths: number of samples of each source.
        weights: relative frequency of each source.
        batch: draws per step and process; process `rank` of `processes` gets its share of each step's draws.
        steps: steps of the whole training.
        start: number of completed steps.
        seed: random seed of the order.
        rank: number of this process.
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
        taken = np.zeros(len(self.lengths), np.int64)  # draws from each source before the current block
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


@cache  # a damaged image is drawn in every epoch
def warn_once(message: str) -> None:
    """Log a warning if this process has not logged it yet."""
    log.warning(message)


def sample_readable(
    source: ImageSource[Label], index: int, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, Label, int]:
    """Return the sample at `index`, or the next one whose image can be decoded, and the number of skipped ones.

    Raises:
        ArgumentError: no image of the source can be decoded; the message names a file.
    """
    for damaged in range(len(source)):
        try:
            return *source.sample((index + damaged) % len(source), rng), damaged
        except DamagedImage as error:
            warn_once(f"{error}; the next sample is used instead")
            last = error
    raise ArgumentError(
        f"{source.name} must have images that can be decoded, got none for {len(source)} samples: {last}"
    )


class AugmentedPeople(Dataset[dict[str, Any]]):
    """Augmented people of several sources, indexed by draws."""

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
"""Delay of SIGTERM in loader workers: long enough for the current step or validation to end."""


class ResumableLoader(DataLoader):
    """A loader whose sampler starts at the current step. Lightning resumes mid-epoch only with loaders that have a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the number of completed steps determines where to start."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def init_worker(worker: int) -> None:  # noqa: ARG001
    """Limit a loader worker to one thread; it ignores SIGINT and delays SIGTERM.

    Ctrl-C and `timeout` signal the whole process group. If a worker ended at once, the step after which the training
    saves and stops would fail. The training itself ends workers with SIGTERM, so it is delayed and not ignored.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_TO_STOP))


def make_loader(samples: Dataset[dict[str, Any]], draws: PeopleSampler, workers: int) -> ResumableLoader:
    """Return a loader of batches of samples, for the steps of `draws`."""
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
