"""Shared parts of all trainings: optimizer, schedule, averaged weights, validation and loaders."""

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
from oaks.training.data.sources import PeopleSplit, Split
from oaks.training.networks import build, channels_last
from oaks.training.recipe import CosineSchedule, Recipe, StepSchedule, Training
from oaks.training.validation import (
    CropDataset,
    CropSettings,
    Estimate,
    ResultCollector,
    ValidationResults,
    ordered_loader,
)

STRIDE = 4
"""Input pixels per output pixel of all networks."""


def rate_factor(
    schedule: StepSchedule | CosineSchedule, steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """Return the function from step number to the factor on the learning rate."""

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
    """Return an exponential moving average whose decay is smaller at first, so that it forgets the initial weights."""

    def average(kept: Tensors, current: Tensors, count: Tensor | int) -> None:
        if kept[0].is_floating_point():
            share = min(decay, (1 + float(count)) / (10 + float(count)))
            torch._foreach_lerp_(kept, current, 1 - share)  # pyright: ignore[reportPrivateImportUsage]  # no public name
        else:
            torch._foreach_copy_(kept, current)  # pyright: ignore[reportPrivateImportUsage]  # no public name

    return average


def count_steps(training: Training, people: int) -> tuple[int, int]:
    """Return the number of steps of the whole training, 0 for none at all, and of one epoch."""
    per_epoch = math.ceil(people / training.batch)
    return max(1, round(training.epochs * per_epoch)) if training.epochs else 0, per_epoch


class PixelNormalization(nn.Module):
    """Converts (N, H, W, 3) uint8 pixels to a network's input (N, 3, H, W) float32."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


class NetworkTraining(lightning.LightningModule, abc.ABC):
    """Training of one network.

    Attributes:
        network: the trained network.
        averaged: its averaged weights, if the recipe asks for them.
        left_out: samples of the last validation whose images could not be decoded.
        damaged: samples skipped since the start of the training, in all processes together.
    """

    def __init__(self, recipe: Recipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.recipe, self.steps, self.steps_per_epoch = recipe, steps, steps_per_epoch
        self.network = channels_last(build(recipe.architecture()))
        decay = recipe.training.average
        self.averaged: AveragedModel | None = None
        if decay:
            self.averaged = AveragedModel(self.network, multi_avg_fn=moving_average(decay), use_buffers=True)
            self.averaged.requires_grad_(False)
        self.left_out = 0
        self.damaged: Tensor
        self.register_buffer("damaged", torch.zeros((), dtype=torch.int64))

    @property
    def best(self) -> nn.Module:
        """The network that is validated and saved: the averaged one, if the recipe asks for it and has steps."""
        return self.network if self.averaged is None or not self.steps else self.averaged.module

    def configure_optimizers(self) -> Any:
        """Return Adam or AdamW with the recipe's schedule, which advances with every step."""
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
    def details(self) -> dict[str, Any]:
        """Return the kind of network ("kind") and the fields that descriptions of other kinds lack."""

    def description(self) -> dict[str, Any]:
        """Return the description that is saved with the network; see `oaks.training.checkpoint`."""
        return {
            "architecture": self.recipe.architecture(),
            "stride": STRIDE,
            "trained_on": [source.name for source in self.recipe.data.train],
            "recipe": self.recipe.model_dump(mode="json"),
            "license": self.recipe.license,
            **self.details(),
        }

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Update the average in every step, before a callback can write a checkpoint of it."""
        super().optimizer_step(*arguments, **named)
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def count_undecodable(self, batch: dict[str, Tensor]) -> None:
        """Add the samples skipped in this batch, in all processes.

        Every process holds the sum, because DistributedDataParallel overwrites buffers with the first process's.
        """
        self.damaged += self.trainer.strategy.reduce(batch["damaged"].sum(), reduce_op="sum")

    def gathered(self, rows: list[Any]) -> list[Any]:
        """Return the rows of all processes."""
        if self.trainer.world_size == 1:
            return rows
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, rows)
        return [row for part in parts for row in part]

    def validation_split(self) -> Split[Any]:
        """Return the sources that the trainer validates on."""
        data: TrainingData = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning
        return data.split

    def log_metrics(self, figures: dict[str, float]) -> None:
        """Log the metrics of a validation."""
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the states of the random generators."""
        checkpoint["random"] = {
            "python": random.getstate(),
            # The global generator, used by libraries; as plain numbers, which can be loaded with weights_only.
            "numpy": [x.tolist() if isinstance(x, np.ndarray) else x for x in np.random.get_state()],  # noqa: NPY002
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the states of the random generators."""
        state = checkpoint["random"]
        random.setstate(state["python"])
        np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


class PeopleTraining(NetworkTraining):
    """Training of a network that is validated by its poses: a pose network or a KS-net."""

    def __init__(self, recipe: Recipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, steps, steps_per_epoch)
        self.collector = ResultCollector(recipe.load_skeleton())

    @abc.abstractmethod
    def estimate(self, batch: dict[str, Tensor]) -> Estimate:
        """Return the estimates on a batch of people, with the network that will be saved."""

    def validation_step(self, batch: dict[str, Tensor] | None, batch_idx: int) -> None:  # noqa: ARG002
        """Collect the estimates on one batch of `oaks.training.validation.ordered_loader`."""
        if batch is not None:
            self.collector.add(batch, self.estimate(batch))

    def outcome(self) -> ValidationResults:
        """Return the results of all processes, and start the collection of the next validation."""
        self.collector.rows = self.gathered(self.collector.rows)
        outcome = self.collector.outcome()
        self.left_out = sum(map(len, self.validation_split().validation)) - len(outcome.points)
        self.collector = ResultCollector(self.collector.skeleton)
        return outcome

    def on_validation_epoch_end(self) -> None:
        """Log the metrics on all validation people."""
        self.log_metrics(self.outcome().metrics())


class TrainingData(lightning.LightningDataModule, abc.ABC):
    """Loaders of training and validation. The training's loader starts at the step that the trainer has reached."""

    def __init__(self, recipe: Recipe, split: Split[Any], steps: int) -> None:
        super().__init__()
        self.recipe, self.split, self.steps = recipe, split, steps
        self.validation_batch = recipe.training.batch

    @abc.abstractmethod
    def samples(self) -> tuple[Dataset[dict[str, Any]], Sequence[int]]:
        """Return the training samples, indexed by draws, and the number of samples of each source."""

    @abc.abstractmethod
    def held_out(self) -> Any:
        """Return the validation samples, a dataset with a length, indexed by place."""

    def train_dataloader(self) -> Any:
        """Return the loader of this process's share of each batch.

        Raises:
            ArgumentError: the batch cannot be divided equally between the processes.
        """
        assert self.trainer is not None
        training, trainer = self.recipe.training, self.trainer
        batch, rest = divmod(training.batch, trainer.world_size)
        if rest:
            raise ArgumentError(
                f"batch must be a multiple of the {trainer.world_size} processes, got {training.batch}"
            )
        samples, lengths = self.samples()
        draws = PeopleSampler(
            lengths, self.split.weights, batch=batch, steps=self.steps, start=trainer.global_step,
            seed=training.seed, rank=trainer.global_rank, processes=trainer.world_size,
        )  # fmt: skip
        return make_loader(samples, draws, training.workers)

    def val_dataloader(self) -> Any:
        """Return the loader of this process's share of the validation samples."""
        if not self.split.validation:
            return []
        assert self.trainer is not None
        held_out, workers = self.held_out(), self.recipe.training.workers
        places = range(self.trainer.global_rank, len(held_out), self.trainer.world_size)
        return ordered_loader(held_out, batch=self.validation_batch, workers=workers, places=places)


class PeopleData(TrainingData):
    """Crops of people."""

    split: PeopleSplit

    def __init__(self, recipe: Recipe, split: PeopleSplit, steps: int, view: CropSettings) -> None:
        super().__init__(recipe, split, steps)
        self.view = view

    def samples(self) -> tuple[Dataset[dict[str, Any]], Sequence[int]]:
        """Return augmented crops."""
        samples = AugmentedPeople(
            self.split.train, self.recipe.augmentation, size=self.view.size, padding=self.view.padding,
            skeleton=self.view.skeleton, seed=self.recipe.training.seed,
        )  # fmt: skip
        return samples, [len(people) for people in self.split.train]

    def held_out(self) -> CropDataset:
        """Return crops of the validation people, as at inference."""
        return CropDataset(self.split.validation, self.view)


__all__ = [
    "STRIDE", "NetworkTraining", "PeopleData", "PeopleTraining", "PixelNormalization", "TrainingData", "count_steps",
    "moving_average", "rate_factor",
]  # fmt: skip
