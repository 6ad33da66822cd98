"""Training KS-net: its data from trained pose networks, one step, and validation together with them."""

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
from oaks.training.data.sources import Split
from oaks.training.ks_data import (
    HeatmapStore,
    OnlineCrops,
    PoseNetworks,
    StoredHeatmaps,
    mirror_sample,
    true_similarity,
)
from oaks.training.losses import similarity_loss
from oaks.training.module import STRIDE, NetworkTraining, PeopleModule
from oaks.training.networks import build, channels_last
from oaks.training.recipe import KSRecipe, RenderedSource, parse_recipe
from oaks.training.validation import CropDataset, CropSettings


def load_pose_networks(recipe: KSRecipe) -> tuple[PoseNetworks, list[dict[str, Any]]]:
    """The pose networks that a KS recipe names, and their descriptions.

    Raises:
        ArgumentError: one of them is no pose network or has another skeleton; they see people differently; or,
            of several, one has been trained on the fold that it is to be run on.
        FileNotFoundError: one is not there.
    """
    networks, descriptions = [], []
    for path in recipe.pose:
        network, description = load_network(path)
        if description["kind"] != "pose":
            raise ArgumentError(f"{path} must be a pose network, got one of kind {description['kind']!r}")
        networks.append(channels_last(network).requires_grad_(False))
        descriptions.append(description)
    views = [CropSettings.of(description) for description in descriptions]
    if any(view != views[0] for view in views):
        raise ArgumentError("pose: the networks differ in input, padding, decoder or skeleton")
    if views[0].skeleton != recipe.load_skeleton():
        raise ArgumentError(
            f"pose: the networks' skeleton is {views[0].skeleton.name!r}, the recipe's {recipe.skeleton!r}"
        )
    _check_unseen_people(recipe, descriptions)
    return PoseNetworks(networks, views[0]), descriptions


def _check_unseen_people(recipe: KSRecipe, descriptions: Sequence[dict[str, Any]]) -> None:
    """Refuses pose networks that have seen people on whom they are to be run as on people new to them.

    Those are everyone in cross-fitting, and whom `folds.trained` names; and who is held out, where that is or where
    the calibration is fitted to them. Without either a KS-net learns from the pose network's own people, as in the
    paper.
    """
    folds = recipe.data.folds
    if folds is None:
        return
    for number, (path, description) in enumerate(zip(recipe.pose, descriptions, strict=True)):
        theirs = parse_recipe(description["recipe"], str(path)).data
        # Rendered people follow from the seed; a file's name below --data does not say which people those are.
        known = {
            source.content(): source.name for source in theirs.train if isinstance(source, RenderedSource)
        }
        for source in (*recipe.data.train, *recipe.data.validation):
            if known.get(source.content(), source.name) != source.name:
                raise ArgumentError(
                    f"pose: {path} knows the people of {source.name!r} as {known[source.content()]!r}: "
                    "call them that here too, or folds cannot keep them apart"
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


class KSTraining(NetworkTraining):
    """KS-net on flip-averaged heatmaps; validation runs pose network and KS-net together, as in use."""

    def __init__(
        self, recipe: KSRecipe, pose: PoseNetworks, split: Split, steps: int, steps_per_epoch: int
    ) -> None:
        super().__init__(recipe, build(recipe.architecture()), steps, steps_per_epoch)
        self.recipe: KSRecipe
        self.pose = pose  # a plain object: neither trained nor saved
        self.train_names = [people.name for people in split.train]
        self.validation_names = [people.name for people in split.validation]
        self.calibration: FittedCalibration = {}

    def on_fit_start(self) -> None:
        """Brings the pose networks to where the training runs."""
        for network in self.pose.networks:
            network.to(self.device)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The recipe's loss on a batch of stored heatmaps, or of crops of which the heatmaps are made here."""
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

    def validation_step(self, batch: dict[str, Tensor] | None, batch_idx: int) -> None:  # noqa: ARG002
        """Estimates on one batch of `oaks.training.validation.crop_loader`."""
        if batch is not None:
            found = self.pose.estimate(self.validation_names, batch, ks=self.best.eval())
            self.collector.add(batch, found)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics on everyone, gathered from all processes; calibrates first if the recipe says so."""
        outcome = self.outcome()
        if self.recipe.calibrate:
            self.calibration = fit_calibration(outcome)
            outcome = apply_calibration(outcome, self.calibration)
        figures = outcome.metrics()
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, sync_dist=True)

    def description(self) -> dict[str, Any]:
        """What is saved with the network; see `oaks.training.checkpoint`."""
        view = self.pose.view
        return {
            "kind": "ks",
            "architecture": self.recipe.architecture(),
            **view.describe(),
            "stride": STRIDE,
            "trained_on": [source.name for source in self.recipe.data.train],
            "recipe": self.recipe.model_dump(mode="json"),
            "calibration": self.calibration,
            "license": self.recipe.license,
        }


class HeatmapModule(PeopleModule):
    """Loaders of KS-net's samples that begin where the training stands."""

    def __init__(
        self,
        recipe: KSRecipe,
        split: Split,
        view: CropSettings,
        steps: int,
        store: HeatmapStore | None,
        crops: CropDataset,
    ) -> None:
        super().__init__(recipe, split, view, steps, validation_batch=32)
        self.recipe: KSRecipe
        self.store, self.crops = store, crops

    def samples(self) -> tuple[Any, Sequence[int]]:
        """Stored heatmaps where there is a store of them, else crops."""
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
    """Everything that stored heatmaps depend on."""
    people = {source.name: [len(source), source.digest()] for source in sources}
    networks = [hashlib.sha256(path.read_bytes()).hexdigest() for path in recipe.pose]
    varied = recipe.augmentation.model_dump(mode="json", exclude={"flip"}) if recipe.views > 1 else {}
    return {"networks": networks, "people": people, "views": recipe.views, "augmentation": varied}


def open_store(
    recipe: KSRecipe, folder: Path, split: Split, pose: PoseNetworks, crops: CropDataset
) -> HeatmapStore:
    """The store of a recipe's heatmaps, complete or not."""
    with torch.inference_mode():
        size = pose.view.size
        maps = pose.networks[0](torch.zeros(1, 3, size[1], size[0]))[0].shape[1:]
    return HeatmapStore(folder, store_key(recipe, split.train), (len(crops), *maps))


def fill_store(
    store: HeatmapStore, recipe: KSRecipe, split: Split, pose: PoseNetworks, crops: CropDataset,
    device: torch.device, console: Console, stop: Callable[[], bool] = lambda: False,
) -> None:  # fmt: skip
    """Writes what a store lacks, with a progress bar, until all is there or `stop` says so."""
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


__all__ = ["HeatmapModule", "KSTraining", "fill_store", "load_pose_networks", "open_store"]
