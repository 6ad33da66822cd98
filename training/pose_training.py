"""Training OA-HPE: one step, the optimiser, the averaged weights, and validation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from oaks.training.evaluation import Collector, Estimate, View, estimate
from oaks.training.losses import pose_loss
from oaks.training.networks import build
from oaks.training.recipe import CosineSchedule, PoseRecipe, Recipe, StepSchedule


def rate_factor(
    schedule: StepSchedule | CosineSchedule, steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """Step number to factor on the learning rate; defined over the whole training, so that pieces of it agree."""

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
        if isinstance(schedule, StepSchedule):
            passed = sum(step >= epoch * steps_per_epoch for epoch in schedule.epochs)
            return warm * schedule.factor**passed
        part = min(step / max(steps, 1), 1.0)
        return warm * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * part)))

    return factor


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Exponential average whose first steps forget faster, so that the fresh weights do not stay in it."""

    def average(kept: Tensor, current: Tensor, count: Tensor) -> Tensor:
        if not kept.is_floating_point():
            return current
        share = min(decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(current, kept, share)

    return average


class NetworkTraining(lightning.LightningModule):
    """What training a pose network and a KS-net have in common."""

    def __init__(self, recipe: Recipe, network: nn.Module, steps: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.recipe, self.steps, self.steps_per_epoch = recipe, steps, steps_per_epoch
        self.network = network.to(memory_format=torch.channels_last)
        decay = recipe.training.average
        self.averaged: AveragedModel | None = None
        if decay:
            self.averaged = AveragedModel(self.network, avg_fn=moving_average(decay), use_buffers=True)
            self.averaged.requires_grad_(False)
        self.damaged = 0  # images passed over

    @property
    def best(self) -> nn.Module:
        """The network that is validated and saved: the averaged one if there is one."""
        return self.network if self.averaged is None else self.averaged.module

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam or AdamW with the recipe's schedule, stepped once per step."""
        training = self.recipe.training
        kind = torch.optim.AdamW if training.optimiser == "adamw" else torch.optim.Adam
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        optimiser = kind(
            [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=training.learning_rate,
            fused=training.clip_gradient is None,  # Lightning cannot clip for a fused optimiser
        )
        factor = rate_factor(training.schedule, self.steps, self.steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Moves the average with every step: before any callback can write a checkpoint of the step."""
        super().optimizer_step(*arguments, **named)
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the states of the random generators, of which dropout would draw."""
        checkpoint["random"] = {
            "python": random.getstate(),
            # The global generator, which libraries draw from; as plain numbers, which load safely.
            "numpy": [x.tolist() if isinstance(x, np.ndarray) else x for x in np.random.get_state()],  # noqa: NPY002
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "damaged": self.damaged,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores them."""
        state = checkpoint["random"]
        random.setstate(state["python"])
        np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        self.damaged = state["damaged"]


class PoseTraining(NetworkTraining):
    """OA-HPE on augmented crops; validation takes the averaged weights along the path of use."""

    def __init__(self, recipe: PoseRecipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, build(recipe.architecture()), steps, steps_per_epoch)
        self.recipe: PoseRecipe
        skeleton = recipe.load_skeleton()
        self.view = View(
            recipe.input, recipe.padding, recipe.mean, recipe.std, "half_pixel", recipe.refine, skeleton
        )
        self.register_buffer("mean", torch.tensor(recipe.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(recipe.std)[:, None, None], persistent=False)
        self.collector = Collector(skeleton)

    def description(self) -> dict[str, Any]:
        """What is saved with the network; see `oaks.training.checkpoint`."""
        recipe, view = self.recipe, self.view
        return {
            "kind": "pose",
            "architecture": recipe.architecture(),
            "skeleton": view.skeleton.to_dict(),
            "input": {
                "size": list(view.size),
                "mean": list(view.mean),
                "std": list(view.std),
                "color": "bgr",
            },
            "stride": 4,
            "alignment": view.alignment,
            "heatmap_sigma": recipe.heatmap_sigma,
            "refine": view.refine,
            "padding": view.padding,
            "trained_on": [source.name for source in recipe.data.train],
            "recipe": recipe.model_dump(mode="json"),
            "license": recipe.licence,
        }

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of one batch of `oaks.training.data.sampling.make_loader`."""
        self.damaged += int(batch["damaged"].sum())
        crops = (batch["crop"].permute(0, 3, 1, 2).float() - self.mean) / self.std
        heatmaps, logits = self.network(crops)
        stride = self.recipe.input[0] // heatmaps.shape[-1]
        loss = pose_loss(
            heatmaps, logits, batch["points"], batch["visible"], batch["annotatable"],
            stride=stride, sigma=self.recipe.heatmap_sigma,
        )  # fmt: skip
        total = loss.heatmap + self.recipe.visibility_weight * loss.visibility
        self.log("loss", total, prog_bar=True)
        self.log("heatmap_loss", loss.heatmap, prog_bar=True)
        self.log("visibility_loss", loss.visibility, prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor] | None, batch_idx: int) -> None:  # noqa: ARG002
        """Estimates on one batch of `oaks.training.evaluation.crop_loader`."""
        if batch is not None:
            self.collector.add(batch, self.estimate(batch))

    def estimate(self, batch: dict[str, Tensor]) -> Estimate:
        """What the network that will be saved says on a batch of people."""
        return estimate(self.best.eval(), batch["crop"], batch["transform"].cpu().numpy(), self.view)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics on everyone, gathered from all processes."""
        gather(self.collector, self.trainer.world_size)
        figures = self.collector.outcome().metrics()
        self.collector = Collector(self.view.skeleton)
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, rank_zero_only=True)


def gather(collector: Collector, processes: int) -> None:
    """Gives every process's collector the rows of all of them."""
    if processes > 1:
        rows: list[Any] = [None] * processes
        torch.distributed.all_gather_object(rows, collector.rows)
        collector.rows = [row for part in rows for row in part]


__all__ = ["NetworkTraining", "PoseTraining", "gather", "moving_average", "rate_factor"]
