"""Training of OA-HPE: one step, and validation with the averaged weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oaks.training.losses import PoseLoss, pose_loss
from oaks.training.module import STRIDE, PeopleTraining, PixelNormalization
from oaks.training.recipe import PoseRecipe
from oaks.training.validation import CropSettings, Estimate, estimate


class PoseTraining(PeopleTraining):
    """OA-HPE on augmented crops; validated as at inference."""

    def __init__(self, recipe: PoseRecipe, steps: int, steps_per_epoch: int) -> None:
        super().__init__(recipe, steps, steps_per_epoch)
        self.recipe: PoseRecipe
        self.view = CropSettings(
            recipe.input, recipe.padding, recipe.mean, recipe.std, "half_pixel", recipe.refine,
            recipe.load_skeleton(),
        )  # fmt: skip
        self.normalize = PixelNormalization(recipe.mean, recipe.std)

    def details(self) -> dict[str, Any]:
        """Return how crops are cut and heatmaps are decoded."""
        return {"kind": "pose", **self.view.describe(), "heatmap_sigma": self.recipe.heatmap_sigma}

    def loss(self, batch: dict[str, Tensor]) -> PoseLoss:
        """Return the two parts of the loss of a batch of `AugmentedPeople`."""
        network: Any = self.network
        call = network if self.recipe.heatmap_loss == "squared" else network.logits
        heatmaps, logits = call(self.normalize(batch["crop"]))
        assert (heatmaps.shape[-1] * STRIDE, heatmaps.shape[-2] * STRIDE) == self.recipe.input
        return pose_loss(
            heatmaps, logits, batch["points"], batch["visible"], batch["annotatable"],
            stride=STRIDE, sigma=self.recipe.heatmap_sigma, kind=self.recipe.heatmap_loss,
        )  # fmt: skip

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the total loss of a batch; log it with its parts."""
        self.count_undecodable(batch)
        loss = self.loss(batch)
        total = loss.heatmap + self.recipe.visibility_weight * loss.visibility
        parts = {"loss": total, "heatmap_loss": loss.heatmap, "visibility_loss": loss.visibility}
        self.log_dict(parts, prog_bar=True)
        return total

    def estimate(self, batch: dict[str, Tensor]) -> Estimate:
        """Return the estimates on a batch of people, with the network that will be saved."""
        return estimate(self.best.eval(), batch["crop"], batch["transform"].cpu().numpy(), self.view)


__all__ = ["PoseTraining"]
