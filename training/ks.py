"""Training of KS-net: its pose networks, one step, and validation together with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from oaks.errors import ArgumentError
from oaks.progress import progress
from oaks.training.calibration import FittedCalibration, apply_calibration, fit_calibration
from oaks.training.checkpoint import load_network
from oaks.training.data.people import People
from oaks.training.data.sources import PeopleSplit
from oaks.training.ks_data import (
    HeatmapStore,
    OnlineCrops,
    PoseNetworks,
    StoredHeatmaps,
    mirror_sample,
    true_similarity,
)
from oaks.training.losses import similarity_loss
from oaks.training.module import PeopleData, PeopleTraining
from oaks.training.networks import channels_last
from oaks.training.recipe import KSRecipe, RenderedSource, parse_recipe
from oaks.training.validation import CropDataset, CropSettings, Estimate, ValidationResults


def load_pose_networks(recipe: KSRecipe) -> tuple[PoseNetworks, list[dict[str, Any]]]:
    """Return the pose networks that a KS recipe names, and their descriptions.

    Raises:
        ArgumentError: one of them is no pose network, has another skeleton, differs from the others in its input, or was
            trained on people that it must not have seen.
        FileNotFoundError: a network is missing.
    """
    networks, descriptions = [], []
    for path in recipe.pose:
        network, description = load_network(path, "pose")
        networks.append(channels_last(network).requires_grad_(False))
        descriptions.append(description)
    views = [CropSettings.of(description) for description in descriptions]
    if any(view != views[0] for view in views):
        raise ArgumentError(
            "pose must be networks with the same input, padding, decoder and skeleton, got others"
        )
    if views[0].skeleton != recipe.load_skeleton():
        raise ArgumentError(
            f"pose must be networks of skeleton {recipe.skeleton!r}, got {views[0].skeleton.name!r}"
        )
    _check_pose_folds(recipe, descriptions)
    return PoseNetworks(networks, views[0]), descriptions


def _check_pose_folds(recipe: KSRecipe, descriptions: Sequence[dict[str, Any]]) -> None:
    """Refuse pose networks that were trained on people that must be new to them.

    In cross-fitting these are all people. With `folds.trained` they are the people of these folds and of the held-out
    fold, with `calibrate` those of the held-out fold. Otherwise a KS-net learns from the pose network's own people, as in
    the paper.
    """
    folds = recipe.data.folds
    if folds is None:
        return
    for number, (path, description) in enumerate(zip(recipe.pose, descriptions, strict=True)):
        theirs = parse_recipe(description["recipe"], str(path)).data
        # Only for rendered people, whose seed identifies them: equal paths may be different files.
        known = {
            source.content(): source.name for source in theirs.train if isinstance(source, RenderedSource)
        }
        for source in (*recipe.data.train, *recipe.data.validation):
            if known.get(source.content(), source.name) != source.name:
                raise ArgumentError(
                    f"name must be {known[source.content()]!r}, as {path} calls the same people, got {source.name!r}; "
                    "folds depend on the name"
                )
        if len(descriptions) > 1:
            runs_on = [number]
        else:
            runs_on = list(folds.trained or [])
            if folds.held_out is not None and (runs_on or recipe.calibrate):
                runs_on.append(folds.held_out)
        shared = sorted(
            {source.name for source in recipe.data.train} & {source.name for source in theirs.train}
        )
        unseen = theirs.folds is not None and theirs.folds.holds_out(runs_on, folds.count)
        if runs_on and shared and not unseen:
            raise ArgumentError(
                f"pose: {path} must be trained without fold {', '.join(map(str, sorted(runs_on)))} of {folds.count} of "
                f"{shared}, on which it runs here, got data.folds {theirs.folds}; retrain it with `data.folds`"
            )


class KSTraining(PeopleTraining):
    """KS-net on flip-averaged heatmaps; validated together with the pose network, as at inference."""

    def __init__(
        self, recipe: KSRecipe, pose: PoseNetworks, split: PeopleSplit, steps: int, steps_per_epoch: int
    ) -> None:
        super().__init__(recipe, steps, steps_per_epoch)
        self.recipe: KSRecipe
        self.pose = pose  # not a torch module, so that it is neither trained nor saved
        self.train_names = [people.name for people in split.train]
        self.validation_names = [people.name for people in split.validation]
        self.calibration: FittedCalibration = {}

    def on_fit_start(self) -> None:
        """Move the pose networks to the training's device."""
        for network in self.pose.networks:
            network.to(self.device)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch of stored heatmaps, or of crops whose heatmaps are made here."""
        self.count_undecodable(batch)
        if "heatmaps" not in batch:
            batch = self._with_heatmaps(batch)
        loss = similarity_loss(
            self.network(batch["heatmaps"].float()), batch["similarity"], batch["annotated"], self.recipe.loss
        )
        self.log("loss", loss, prog_bar=True)
        return loss

    def _with_heatmaps(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = self.pose.estimate(self.train_names, batch)
        similarity, annotated = true_similarity(batch, found, self.pose.view.skeleton)
        content = {
            "heatmaps": found.heatmaps,
            "similarity": similarity,
            "annotated": annotated.astype(np.float32),
        }
        for row in np.flatnonzero(batch["mirrored"].cpu().numpy()):
            heatmaps, similarity, annotated = (values[row] for values in content.values())
            mirrored = mirror_sample(heatmaps, similarity, annotated, self.pose.view.skeleton)
            for values, value in zip(content.values(), mirrored, strict=True):
                values[row] = value
        return {name: torch.from_numpy(value).to(self.device) for name, value in content.items()}

    def estimate(self, batch: dict[str, Tensor]) -> Estimate:
        """Return the estimates on a batch of people, with the network that will be saved."""
        return self.pose.estimate(self.validation_names, batch, ks=self.best.eval())

    def outcome(self) -> ValidationResults:
        """Return the results of all processes, calibrated if the recipe asks for it."""
        outcome = super().outcome()
        if self.recipe.calibrate:
            self.calibration = fit_calibration(outcome)
            outcome = apply_calibration(outcome, self.calibration)
        return outcome

    def details(self) -> dict[str, Any]:
        """Return how crops are cut and heatmaps are decoded, and the calibration."""
        return {"kind": "ks", **self.pose.view.describe(), "calibration": self.calibration}


class HeatmapData(PeopleData):
    """KS-net's samples: stored heatmaps if there is a store of them, otherwise crops."""

    def __init__(
        self,
        recipe: KSRecipe,
        split: PeopleSplit,
        steps: int,
        view: CropSettings,
        store: HeatmapStore | None,
        crops: CropDataset,
    ) -> None:
        super().__init__(recipe, split, steps, view)
        self.recipe: KSRecipe
        self.store, self.crops, self.validation_batch = store, crops, 32

    def samples(self) -> tuple[Any, Sequence[int]]:
        """Return stored heatmaps or augmented crops."""
        seed = self.recipe.training.seed
        if self.store is None:
            live = OnlineCrops(self.split.train, self.view, self.recipe.augmentation, seed=seed)
            return live, [len(people) for people in self.split.train]
        stored = StoredHeatmaps(
            self.store,
            self.crops.begins.tolist(),
            self.view.skeleton,
            flip=self.recipe.augmentation.flip,
            seed=seed,
        )
        return stored, np.diff(self.crops.begins).tolist()


def store_key(recipe: KSRecipe, sources: Sequence[People]) -> dict[str, Any]:
    """Return everything that stored heatmaps depend on."""
    people = {source.name: [len(source), source.digest()] for source in sources}
    networks = [hashlib.sha256(path.read_bytes()).hexdigest() for path in recipe.pose]
    varied = recipe.augmentation.model_dump(mode="json", exclude={"flip"}) if recipe.views > 1 else {}
    return {"networks": networks, "people": people, "views": recipe.views, "augmentation": varied}


def open_store(
    recipe: KSRecipe, folder: Path, split: PeopleSplit, pose: PoseNetworks, crops: CropDataset
) -> HeatmapStore:
    """Open the store of a recipe's heatmaps, complete or not."""
    with torch.inference_mode():
        size = pose.view.size
        maps = pose.networks[0](torch.zeros(1, 3, size[1], size[0]))[0].shape[1:]
    return HeatmapStore(folder, store_key(recipe, split.train), (len(crops), *maps))


def fill_store(
    store: HeatmapStore, recipe: KSRecipe, split: PeopleSplit, pose: PoseNetworks, crops: CropDataset,
    device: torch.device, console: Console, stop: Callable[[], bool] = lambda: False,
) -> None:  # fmt: skip
    """Write the missing parts of a store, with a progress bar, until it is complete or `stop` returns True."""
    left = sum(len(store.places(part)) for part in store.missing())
    if not left:
        return
    for network in pose.networks:
        network.to(device)
    with progress("heatmaps of the training people", left, console=console) as advance:
        store.write(
            crops, [people.name for people in split.train], pose, device=device, batch=32,
            workers=recipe.training.workers, advance=advance, stop=stop,
        )  # fmt: skip


__all__ = ["HeatmapData", "KSTraining", "fill_store", "load_pose_networks", "open_store"]
