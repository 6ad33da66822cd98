"""What every training shares: the optimizer, its schedule, the averaged weights, validation and loaders."""

from __future__ import annotations

import abc
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from oaks.errors import ArgumentError
from oaks.training.data.sampling import AugmentedPeople, PeopleSampler, make_loader
from oaks.training.data.sources import Split
from oaks.training.networks import channels_last
from oaks.training.recipe import CosineSchedule, Recipe, StepSchedule, Training
from oaks.training.validation import (
    CropDataset,
    CropSettings,
    ResultCollector,
    ValidationResults,
    crop_loader,
)

STRIDE = 4
"""Crop pixels per heatmap pixel, of every network here."""


def rate_factor(
    schedule: StepSchedule | CosineSchedule, steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """Step number to factor on the learning rate, over the whole training, so that pieces of it agree."""

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
        if isinstance(schedule, StepSchedule):
            passed = sum(step >= epoch * steps_per_epoch for epoch in schedule.epochs)
            return warm * schedule.factor**passed
        part = min(step / max(steps, 1), 1.0)
        return warm * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * part)))

    return factor


Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential average whose first steps forget faster, so that the fresh weights do not stay in it."""

    def average(kept: Tensors, current: Tensors, count: Tensor | int) -> None:
        if kept[0].is_floating_point():
            share = min(decay, (1 + float(count)) / (10 + float(count)))
            torch._foreach_lerp_(kept, current, 1 - share)  # pyright: ignore[reportPrivateImportUsage]  # no public name
        else:
            torch._foreach_copy_(kept, current)  # pyright: ignore[reportPrivateImportUsage]  # no public name

    return average


def count_steps(training: Training, people: int) -> tuple[int, int]:
    """Steps of a whole training and of one epoch."""
    per_epoch = math.ceil(people / training.batch)
    return max(1, round(training.epochs * per_epoch)), per_epoch


class NetworkTraining(lightning.LightningModule, abc.ABC):
    """What training a pose network and a KS-net have in common."""

    def __init__(self, recipe: Recipe, network: nn.Module, steps: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.recipe, self.steps, self.steps_per_epoch = recipe, steps, steps_per_epoch
        self.network = channels_last(network)
        decay = recipe.training.average
        self.averaged: AveragedModel | None = None
        if decay:
            self.averaged = AveragedModel(self.network, multi_avg_fn=moving_average(decay), use_buffers=True)
            self.averaged.requires_grad_(False)
        self.collector = ResultCollector(recipe.load_skeleton())
        self.left_out = 0  # people whose images could not be decoded in the last validation
        # People skipped since the training began, by all processes together.
        self.damaged: Tensor
        self.register_buffer("damaged", torch.zeros((), dtype=torch.int64))

    @property
    def best(self) -> nn.Module:
        """The network that is validated and saved: the averaged one if there is one."""
        return self.network if self.averaged is None else self.averaged.module

    def configure_optimizers(self) -> Any:
        """Adam or AdamW with the recipe's schedule, stepped once per step."""
        training = self.recipe.training
        kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        learned = [p for p in self.network.parameters() if p.requires_grad]
        decayed = [p for p in learned if p.ndim > 1]
        others = [p for p in learned if p.ndim <= 1]
        optimizer = kind(
            [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=training.learning_rate,
            fused=training.clip_gradient is None,  # Lightning cannot clip for a fused optimizer
        )
        factor = rate_factor(training.schedule, self.steps, self.steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @abc.abstractmethod
    def description(self) -> dict[str, Any]:
        """What is saved with the network; see `oaks.training.checkpoint`."""

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Moves the average with every step: before any callback can write a checkpoint of the step."""
        super().optimizer_step(*arguments, **named)
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def count_undecodable(self, batch: dict[str, Tensor]) -> None:
        """Adds the people skipped in this batch, in all processes.

        Every process keeps the sum: DistributedDataParallel overwrites buffers with the first process's.
        """
        self.damaged += self.trainer.strategy.reduce(batch["damaged"].sum(), reduce_op="sum")

    def outcome(self) -> ValidationResults:
        """Everyone validated, gathered from all processes; begins the next validation's collection."""
        gather_rows(self.collector, self.trainer.world_size)
        outcome = self.collector.outcome()
        data: PeopleModule = self.trainer.datamodule  # type: ignore[attr-defined]  # which Lightning sets
        people = sum(len(people) for people in data.split.validation)
        self.left_out = people - len(outcome.points)
        self.collector = ResultCollector(self.collector.skeleton)
        return outcome

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the random generators, of which dropout would draw."""
        checkpoint["random"] = {
            "python": random.getstate(),
            # The global generator, which libraries draw from; as plain numbers, which load safely.
            "numpy": [x.tolist() if isinstance(x, np.ndarray) else x for x in np.random.get_state()],  # noqa: NPY002
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores them."""
        state = checkpoint["random"]
        random.setstate(state["python"])
        np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


class PeopleModule(lightning.LightningDataModule):
    """Loaders that begin where the training stands.

    Args:
        validation_batch: people per batch of the validation; the training's by default.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: Split,
        view: CropSettings,
        steps: int,
        validation_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.split, self.view, self.steps = recipe, split, view, steps
        self.validation_batch = validation_batch or recipe.training.batch

    def samples(self) -> tuple[Dataset[dict[str, Any]], Sequence[int]]:
        """The training's samples, by source and place, and the number of places of each source."""
        samples = AugmentedPeople(
            self.split.train, self.recipe.augmentation, size=self.view.size, padding=self.view.padding,
            skeleton=self.view.skeleton, seed=self.recipe.training.seed,
        )  # fmt: skip
        return samples, [len(people) for people in self.split.train]

    def train_dataloader(self) -> Any:
        """Samples from the step on that the trainer has reached."""
        samples, lengths = self.samples()
        return loader_from_here(self, self.recipe.training, samples, lengths, self.split.weights, self.steps)

    def val_dataloader(self) -> Any:
        """Everyone held out, shared between the processes."""
        if not self.split.validation:
            return []
        crops = CropDataset(self.split.validation, self.view)
        return crop_loader(
            crops, batch=self.validation_batch, workers=self.recipe.training.workers,
            places=places_of_process(self, len(crops)),
        )  # fmt: skip


def loader_from_here(
    data: lightning.LightningDataModule,
    training: Training,
    samples: Dataset[dict[str, Any]],
    lengths: Sequence[int],
    weights: Sequence[float],
    steps: int,
) -> Any:
    """A training's loader from the step on that the trainer has reached, of this process's share of each batch.

    Args:
        data: whose trainer counts.
        training: the recipe's.
        samples: by source and place.
        lengths: places of each source.
        weights: of each source.
        steps: of the whole training.

    Raises:
        ArgumentError: the processes cannot share out the batch.
    """
    assert data.trainer is not None
    trainer = data.trainer
    batch, rest = divmod(training.batch, trainer.world_size)
    if rest:
        raise ArgumentError(
            f"batch must be a multiple of the {trainer.world_size} processes, got {training.batch}"
        )
    draws = PeopleSampler(
        lengths, weights, batch=batch, steps=steps, start=trainer.global_step, seed=training.seed,
        rank=trainer.global_rank, processes=trainer.world_size,
    )  # fmt: skip
    return make_loader(samples, draws, training.workers)


def places_of_process(data: lightning.LightningDataModule, count: int) -> range:
    """This process's share of `count` validated places."""
    assert data.trainer is not None
    return range(data.trainer.global_rank, count, data.trainer.world_size)


def gather_rows(collector: ResultCollector, processes: int) -> None:
    """Gives every process's collector the rows of all of them."""
    if processes > 1:
        rows: list[Any] = [None] * processes
        torch.distributed.all_gather_object(rows, collector.rows)
        collector.rows = [row for part in rows for row in part]


__all__ = [
    "STRIDE",
    "NetworkTraining",
    "PeopleModule",
    "count_steps",
    "gather_rows",
    "loader_from_here",
    "moving_average",
    "places_of_process",
    "rate_factor",
]
