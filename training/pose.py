"""Training OA-HPE: one step, and validation with the averaged weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oaks.training.losses import PoseLoss, pose_loss
from oaks.training.module import STRIDE, NetworkTraining
from oaks.training.networks import build
from oaks.training.recipe import PoseRecipe
from oaks.training.validation import CropSettings, Estimate, estimate


class PoseTraining(NetworkTraining):
    """OA-HPE on augmented crops; validation takes the averaged weights along the path of use."""

    def __init__(self, recipe: PoseRecipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, build(recipe.architecture()), steps, steps_per_epoch)
        self.recipe: PoseRecipe
        skeleton = recipe.load_skeleton()
        self.view = CropSettings(
            recipe.input, recipe.padding, recipe.mean, recipe.std, "half_pixel", recipe.refine, skeleton
        )
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(recipe.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(recipe.std)[:, None, None], persistent=False)

    def description(self) -> dict[str, Any]:
        """What is saved with the network; see `oaks.training.checkpoint`."""
        recipe, view = self.recipe, self.view
        return {
            "kind": "pose",
            "architecture": recipe.architecture(),
            **view.describe(),
            "stride": STRIDE,
            "heatmap_sigma": recipe.heatmap_sigma,
            "trained_on": [source.name for source in recipe.data.train],
            "recipe": recipe.model_dump(mode="json"),
            "license": recipe.license,
        }

    def loss(self, batch: dict[str, Tensor]) -> PoseLoss:
        """The two parts of the loss of one batch of `oaks.training.data.sampling.make_loader`."""
        crops = (batch["crop"].permute(0, 3, 1, 2).float() - self.mean) / self.std
        squared = self.recipe.heatmap_loss == "squared"
        network: Any = self.network
        heatmaps, logits = (network if squared else network.logits)(crops)
        assert (heatmaps.shape[-1] * STRIDE, heatmaps.shape[-2] * STRIDE) == self.recipe.input
        return pose_loss(
            heatmaps, logits, batch["points"], batch["visible"], batch["annotatable"],
            stride=STRIDE, sigma=self.recipe.heatmap_sigma, kind=self.recipe.heatmap_loss,
        )  # fmt: skip

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The total loss of one batch, logged with its parts."""
        self.count_undecodable(batch)
        loss = self.loss(batch)
        total = loss.heatmap + self.recipe.visibility_weight * loss.visibility
        self.log("loss", total, prog_bar=True)
        self.log("heatmap_loss", loss.heatmap, prog_bar=True)
        self.log("visibility_loss", loss.visibility, prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor] | None, batch_idx: int) -> None:  # noqa: ARG002
        """Estimates on one batch of `oaks.training.validation.crop_loader`."""
        if batch is not None:
            self.collector.add(batch, self.estimate(batch))

    def estimate(self, batch: dict[str, Tensor]) -> Estimate:
        """What the network that will be saved says on a batch of people."""
        return estimate(self.best.eval(), batch["crop"], batch["transform"].cpu().numpy(), self.view)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics on everyone, gathered from all processes."""
        figures = self.outcome().metrics()
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=True)


__all__ = ["PoseTraining"]
